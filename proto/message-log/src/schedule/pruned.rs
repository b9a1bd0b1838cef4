//! What is due of a segment that was pruned: by what is kept of it here.

use std::collections::HashSet;

use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::PrunedSubject;

use super::{Schedule, Survey};
use crate::erasure::Contents;
use crate::error::LogError;
use crate::finding;
use crate::reading;
use crate::remnant::{self, Remnant};
use crate::segment::{EXPIRED, LeafEntry};
use crate::shared::{Closed, Shared};

/// What is known on this server of a record that was pruned: itself it is in the archive alone.
#[derive(Debug, Clone, PartialEq)]
pub struct PrunedRecord {
    /// Its place in the log.
    pub index: u64,
    /// Its [`kind`].
    pub kind: u8,
    /// The exchange that it is about.
    pub exchange: Option<ExchangeId>,
    /// When it was logged.
    pub logged: Time,
    /// Of a message or a refusal: what it is about.
    pub subject: Option<PrunedSubject>,
}

impl PrunedRecord {
    fn of(index: u64, entry: &LeafEntry, remnant: &Remnant) -> Self {
        Self {
            index,
            kind: entry.kind,
            exchange: ExchangeId::from_slice(&entry.exchange).ok(),
            logged: Time::from_millis(entry.time),
            subject: remnant.subject(index).cloned(),
        }
    }
}

/// What is known of a record that was pruned; none if the record is here, or was expired.
pub(crate) fn pruned_record(shared: &Shared, index: u64) -> Result<Option<PrunedRecord>, LogError> {
    let Some(segment) = finding::closed(shared, index).filter(|segment| segment.is_pruned()) else {
        return Ok(None);
    };
    let entry = segment.index().leaf(index)?.filter(|entry| !remnant::is_kept(entry.kind));
    let Some(entry) = entry else { return Ok(None) };
    let remnant = Remnant::open(&*shared.disk, &segment.path)?;
    Ok(Some(PrunedRecord::of(index, &entry, &remnant)))
}

/// Looks through a pruned segment for what is due at `now`. Its contents go one by one, by their keys; its records when all
/// that are in the archive alone are due, and none before: they stand in one object. What of the others is due then goes with
/// them, or, where nothing is in the archive alone any more, when it is due.
pub(super) fn survey(
    shared: &Shared,
    segment: &Closed,
    now: Time,
    schedule: &mut dyn Schedule,
) -> Result<Survey, LogError> {
    let mut survey = Survey::new(segment.first);
    let (remnant, index) = (Remnant::open(&*shared.disk, &segment.path)?, segment.index());
    let is_due = |time: Option<Time>| time.is_some_and(|time| time <= now);
    let (mut stays, mut slots, mut all) = (HashSet::new(), Vec::new(), true);
    for at in segment.first..segment.first + segment.count {
        let entry = index.leaf(at)?.ok_or_else(|| segment.pruned())?;
        if entry.kind == EXPIRED {
            continue;
        }
        let kept = remnant::is_kept(entry.kind);
        let due = match kept {
            true => schedule.due(at, &reading::locate(shared, at)?.read()?.leaf)?,
            false => schedule.due_pruned(&PrunedRecord::of(at, &entry, &remnant))?,
        };
        survey.dated(entry.kind, due.record);
        if is_due(due.record) {
            survey.records.push(at);
        } else {
            all &= kept;
        }
        let mut next = due.record.filter(|_| !is_due(due.record));
        if let Some(slot) = remnant.slot(at)
            && shared.keys.is_live(slot)?
        {
            match is_due(due.content) {
                true => slots.push((at, slot)),
                false => {
                    stays.insert(slot);
                    next = [next, due.content].into_iter().flatten().min();
                }
            }
        }
        survey.next = [survey.next, next].into_iter().flatten().min();
    }
    slots.retain(|(_, slot)| !stays.contains(slot));
    if !all {
        survey.stuck = survey.records.len() as u64;
        survey.records.clear();
    }
    let gone: HashSet<_> = survey.records.iter().copied().collect();
    survey.contents = slots.into_iter().map(|(at, _)| at).filter(|at| !gone.contains(at)).collect();
    Ok(survey)
}

/// Of a pruned segment, the keys are here, and are all that is needed.
pub(super) fn overwrite(shared: &Shared, segment: &Closed, due: &[u64]) -> Result<u64, LogError> {
    let (remnant, index) = (Remnant::open(&*shared.disk, &segment.path)?, segment.index());
    let due: HashSet<u64> = due.iter().copied().collect();
    let (mut contents, mut spared) = (Contents::default(), HashSet::new());
    for at in segment.first..segment.first + segment.count {
        match (remnant.slot(at), due.contains(&at)) {
            (Some(slot), true) => {
                if let Some(entry) = index.leaf(at)? {
                    shared.key_ring.forget(&entry.exchange);
                }
                contents.add_slot(slot);
            }
            (Some(slot), false) => drop(spared.insert(slot)),
            (None, _) => {}
        }
    }
    contents.spare(&spared);
    contents.destroy(shared)
}
