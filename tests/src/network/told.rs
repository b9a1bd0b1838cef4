//! What a record of a message log says, in one line: what tests compare.

use trave_proto::identifier::ExchangeId;
use trave_proto::message::Manifest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::message::{Direction, Ending};

use super::server::Record;

/// One line about a record: "sent request 0 end", "refused access_denied by provider_server", "ended failed …".
pub fn told(record: &Record) -> String {
    match record.leaf.entry.as_ref().expect("a leaf has an entry") {
        Entry::Recovered(recovered) => {
            let manifest = Manifest::parse(recovered.message.as_ref().unwrap().manifest.clone()).unwrap();
            let direction = if manifest.direction == Direction::Response { "response" } else { "request" };
            format!("recovered {direction} from {}", recovered.peer)
        }
        Entry::Message(message) => {
            let manifest = Manifest::parse(message.manifest.clone()).unwrap();
            let way = if message.sent { "sent" } else { "received" };
            let direction = match manifest.direction {
                Direction::Request => "request",
                Direction::Response => "response",
                Direction::Unspecified => "nothing",
            };
            let ending = match manifest.ending {
                Ending::Continue => "continue",
                Ending::End => "end",
                Ending::Abort => "abort",
                Ending::Unspecified => "?",
            };
            format!("{way} {direction} {} {ending}", manifest.index)
        }
        Entry::Ended(ended) => {
            let outcome = ended.outcome().as_str_name().trim_start_matches("OUTCOME_").to_lowercase();
            let reached =
                ended.register_reached().as_str_name().trim_start_matches("REGISTER_REACHED_").to_lowercase();
            let (reason, side) = (&ended.reason, &ended.side);
            format!("ended {outcome} {reason} by {side}, register {reached}")
        }
        Entry::Refusal(refusal) => format!("refused {} by {}", refusal.reason, refusal.side),
        Entry::Grant(grant) => format!("grant {}", grant.id),
        Entry::Group(group) => format!("group {}", group.id),
        Entry::Archive(_) => "archive".into(),
        Entry::Earlier(earlier) => format!("overwritten in {}", earlier.origin),
        Entry::Erasure(_) => "erasure".into(),
        Entry::Configuration(adopted) => {
            format!("configuration {} from {}", adopted.number, adopted.source)
        }
        Entry::Degradation(degradation) => format!("degradation {}", degradation.kind),
        Entry::Read(_) => "read".into(),
        Entry::Act(_) => "act".into(),
        Entry::Started(_) => "started".into(),
        Entry::Generation(generation) => format!("generation after {}", generation.previous_origin),
        Entry::PersonSearchAsked(asked) => format!("person search asked by {}", asked.reader),
        Entry::PersonSearchReleased(released) => format!("person search released by {}", released.releaser),
        Entry::Persons(change) => format!("persons {} {}", change.erased.len(), change.destroyed_before),
        Entry::PeerCheckpoint(shown) => format!("checkpoint of {}", shown.peer),
        Entry::Reconciliation(found) => format!("reconciled with {}", found.peer),
        Entry::PeerCondition(condition) => format!("{} of {}", condition.kind, condition.peer),
        Entry::HourNotCompared(hour) => format!("not compared with {}", hour.peer),
        Entry::SummaryCommitted(said) => format!("reconciled, as {} said first", said.peer),
        Entry::Hold(hold) => format!("hold {}", hold.id),
        Entry::Expiry(expiry) => format!("expiry of {}", expiry.count),
        Entry::ErasureNotice(notice) => format!("erasure notice {}", notice.id),
    }
}

/// What records tell of an exchange, in order, each direction's messages taken together: "sent request end". How many
/// messages a direction has depends on what was there within a millisecond, and says nothing.
pub fn summary(records: &[Record], exchange: ExchangeId) -> Vec<String> {
    shortened(records.iter().filter(|record| exchange_of(record) == Some(exchange)))
}

/// What records tell of exchanges and configurations, as in [`summary`]; what a server notes of itself is left out.
pub fn happened(records: &[Record]) -> Vec<String> {
    let of_itself = |record: &&Record| {
        let own =
            ["started", "degradation", "read", "grant", "group", "reconciled", "checkpoint", "not compared"];
        own.iter().all(|word| !told(record).starts_with(word))
    };
    shortened(records.iter().filter(of_itself))
}

fn shortened<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for record in records {
        let line = told(record);
        let words: Vec<&str> = line.split(' ').collect();
        let [way @ ("sent" | "received"), direction, _, ending] = words[..] else {
            lines.push(line);
            continue;
        };
        let continued = format!("{way} {direction} continue");
        lines.retain(|line| *line != continued);
        lines.push(format!("{way} {direction} {ending}"));
    }
    lines
}

/// Messages of the request and of the response that the record of an exchange's end counts, where there is one.
pub fn ended_after(records: &[Record], exchange: ExchangeId) -> Option<(u64, u64)> {
    records.iter().find_map(|record| match record.leaf.entry.as_ref()? {
        Entry::Ended(ended) if ended.exchange_id.as_ref() == exchange.as_bytes() => {
            Some((ended.requests, ended.responses))
        }
        _ => None,
    })
}

/// The manifests of one direction of an exchange, in order.
pub fn manifests(records: &[Record], exchange: ExchangeId, direction: Direction) -> Vec<Manifest> {
    let of = |manifest: &Manifest| manifest.exchange == exchange && manifest.direction == direction;
    let mut found: Vec<_> = records.iter().filter_map(manifest_of).filter(of).collect();
    found.sort_by_key(|manifest| manifest.index);
    found
}

/// The exchange that a record is about.
pub fn exchange_of(record: &Record) -> Option<ExchangeId> {
    match record.leaf.entry.as_ref()? {
        Entry::Message(message) => Some(Manifest::parse(message.manifest.clone()).unwrap().exchange),
        Entry::Recovered(recovered) => {
            Some(Manifest::parse(recovered.message.as_ref()?.manifest.clone()).unwrap().exchange)
        }
        Entry::Ended(ended) => ExchangeId::from_slice(&ended.exchange_id).ok(),
        Entry::Refusal(refusal) => ExchangeId::from_slice(&refusal.exchange_id).ok(),
        Entry::Erasure(erasure) => ExchangeId::from_slice(&erasure.exchange_id).ok(),
        _ => None,
    }
}

/// The manifest of a record of a message.
pub fn manifest_of(record: &Record) -> Option<Manifest> {
    match record.leaf.entry.as_ref()? {
        Entry::Message(message) => Some(Manifest::parse(message.manifest.clone()).unwrap()),
        _ => None,
    }
}
