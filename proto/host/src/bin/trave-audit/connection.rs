//! How a security server is reached: the auditor's settings, key and certificate.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tonic::Status;
use trave_host::client::Channel;
use trave_host::clock::SystemClock;
use trave_host::config::{self, Directory, FilePath, Secret};
use trave_host::files;
use trave_host::keys::{SigningKey, certificate_of_its_own};
use trave_host::stubs::audit::audit_service_client::AuditServiceClient;
use trave_host::tls::{self, Http, Identity, Pinned};
use trave_proto::global_configuration::Anchor;

/// Longest part of an answer, in bytes.
const MAX_PART: usize = 32 << 20;

/// The settings, `audit.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The security server's door for auditors, `host:port`.
    server: String,
    /// The certificate that it shows (PEM), from its operator; its key is what is believed.
    server_certificate: FilePath,
    /// The auditor's own certificate (PEM).
    certificate: FilePath,
    /// Its key (encrypted PKCS #8).
    key: FilePath,
    /// A file with the key's passphrase, readable by its owner alone.
    passphrase_file: FilePath,
    /// The anchor of the instance, from a source that is trusted: what is scanned is checked against it.
    anchor: FilePath,
}

/// The running program's connection.
pub(crate) struct Connection {
    pub(crate) runtime: Runtime,
    pub(crate) client: AuditServiceClient<Channel>,
    settings: Settings,
    directory: Directory,
}

fn read(path: &Path) -> anyhow::Result<(Settings, Directory)> {
    let config::Configuration { value, directory } = config::read::<Settings>(path)?;
    Ok((value, directory))
}

/// Makes key and certificate.
pub(crate) fn init(path: &Path, name: &str) -> anyhow::Result<()> {
    let (settings, directory) = read(path)?;
    let passphrase = Secret::from_file(&settings.passphrase_file.within(&directory));
    let passphrase = passphrase.context("the passphrase cannot be read")?;
    let (key_path, certificate) = (settings.key.within(&directory), settings.certificate.within(&directory));
    let key = SigningKey::create(&key_path, &passphrase).context("the key cannot be made")?;
    let pem = certificate_of_its_own(&key, name).context("the certificate cannot be made")?;
    files::create(&certificate, pem.as_bytes()).context("the certificate cannot be stored")?;
    eprintln!("made {} and {}", key_path.display(), certificate.display());
    eprintln!(
        "hint: give the certificate, never the key, to the administrators of the registry, two of whom register auditors"
    );
    Ok(())
}

impl Connection {
    /// Signs in.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let (settings, directory) = read(path)?;
        let within = |path: &FilePath| path.within(&directory);
        let passphrase = Secret::from_file(&within(&settings.passphrase_file));
        let passphrase = passphrase.context("the passphrase cannot be read")?;
        let key = SigningKey::open(&within(&settings.key), &passphrase).context("the key cannot be read")?;
        let chain = tls::chain_from_pem(&within(&settings.certificate))?;
        let identity = Identity::new(chain, Arc::new(key)).context("the certificate is not usable")?;
        let shown = tls::chain_from_pem(&within(&settings.server_certificate))?;
        let shown = shown.first().context("the file of the server's certificate holds none")?;
        let pinned = Arc::new(Pinned::new([tls::public_key_digest(shown)?]));
        let tls = tls::Client::new(Some(Arc::new(identity)), pinned, Http::Two, Arc::new(SystemClock))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the system gives no runtime")?;
        let channel = runtime.block_on(Channel::tls(&settings.server, &tls)).context(
            "the security server is not reached\nhint: is it running, and is server_certificate the one that it shows?",
        )?;
        let client = AuditServiceClient::new(channel).max_decoding_message_size(MAX_PART);
        Ok(Self { runtime, client, settings, directory })
    }

    /// The auditor's own anchor.
    pub(crate) fn anchor(&self) -> anyhow::Result<Anchor> {
        let path = self.settings.anchor.within(&self.directory);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Anchor::parse(&bytes).with_context(|| format!("{} is no anchor", path.display()))
    }
}

/// What names somebody, from standard input: an argument would stand in the list of processes and in the shell's history.
pub(crate) fn line_from_stdin(what: &str) -> anyhow::Result<String> {
    eprintln!("{what}");
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text).with_context(|| format!("{what}: it cannot be read"))?;
    let text = text.trim();
    anyhow::ensure!(
        !text.is_empty(),
        "{what}: nothing was given\nhint: it is read as one line from standard input"
    );
    Ok(text.to_owned())
}

/// What the server says no with, for a person.
pub(crate) fn said(status: Status) -> anyhow::Error {
    match status.message() {
        // What TLS refuses comes as a broken connection.
        message if status.code() == tonic::Code::Unknown || message.is_empty() => anyhow::anyhow!(
            "the connection broke off: {message}\nhint: has the operator pinned this auditor's certificate?"
        ),
        message => anyhow::Error::msg(printable(message)),
    }
}

/// Text of others without what would move the terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}
