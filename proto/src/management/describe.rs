//! An act in words: what an administrator reads before signing. All that is signed is in them, and what it replaces.

use crate::clock::Time;
use crate::digest::Digest;
use crate::schema::configuration::{self, GlobalConfiguration};
use crate::schema::management::act::Change;

use super::enrolment::EnrolmentKeys;

/// One line that says all that the change would do. For an enrolment it holds the fingerprint that must be compared with
/// the one that the security server displays. Texts from outside stand in quotation marks; what a terminal would obey,
/// or what would turn the direction of writing, stands as `\u{…}`.
pub fn describe(change: &Change) -> String {
    match change {
        Change::PutMember(member) => member_text(member),
        Change::RemoveMember(id) => format!("remove member {}", name(id)),
        Change::PutSecurityServer(server) => server_text(server),
        Change::RemoveSecurityServer(id) => format!("remove security server {} and its keys", name(id)),
        Change::SuspendSecurityServer(change) if change.suspended => {
            format!("suspend security server {}", name(&change.id))
        }
        Change::SuspendSecurityServer(change) => {
            format!("end the suspension of security server {}", name(&change.id))
        }
        Change::PutService(service) => service_text(service),
        Change::RemoveService(id) => format!("remove service {}", name(id)),
        Change::PutPurpose(entry) => catalogue_text("purpose", entry),
        Change::PutLegalBasis(entry) => catalogue_text("legal basis", entry),
        Change::PutGroup(group) => group_text(group),
        Change::RemoveGroup(code) => format!("remove group {}", name(code)),
        Change::PutWitness(witness) => witness_text(witness),
        Change::RemoveWitness(witness) => format!("remove witness {}", name(witness)),
        Change::PutAuditor(auditor) => auditor_text(auditor),
        Change::RemoveAuditor(auditor) => format!("remove auditor {}", quoted(auditor)),
        Change::PutTrustServices(services) => trust_services_text(services),
        Change::PutAdministrator(person) => administrator_text(person),
        Change::RemoveAdministrator(person) => format!("remove administrator {}", quoted(person)),
        Change::PutPolicy(policy) => policy_text(policy),
        Change::EnrolSecurityServer(enrolment) => match EnrolmentKeys::of(enrolment) {
            Some(keys) => enrolment_text(&keys),
            None => format!("enrol security server {} with malformed keys", name(&enrolment.id)),
        },
        Change::RemoveKey(change) => {
            let server = name(&change.security_server);
            format!("take the key {} of {server} out of force", hex::encode(&change.key))
        }
    }
}

/// [`describe`], and the entry of `before` that the change would replace.
pub fn describe_against(change: &Change, before: &GlobalConfiguration) -> String {
    let text = describe(change);
    match replaced(change, before).map(|old| describe(&old)) {
        Some(old) if old == text => format!("{text}; nothing changes by it"),
        Some(old) => format!("{text}; this replaces: {old}"),
        None => text,
    }
}

/// The entry that the change would replace, as if it were put there by an act.
fn replaced(change: &Change, before: &GlobalConfiguration) -> Option<Change> {
    match change {
        Change::PutMember(new) => {
            before.members.iter().find(|old| old.id == new.id).cloned().map(Change::PutMember)
        }
        Change::PutSecurityServer(new) => {
            let old = before.security_servers.iter().find(|old| old.id == new.id);
            old.cloned().map(Change::PutSecurityServer)
        }
        Change::PutService(new) => {
            before.services.iter().find(|old| old.id == new.id).cloned().map(Change::PutService)
        }
        Change::PutPurpose(new) => {
            before.purposes.iter().find(|old| old.code == new.code).cloned().map(Change::PutPurpose)
        }
        Change::PutLegalBasis(new) => {
            before.legal_bases.iter().find(|old| old.code == new.code).cloned().map(Change::PutLegalBasis)
        }
        Change::PutGroup(new) => {
            before.groups.iter().find(|old| old.code == new.code).cloned().map(Change::PutGroup)
        }
        Change::PutWitness(new) => {
            before.witnesses.iter().find(|old| old.name == new.name).cloned().map(Change::PutWitness)
        }
        Change::PutAuditor(new) => {
            before.auditors.iter().find(|old| old.name == new.name).cloned().map(Change::PutAuditor)
        }
        Change::PutTrustServices(_) => before.trust_services.clone().map(Change::PutTrustServices),
        Change::PutAdministrator(new) => {
            let old = before.administrators.iter().find(|old| old.name == new.name);
            old.cloned().map(Change::PutAdministrator)
        }
        Change::PutPolicy(_) => before.policy.clone().map(Change::PutPolicy),
        _ => None,
    }
}

