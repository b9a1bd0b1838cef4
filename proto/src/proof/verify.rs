//! All checks of a proof, one after another, and the story that they carry.

use super::reading::{Logged, Reading};
use super::report::{CheckName, Checks, Conclusion, NotProved, Report};
use super::seal::{self, Stamped};
use super::story::{
    Acknowledged, CallerContextStory, Completeness, ContentStory, Ended, Erased, GrantStory, MessageStory,
    Named, Sealed, Side, Story, Term, WitnessStory,
};
use super::trust::{Anchors, Trust};
use super::{Proof, contents, exchange, permission, signers};
use crate::checkpoint::Checkpoint;
use crate::clock::Time;
use crate::global_configuration::{Anchor, Configuration};
use crate::identifier::{ExchangeId, SubsystemId, XRoadServiceId};
use crate::message::{Direction, Manifest};
use crate::schema::log::Outcome;

/// Verifies `proof` against the verifier's own `anchor`. If `now` is given, what lies after it is doubted.
///
/// Nothing is believed that does not lead back to the anchor, and every part of the file must be needed.
pub fn verify(proof: &Proof, anchor: &Anchor, now: Option<Time>) -> Report {
    let mut checks = Checks::default();
    let story = examine(&mut checks, proof, anchor, now);
    let at_client = story.as_ref().is_some_and(|story| story.side == Side::Client);
    let (conclusion, checks) = checks.finish(|name| match name {
        CheckName::Permission => !at_client,
        CheckName::Cosignatures => seal::is_cosigned(proof.raw()),
        _ => true,
    });
    let not_proved = not_proved(story.as_ref());
    Report { conclusion, story, checks, not_proved }
}

/// What the checks found that the story tells.
#[derive(Default)]
struct Facts {
    checkpoint: Option<Checkpoint>,
    stamped: Option<Stamped>,
    witnesses: Vec<WitnessStory>,
    acknowledged: Option<Acknowledged>,
    completeness: Option<Completeness>,
    caller_context: Option<CallerContextStory>,
    grant: Option<GrantStory>,
}

fn examine(checks: &mut Checks, proof: &Proof, anchor: &Anchor, now: Option<Time>) -> Option<Story> {
    use CheckName as Name;
    let raw = proof.raw();
    let reading = checks.note(Name::Structure, Reading::of(proof));
    let anchors = checks.note(Name::Anchors, Anchors::follow(&raw.anchors, anchor));
    let (reading, anchors) = (reading?, anchors?);
    let trust = checks.note(Name::Configurations, Trust::verify(raw, &reading, &anchors))?;
    let mut facts = Facts {
        checkpoint: checks.note(Name::Checkpoint, seal::checkpoint(raw, &reading, &trust)),
        ..Facts::default()
    };
    facts.stamped = checks.note(Name::Timestamp, seal::timestamp(raw, &reading, &trust, now));
    if seal::is_cosigned(raw) {
        let found = checks.note(Name::Cosignatures, seal::cosignatures(raw, &reading, &trust, now));
        facts.witnesses = found.unwrap_or_default();
    }
    if let Some(checkpoint) = &facts.checkpoint {
        checks.note(Name::Inclusion, seal::inclusion(raw, checkpoint));
        checks.note(Name::Bindings, signers::bindings(&reading, &trust, checkpoint));
    }
    checks.note(Name::Signatures, signers::signatures(&reading, &trust));
    checks.note(Name::Connections, signers::connections(&reading, &trust));
    facts.acknowledged = checks.note(Name::Order, exchange::order(&reading));
    facts.completeness = checks.note(Name::Completeness, exchange::completeness(&reading));
    checks.note(Name::Contents, contents::check(&reading));
    facts.caller_context = checks.note(Name::CallerContext, contents::caller_context(&reading));
    if reading.side == Side::Provider || reading.messages.iter().any(|message| message.grant.is_some()) {
        facts.grant = checks.note(Name::Permission, permission::grant(&reading, &trust)).flatten();
    }
    checks.note(Name::Catalogue, permission::catalogue(&reading, &trust));
    if let Some(stamped) = &facts.stamped {
        checks.note(Name::Times, exchange::times(&reading, &trust, stamped));
    }
    tell(&reading, &trust, facts)
}

