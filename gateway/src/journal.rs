//! What the message log tells whoever may ask: which exchanges there were, about what, and how they ended.

use std::fmt;

use trave_message_log::{Log, LogError, PrunedRecord, kind};
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Direction, Ending, Manifest};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{ExchangeEnded, Leaf, Outcome, Refusal};
use trave_proto::schema::operator::{ListLogRequest, ListLogResponse};
use trave_proto::search::given;

/// How an exchange can stand.
const OUTCOMES: [&str; 7] = ["answered", "failed", "aborted", "refused", "unknown", "in_flight", PRUNED];
/// Of an exchange whose records are in the archive alone: how it ended is not known here.
const PRUNED: &str = "pruned";
/// The most that one query shows.
const MOST: usize = 1_000_000;

/// What is asked for. An absent text asks for everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    from: i64,
    /// Not included.
    to: Option<i64>,
    client: Option<String>,
    service: Option<String>,
    purpose: Option<String>,
    outcome: Option<String>,
    /// The latest so many.
    limit: usize,
}

impl Query {
    /// Reads a request; an error in words if it asks for what there cannot be.
    pub(crate) fn read(request: &ListLogRequest) -> Result<Self, String> {
        for (name, text) in [
            ("client", &request.client),
            ("service", &request.service),
            ("purpose", &request.purpose),
            ("outcome", &request.outcome),
        ] {
            given(name, text.as_deref()).map_err(|empty| empty.to_string())?;
        }
        if let Some(outcome) = request.outcome.as_deref().filter(|it| !OUTCOMES.contains(it)) {
            return Err(format!("{outcome:?} is no outcome\nhint: there are {}", OUTCOMES.join(", ")));
        }
        let limit = usize::try_from(request.limit).unwrap_or(MOST);
        Ok(Self {
            from: request.from_ms,
            to: (request.to_ms != 0).then_some(request.to_ms),
            client: request.client.clone(),
            service: request.service.clone(),
            purpose: request.purpose.clone(),
            outcome: request.outcome.clone(),
            limit: if limit == 0 { MOST } else { limit.min(MOST) },
        })
    }

    /// The same, where so many are found already.
    pub(crate) fn up_to(&self, found: usize) -> Self {
        Self { limit: self.limit.saturating_sub(found), ..self.clone() }
    }

    fn matches(&self, entry: &ListLogResponse) -> bool {
        let is = |asked: &Option<String>, found: &str| asked.as_deref().is_none_or(|asked| asked == found);
        entry.time_ms >= self.from
            && self.to.is_none_or(|to| entry.time_ms < to)
            && is(&self.client, &entry.client)
            && is(&self.service, &entry.service)
            && is(&self.purpose, &entry.purpose)
            && is(&self.outcome, &entry.outcome)
    }
}

/// As the record of the reading keeps it.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("log list")?;
        if self.from != 0 {
            write!(f, " from={}", Time::from_millis(self.from))?;
        }
        if let Some(to) = self.to {
            write!(f, " to={}", Time::from_millis(to))?;
        }
        let texts = [&self.client, &self.service, &self.purpose, &self.outcome];
        for (name, text) in ["client", "service", "purpose", "outcome"].into_iter().zip(texts) {
            if let Some(text) = text {
                write!(f, " {name}={text:?}")?;
            }
        }
        if self.limit < MOST { write!(f, " limit={}", self.limit) } else { Ok(()) }
    }
}

/// What an entry of a listing is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    /// An exchange.
    Exchange(ExchangeId),
    /// The refusal at this place in the log, of a call that had not become an exchange.
    Refusal(u64),
}

/// What matches, the earliest first. `begun` is the place in the log where this run of the server begins. Reads the disk;
/// holds no more than 32 bytes for each exchange of the time asked for.
pub(crate) fn find(log: &Log, query: &Query, begun: u64) -> Result<Vec<Found>, LogError> {
    let mut candidates: Vec<(i64, Found)> = log
        .tail_ids(Time::from_millis(query.from))?
        .into_iter()
        .map(|id| (id.time().as_millis(), Found::Exchange(id)))
        .collect();
    for record in log.scan_kind(kind::REFUSAL, 0) {
        let record = record?;
        if matches!(&record.leaf.entry, Some(LeafEntry::Refusal(refusal)) if refusal.exchange_id.is_empty()) {
            candidates.push((record.leaf.logged_ms, Found::Refusal(record.index)));
        }
    }
    candidates.sort_by_key(|(time, _)| *time);
    let mut found = Vec::new();
    for (_, one) in candidates.into_iter().rev() {
        if found.len() == query.limit {
            break;
        }
        if let Some((index, entry)) = look(log, one, begun)?
            && query.matches(&entry)
        {
            found.push((index, one));
        }
    }
    // In the log's own order, which tells more than clocks do.
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, one)| one).collect())
}

/// The entry; none if the log says of an exchange only that it was erased or looked at. Reads the disk.
pub(crate) fn entry(log: &Log, found: Found, begun: u64) -> Result<Option<ListLogResponse>, LogError> {
    Ok(look(log, found, begun)?.map(|(_, entry)| entry))
}

/// The entry, and the place of its first record.
fn look(log: &Log, found: Found, begun: u64) -> Result<Option<(u64, ListLogResponse)>, LogError> {
    match found {
        Found::Exchange(id) => {
            let places = log.places(id)?;
            Ok(places.first().copied().zip(of_exchange(log, id, &places, begun)?))
        }
        Found::Refusal(index) => {
            let Some(leaf) = kept(log, index)? else { return Ok(None) };
            let Some(LeafEntry::Refusal(refusal)) = &leaf.entry else { return Ok(None) };
            Ok(Some((index, of_refusal(refusal, leaf.logged_ms))))
        }
    }
}

