//! `trave-audit`: the auditor's program. It asks a security server what its message log holds, exports proofs, and finds out
//! whether a search left something out.
//!
//! It believes of the server only what is signed: a range that it scans is checked against the auditor's own anchor.

mod connection;
mod queries;
mod persons;
mod export;
mod scan;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use trave_host::moment::Moment;
use trave_proto::identifier::{ExchangeId, MemberId, ServiceId, SubsystemId};
use trave_proto::message::Code;
use trave_proto::schema::audit::Filter;

use connection::Connection;

/// Ask the message log of a Trave security server, as an auditor
///
/// Each question needs a reason. The server logs both, with your name, before it answers, and every other auditor can read
/// that. You see exchanges whose client or service belongs to a member in your scope, and no others.
#[derive(Debug, Parser)]
#[command(
    name = "trave-audit",
    version,
    after_help = "To begin: `init` makes a key and a certificate; the operator of the security server pins the certificate, \
                  and hands you its own; write audit.toml; `who-am-i`.\n\
                  Exit status: 0 done, 1 not so or failed, 2 not understood. Data goes to standard output, all else to \
                  standard error."
)]
struct Cli {
    /// The settings; paths in it begin where it stands. It holds:
    /// server = "host:port", server_certificate, certificate, key, passphrase_file, anchor
    #[arg(long, short, global = true, value_name = "FILE", default_value = "audit.toml")]
    #[arg(env = "TRAVE_AUDIT_CONFIG", verbatim_doc_comment)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and a certificate for it, where the settings say, for the operator to pin
    Init {
        /// Your name in the certificate
        #[arg(long)]
        name: String,
    },
    /// Show who the server takes you for, and what you may see
    WhoAmI,
    /// Find exchanges: time, exchange, outcome, side, client, service, purpose, legal basis, place in the log, reason,
    /// generation of the log
    Search(Search),
    /// Count exchanges by client, client_member, service, service_member, purpose, legal_basis or outcome
    Count {
        /// By what
        #[arg(long, default_value = "purpose")]
        by: String,
        #[command(flatten)]
        filter: Filters,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
        /// One JSON object on one line
        #[arg(long)]
        json: bool,
    },
    /// Export the proofs of exchanges, each into a file EXCHANGE.proof; `trave-verify` verifies them
    Export(Export),
    /// Ask for, release and make searches by person: one asks, a data protection officer releases, the first one searches
    #[command(subcommand)]
    Person(Person),
    /// Read a range of the log whole, check it against the anchor, and tell what a search left out
    Scan(Scan),
    /// Show what was read of this log, by whom, why, and how much was found
    Reads {
        /// At or after this time
        #[arg(long)]
        from: Option<Moment>,
        /// Before this time
        #[arg(long)]
        to: Option<Moment>,
        /// The latest so many, at most 1000
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
        /// One JSON object on each line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Person {
    /// Ask for a search; prints its id. The person is read from standard input, scheme:value on one line
    Ask {
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Release what another asked for. The same person is read from standard input
    Release {
        /// The id of the search
        id: String,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Show the exchanges that concern the person, the earliest first, as `search` does
    Search {
        /// The id of the search
        id: String,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
        /// JSON, an object on each line
        #[arg(long)]
        json: bool,
    },
}

/// What exchanges are about; all that are given must be met.
#[derive(Debug, Clone, Args)]
struct Filters {
    /// Logged at or after this time, 2026-11-21 or 2026-11-21T10:30:00Z
    #[arg(long)]
    from: Option<Moment>,
    /// Logged before this time
    #[arg(long)]
    to: Option<Moment>,
    /// Asked by this subsystem, INSTANCE/CLASS/MEMBER/SUBSYSTEM
    #[arg(long)]
    client: Option<SubsystemId>,
    /// Of this service, INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE
    #[arg(long)]
    service: Option<ServiceId>,
    /// Asked by this member, or of it, INSTANCE/CLASS/MEMBER
    #[arg(long)]
    member: Option<MemberId>,
    /// For this purpose
    #[arg(long)]
    purpose: Option<Code>,
    /// On this legal basis
    #[arg(long)]
    legal_basis: Option<Code>,
    /// Ended so: complete, failed, aborted, unknown, refused; then time and order are those of the end
    #[arg(long)]
    outcome: Option<String>,
    /// With the message id that the caller gave it (x-road-id)
    #[arg(long, value_name = "ID", conflicts_with = "outcome")]
    x_road_id: Option<String>,
    /// For the case (x-road-issue) that is read from standard input
    #[arg(long, conflicts_with = "outcome")]
    case: bool,
}

impl Filters {
    /// Reads the case, where one is asked for.
    fn to_schema(&self) -> anyhow::Result<Filter> {
        fn text<T: ToString>(value: Option<&T>) -> Option<String> {
            value.map(ToString::to_string)
        }
        if self.x_road_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
            anyhow::bail!(
                "--x-road-id: no message id was given\nhint: without the option, everything is asked for"
            );
        }
        let case = self.case.then(|| connection::line_from_stdin("the case")).transpose()?;
        Ok(Filter {
            client: text(self.client.as_ref()),
            service: text(self.service.as_ref()),
            member: text(self.member.as_ref()),
            purpose: text(self.purpose.as_ref()),
            legal_basis: text(self.legal_basis.as_ref()),
            outcome: self.outcome.clone(),
            from_ms: self.from.map(|from| from.0.as_millis()),
            to_ms: self.to.map(|to| to.0.as_millis()),
            message_id: text(self.x_road_id.as_ref()),
            case,
        })
    }
}

#[derive(Debug, Args)]
struct Search {
    #[command(flatten)]
    filter: Filters,
    /// This exchange; then no filter
    #[arg(long, conflicts_with_all = ["from", "to", "client", "service", "member", "purpose", "legal_basis", "outcome", "x_road_id", "case"])]
    exchange: Option<ExchangeId>,
    /// The earliest first, instead of the latest
    #[arg(long)]
    oldest_first: bool,
    /// At most so many; 0 for all, page by page
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier search ended, as it said
    #[arg(long, value_name = "HEX")]
    cursor: Option<String>,
    /// Why; it is logged
    #[arg(long)]
    reason: String,
    /// JSON, an object on each line: the search, its entries, its end. `scan --expect` reads it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Export {
    /// The exchanges
    exchanges: Vec<ExchangeId>,
    /// The exchanges of a search's JSON, beside those named
    #[arg(long, value_name = "FILE")]
    found: Option<PathBuf>,
    /// The directory for the proofs; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// With contents and caller context, if you may see them
    #[arg(long)]
    with_content: bool,
    /// Why; it is logged
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
struct Scan {
    /// The first place in the log
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The place after the last; 0 for as far as the log goes. At most 1000000 places at a time
    #[arg(long, default_value_t = 0)]
    to: u64,
    /// The generation of the log; 0 for the one that goes on. `who-am-i` lists them
    #[arg(long, default_value_t = 0)]
    generation: u64,
    /// A search's JSON: exit status 1 if it left out anything that stands in the range
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Write the places that are shown as hashes alone into this file, one on each line
    #[arg(long, value_name = "FILE")]
    hidden: Option<PathBuf>,
    /// Why; it is logged
    #[arg(long)]
    reason: String,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads what is printed, the exit status still says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<bool> {
    if let Command::Init { name } = &cli.command {
        return connection::init(&cli.config, name).map(|()| true);
    }
    let mut connection = Connection::open(&cli.config)?;
    match cli.command {
        Command::Init { .. } => Ok(()),
        Command::WhoAmI => queries::who_am_i(&mut connection),
        Command::Search(search) => queries::search(&mut connection, &search),
        Command::Count { by, filter, reason, json } => {
            queries::count(&mut connection, (by, filter.to_schema()?, reason), json)
        }
        Command::Reads { from, to, limit, reason, json } => {
            queries::reads(&mut connection, (from, to, limit, reason), json)
        }
        Command::Person(person) => persons::run(&mut connection, person),
        Command::Export(export) => return export::run(&mut connection, &export),
        Command::Scan(scan) => return scan::run(&mut connection, &scan),
    }
    .map(|()| true)
}