fn tell(reading: &Reading<'_>, trust: &Trust, facts: Facts) -> Option<Story> {
    let first = reading.messages.first()?;
    let configuration = trust.get(&first.signed_under()).ok()?;
    let manifest = &first.manifest;
    let (client_server, provider_server) = match manifest.direction {
        Direction::Response => (&manifest.receiver, &manifest.sender),
        _ => (&manifest.sender, &manifest.receiver),
    };
    let (requests, responses) = messages(reading);
    let open = Completeness::Open { requests: requests.len() as u64, responses: responses.len() as u64 };
    Some(Story {
        exchange: reading.exchange,
        client: named(&manifest.client, configuration),
        service: service(manifest, configuration),
        method: manifest.method.clone(),
        purpose: Term::new(manifest.purpose.as_str(), configuration.purpose(manifest.purpose.as_str())),
        legal_basis: Term::new(
            manifest.legal_basis.as_str(),
            configuration.legal_basis(manifest.legal_basis.as_str()),
        ),
        route: manifest.route.clone(),
        bridged_from: manifest.bridged_from.clone(),
        bridged_to: bridged_to(reading),
        caller_context: facts.caller_context.unwrap_or(CallerContextStory::NotIncluded),
        client_server: client_server.clone(),
        provider_server: provider_server.clone(),
        side: reading.side,
        requests,
        responses,
        asked: contents::asked(reading),
        answer: contents::answer(reading),
        completeness: facts.completeness.unwrap_or(open),
        acknowledged: facts.acknowledged,
        ended: ended(reading),
        erased: reading.erasure.as_ref().map(|noted| Erased {
            at: noted.at,
            operator: noted.entry.operator.clone(),
            reason: noted.entry.reason.clone(),
        }),
        grant: facts.grant,
        sealed: facts.checkpoint.zip(facts.stamped).map(|(checkpoint, stamped)| Sealed {
            origin: checkpoint.origin,
            size: checkpoint.size,
            root: checkpoint.root,
            not_later_than: stamped.not_later_than(),
            authority: stamped.authority,
        }),
        witnesses: facts.witnesses,
        configurations: trust.numbers(),
    })
}

fn named(subsystem: &SubsystemId, configuration: &Configuration) -> Named {
    let name = configuration.subsystem(subsystem).map(|entry| entry.name.clone());
    let member = configuration.member(&subsystem.member()).map(|entry| entry.name.clone());
    Named { id: subsystem.to_string(), name: name.unwrap_or_default(), member: member.unwrap_or_default() }
}

fn service(manifest: &Manifest, configuration: &Configuration) -> Named {
    let title = configuration.service(&manifest.service).map(|entry| entry.title.clone());
    let provider = named(&manifest.service.subsystem(), configuration);
    Named { id: manifest.service.to_string(), name: title.unwrap_or_default(), member: provider.member }
}

fn messages(reading: &Reading<'_>) -> (Vec<MessageStory>, Vec<MessageStory>) {
    let story = |message: &Logged<'_>| MessageStory {
        direction: message.manifest.direction,
        index: message.manifest.index,
        created: message.manifest.created,
        logged: message.logged,
        recovered_from: message.recovered_from.clone(),
        ending: message.manifest.ending,
        length: message.manifest.content_length,
        content: contents::state(message, reading).unwrap_or(ContentStory::Mismatch),
    };
    reading.messages.iter().map(story).partition(|story| story.direction == Direction::Request)
}

/// As the messages of the answer say, or as the record of the end says where there is none.
fn bridged_to(reading: &Reading<'_>) -> Option<XRoadServiceId> {
    let signed = reading.messages.iter().find_map(|message| message.manifest.bridged_to.clone());
    let recorded = || reading.ended.as_ref()?.entry.bridged_to.parse().ok();
    signed.or_else(recorded)
}

fn ended(reading: &Reading<'_>) -> Option<Ended> {
    let noted = reading.ended.as_ref()?;
    Some(Ended {
        at: noted.at,
        outcome: match noted.entry.outcome() {
            Outcome::Failed => "failed",
            Outcome::Aborted => "aborted",
            _ => "unknown",
        },
        reason: noted.entry.reason.clone(),
        side: noted.entry.side.clone(),
        register_reached: noted.entry.register_reached(),
        by_hearsay: reading.side == Side::Client
            && noted.entry.responses == 0
            && ["provider_server", "register"].contains(&noted.entry.side.as_str()),
        continued_as: ExchangeId::from_slice(&noted.entry.continued_as).ok(),
    })
}

/// What stays open; without a story, what stays open always.
fn not_proved(story: Option<&Story>) -> Vec<NotProved> {
    let mut open = vec![
        NotProved::Witness,
        NotProved::Collusion,
        NotProved::RegisterTruth,
        NotProved::NothingElse,
        NotProved::ExactTimes,
        NotProved::Delivery,
    ];
    let Some(story) = story else { return open };
    if story.witnesses.iter().any(|witness| witness.foreign) {
        open.retain(|one| *one != NotProved::Witness);
    }
    if matches!(story.caller_context, CallerContextStory::Included(_)) {
        open.push(NotProved::CallerContextDeclared);
    }
    if story.route.is_some() {
        open.push(NotProved::DeclaredByRoute);
    }
    if story.bridged_from.is_some() || story.bridged_to.is_some() {
        open.push(NotProved::BeyondBridge);
    }
    let all = || story.requests.iter().chain(&story.responses);
    if all().any(|message| !matches!(message.content, ContentStory::Included(_))) {
        open.push(NotProved::ContentNotIncluded);
    }
    open.push(match story.side {
        Side::Client => NotProved::ProviderPermission,
        Side::Provider => NotProved::GrantInclusion,
    });
    if all().any(|message| message.recovered_from.is_some()) {
        open.push(NotProved::LoggedThen);
        if story.side == Side::Provider && story.grant.is_none() {
            open.push(NotProved::ProviderPermission);
        }
    }
    if story.grant.as_ref().is_some_and(|grant| !grant.endpoint_checked) {
        open.push(NotProved::GrantEndpoint);
    }
    open
}

impl Report {
    /// Whether every check holds.
    pub fn holds(&self) -> bool {
        self.conclusion == Conclusion::Holds
    }
}
