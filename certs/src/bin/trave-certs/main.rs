//! `trave-certs`: the trust services of a small instance, by themselves.

mod commands;
mod configuration;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trave_certs::authority::Reason;
use trave_proto::identifier::{MemberId, ServerId};

/// Certification authority, OCSP responder, revocation list and timestamping authority of a Trave instance
#[derive(Debug, Parser)]
#[command(version, after_help = "Certificates go to standard output, everything else to standard error.")]
struct Cli {
    /// The configuration file
    #[arg(long, short, global = true, default_value = "trave-certs.toml", env = "TRAVE_CERTS_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the keys and certificates of the authority, its OCSP responder and its timestamping authority
    Init,
    /// Issue a certificate for the key of a certificate request; prints the chain in PEM
    #[command(subcommand)]
    Issue(Kind),
    /// Revoke a certificate for good
    Revoke {
        /// Its serial number, hexadecimal, as `list` prints it
        serial: String,
        /// Why
        #[arg(long, value_enum, default_value_t = Why::Unspecified)]
        reason: Why,
    },
    /// List what was issued
    List,
    /// Print the certification authority's certificate (PEM): what the global configuration names
    Certificate,
    /// Print the timestamping authority's certificate (PEM): what the global configuration names
    TimestampingCertificate,
    /// Print the revocation list in force (PEM)
    Crl,
    /// Answer for certificates and stamp times over HTTP, until told to stop
    Serve,
}

/// What is certified. The request's own names count for nothing.
#[derive(Debug, Subcommand)]
enum Kind {
    /// TLS between security servers
    Authentication {
        #[command(flatten)]
        names: SecurityServer,
        #[command(flatten)]
        request: Request,
    },
    /// Messages of a member
    Signing {
        #[command(flatten)]
        names: SecurityServer,
        #[command(flatten)]
        request: Request,
    },
    /// A TLS server that is no security server, such as the registry
    TlsServer {
        /// Common name
        #[arg(long)]
        name: String,
        /// A host name; may be repeated
        #[arg(long = "host")]
        hosts: Vec<String>,
        /// An IP address; may be repeated
        #[arg(long = "address")]
        addresses: Vec<std::net::IpAddr>,
        #[command(flatten)]
        request: Request,
    },
    /// A person who administers the registry
    Administrator {
        /// The person's name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        request: Request,
    },
    /// A timestamping authority elsewhere
    TimestampingAuthority {
        /// Common name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        request: Request,
    },
}

#[derive(Debug, Args)]
struct SecurityServer {
    /// The member, INSTANCE/CLASS/MEMBER
    #[arg(long)]
    member: MemberId,
    /// The security server, INSTANCE/CLASS/MEMBER/SERVER
    #[arg(long)]
    server: ServerId,
}

#[derive(Debug, Args)]
struct Request {
    /// The certificate request (PKCS#10, PEM or DER); "-" is standard input
    csr: PathBuf,
    /// Days for which it is valid, instead of the profile's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "camelCase")]
enum Why {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Unspecified => Self::Unspecified,
            Why::KeyCompromise => Self::KeyCompromise,
            Why::AffiliationChanged => Self::AffiliationChanged,
            Why::Superseded => Self::Superseded,
            Why::CessationOfOperation => Self::CessationOfOperation,
            Why::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(&cli.config, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