fn member_text(member: &configuration::Member) -> String {
    let subsystem =
        |subsystem: &configuration::Subsystem| format!("{} {}", name(&subsystem.id), quoted(&subsystem.name));
    let subsystems = list(member.subsystems.iter().map(subsystem));
    format!("register member {} {} with the subsystems {subsystems}", name(&member.id), quoted(&member.name))
}

fn server_text(server: &configuration::SecurityServer) -> String {
    let subsystems = list(server.subsystems.iter().map(|id| name(id)));
    format!("register security server {} at {} for {subsystems}", name(&server.id), name(&server.address))
}

fn service_text(service: &configuration::Service) -> String {
    let kind = match service.kind() {
        configuration::ServiceKind::Grpc => "gRPC",
        configuration::ServiceKind::Rest => "REST",
        configuration::ServiceKind::Unspecified => "unspecified",
    };
    format!(
        "register {kind} service {} {} with the methods {} for the purposes {}",
        name(&service.id),
        quoted(&service.title),
        list(service.methods.iter().map(|method| name(method))),
        list(service.purposes.iter().map(|purpose| name(purpose)))
    )
}

fn catalogue_text(what: &str, entry: &configuration::CatalogueEntry) -> String {
    format!(
        "register {what} {}: {}, in German {}, laid down in {}",
        name(&entry.code),
        quoted(&entry.text),
        quoted(&entry.text_de),
        quoted(&entry.citation)
    )
}

fn group_text(group: &configuration::Group) -> String {
    let members = list(group.members.iter().map(|member| name(member)));
    format!("register group {} {} with the members {members}", name(&group.code), quoted(&group.name))
}

fn witness_text(witness: &configuration::Witness) -> String {
    format!(
        "register witness {} of {} with the key {}, at {}",
        name(&witness.name),
        name(&witness.class),
        hex::encode(&witness.public_key),
        name(&witness.url)
    )
}

fn auditor_text(auditor: &configuration::Auditor) -> String {
    let role = match auditor.role() {
        configuration::AuditorRole::Auditor => "an auditor",
        configuration::AuditorRole::DataProtectionOfficer => "a data protection officer",
        configuration::AuditorRole::Unspecified => "an auditor of no known role",
    };
    format!(
        "register {} as {role} with the key {} for the exchanges of all members of {} and of the members {}, {} contents",
        quoted(&auditor.name),
        hex::encode(&auditor.key),
        list(auditor.classes.iter().map(|class| name(class))),
        list(auditor.members.iter().map(|member| name(member))),
        if auditor.contents { "with" } else { "without" }
    )
}

fn administrator_text(person: &configuration::Administrator) -> String {
    format!(
        "register administrator {} for {} with the key {}",
        quoted(&person.name),
        name(&person.class),
        Digest::of(&person.public_key)
    )
}

fn trust_services_text(services: &configuration::TrustServices) -> String {
    let authority = |ca: &configuration::CertificationAuthority| {
        format!(
            "{} [certificate {}, OCSP {}, revocation lists {}]",
            quoted(&ca.name),
            Digest::of(&ca.certificate),
            list(ca.ocsp_urls.iter().map(|url| name(url))),
            list(ca.crl_urls.iter().map(|url| name(url)))
        )
    };
    let timestamping = |tsa: &configuration::TimestampingAuthority| {
        format!("{} [certificate {}, at {}]", quoted(&tsa.name), Digest::of(&tsa.certificate), name(&tsa.url))
    };
    format!(
        "replace the trust services: certification authorities {}; timestamping authorities {}",
        list(services.certification_authorities.iter().map(authority)),
        list(services.timestamping_authorities.iter().map(timestamping))
    )
}

fn policy_text(policy: &configuration::Policy) -> String {
    let algorithm = |algorithm: &configuration::Algorithm| match algorithm.not_after_ms {
        0 => name(&algorithm.name),
        end => format!("{} until {}", name(&algorithm.name), Time::from_millis(end)),
    };
    let approval = if policy.approval_by_other_class { "by another class" } else { "by any second person" };
    format!(
        "replace the policy: approval {approval}, merge delay {} ms, OCSP responses up to {} ms old, algorithms {}{}{}",
        policy.merge_delay_ms,
        policy.ocsp_max_age_ms,
        list(policy.algorithms.iter().map(algorithm)),
        policy.witnessing.as_ref().map(witnessing_text).unwrap_or_default(),
        policy.timestamping.map(|it| format!(", timestamps: {}", deadlines_text(it))).unwrap_or_default()
    )
}

fn witnessing_text(witnessing: &configuration::Witnessing) -> String {
    format!(
        ", checkpoints cosigned by the witnesses {} and {} of other classes: {}",
        list(witnessing.required.iter().map(|required| name(required))),
        witnessing.of_other_classes,
        deadlines_text(witnessing.deadlines.unwrap_or_default())
    )
}

