//! The central registry, its cosigner, and its administrators' program.

fn main() -> std::process::ExitCode {
    trave_registry::command_line::run(std::env::args_os())
}
