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
        narrowed(entry, &self.narrowed)
            .ok_or_else(|| "the operator of this security server does not let this auditor in".into())
    }
}

/// What is left of an auditor where the operator lets in only these, as far as they go; none where the operator does not let this
/// one in. Nobody is ever shown more than the global configuration says.
fn narrowed(entry: &AuditorEntry, only: &HashMap<String, Narrowed>) -> Option<Auditor> {
    let AuditorEntry { name, role, key, classes, members, contents } = entry.clone();
    let auditor = Auditor { name, role, key, scope: Scope { classes, members }, contents };
    if only.is_empty() {
        return Some(auditor);
    }
    let most = only.get(&auditor.name)?;
    let in_role = most.role.is_none_or(|role| role.as_str() == auditor.role.as_str());
    let with_key = most.key.is_none_or(|key| key == auditor.key);
    let scope =
        if most.scope == Scope::default() { auditor.scope.clone() } else { auditor.scope.and(&most.scope) };
    let contents = auditor.contents && most.contents;
    (in_role && with_key).then_some(Auditor { scope, contents, ..auditor })
}

impl PeerPolicy for Auditors {
    fn check(&self, chain: &[CertificateDer<'_>], _now: Time) -> Result<(), String> {
        let own = chain.first().ok_or("no certificate was shown")?;
        let key = public_key_digest(own).map_err(|error| error.to_string())?;
        self.find(&key).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(classes: &[&str], members: &[&str]) -> Scope {
        Scope {
            classes: classes.iter().map(|&class| class.into()).collect(),
            members: members.iter().map(|member| member.parse().unwrap()).collect(),
        }
    }

    /// Two classes and a member of a third, with contents.
    fn registered(contents: bool) -> AuditorEntry {
        let Scope { classes, members } = scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"]);
        let (name, key) = ("hof".to_owned(), Digest::of(b"key"));
        AuditorEntry { name, role: AuditorRole::Auditor, key, classes, members, contents }
    }

    fn only(most: Narrowed) -> HashMap<String, Narrowed> {
        HashMap::from([("hof".to_owned(), most)])
    }

    fn at_most(scope: Scope) -> Narrowed {
        Narrowed { role: None, key: None, scope, contents: true }
    }

    #[test]
    fn where_the_operator_names_nobody_the_configuration_holds() {
        for contents in [true, false] {
            let found = narrowed(&registered(contents), &HashMap::new()).unwrap();
            let expected = scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"]);
            assert_eq!((found.scope, found.contents, found.key), (expected, contents, Digest::of(b"key")));
        }
    }

    #[test]
    fn who_is_not_named_or_named_otherwise_is_not_let_in() {
        let other = HashMap::from([("Hof".to_owned(), at_most(Scope::default()))]);
        assert!(narrowed(&registered(true), &other).is_none(), "another name");
        let officer = Some(AuditRole::DataProtectionOfficer);
        for (role, key, comes_in) in [
            (None, None, true),
            (Some(AuditRole::Auditor), None, true),
            (officer, None, false),
            (None, Some(Digest::of(b"key")), true),
            (None, Some(Digest::of(b"another")), false),
            (Some(AuditRole::Auditor), Some(Digest::of(b"key")), true),
            (Some(AuditRole::Auditor), Some(Digest::of(b"another")), false),
            (officer, Some(Digest::of(b"key")), false),
        ] {
            let most = Narrowed { role, key, ..at_most(Scope::default()) };
            let found = narrowed(&registered(true), &only(most));
            assert_eq!(found.is_some(), comes_in, "{role:?} {key:?}");
            // It keeps the role and the key that are registered, whatever the operator writes.
            assert!(found.is_none_or(|it| it.role == AuditorRole::Auditor && it.key == Digest::of(b"key")));
        }
    }

    #[test]
    fn contents_are_shown_where_both_say_so() {
        for (registered_with, allowed) in [(true, true), (true, false), (false, true), (false, false)] {
            let most = Narrowed { contents: allowed, ..at_most(Scope::default()) };
            let found = narrowed(&registered(registered_with), &only(most)).unwrap();
            assert_eq!(found.contents, registered_with && allowed, "{registered_with} {allowed}");
        }
    }

    #[test]
    fn a_scope_is_narrowed_and_never_widened() {
        for (what, most, expected) in [
            ("nothing said", scope(&[], &[]), scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"])),
            (
                "the same",
                scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"]),
                scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"]),
            ),
            ("one class", scope(&["NORD/SH"], &[]), scope(&["NORD/SH"], &[])),
            (
                "a class and one that is not registered",
                scope(&["NORD/SH", "NORD/NI"], &[]),
                scope(&["NORD/SH"], &[]),
            ),
            ("only a class that is not registered", scope(&["NORD/NI"], &[]), scope(&[], &[])),
            ("the class of a registered member", scope(&["NORD/HH"], &[]), scope(&[], &["NORD/HH/hamburg"])),
            ("a member of a registered class", scope(&[], &["NORD/SH/kiel"]), scope(&[], &["NORD/SH/kiel"])),
            ("a member of no registered class", scope(&[], &["NORD/NI/stade"]), scope(&[], &[])),
            (
                "another member of a registered member's class",
                scope(&[], &["NORD/HH/altona"]),
                scope(&[], &[]),
            ),
            ("the registered member", scope(&[], &["NORD/HH/hamburg"]), scope(&[], &["NORD/HH/hamburg"])),
            (
                "a class, and a member of another",
                scope(&["NORD/MV"], &["NORD/SH/kiel"]),
                scope(&["NORD/MV"], &["NORD/SH/kiel"]),
            ),
            ("a class that another begins with", scope(&["NORD/S"], &[]), scope(&[], &[])),
        ] {
            let found = narrowed(&registered(true), &only(at_most(most))).unwrap().scope;
            assert_eq!(found, expected, "{what}");
            let everything = scope(&["NORD/MV", "NORD/SH"], &["NORD/HH/hamburg"]);
            assert_eq!(found.and(&everything), found, "{what}: nothing beyond what is registered");
        }
    }
}
