//! Whether it was allowed: the provider's grant, and what the catalogue of that time knew.

use super::contents;
use super::reading::{Logged, Reading, read_leaf};
use super::report::{Failure, Found};
use super::story::{GrantStory, Side};
use super::trust::Trust;
use crate::access::{Call, Endpoint, Members, Membership, Subject, Target, Terms};
use crate::clock::Time;
use crate::conversation::TOLERANCE;
use crate::global_configuration::Configuration;
use crate::message::{Code, Direction};
use crate::path::Canonical;
use crate::schema::log::leaf::Entry;

/// At the provider, the first message of the request names the grant that permitted the exchange; no other message does.
pub(super) fn grant(reading: &Reading<'_>, trust: &Trust) -> Found<Option<GrantStory>> {
    let mut story = None;
    for message in &reading.messages {
        let refused = |why: &str| Failure::fails(format!("{}: {why}", message.label()));
        let manifest = &message.manifest;
        let due =
            reading.side == Side::Provider && manifest.direction == Direction::Request && manifest.index == 0;
        match (due, message.grant) {
            (false, None) if message.group.is_none() => {}
            (false, _) => return Err(refused("it names a grant, which only the first request may")),
            // The record that named it is the one that was lost.
            (true, None) if message.recovered_from.is_some() => {}
            (true, None) => return Err(refused("it names no grant")),
            (true, Some(digest)) => {
                let configuration = trust.get(&message.configuration)?;
                let leaf = reading.artefact(&digest)?;
                let checked = check_grant(leaf, message, reading, configuration);
                story = Some(checked.map_err(|why| match why {
                    Failure::Fails(why) => refused(&why),
                    newer @ Failure::CannotTell(_) => newer,
                })?);
            }
        }
    }
    let detail = story.as_ref().map(|grant: &GrantStory| format!("{}, {}", grant.id, grant.at));
    Ok((story, detail.unwrap_or_default()))
}

fn check_grant(
    leaf: &[u8],
    message: &Logged<'_>,
    reading: &Reading<'_>,
    configuration: &Configuration,
) -> Result<GrantStory, Failure> {
    let (entry, at) = read_leaf(leaf)?;
    let Entry::Grant(grant) = entry else { return Err(Failure::fails("what it names is no grant")) };
    let refused = |why: String| Failure::fails(format!("the grant {:?} does not allow it: {why}", grant.id));
    if !grant.in_force || grant.applied {
        return Err(refused("its record does not put it into force".into()));
    }
    if !made_properly(&grant.approver, (grant.operator_user, grant.approver_user)) {
        return Err(refused("its record does not name two persons".into()));
    }
    let terms = Terms::parse(&grant).map_err(|error| refused(error.to_string()))?;
    let groups = Groups { configuration, local: local_group(&terms, message, reading)? };
    let endpoint = endpoint(message, reading).map_err(Failure::fails)?;
    let call = call(message, endpoint.as_ref(), &groups);
    // It was decided before it was recorded, by the same clock: a grant may have ended in between.
    let misfit = terms.misfits(&call).find(|misfit| match misfit {
        crate::access::Misfit::Expired(until) => message.logged > until.plus(TOLERANCE),
        crate::access::Misfit::NotYet(from) => message.logged.plus(TOLERANCE) < *from,
        _ => true,
    });
    if let Some(misfit) = misfit {
        return Err(refused(misfit.to_string()));
    }
    if at > message.logged.plus(TOLERANCE) {
        let why = format!("the grant {:?} is of {at}, after the message", grant.id);
        return Err(Failure::fails(why));
    }
    Ok(GrantStory {
        subject: terms.subject.to_string(),
        endpoint_checked: !matches!(call.target, Target::SomeEndpoint) || terms.method == "/*",
        group_at: groups.local.map(|group| group.at),
        id: grant.id,
        operator: grant.operator,
        approver: (!grant.approver.is_empty()).then_some(grant.approver),
        at,
    })
}

