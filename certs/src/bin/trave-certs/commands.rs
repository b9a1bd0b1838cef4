//! What each command does.

use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use trave_certs::authority::{CertificationAuthority, MAX_REQUEST, Overview, Status};
use trave_certs::profile::Profile;
use trave_certs::service::{TrustServices, pem};
use trave_host::clock::SystemClock;
use trave_host::drain::Drain;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::logging;
use trave_host::tls::Http;

use crate::configuration::Configuration;
use crate::{Command, Kind, Request};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long requests may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) fn run(config: &Path, command: Command) -> anyhow::Result<()> {
    let configuration = Configuration::read(config)?;
    match command {
        Command::Init => init(&configuration),
        Command::Serve => serve(&configuration),
        Command::TimestampingCertificate => timestamping_certificate(&configuration),
        other => with_authority(&open(&configuration)?, other),
    }
}

fn with_authority(authority: &CertificationAuthority, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Issue(kind) => issue(authority, kind),
        Command::Revoke { serial, reason } => {
            let at = authority.revoke(&serial, reason.into())?;
            eprintln!("revoked {serial} at {at}");
            Ok(())
        }
        Command::List => authority.issued()?.iter().try_for_each(|one| print(line(one).as_bytes())),
        Command::Crl => {
            let list = authority.revocation_list()?;
            eprintln!("revocation list {}, in force until {}", list.number, list.next_update);
            print(pem_of_list(&list.der).as_bytes())
        }
        Command::Certificate => print(pem(&[authority.certificate().der().clone()]).as_bytes()),
        Command::Init | Command::Serve | Command::TimestampingCertificate => Ok(()),
    }
}

fn init(configuration: &Configuration) -> anyhow::Result<()> {
    let directory = &configuration.directory;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let keys = configuration.create_keys()?;
    let services = TrustServices::create(directory, &configuration.settings, &keys, Arc::new(SystemClock))?;
    let certificate = services.authority.certificate();
    eprintln!("made the certification authority \"{}\" in {}", certificate.subject(), directory.display());
    eprintln!("its fingerprint (SHA-256) is {}", certificate.digest());
    eprintln!("hint: back up {} and the passphrase, apart from each other", directory.display());
    Ok(())
}

fn issue(authority: &CertificationAuthority, kind: Kind) -> anyhow::Result<()> {
    let (profile, request) = profile(kind);
    let validity = request.days.map_or_else(|| profile.validity(), |days| DAY.saturating_mul(days));
    let issued = authority.issue_for(&profile, &read_request(&request.csr)?, validity)?;
    eprintln!("issued {} with the serial number {}", profile.name(), issued.serial);
    print(pem(&issued.chain).as_bytes())
}

fn profile(kind: Kind) -> (Profile, Request) {
    match kind {
        Kind::Authentication { names, request } => {
            (Profile::Authentication { member: names.member, server: names.server }, request)
        }
        Kind::Signing { names, request } => {
            (Profile::Signing { member: names.member, server: names.server }, request)
        }
        Kind::TlsServer { name, hosts, addresses, request } => {
            (Profile::TlsServer { name, hosts, addresses }, request)
        }
        Kind::Administrator { name, request } => (Profile::Administrator { name }, request),
        Kind::TimestampingAuthority { name, request } => (Profile::TimestampingAuthority { name }, request),
    }
}

/// A request in PEM or DER.
fn read_request(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read the certificate request {}", path.display());
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(context)?)
    };
    let (mut bytes, limit) = (Vec::new(), 2 * MAX_REQUEST as u64);
    input.take(limit).read_to_end(&mut bytes).with_context(context)?;
    if !bytes.starts_with(b"-----") {
        return Ok(bytes);
    }
    let request = CertificateSigningRequestDer::from_pem_slice(&bytes).with_context(context)?;
    Ok(request.to_vec())
}

fn line(one: &Overview) -> String {
    let status = match one.status {
        Status::Good => "good".to_owned(),
        Status::Revoked { at, reason } => format!("revoked at {at} ({})", reason.name()),
        Status::Unknown => "unknown".to_owned(),
    };
    format!("{}  {:<22}  until {}  {status}  {}\n", one.serial, one.profile, one.not_after, one.subject)
}

fn timestamping_certificate(configuration: &Configuration) -> anyhow::Result<()> {
    let path = configuration.directory.join("timestamping.pem");
    print(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?)
}

fn pem_of_list(der: &bytes::Bytes) -> String {
    pem(std::slice::from_ref(der)).replace("CERTIFICATE", "X509 CRL")
}

fn open(configuration: &Configuration) -> anyhow::Result<CertificationAuthority> {
    let keys = configuration.keys()?;
    let addresses = configuration.settings.addresses.clone();
    let clock = Arc::new(SystemClock);
    Ok(CertificationAuthority::open(&configuration.directory, keys.authority, clock, addresses)?)
}

fn serve(configuration: &Configuration) -> anyhow::Result<()> {
    logging::begin("info", logging::Format::default())?;
    let keys = configuration.keys()?;
    let clock = Arc::new(SystemClock);
    let services = TrustServices::open(&configuration.directory, &configuration.settings, &keys, clock)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    runtime.block_on(serve_until_told(configuration, Arc::new(services)))
}

async fn serve_until_told(configuration: &Configuration, services: Arc<TrustServices>) -> anyhow::Result<()> {
    let drain = Drain::new();
    drain.on_signals().context("cannot wait for signals")?;
    let listener = Listener::tcp(configuration.listen, Http::TwoOrOne).await?;
    tracing::info!(address = ?listener.local_addr(), "serving /ocsp, /crl and /tsa");
    let router = services.router();
    listener.serve(drain.clone(), move |_| TowerToHyperService::new(router.clone())).await;
    drain.finish(DRAIN).await;
    Ok(())
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    std::io::stdout().write_all(bytes).context("cannot write to standard output")
}
