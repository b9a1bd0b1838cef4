//! Our programs inside this one executable: each runs under its own command line, in a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::TcpListener;
use trave_tests::register;

/// Runs `program` with `args`.
pub(crate) fn run(program: &str, args: Vec<OsString>) -> ExitCode {
    // Whoever watches the demonstration may kill it: its servers must not outlive it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        eprintln!("error: cannot tie {program} to the demonstration: {error}");
        return ExitCode::FAILURE;
    }
    match program {
        "gateway" => trave_gateway::cli::run(named("trave-gateway", args)),
        "register" => trade_register(&args),
        "registry" => trave_registry::command_line::run(named("trave-registry", args)),
        _ => {
            eprintln!("error: there is no program {program:?} here");
            ExitCode::from(2)
        }
    }
}

/// The arguments as a program gets them: its own name first.
fn named(program: &str, args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(program.into()).chain(args)
}

/// The invented trade register: `register HOST:PORT`.
fn trade_register(args: &[OsString]) -> ExitCode {
    let address = args.first().and_then(|address| address.to_str()?.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        eprintln!("usage: register HOST:PORT");
        return ExitCode::from(2);
    };
    let served = tokio::runtime::Runtime::new().and_then(|runtime| {
        runtime.block_on(async { register::serve(TcpListener::bind(address).await?).await })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