/// Where a record names an approver, that is another person than the one who made the change.
fn made_properly(approver: &str, users: (Option<u32>, Option<u32>)) -> bool {
    match users {
        (Some(one), Some(other)) => one != other && !approver.is_empty(),
        (None, None) => approver.is_empty(),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn call<'c>(
    message: &'c Logged<'_>,
    endpoint: Option<&'c Endpoint>,
    members: &'c dyn Membership,
) -> Call<'c> {
    let manifest = &message.manifest;
    let target = match (&manifest.method, endpoint) {
        (Some(method), _) => Target::Method(method),
        (None, Some(endpoint)) => Target::Endpoint(endpoint),
        (None, None) => Target::SomeEndpoint,
    };
    Call {
        client: &manifest.client,
        service: &manifest.service,
        target,
        purpose: &manifest.purpose,
        legal_basis: &manifest.legal_basis,
        at: message.logged,
        members,
    }
}

/// The HTTP method and path that were asked for, if the content is in the file; none of gRPC.
fn endpoint(message: &Logged<'_>, reading: &Reading<'_>) -> Result<Option<Endpoint>, String> {
    if message.manifest.method.is_some() {
        return Ok(None);
    }
    let head = contents::head(message, reading).map_err(|()| "its head cannot be read".to_owned())?;
    let Some(head) = head else { return Ok(None) };
    let canonical = |path: &str| match Canonical::of(path) {
        Ok(canonical) if canonical.as_str() == path => Ok(canonical.as_str().to_owned()),
        Ok(_) => Err("its path is not in its canonical form".to_owned()),
        Err(why) => Err(why.to_owned()),
    };
    let mut destinations = head.headers.iter().filter(|header| header.name == "destination");
    let destination = match (head.method.as_str(), destinations.next(), destinations.next()) {
        ("COPY" | "MOVE", Some(header), None) => {
            let path = std::str::from_utf8(&header.value).map_err(|_| "its destination is not a path")?;
            Some(canonical(path)?)
        }
        ("COPY" | "MOVE", Some(_), Some(_)) => return Err("it has two destinations".into()),
        _ => None,
    };
    Ok(Some(Endpoint { path: canonical(&head.path)?, method: head.method, destination }))
}

/// Who belonged to which group: global ones as the recorder's configuration says, and the one local group whose record the
/// message names.
#[derive(Debug)]
struct Groups<'c> {
    configuration: &'c Configuration,
    local: Option<LocalGroup>,
}

#[derive(Debug)]
struct LocalGroup {
    code: Code,
    members: Members,
    at: Time,
}

impl Membership for Groups<'_> {
    fn local(&self, group: &Code) -> Option<&Members> {
        self.local.as_ref().filter(|local| local.code == *group).map(|local| &local.members)
    }

    fn global(&self, group: &Code) -> Option<&Members> {
        self.configuration.group(group.as_str()).map(|group| &group.members)
    }
}

/// The record of the local group that the grant is for: named by the message exactly if there is one.
fn local_group(
    terms: &Terms,
    message: &Logged<'_>,
    reading: &Reading<'_>,
) -> Result<Option<LocalGroup>, Failure> {
    let (code, digest) = match (&terms.subject, message.group) {
        (Subject::LocalGroup(code), Some(digest)) => (code.clone(), digest),
        (Subject::LocalGroup(_), None) => return Err(Failure::fails("it names no record of the group")),
        (_, Some(_)) => return Err(Failure::fails("it names a group that its grant is not for")),
        (_, None) => return Ok(None),
    };
    let leaf = reading.artefact(&digest).map_err(|_| Failure::fails("the record of the group is missing"))?;
    let (entry, at) = read_leaf(leaf)?;
    let Entry::Group(group) = entry else {
        return Err(Failure::fails("what it names is no record of a group"));
    };
    let persons = made_properly(&group.approver, (group.operator_user, group.approver_user));
    if group.group != code.as_str() || group.applied || group.dropped || !persons {
        return Err(Failure::fails("the record of the group does not put this group into force"));
    }
    if at > message.logged.plus(TOLERANCE) {
        return Err(Failure::fails(format!("the record of the group is of {at}, after the message")));
    }
    let members = Members::parse(&group.members).map_err(|error| Failure::fails(error.to_string()))?;
    Ok(Some(LocalGroup { code, members, at }))
}

/// Service, method, purpose and legal basis stand in the catalogue that the recorder used.
pub(super) fn catalogue(reading: &Reading<'_>, trust: &Trust) -> Found<()> {
    for message in &reading.messages {
        let configuration = trust.get(&message.signed_under())?;
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
