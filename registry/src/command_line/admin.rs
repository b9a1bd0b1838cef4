//! `trave-registry admin`: what an administrator does.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use trave_proto::clock::Clock;
use trave_proto::management::{ActId, describe_against};

use super::changes::{ChangeCommand, change_of};
use super::{Failure, show};
use crate::administrator::Administrator;
use crate::config::AdministratorSettings;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// Your configuration file, admin.toml
    #[arg(long, env = "TRAVE_ADMIN_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    #[command(flatten)]
    Change(ChangeCommand),
    /// List acts and where they stand
    Acts {
        /// Only those that can still come into force
        #[arg(long)]
        pending: bool,
    },
    /// Approve an act that another administrator applied for; apply for an enrolment that nobody applied for yet
    Approve(ApproveArguments),
    /// Reject a pending act
    Reject {
        /// Id of the act
        #[arg(value_parser = act_id)]
        id: ActId,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Make a one-time token with which a registered security server enrols
    Token {
        /// The security server, INSTANCE/CLASS/MEMBER/SERVER
        server: String,
        /// Hours for which it can be used
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Look at the configuration, verified against your own anchor
    Configuration {
        #[command(subcommand)]
        command: ConfigurationCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigurationCommand {
    /// Show what is in it
    Show {
        /// Its number; the latest if absent
        #[arg(long, default_value_t = 0)]
        number: u64,
    },
}

#[derive(Debug, Args)]
struct ApproveArguments {
    /// Id of the act
    #[arg(value_parser = act_id)]
    id: ActId,
    /// For an enrolment: the fingerprint that the security server displays
    #[arg(long)]
    fingerprint: Option<String>,
    /// SHA-256 of the act, as its applicant was told: nothing else is approved
    #[arg(long)]
    digest: Option<String>,
    /// Do not ask; an enrolment needs its fingerprint all the same
    #[arg(long)]
    yes: bool,
}

fn act_id(text: &str) -> Result<ActId, String> {
    ActId::from_hex(text).ok_or_else(|| "an act's id has 32 hexadecimal digits; `acts` lists them".into())
}

pub(super) async fn run(arguments: AdminArguments, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let settings = AdministratorSettings::load(&arguments.config)?;
    let mut administrator = Administrator::connect(settings, clock).await?;
    match arguments.command {
        AdminCommand::Change(command) => {
            let (_, configuration) = administrator.configuration(0).await?;
            let change = change_of(command, &configuration)?;
            eprintln!("applying: {}", describe_against(&change, &configuration));
            let act = administrator.apply(change, 14 * DAY).await?;
            let id = act.id;
            println!("{id}");
            eprintln!("digest {}", act.digest);
            eprintln!(
                "hint: it comes into force when another administrator runs `approve {id}` within 14 days"
            );
            Ok(())
        }
        AdminCommand::Acts { pending } => {
            show::acts(&administrator.acts(pending).await?);
            Ok(())
        }
        AdminCommand::Approve(arguments) => approve(&mut administrator, arguments).await,
        AdminCommand::Reject { id, reason } => {
            administrator.reject(id, &reason).await?;
            eprintln!("rejected");
            Ok(())
        }
        AdminCommand::Token { server, hours } => {
            let lifetime = Duration::from_secs(u64::from(hours) * 3600);
            let token = administrator.token(&server, lifetime).await?;
            println!("{}", token.as_str());
            eprintln!("hint: hand it to the operator of {server} alone; it works once, for {hours} hours");
            Ok(())
        }
        AdminCommand::Configuration { command: ConfigurationCommand::Show { number } } => {
            let (verified, decoded) = administrator.configuration(number).await?;
            show::configuration(&verified, &decoded);
            Ok(())
        }
    }
}

/// What is displayed here is what is signed: the registry is not asked for it a second time.
async fn approve(administrator: &mut Administrator, arguments: ApproveArguments) -> Result<(), Failure> {
    let ApproveArguments { id, fingerprint, digest, yes } = arguments;
    let shown = administrator.pending(id).await?;
    let (_, configuration) = administrator.configuration(0).await?;
    eprintln!("{}", describe_against(shown.act.change(), &configuration));
    eprintln!("digest {}", shown.act.digest());
    let by = if shown.applicant.is_empty() { "a security server with a token" } else { &shown.applicant };
    eprintln!("applied for by {by}, expires {}", shown.act.expires());
    if digest.is_some_and(|expected| expected.trim().to_ascii_lowercase() != shown.act.digest().to_string()) {
        return Err("the registry shows an act with another digest than the one given: reject it".into());
    }
    let fingerprint = match (shown.fingerprint(), fingerprint) {
        // Typed from the server's display, never confirmed from this one.
        (Some(_), None) => Some(ask("fingerprint that the security server displays: ")?),
        (_, given) => given,
    };
    if fingerprint.is_none() && !yes && ask("approve? type yes: ")? != "yes" {
        return Err("not approved".into());
    }
    if shown.signed.applicant.is_none() {
        let fingerprint = fingerprint.as_deref().unwrap_or_default();
        administrator.apply_for_enrolment(&shown, fingerprint).await?;
        eprintln!("applied for; another administrator must approve it");
        return Ok(());
    }
    match administrator.approve(&shown, fingerprint.as_deref()).await? {
        0 => eprintln!("approved; it is published once the cosigner has signed"),
        number => println!("in force with configuration {number}"),
    }
    Ok(())
}

fn ask(question: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err("nobody is there to be asked (hint: --yes, or --fingerprint for an enrolment)".into());
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
