//! The door for auditors, as an operator writes it.

use std::net::SocketAddr;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::MemberId;

use super::Parsed;

/// The door for auditors: mutual TLS 1.3. This server shows its authentication certificate.
///
/// Auditors are pinned here, by the operator. That is the simplest form: whoever may change this file decides who audits.
/// Adding one is seen by the other auditors only once something is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auditors {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Who may come in.
    #[serde(default)]
    pub auditor: Vec<Auditor>,
}

/// What an auditor is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditRole {
    /// Audits exchanges.
    Auditor,
    /// Is the data protection officer of a body.
    DataProtectionOfficer,
}

impl AuditRole {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::DataProtectionOfficer => "data_protection_officer",
        }
    }
}

/// An auditor, by the certificate that is pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auditor {
    /// The name under which readings are logged.
    pub name: String,
    /// What for.
    pub role: AuditRole,
    /// The certificate (PEM); its key is what is pinned.
    certificate: FilePath,
    /// Classes, INSTANCE/CLASS, with whose members' exchanges this auditor is concerned.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Further members.
    #[serde(default)]
    pub members: Vec<Parsed<MemberId>>,
    /// Whether proofs may be exported with contents.
    #[serde(default)]
    pub contents: bool,
}

impl Auditors {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.auditor.is_empty() {
            problems
                .add("auditors.auditor", "a door for auditors needs somebody who may come in")
                .hint("add [[auditors.auditor]] with name, role, certificate and classes");
        }
        for (at, auditor) in self.auditor.iter().enumerate() {
            let key = format!("auditors.auditor[{at}]");
            auditor.check(&key, problems);
            // Two names that a reader takes for one would make two persons of one, and one of two.
            let name = |auditor: &Auditor| auditor.name.trim().to_lowercase();
            if self.auditor[..at].iter().any(|other| name(other) == name(auditor)) {
                problems.add(format!("{key}.name"), "this name stands here twice");
            }
        }
    }
}

impl Auditor {
    /// Path of the certificate, as written.
    pub fn certificate(&self) -> &FilePath {
        &self.certificate
    }

    fn check(&self, key: &str, problems: &mut Problems) {
        let printable = |c: char| !c.is_control();
        if self.name.trim().is_empty() || self.name.chars().count() > 100 || !self.name.chars().all(printable)
        {
            problems.add(format!("{key}.name"), "is not one line of 1 to 100 characters");
        }
        if self.classes.is_empty() && self.members.is_empty() {
            problems
                .add(format!("{key}.classes"), "an auditor without classes and members sees nothing")
                .hint("write classes = [\"NORD/SH\"]");
        }
        // A member of the class is an identifier exactly if the class is one.
        let class = |class: &&String| {
            class.matches('/').count() != 1 || format!("{class}/m").parse::<MemberId>().is_err()
        };
        for wrong in self.classes.iter().filter(class) {
            problems.add(format!("{key}.classes"), format!("{wrong:?} is not INSTANCE/CLASS"));
        }
    }
}
