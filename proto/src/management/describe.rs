//! An act in words: what an administrator reads before signing.

use crate::digest::Digest;
use crate::schema::configuration;
use crate::schema::management::act::Change;

use super::enrolment::EnrolmentKeys;

/// One line that says what the change would do. For an enrolment it holds the fingerprint that must be compared with
/// the one that the security server displays.
pub fn describe(change: &Change) -> String {
    let text = match change {
        Change::PutMember(member) => member_text(member),
        Change::RemoveMember(id) => format!("remove member {id}"),
        Change::PutSecurityServer(server) => format!(
            "register security server {} at {} for {}",
            server.id,
            server.address,
            list(&server.subsystems)
        ),
        Change::RemoveSecurityServer(id) => format!("remove security server {id} and its keys"),
        Change::SuspendSecurityServer(change) if change.suspended => {
            format!("suspend security server {}", change.id)
        }
        Change::SuspendSecurityServer(change) => {
            format!("end the suspension of security server {}", change.id)
        }
        Change::PutService(service) => service_text(service),
        Change::RemoveService(id) => format!("remove service {id}"),
        Change::PutPurpose(entry) => catalogue_text("purpose", entry),
        Change::PutLegalBasis(entry) => catalogue_text("legal basis", entry),
        Change::PutTrustServices(services) => trust_services_text(services),
        Change::PutAdministrator(person) => format!(
            "register administrator {} for {} with the key {}",
            person.name,
            person.class,
            Digest::of(&person.public_key).short()
        ),
        Change::RemoveAdministrator(name) => format!("remove administrator {name}"),
        Change::PutPolicy(policy) => policy_text(policy),
        Change::EnrolSecurityServer(enrolment) => match EnrolmentKeys::of(enrolment) {
            Some(keys) => {
                format!("enrol security server {} with the fingerprint {}", enrolment.id, keys.fingerprint())
            }
            None => format!("enrol security server {} with malformed keys", enrolment.id),
        },
        Change::RemoveKey(change) => {
            format!("take the key {} of {} out of force", hex::encode(&change.key), change.security_server)
        }
    };
    // What a terminal would obey does not reach it.
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn member_text(member: &configuration::Member) -> String {
    let subsystems: Vec<_> = member.subsystems.iter().map(|subsystem| subsystem.id.clone()).collect();
    format!("register member {} ({}) with the subsystems {}", member.id, member.name, list(&subsystems))
}

fn service_text(service: &configuration::Service) -> String {
    let kind = match service.kind() {
        configuration::ServiceKind::Grpc => "gRPC",
        configuration::ServiceKind::Rest => "REST",
        configuration::ServiceKind::Unspecified => "unspecified",
    };
    format!(
        "register {kind} service {} ({}) with the methods {} for the purposes {}",
        service.id,
        service.title,
        list(&service.methods),
        list(&service.purposes)
    )
}

fn catalogue_text(what: &str, entry: &configuration::CatalogueEntry) -> String {
    format!("register {what} {}: {} / {} ({})", entry.code, entry.text, entry.text_de, entry.citation)
}

fn trust_services_text(services: &configuration::TrustServices) -> String {
    let authorities = services.certification_authorities.iter();
    let authorities: Vec<_> =
        authorities.map(|ca| format!("{} [{}]", ca.name, Digest::of(&ca.certificate).short())).collect();
    let timestamping = services.timestamping_authorities.iter();
    let timestamping: Vec<_> =
        timestamping.map(|tsa| format!("{} [{}]", tsa.name, Digest::of(&tsa.certificate).short())).collect();
    format!(
        "replace the trust services: certification authorities {}, timestamping authorities {}",
        list(&authorities),
        list(&timestamping)
    )
}

fn policy_text(policy: &configuration::Policy) -> String {
    let algorithms: Vec<_> = policy.algorithms.iter().map(|algorithm| algorithm.name.clone()).collect();
    let approval = if policy.approval_by_other_class { "by another class" } else { "by any second person" };
    format!(
        "replace the policy: approval {approval}, merge delay {} ms, OCSP responses up to {} ms old, algorithms {}",
        policy.merge_delay_ms,
        policy.ocsp_max_age_ms,
        list(&algorithms)
    )
}

fn list(entries: &[String]) -> String {
    if entries.is_empty() { "(none)".into() } else { entries.join(", ") }
}
