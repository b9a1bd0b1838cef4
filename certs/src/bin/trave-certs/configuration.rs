//! The configuration file of `trave-certs`. Paths in it begin where it stands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use trave_certs::authority::Addresses;
use trave_certs::service::{Keys, Settings};
use trave_certs::timestamping::Terms;
use trave_host::config::{self, FilePath, Secret};
use trave_host::keys::{Sign, SigningKey};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Common name of the authority.
    name: String,
    /// Where keys, certificates and the record of what was issued lie. Whoever can write there can make the authority
    /// forget a revocation.
    directory: FilePath,
    /// File with the passphrase of the keys, mode 0600. Whoever has it and the key files can issue certificates, answer for
    /// them, and backdate timestamps.
    passphrase: FilePath,
    /// Where `serve` listens, HTTP without encryption: what is served is signed.
    listen: SocketAddr,
    /// How others reach it, written into certificates: `http://host:port`, without a slash at the end.
    public_url: String,
    timestamping: Timestamping,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamping {
    /// The policy, an object identifier of the operator.
    policy: String,
    /// How far the machine's clock may be wrong, in milliseconds.
    accuracy_ms: u64,
    /// Whether timestamps can be ordered by their time alone.
    #[serde(default)]
    ordering: bool,
}

/// The configuration as it is used.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) directory: PathBuf,
    passphrase: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) settings: Settings,
}

impl Configuration {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let read = config::read::<File>(path)?;
        let (file, base) = (read.value, read.directory);
        let url = file.public_url;
        anyhow::ensure!(
            url.starts_with("http://")
                && !url.ends_with('/')
                && url.bytes().all(|byte| byte.is_ascii_graphic()),
            "{}, public_url: \"{url}\" is not of the form http://host:port (hint: what is served is signed, and \
             fetching it by https would need the very certificates that it is about)",
            path.display()
        );
        let configuration = Self {
            directory: file.directory.within(&base),
            passphrase: file.passphrase.within(&base),
            listen: file.listen,
            settings: Settings {
                name: file.name,
                addresses: Addresses {
                    ocsp: Some(format!("{url}/ocsp")),
                    revocation_list: Some(format!("{url}/crl")),
                },
                terms: Terms {
                    policy: file.timestamping.policy,
                    accuracy: Duration::from_millis(file.timestamping.accuracy_ms),
                    ordering: file.timestamping.ordering,
                },
            },
        };
        configuration
            .settings
            .check()
            .with_context(|| format!("{}, name and timestamping", path.display()))?;
        Ok(configuration)
    }

    /// Opens the keys.
    pub(crate) fn keys(&self) -> anyhow::Result<Keys> {
        self.each_key(SigningKey::open)
    }

    /// Makes new keys, encrypted.
    pub(crate) fn create_keys(&self) -> anyhow::Result<Keys> {
        self.each_key(SigningKey::create)
    }

    fn each_key<E: std::error::Error + Send + Sync + 'static>(
        &self,
        make: impl Fn(&Path, &Secret) -> Result<SigningKey, E>,
    ) -> anyhow::Result<Keys> {
        let passphrase = Secret::from_file(&self.passphrase).with_context(|| {
            format!(
                "no passphrase for the keys (hint: openssl rand -base64 24 > {0}; chmod 600 {0})",
                self.passphrase.display()
            )
        })?;
        let one = |name: &str| -> anyhow::Result<Arc<dyn Sign>> {
            Ok(Arc::new(make(&self.directory.join(name), &passphrase)?))
        };
        Ok(Keys {
            authority: one("authority.key.pem")?,
            responder: one("responder.key.pem")?,
            timestamping: one("timestamping.key.pem")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("example.toml");

    fn read(text: &str) -> anyhow::Result<Configuration> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trave-certs.toml");
        std::fs::write(&path, text).unwrap();
        Configuration::read(&path)
    }

    #[test]
    fn the_example_is_read() {
        let configuration = read(EXAMPLE).unwrap();
        assert_eq!(configuration.settings.addresses.ocsp.as_deref(), Some("http://127.0.0.1:8088/ocsp"));
        assert_eq!(configuration.settings.terms.accuracy, Duration::from_secs(1));
    }

    #[test]
    fn mistakes_are_refused() {
        let unknown = read(&format!("{EXAMPLE}\nodering = true\n")).unwrap_err().to_string();
        assert!(unknown.contains("did you mean `ordering`?"), "{unknown}");
        let https = read(&EXAMPLE.replace("http://", "https://")).unwrap_err().to_string();
        assert!(https.contains("public_url"), "{https}");
        let policy = read(&EXAMPLE.replace("1.3.6.1.4.1.32473.1.1", "example")).unwrap_err();
        assert!(format!("{policy:#}").contains("\"example\" is no object identifier"), "{policy:#}");
        let long = read(&EXAMPLE.replace("NORD certification authority", &"x".repeat(64))).unwrap_err();
        assert!(format!("{long:#}").contains("1 to 64 characters"), "{long:#}");
    }
}