/// What is told of an exchange with records at these `places`. Reads one leaf after the other: contents are not looked at, and a long stream costs no more memory than a short one.
pub(crate) fn of_exchange(
    log: &Log,
    id: ExchangeId,
    places: &[u64],
    begun: u64,
) -> Result<Option<ListLogResponse>, LogError> {
    let mut entry: Option<ListLogResponse> = None;
    let (mut answered, mut ended, mut refused) = (None, None::<ExchangeEnded>, false);
    for index in places {
        let Some(leaf) = kept(log, *index)? else {
            let told = log.pruned(*index)?.as_ref().and_then(of_pruned);
            entry = entry.or(told);
            continue;
        };
        let recovered = matches!(leaf.entry, Some(LeafEntry::Recovered(_)));
        let leaf_entry = match leaf.entry {
            Some(LeafEntry::Recovered(one)) => one.message.map(LeafEntry::Message),
            entry => entry,
        };
        match leaf_entry {
            Some(LeafEntry::Message(message)) => {
                let Ok(manifest) = Manifest::parse(message.manifest) else { continue };
                let response = manifest.direction == Direction::Response;
                let side = if message.sent == response { "provider" } else { "client" };
                // Whoever asks first in vain under an id, and then again, does not hide behind the refusal what took place.
                if std::mem::take(&mut refused) || entry.as_ref().is_some_and(|entry| entry.outcome == PRUNED)
                {
                    entry = None;
                }
                let entry = entry.get_or_insert_with(|| about(&manifest, leaf.logged_ms, side));
                entry.recovered += u64::from(recovered);
                if let Some(service) = &manifest.bridged_to {
                    entry.bridged_to = service.to_string();
                }
                *(if response { &mut entry.responses } else { &mut entry.requests }) += 1;
                match manifest.ending {
                    Ending::End if response => answered = Some("answered"),
                    Ending::Abort => answered = Some("aborted"),
                    _ => {}
                }
            }
            Some(LeafEntry::Ended(end)) => ended = ended.or(Some(end)),
            Some(LeafEntry::Refusal(refusal)) if entry.is_none() => {
                refused = true;
                entry = Some(of_refusal(&refusal, leaf.logged_ms));
            }
            _ => {}
        }
    }
    let Some(mut entry) = entry else { return Ok(None) };
    entry.exchange_id = bytes::Bytes::copy_from_slice(id.as_bytes());
    if let Some(end) = ended.as_ref().filter(|_| entry.bridged_to.is_empty()) {
        // A bridge's own record: no answer came that would name it.
        entry.bridged_to.clone_from(&end.bridged_to);
    }
    if entry.outcome.is_empty() {
        let cut_off = places.last().is_some_and(|last| *last < begun);
        let open = if cut_off { "unknown" } else { "in_flight" };
        entry.outcome = ended.as_ref().map_or(answered.unwrap_or(open), outcome).into();
        entry.reason = ended.map(|end| end.reason).unwrap_or_default();
    }
    Ok(Some(entry))
}

fn outcome(end: &ExchangeEnded) -> &'static str {
    match end.outcome() {
        Outcome::Failed => "failed",
        Outcome::Aborted => "aborted",
        Outcome::Unknown | Outcome::Unspecified => "unknown",
    }
}

fn about(manifest: &Manifest, time_ms: i64, side: &str) -> ListLogResponse {
    ListLogResponse {
        time_ms,
        client: manifest.client.to_string(),
        service: manifest.service.to_string(),
        method: manifest.method.as_ref().map(ToString::to_string).unwrap_or_default(),
        purpose: manifest.purpose.to_string(),
        legal_basis: manifest.legal_basis.to_string(),
        bridged_from: manifest.bridged_from.as_ref().map(ToString::to_string).unwrap_or_default(),
        side: side.into(),
        ..ListLogResponse::default()
    }
}

/// The leaf at `index`; none if it has expired or was pruned.
fn kept(log: &Log, index: u64) -> Result<Option<Leaf>, LogError> {
    match log.leaf(index) {
        Err(LogError::Expired { .. } | LogError::Pruned { .. }) => Ok(None),
        leaf => leaf.map(Some),
    }
}

/// What is still known here of a message or a refusal that was pruned; none of other records.
pub(crate) fn of_pruned(record: &PrunedRecord) -> Option<ListLogResponse> {
    let subject = record.subject.clone()?;
    let exchange_id = record.exchange.map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()));
    Some(ListLogResponse {
        exchange_id: exchange_id.unwrap_or_default(),
        time_ms: record.logged.as_millis(),
        client: subject.client,
        service: subject.service,
        purpose: subject.purpose,
        legal_basis: subject.legal_basis,
        outcome: PRUNED.into(),
        ..ListLogResponse::default()
    })
}

/// What is told of a refusal.
pub(crate) fn of_refusal(refusal: &Refusal, time_ms: i64) -> ListLogResponse {
    let provider = !refusal.peer.is_empty();
    ListLogResponse {
        exchange_id: refusal.exchange_id.clone(),
        time_ms,
        client: refusal.client.clone(),
        service: refusal.service.clone(),
        method: refusal.method.clone(),
        purpose: refusal.purpose.clone(),
        legal_basis: refusal.legal_basis.clone(),
        outcome: "refused".into(),
        reason: refusal.reason.clone(),
        side: if provider { "provider" } else { "client" }.into(),
        ..ListLogResponse::default()
    }
}
