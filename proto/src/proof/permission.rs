//! Whether it was allowed: the provider's grant, and what the catalogue of that time knew.

use super::reading::{Logged, Reading, read_leaf};
use super::report::{Failure, Found};
use super::story::{GrantStory, Side};
use super::trust::Trust;
use crate::conversation::TOLERANCE;
use crate::message::{Direction, Manifest};
use crate::schema::log::{GrantChange, leaf::Entry};

/// At the provider, the first message of the request names the grant that permitted the exchange; no other message does.
pub(super) fn grant(reading: &Reading<'_>) -> Found<Option<GrantStory>> {
    let mut story = None;
    for message in &reading.messages {
        let refused = |why: &str| Failure::fails(format!("{}: {why}", message.label()));
        let manifest = &message.manifest;
        let due =
            reading.side == Side::Provider && manifest.direction == Direction::Request && manifest.index == 0;
        match (due, message.grant) {
            (false, None) => {}
            (false, Some(_)) => return Err(refused("it names a grant, which only the first request may")),
            (true, None) => return Err(refused("it names no grant")),
            (true, Some(digest)) => {
                let leaf = reading.artefact(&digest)?;
                story = Some(check_grant(leaf, message).map_err(|why| refused(&why))?);
            }
        }
    }
    let detail = story.as_ref().map(|grant: &GrantStory| format!("{}, {}", grant.id, grant.at));
    Ok((story, detail.unwrap_or_default()))
}

fn check_grant(leaf: &[u8], message: &Logged<'_>) -> Result<GrantStory, String> {
    let (entry, at) = match read_leaf(leaf) {
        Ok(read) => read,
        Err(Failure::Fails(why) | Failure::CannotTell(why)) => return Err(why),
    };
    let Entry::Grant(grant) = entry else { return Err("what it names is no grant".into()) };
    if !allows(&grant, &message.manifest) {
        return Err(format!("the grant {:?} does not allow it", grant.id));
    }
    if at > message.logged.plus(TOLERANCE) {
        return Err(format!("the grant {:?} is of {at}, after the message", grant.id));
    }
    Ok(GrantStory { id: grant.id, operator: grant.operator, at })
}

fn allows(grant: &GrantChange, manifest: &Manifest) -> bool {
    grant.in_force
        && grant.client == manifest.client.as_str()
        && grant.service == manifest.service.as_str()
        && manifest.method.as_ref().is_none_or(|method| method.matches(&grant.method))
        && grant.purposes.iter().any(|code| code == manifest.purpose.as_str())
        && grant.legal_bases.iter().any(|code| code == manifest.legal_basis.as_str())
}

/// Service, method, purpose and legal basis stand in the catalogue that the recorder used.
pub(super) fn catalogue(reading: &Reading<'_>, trust: &Trust) -> Found<()> {
    for message in &reading.messages {
        let configuration = trust.get(&message.configuration)?;
        let manifest = &message.manifest;
        let refused = |what: &str, which: &str| {
            Failure::fails(format!("{}: the catalogue has no {what} {which}", message.label()))
        };
        let service = configuration.service(&manifest.service);
        let service = service.ok_or_else(|| refused("service", manifest.service.as_str()))?;
        match &manifest.method {
            Some(method) if !service.has_method(method) => return Err(refused("method", method.as_str())),
            None if service.is_grpc => return Err(refused("service without methods", service.id.as_str())),
            _ => {}
        }
        let purpose = manifest.purpose.as_str();
        if !service.allows_purpose(purpose) || configuration.purpose(purpose).is_none() {
            return Err(refused("purpose for this service", purpose));
        }
        if configuration.legal_basis(manifest.legal_basis.as_str()).is_none() {
            return Err(refused("legal basis", manifest.legal_basis.as_str()));
        }
    }
    let first = &reading.messages[0].manifest;
    Ok(((), format!("{}, {}, {}", first.service, first.purpose, first.legal_basis)))
}
