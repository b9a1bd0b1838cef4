//! The command line: one verb for each thing that an operator does with a security server. Data goes to standard output,
//! everything else to standard error.

mod serve;
mod enrol;
mod generation;
mod operate;
mod grants;
mod keeping;
mod erasures;
mod log;
mod renewal;
mod restored;
mod archive;
mod prunings;
mod persons;
mod call;
mod reconcile;
mod alarms;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use trave_host::moment::Moment;
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::identifier::{ExchangeId, Method, ServerId, ServiceId, SubsystemId};
use trave_proto::message::Code;

use alarms::AlarmCommand;
use archive::{ArchiveCommand, Opened};
use erasures::ErasureCommand;
use grants::{GrantCommand, GroupCommand};
use keeping::{DiskCommand, HoldCommand};

/// The security server of a Trave instance
///
/// It signs, logs and sends what agency systems ask, and verifies, authorises, logs and forwards what others ask of the
/// registers behind it.
#[derive(Debug, Parser)]
#[command(
    name = "trave-gateway",
    version,
    after_help = "A new security server: write gateway.toml, `check-config`, `enrol` with the token that an administrator \
                  of the registry hands over, `run`, `grant`.\n\
                  Exit status: 0 done, 1 failed, 2 not understood. Data goes to standard output, all else to standard error."
)]
struct Cli {
    /// The configuration file; paths in it begin where it stands
    #[arg(long, short, global = true, value_name = "FILE", default_value = "gateway.toml")]
    #[arg(env = "TRAVE_GATEWAY_CONFIG")]
    config: PathBuf,
    /// The running server's socket for its operator, instead of the configuration's
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop (SIGTERM or SIGINT), then finish what was begun
    Run,
    /// Tell everything that is wrong with the configuration file, in one run
    CheckConfig,
    /// Make keys, and have them certified with a one-time token; run again, it goes on where it was interrupted
    Enrol(Enrol),
    /// Close the message log, where it cannot continue what it gave away, and begin another one in its place. The server must
    /// not run; afterwards `enrol` with a new token has the new key approved
    NewGeneration(NewGeneration),
    /// Let a client call a service here for named purposes; prints the grant's id
    Grant(GrantCommand),
    /// Withdraw a grant, or an application for one, at once
    Revoke {
        /// The grant's id, as `grants` shows it
        id: String,
    },
    /// Show the grants in force and those that wait for approval: id, client, service, method, purposes, legal bases, dates,
    /// limits, state, separated by tabs
    Grants,
    /// Local groups: members and subsystems to which something is granted together
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show how the running server is
    Status,
    /// Read the message log; that is logged itself, with the reason
    #[command(subcommand)]
    Log(Log),
    /// Export the proof of an exchange, for anybody who has `trave-verify` and the anchor
    Proof(Proof),
    /// Make the contents of an exchange, or of all that concern a person, unreadable for good; that the exchanges took place
    /// stays provable
    Erase {
        /// The exchange's id
        #[arg(required_unless_present = "person_from_file", conflicts_with = "person_from_file")]
        exchange: Option<ExchangeId>,
        /// All that concerns the person whose identifier this file holds, as scheme:identifier; "-" is standard input. The
        /// person's pseudonyms are erased too, and what is erased is found by nobody again
        #[arg(long, value_name = "FILE")]
        person_from_file: Option<PathBuf>,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Erasures that are not over: what waits for another person's approval, and what other security servers told
    #[command(subcommand)]
    Erasures(ErasureCommand),
    /// Show who asked about a person, as a data-protection cockpit is told: time, exchange, asking body and its name,
    /// providing body and its name, service and its title (the kind of data), purpose and its text, legal basis, its text and
    /// citation, outcome, separated by tabs; that is logged, without the person
    WhoAsked {
        /// A file that holds the person's identifier, as scheme:identifier; "-" is standard input
        #[arg(long, value_name = "FILE")]
        person_from_file: PathBuf,
        /// On what the person's claim rests; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Legal holds: what no schedule overwrites, and why
    #[command(subcommand)]
    Hold(HoldCommand),
    /// What lies on the disk
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Compare this log with another security server's, hour by hour, and show what was found; exit status 1 if anything is
    /// missing or differs
    Reconcile(Reconcile),
    /// Alarms about other security servers' logs: where they do not agree with this one, or contradict what they gave away
    #[command(subcommand)]
    Alarms(AlarmCommand),
    /// Read the whole message log, and tell what is not as it was written; exit status 1 if anything
    CheckLog(CheckLog),
    /// The archive of the message log: keys, and what is done when the log is lost
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Make a test call as an agency system does, through the running server's door for agency systems
    Call(Call),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Enrol {
    /// The token; others on this machine may see it among the processes
    #[arg(long)]
    token: Option<String>,
    /// A file that holds the token, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NewGeneration {
    /// Why; it stands in the new log's first record
    #[arg(long)]
    reason: String,
    /// The old log's last checkpoint with its cosignatures, as a witness shows it, where the data directory does not hold it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Close the log although nothing is missing of it, as when its key was stolen
    #[arg(long)]
    although_whole: bool,
}

#[derive(Debug, Args)]
struct CheckLog {
    /// Read the archive too, and hold both against the last checkpoint; the server need not run
    #[arg(long, requires = "key")]
    archive: bool,
    #[command(flatten)]
    opened: Option<Opened>,
}

#[derive(Debug, Subcommand)]
enum Log {
    /// List exchanges and refusals, the earliest first: time, exchange, outcome, side, client, service, method, purpose,
    /// legal basis, messages of request and response, reason, separated by tabs
    List(List),
}

#[derive(Debug, Args)]
struct List {
    /// Begun at or after this time, 2026-11-21 or 2026-11-21T10:30:00Z
    #[arg(long)]
    from: Option<Moment>,
    /// Begun before this time
    #[arg(long)]
    to: Option<Moment>,
    /// Asked by this subsystem
    #[arg(long)]
    client: Option<SubsystemId>,
    /// Of this service
    #[arg(long)]
    service: Option<ServiceId>,
    /// For this purpose
    #[arg(long)]
    purpose: Option<Code>,
    /// Ended so: answered, failed, aborted, refused, unknown, in_flight
    #[arg(long)]
    outcome: Option<String>,
    /// The latest so many; 0 for all
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Why the log is read; it is logged
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    from_archive: Restored,
}

// A log that came out of an archive: no comment that would take the place of the command's.
#[derive(Debug, Args)]
struct Restored {
    /// Read this directory, which came out of an archive, and ask no server; such a read is not logged
    #[arg(long, value_name = "DIR")]
    restored: Option<PathBuf>,
    /// The restored log's own key, ORIGIN+ID+KEY, where the global configuration does not list it or lists several
    #[arg(long, value_name = "KEY", requires = "restored")]
    log_key: Option<NoteVerifier>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Proof {
    #[command(subcommand)]
    command: Option<ProofCommand>,
    /// The exchange's id
    #[arg(required = true)]
    exchange: Option<ExchangeId>,
    /// The new file; "-" is standard output
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    /// Leave out contents and caller context
    #[arg(long)]
    without_content: bool,
    /// An ASiC-E container, which programs for eIDAS signatures open too, under this security server's own seal
    #[arg(long, conflicts_with = "restored")]
    asice: bool,
    /// Why; it is logged
    #[arg(long, required = true)]
    reason: Option<String>,
    #[command(flatten)]
    from_archive: Restored,
}

#[derive(Debug, Subcommand)]
enum ProofCommand {
    /// Give a container one more archive timestamp, over all that it holds, before the certificate of its last timestamp's
    /// authority ends: what it proves, it proves until the new authority's end. The server need not run
    Renew {
        /// The container, which stays as it is
        file: PathBuf,
        /// The new file; "-" is standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Reconcile {
    #[command(subcommand)]
    command: Option<ReconcileCommand>,
    /// The other security server, INSTANCE/CLASS/MEMBER/SERVER
    #[arg(long, required = true)]
    peer: Option<ServerId>,
    /// The hours that begin at or after this time, 2026-11-21 or 2026-11-21T10:00:00Z
    #[arg(long, required = true)]
    from: Option<Moment>,
    /// The hours that begin before this time
    #[arg(long, required = true)]
    to: Option<Moment>,
}

#[derive(Debug, Subcommand)]
enum ReconcileCommand {
    /// Show what comparisons found, as the log holds it: hour, server, messages here and there, differences by kind, separated
    /// by tabs; below it each message that differs
    List(ReconcileList),
}

#[derive(Debug, Args)]
struct ReconcileList {
    /// With this security server
    #[arg(long)]
    peer: Option<ServerId>,
    /// Hours that begin at or after this time
    #[arg(long)]
    from: Option<Moment>,
    /// Hours that begin before this time
    #[arg(long)]
    to: Option<Moment>,
    /// Only hours with a difference
    #[arg(long)]
    different: bool,
    /// Why the log is read; it is logged
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
struct Call {
    /// The service, INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE
    #[arg(long)]
    service: ServiceId,
    /// The gRPC method, /package.Service/Method
    #[arg(long)]
    method: Method,
    /// The purpose
    #[arg(long)]
    purpose: Code,
    /// The legal basis
    #[arg(long)]
    legal_basis: Code,
    /// The encoded message: hexadecimal, or @FILE
    #[arg(long, value_name = "HEX|@FILE", default_value = "")]
    data: String,
    /// The subsystem that asks, where there are doors for several
    #[arg(long)]
    client: Option<SubsystemId>,
    /// Who asks, for the record
    #[arg(long)]
    user: Option<String>,
    /// Print the answer's bytes as they are, instead of hexadecimal
    #[arg(long)]
    raw: bool,
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
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let door = operate::Door { config: &cli.config, socket: cli.socket.as_deref() };
    match cli.command {
        Command::Run => serve::run(&cli.config),
        Command::CheckConfig => serve::check_config(&cli.config),
        Command::Enrol(enrol) => enrol::run(&cli.config, &enrol),
        Command::NewGeneration(new) => generation::run(&cli.config, &new),
        Command::Grant(command) => {
            let so = grants::run(&door, command)?;
            return Ok(if so { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Revoke { id } => grants::revoke(&door, id),
        Command::Grants => grants::list(&door),
        Command::Group(command) => grants::group(&door, command),
        Command::Status => operate::status(&door),
        Command::Log(Log::List(list)) => log::list(&door, list),
        Command::Proof(proof) => log::proof(&door, proof),
        Command::Erase { person_from_file: Some(path), reason, .. } => persons::erase(&door, &path, reason),
        Command::Erase { exchange: Some(exchange), reason, .. } => log::erase(&door, exchange, reason),
        Command::Erase { .. } => Err(anyhow::anyhow!("nothing says what is to be erased")),
        Command::WhoAsked { person_from_file, reason } => {
            persons::who_asked(&door, &person_from_file, reason)
        }
        Command::Erasures(command) => erasures::run(&door, command),
        Command::Hold(command) => keeping::hold(&door, command),
        Command::Disk(command) => keeping::disk(&door, command),
        Command::Reconcile(command) => return reconcile::run(&door, command),
        Command::Alarms(command) => alarms::run(&door, command),
        Command::CheckLog(CheckLog { archive: true, opened: Some(opened) }) => {
            return archive::check(&cli.config, &opened);
        }
        Command::CheckLog(_) => return log::check(&door),
        Command::Archive(command) => return archive::run(&door, command),
        Command::Call(call) => return call::run(&cli.config, &call),
    }
    .map(|()| ExitCode::SUCCESS)
}
