//! `trave-gateway`: the security server of a member, and what its operator does with it.

use std::process::ExitCode;

fn main() -> ExitCode {
    trave_gateway::cli::run(std::env::args_os())
}
