//! Who audits here: whom the global configuration in use names, as far as the operator of this server does not narrow it.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use trave_host::tls::{PeerPolicy, public_key_digest};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::fault::Side;
use trave_proto::global_configuration::{AuditorEntry, AuditorRole};

use crate::audit::Scope;
use crate::config::AuditRole;
use crate::trust::Trust;

/// An auditor, as the configuration in use says and the operator does not narrow.
#[derive(Debug)]
pub(crate) struct Auditor {
    pub(crate) name: String,
    pub(crate) role: AuditorRole,
    pub(crate) key: Digest,
    pub(crate) scope: Scope,
    pub(crate) contents: bool,
}

impl Auditor {
    /// For the record.
    pub(crate) fn reader(&self) -> String {
        format!("{} ({})", self.name, self.role.as_str())
    }
}

/// What the operator allows an auditor at most.
#[derive(Debug)]
pub(crate) struct Narrowed {
    /// Only in this role.
    pub(crate) role: Option<AuditRole>,
    /// Only with this key.
    pub(crate) key: Option<Digest>,
    /// Only this; everything of the auditor's own scope, if it is empty.
    pub(crate) scope: Scope,
    pub(crate) contents: bool,
}

/// Who may come in. Asked for each question anew: who is withdrawn by a configuration is refused from then on, also on a
/// connection that stands.
#[derive(Debug)]
pub(crate) struct Auditors {
    trust: Arc<Trust>,
    /// By name; if there are any, nobody else comes in.
    narrowed: HashMap<String, Narrowed>,
}

impl Auditors {
    pub(crate) fn new(trust: Arc<Trust>, narrowed: HashMap<String, Narrowed>) -> Self {
        let auditors = Self { trust, narrowed };
        for name in auditors.narrowed.keys() {
            let configuration = auditors.trust.snapshot().configuration.clone();
            if !configuration.auditors().any(|auditor| auditor.name == *name) {
                tracing::warn!(
                    name,
                    "this auditor stands in the configuration file and not in the global configuration, and is not let in: \
                     two administrators of the registry register auditors"
                );
            }
        }
        auditors
    }

    /// The auditor with this key, or in words why there is none.
    pub(crate) fn find(&self, key: &Digest) -> Result<Auditor, String> {
        let snapshot = self.trust.valid(Side::Client).map_err(|fault| fault.message)?;
        let entry =
            snapshot.configuration.auditor(key).ok_or("the global configuration names no such auditor")?;
        self.narrow(entry)
            .ok_or_else(|| "the operator of this security server does not let this auditor in".into())
    }

    fn narrow(&self, entry: &AuditorEntry) -> Option<Auditor> {
        let AuditorEntry { name, role, key, classes, members, contents } = entry.clone();
        let auditor = Auditor { name, role, key, scope: Scope { classes, members }, contents };
        if self.narrowed.is_empty() {
            return Some(auditor);
        }
        let most = self.narrowed.get(&auditor.name)?;
        let in_role = most.role.is_none_or(|role| role.as_str() == auditor.role.as_str());
        let with_key = most.key.is_none_or(|key| key == auditor.key);
        let scope = if most.scope == Scope::default() {
            auditor.scope.clone()
        } else {
            auditor.scope.and(&most.scope)
        };
        let contents = auditor.contents && most.contents;
        (in_role && with_key).then_some(Auditor { scope, contents, ..auditor })
    }
}

impl PeerPolicy for Auditors {
    fn check(&self, chain: &[CertificateDer<'_>], _now: Time) -> Result<(), String> {
        let own = chain.first().ok_or("no certificate was shown")?;
        let key = public_key_digest(own).map_err(|error| error.to_string())?;
        self.find(&key).map(|_| ())
    }
}
