//! The command line: one verb for each thing that an operator does with a security server. Data goes to standard output,
//! everything else to standard error.

mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The security server of a Trave instance
///
/// It signs, logs and sends what agency systems ask, and verifies, authorises, logs and forwards what others ask of the
/// registers behind it.
#[derive(Debug, Parser)]
#[command(
    name = "trave-gateway",
    version,
    after_help = "A new security server: write gateway.toml, `check-config`, `enrol` with the token that the registry's \
                  administrator hands over, `run`, `grant`.\n\
                  Exit status: 0 done, 1 failed, 2 not understood. Data goes to standard output, all else to standard error."
)]
struct Cli {
    /// The configuration file; paths in it begin where it stands
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        default_value = "gateway.toml",
        env = "TRAVE_GATEWAY_CONFIG"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop (SIGTERM or SIGINT), then finish what was begun
    Run,
    /// Tell everything that is wrong with the configuration file, in one run
    CheckConfig,
}

/// Runs the program: `args` as the system gives them, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads what is printed, the exit status still says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run => serve::run(&cli.config),
        Command::CheckConfig => serve::check_config(&cli.config),
    }
}
