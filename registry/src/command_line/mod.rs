//! `trave-registry`: the commands with which people make, run and administer a registry.
//!
//! Data goes to standard output, everything else to standard error.

mod admin;
mod changes;
mod init;
mod serve;
mod show;
mod witness;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use trave_host::clock::SystemClock;
use trave_host::config::with_causes;

use crate::config::{AdministratorSettings, CosignerSettings, RegistrySettings, WitnessSettings};

/// The central registry of a Trave instance, its cosigner, its witnesses, and its administrators' program
#[derive(Debug, Parser)]
#[command(name = "trave-registry", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new instance: keys, certificates, anchor, first configuration, configuration files
    Init(init::InitArguments),
    /// Run the registry
    Run(serve::ServeArguments),
    /// Run the cosigner
    Cosigner(serve::CosignerArguments),
    /// Make a witness of message logs: its key, empty memory and configuration file
    InitWitness(witness::InitWitnessArguments),
    /// Run a witness of message logs
    Witness(serve::ServeArguments),
    /// Administer the registry, with your own key
    Admin(admin::AdminArguments),
    /// Tell every mistake in a configuration file
    CheckConfig {
        /// Whose file it is
        kind: Kind,
        /// The file
        config: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Registry,
    Cosigner,
    Witness,
    Admin,
}

/// Why a command failed: anything, told with its causes.
type Failure = Box<dyn Error + Send + Sync>;

/// Runs the program: `args` as the system gives them, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where nobody reads what is printed, the exit status still says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(execute(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

async fn execute(command: Command) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock);
    match command {
        Command::Init(arguments) => init::run(&arguments, clock),
        Command::Run(arguments) => serve::registry(arguments, clock).await,
        Command::Cosigner(arguments) => serve::cosigner(arguments, clock).await,
        Command::InitWitness(arguments) => witness::init(arguments),
        Command::Witness(arguments) => serve::witness(arguments, clock).await,
        Command::Admin(arguments) => admin::run(arguments, clock).await,
        Command::CheckConfig { kind, config } => {
            match kind {
                Kind::Registry => RegistrySettings::load(&config).map(drop)?,
                Kind::Cosigner => CosignerSettings::load(&config).map(drop)?,
                Kind::Witness => WitnessSettings::load(&config).map(drop)?,
                Kind::Admin => AdministratorSettings::load(&config).map(drop)?,
            }
            eprintln!("{} holds", config.display());
            Ok(())
        }
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("error: {}", with_causes(error));
    ExitCode::FAILURE
}
