//! Who may ask security servers what their message logs hold, and about whose exchanges.

use std::collections::{HashMap, HashSet};

use super::text::{FieldError, digest, identifier, require, require_ascending, require_text};
use crate::digest::Digest;
use crate::identifier::MemberId;
use crate::schema::configuration as schema;

const MAX_AUDITORS: usize = 256;
const MAX_NAME: usize = 100;
/// Most classes, and most members, of one auditor's scope.
const MAX_SCOPE: usize = 1_000;

/// What an auditor is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditorRole {
    /// Audits exchanges.
    Auditor,
    /// Is the data protection officer of a body: releases searches by person as well.
    DataProtectionOfficer,
}

impl AuditorRole {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::DataProtectionOfficer => "data_protection_officer",
        }
    }
}

/// An auditor, known by a key.
#[derive(Debug, Clone)]
pub struct AuditorEntry {
    /// Under which readings are logged, unique in the instance.
    pub name: String,
    /// What for.
    pub role: AuditorRole,
    /// SHA-256 of the SubjectPublicKeyInfo of the key with which the auditor signs in.
    pub key: Digest,
    /// Classes, INSTANCE/CLASS, all of whose members are in scope.
    pub classes: Vec<String>,
    /// Further members in scope. They need not be registered any more: their exchanges are still in the logs.
    pub members: Vec<MemberId>,
    /// Whether proofs may be exported with contents.
    pub contents: bool,
}

/// Each auditor has a name that nobody takes for another's, a key of its own, and a scope within this instance.
pub(super) fn check_auditors(
    list: &[schema::Auditor],
    instance: &str,
) -> Result<HashMap<Digest, AuditorEntry>, FieldError> {
    require_ascending(list, MAX_AUDITORS, "auditors", |auditor| auditor.name.as_str())?;
    let (mut auditors, mut names) = (HashMap::with_capacity(list.len()), HashSet::new());
    for (i, auditor) in list.iter().enumerate() {
        let at = |field: &str| format!("auditors[{i}].{field}");
        require_text(&auditor.name, MAX_NAME, || at("name"))?;
        let single = names.insert(auditor.name.to_lowercase());
        require(single, || at("name"), "differs from another auditor's by capitals alone")?;
        let role = match auditor.role() {
            schema::AuditorRole::Auditor => AuditorRole::Auditor,
            schema::AuditorRole::DataProtectionOfficer => AuditorRole::DataProtectionOfficer,
            schema::AuditorRole::Unspecified => {
                return Err(FieldError::new(at("role"), "is none that is known"));
            }
        };
        let key = digest(&auditor.key, || at("key"))?;
        let (classes, members) = check_scope(auditor, instance, &at)?;
        let (name, contents) = (auditor.name.clone(), auditor.contents);
        let entry = AuditorEntry { name, role, key, classes, members, contents };
        require(auditors.insert(key, entry).is_none(), || at("key"), "is another auditor's")?;
    }
    Ok(auditors)
}

fn check_scope(
    auditor: &schema::Auditor,
    instance: &str,
    at: &impl Fn(&str) -> String,
) -> Result<(Vec<String>, Vec<MemberId>), FieldError> {
    let schema::Auditor { classes, members, .. } = auditor;
    require_ascending(classes, MAX_SCOPE, &at("classes"), String::as_str)?;
    require_ascending(members, MAX_SCOPE, &at("members"), String::as_str)?;
    let none = classes.is_empty() && members.is_empty();
    require(!none, || at("classes"), "are absent, and so are members: this auditor would see nothing")?;
    for class in classes {
        // A member of the class is an identifier exactly if the class is one.
        let one = class.matches('/').count() == 1;
        require(one, || at("classes"), "hold what is not INSTANCE/CLASS")?;
        identifier::<MemberId>(&format!("{class}/x"), instance, || at("classes"))?;
    }
    let members = members.iter().map(|member| identifier(member, instance, || at("members")));
    Ok((classes.clone(), members.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::global_configuration::Contents;
    use crate::global_configuration::testing::example;
    use crate::schema::configuration::GlobalConfiguration;

    fn auditor(name: &str, key: u8) -> schema::Auditor {
        schema::Auditor {
            name: name.into(),
            role: schema::AuditorRole::Auditor.into(),
            key: Bytes::from(vec![key; 32]),
            classes: vec!["NORD/SH".into()],
            members: vec!["NORD/MV/gewerberegister".into(), "NORD/MV/was-war".into()],
            contents: false,
        }
    }

    fn with(auditors: Vec<schema::Auditor>) -> GlobalConfiguration {
        GlobalConfiguration { version: 3, auditors, ..example() }
    }

    #[test]
    fn auditors_are_read() {
        let contents = Contents::check(&with(vec![auditor("LRH MV", 2), auditor("LRH SH", 1)])).unwrap();
        let entry = &contents.auditors[&Digest::from_slice(&[1; 32]).unwrap()];
        assert_eq!(
            (entry.name.as_str(), entry.role, entry.members.len()),
            ("LRH SH", AuditorRole::Auditor, 2)
        );
    }

    #[test]
    fn auditors_that_are_none_are_refused() {
        type Change = fn(&mut GlobalConfiguration);
        let changes: [(&str, Change); 13] = [
            ("version", |c| c.version = 2),
            ("version", |c| c.auditors.clear()),
            ("auditors[1]", |c| c.auditors.swap(0, 1)),
            ("auditors[1]", |c| c.auditors[1].name = "LRH MV".into()),
            ("auditors[1].name", |c| c.auditors[1].name = "lrh mv".into()),
            ("auditors[0].name", |c| c.auditors[0].name = "A\nB".into()),
            ("auditors[0].role", |c| c.auditors[0].role = 0),
            ("auditors[0].role", |c| c.auditors[0].role = 9),
            ("auditors[1].key", |c| c.auditors[1].key = c.auditors[0].key.clone()),
            ("auditors[0].key", |c| c.auditors[0].key = Bytes::new()),
            ("auditors[0].classes", |c| (c.auditors[0].classes, c.auditors[0].members) = Default::default()),
            ("auditors[0].classes", |c| c.auditors[0].classes = vec!["ANDERS/SH".into()]),
            ("auditors[0].members", |c| c.auditors[0].members = vec!["ANDERS/SH/x".into()]),
        ];
        for (at, change) in changes {
            let mut configuration = with(vec![auditor("LRH MV", 2), auditor("LRH SH", 1)]);
            change(&mut configuration);
            let found = Contents::check(&configuration).map(|_| ()).unwrap_err().at;
            assert_eq!(found, at);
        }
        for class in ["NORD", "NORD/SH/luebeck", "NORD/", "/SH"] {
            let mut configuration = with(vec![auditor("LRH SH", 1)]);
            configuration.auditors[0].classes = vec![class.into()];
            assert!(Contents::check(&configuration).is_err(), "{class}");
        }
    }
}