fn deadlines_text(deadlines: configuration::Deadlines) -> String {
    let refused = match deadlines.refuse_after_ms {
        0 => "never".into(),
        after => format!("after {after} ms without"),
    };
    format!("alarm after {} ms without, exchanges refused {refused}", deadlines.alarm_after_ms)
}

fn enrolment_text(keys: &EnrolmentKeys) -> String {
    format!(
        "enrol security server {} with the fingerprint {}: authentication key {}, signing key {}, log {} with the key {}",
        name(&keys.server),
        keys.fingerprint(),
        keys.authentication_key,
        keys.signing_key,
        name(&keys.log_origin),
        hex::encode(keys.log_key)
    )
}

fn list(entries: impl Iterator<Item = String>) -> String {
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() { "(none)".into() } else { entries.join(", ") }
}

/// An identifier, address or code as it is, if it looks like one, else in quotation marks.
fn name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:*+%?&=[]@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { quoted(text) }
}

/// A text that a person wrote, in quotation marks. Letters and digits of every language are as they are.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' | '§' | '–' | '„' | '“' => c.to_string(),
        c if c.is_alphanumeric() => c.to_string(),
        c => c.escape_unicode().to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::global_configuration::testing::example;
    use crate::schema::configuration::*;
    use bytes::Bytes;

    #[test]
    fn what_is_signed_is_shown() {
        let services = TrustServices {
            certification_authorities: vec![CertificationAuthority {
                name: "CA".into(),
                certificate: Bytes::from_static(b"ca"),
                ocsp_urls: vec!["http://ocsp.example/".into()],
                crl_urls: vec!["http://crl.example/".into()],
            }],
            timestamping_authorities: vec![TimestampingAuthority {
                name: "TSA".into(),
                certificate: Bytes::from_static(b"tsa"),
                url: "http://tsa.example/".into(),
            }],
        };
        let text = describe(&Change::PutTrustServices(services));
        let digests = [Digest::of(b"ca").to_string(), Digest::of(b"tsa").to_string()];
        for part in ["http://ocsp.example/", "http://crl.example/", "http://tsa.example/"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(digests.iter().all(|digest| digest.len() == 64 && text.contains(digest)), "{text}");

        let mut policy = example().policy.unwrap();
        policy.algorithms[0].not_after_ms = 1_795_288_440_000;
        let text = describe(&Change::PutPolicy(policy));
        assert!(text.contains(&format!("until {}", Time::from_millis(1_795_288_440_000))), "{text}");

        let mut policy = example().policy.unwrap();
        policy.witnessing = Some(Witnessing {
            required: vec!["witness.example/mv".into()],
            of_other_classes: 2,
            deadlines: Some(Deadlines { alarm_after_ms: 3_600_001, refuse_after_ms: 3_600_002 }),
        });
        policy.timestamping = Some(Deadlines { alarm_after_ms: 3_600_003, refuse_after_ms: 0 });
        let text = describe(&Change::PutPolicy(policy));
        for part in ["witness.example/mv and 2 of other", "3600001", "3600002", "3600003", "refused never"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let witness = Witness {
            name: "witness.example/mv".into(),
            public_key: Bytes::from_static(b"key"),
            class: "MV".into(),
            url: "http://127.0.0.1:1".into(),
        };
        let text = describe(&Change::PutWitness(witness));
        for part in ["witness.example/mv", "of MV", &hex::encode(b"key"), "http://127.0.0.1:1"] {
            assert!(text.contains(part), "{part}: {text}");
        }

        let mut member = example().members[0].clone();
        let subsystem = member.subsystems[0].clone();
        assert!(describe(&Change::PutMember(member.clone())).contains(&subsystem.name));
        member.name = "another name".into();
        let text = describe_against(&Change::PutMember(member), &example());
        let old = format!(
            "this replaces: register member {} \"{}\"",
            example().members[0].id,
            example().members[0].name
        );
        assert!(text.contains(&old), "{text}");
    }

    #[test]
    fn no_text_pretends_to_be_another() {
        let person = |name: &str| {
            let public_key = Bytes::from_static(b"k");
            describe(&Change::PutAdministrator(Administrator {
                name: name.into(),
                class: "SH".into(),
                key: Bytes::new(),
                public_key,
            }))
        };
        let digest = Digest::of(b"k").to_string();
        assert_eq!(
            person("Frauke Grünwald"),
            format!("register administrator \"Frauke Grünwald\" for SH with the key {digest}")
        );
        let text = person("A\u{202e}B\u{200b}C\u{1b}[2J\n\" for MV with the key 0");
        assert!(text.contains(r#""A\u{202e}B\u{200b}C\u{1b}[2J\u{a}\" for MV with the key 0""#), "{text}");
        let text = describe(&Change::RemoveMember("NORD/SH/x and nothing else".into()));
        assert_eq!(text, "remove member \"NORD/SH/x and nothing else\"");
    }
}
