//! The door for auditors, as an operator writes it.

use std::net::SocketAddr;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::MemberId;

use super::Parsed;

/// The door for auditors: mutual TLS 1.3. This server shows its authentication certificate.
///
/// Who audits, the global configuration says: two administrators of the registry decided it. The operator can narrow that
/// here, and never widen it: whoever may change this file lets nobody in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auditors {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// If any are named, they alone may come in, of those whom the global configuration names; else all of those.
    #[serde(default)]
    pub auditor: Vec<Auditor>,
    /// Searches and counts by message id or case, and requests and releases of searches by person, of one auditor in an hour.
    #[serde(default = "references_per_hour")]
    pub references_per_hour: u32,
}

/// Enough for the cases of a day's audit, and too few to try the numbers of a register's cases one after the other.
const fn references_per_hour() -> u32 {
    60
}

/// More than anybody asks who does not try one after the other.
const MOST_REFERENCES: u32 = 10_000;

/// What an auditor is here for; as in the global configuration.
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

/// An auditor of the global configuration, and what of that holds here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auditor {
    /// The name in the global configuration.
    pub name: String,
    /// Only in this role; in whichever, if absent.
    pub role: Option<AuditRole>,
    /// Only with the key of this certificate (PEM); with whichever the global configuration names, if absent.
    certificate: Option<FilePath>,
    /// Only exchanges of members of these classes, INSTANCE/CLASS,
    #[serde(default)]
    pub classes: Vec<String>,
    /// or of these members; if there are neither, all that the global configuration says.
    #[serde(default)]
    pub members: Vec<Parsed<MemberId>>,
    /// Whether proofs may be exported with contents, if the global configuration says so too.
    #[serde(default)]
    pub contents: bool,
}

impl Auditors {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !(1..=MOST_REFERENCES).contains(&self.references_per_hour) {
            let why = format!("is not 1 to {MOST_REFERENCES}");
            problems.add("auditors.references_per_hour", why);
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
    pub fn certificate(&self) -> Option<&FilePath> {
        self.certificate.as_ref()
    }

    fn check(&self, key: &str, problems: &mut Problems) {
        let printable = |c: char| !c.is_control();
        if self.name.trim().is_empty() || self.name.chars().count() > 100 || !self.name.chars().all(printable)
        {
            problems.add(format!("{key}.name"), "is not one line of 1 to 100 characters");
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
