//! The demonstration: a joinery moves from Wismar to Lübeck, and Lübeck's trade office asks Mecklenburg-Vorpommern's trade
//! register for its record, instead of asking the joiner again.

mod scenes;
mod instance;
mod proof;
mod founding;
mod configuration;
mod endpoints;
mod programs;
mod verifier;
mod processes;
mod story;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

use crate::story::Story;

/// Two states, one exchange, and a proof that holds. Invented people and firms; legal bases are examples.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Play every scene, write DIR/story.json, and exit: 0 if all was as expected, 1 if not
    #[arg(long)]
    once: bool,
    /// Put your own gRPC server (any service, cleartext HTTP/2 on loopback) in the register's place
    #[arg(long, value_name = "HOST:PORT")]
    register: Option<String>,
    /// Put your own HTTP server (any, cleartext HTTP/1.1 on loopback) behind the REST door: http://HOST:PORT/BASE
    #[arg(long, value_name = "URL")]
    rest_register: Option<String>,
    /// Keep everything in DIR; given again, what stands there is started again
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// One of our programs, under its own command line
    #[command(hide = true, disable_help_flag = true)]
    Process {
        /// gateway, registry, certs, verify or register
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Hidden::Process { program, args }) => return programs::run(&program, args),
        None => {
            let own = Own { grpc: arguments.register, rest: arguments.rest_register };
            demonstrate(arguments.once, &own, arguments.dir)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the visitor puts in the place of ours.
pub(crate) struct Own {
    /// `HOST:PORT` of a gRPC server.
    pub(crate) grpc: Option<String>,
    /// `http://HOST:PORT/BASE` of an HTTP server.
    pub(crate) rest: Option<String>,
}

/// A Unix socket's path has at most 107 bytes (unix(7)), of which ours take 35.
const LONGEST_DIR: usize = 72;

/// Plays the story; true if all was as expected.
fn demonstrate(once: bool, own: &Own, dir: Option<PathBuf>) -> anyhow::Result<bool> {
    // Kept until the end of this function: what stands in a temporary directory goes with it.
    let temporary = tempfile::Builder::new().prefix("two-states-").tempdir()?;
    let dir = match &dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            dir.canonicalize()?
        }
        None => temporary.path().canonicalize()?,
    };
    ensure!(
        dir.as_os_str().len() <= LONGEST_DIR,
        "{} is too long: Unix sockets below it need a path of at most {LONGEST_DIR} bytes",
        dir.display()
    );
    let mut story = Story::begin();
    // Servers are started by this thread alone: they end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(scenes::play(&mut story, &dir, own, once))?;
    story.write(&dir.join("story.json"))?;
    println!("\n━━ {}", story.summary());
    println!("   told in   {}", dir.join("story.json").display());
    Ok(story.holds())
}
