//! What schedules have overwritten, as the log says: contents and records whose time was over. Nothing is missing from a log
//! but what such a record covers; what is missing without one is a MISMATCH.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trave_proto::schema::log::Expiry;

/// Where the acts stand, by the first leaf of the segment that they are about; and what the last that were read cover.
#[derive(Debug, Default)]
pub(crate) struct Expiries(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// None: not looked for yet.
    acts: Option<HashMap<u64, Vec<u64>>>,
    /// Acts that stand in a later log, by the first leaf of the segment that they are about.
    elsewhere: HashMap<u64, Vec<Expiry>>,
    last: Option<(u64, Arc<Covered>)>,
}

/// The leaves of one segment that acts cover.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Covered {
    contents: Vec<Range<u64>>,
    records: Vec<Range<u64>>,
}

impl Covered {
    /// Whether the content of this leaf may be missing.
    pub(crate) fn contents(&self, index: u64) -> bool {
        within(&self.contents, index) || self.records(index)
    }

    /// Whether the record of this leaf may be missing.
    pub(crate) fn records(&self, index: u64) -> bool {
        within(&self.records, index)
    }

    /// Adds what an act covers.
    pub(crate) fn add(&mut self, act: &Expiry) {
        let ranges = if act.records { &mut self.records } else { &mut self.contents };
        ranges.extend(ranges_of(act));
    }
}

fn within(ranges: &[Range<u64>], index: u64) -> bool {
    ranges.iter().any(|range| range.contains(&index))
}

/// The leaves that an act names. A number that overflows ends it.
fn ranges_of(act: &Expiry) -> Vec<Range<u64>> {
    let (mut ranges, mut at) = (Vec::new(), act.segment);
    for pair in act.runs.chunks(2) {
        let [skipped, concerned] = *pair else { break };
        let Some((start, end)) =
            at.checked_add(skipped).and_then(|it| Some((it, it.checked_add(concerned)?)))
        else {
            break;
        };
        ranges.push(start..end);
        at = end;
    }
    ranges
}

/// The act that covers `indexes`, ascending, of the segment that begins with leaf `segment`.
pub(crate) fn act(segment: u64, records: bool, indexes: &[u64]) -> Expiry {
    let (mut runs, mut at) = (Vec::new(), segment);
    for run in indexes.chunk_by(|one, next| one + 1 == *next) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        runs.extend([first.saturating_sub(at), last + 1 - first]);
        at = last + 1;
    }
    Expiry { records, segment, runs, count: indexes.len() as u64 }
}

impl Expiries {
    /// The acts about a segment, if they were looked for, and what they cover, if that was read last.
    pub(crate) fn known(&self, segment: u64) -> (Option<Vec<u64>>, Option<Arc<Covered>>) {
        let state = self.lock();
        let last = state.last.as_ref().filter(|(last, _)| *last == segment);
        let acts = state.acts.as_ref().map(|acts| acts.get(&segment).cloned().unwrap_or_default());
        (acts, last.map(|(_, covered)| Arc::clone(covered)))
    }

    /// Remembers all acts, by segment; what came meanwhile is among them.
    pub(crate) fn found(&self, found: HashMap<u64, Vec<u64>>) {
        self.lock().acts.get_or_insert(found);
    }

    /// Remembers what `acts` acts cover of a segment, unless another came meanwhile.
    pub(crate) fn read(&self, segment: u64, acts: usize, covered: &Arc<Covered>) {
        let mut state = self.lock();
        if state.acts.as_ref().is_some_and(|known| known.get(&segment).map_or(0, Vec::len) == acts) {
            state.last = Some((segment, Arc::clone(covered)));
        }
    }

    /// Takes note of an act that is durable in a later log.
    pub(crate) fn note_elsewhere(&self, act: &Expiry) {
        let mut state = self.lock();
        let acts = state.elsewhere.entry(act.segment).or_default();
        if !acts.contains(act) {
            acts.push(act.clone());
        }
        state.last = None;
    }

    /// Adds what acts in a later log cover of a segment.
    pub(crate) fn add_elsewhere(&self, segment: u64, covered: &mut Covered) {
        self.lock().elsewhere.get(&segment).into_iter().flatten().for_each(|act| covered.add(act));
    }

    /// Takes note of an act that is durable at `index`.
    pub(crate) fn note(&self, index: u64, act: &Expiry) {
        let mut state = self.lock();
        if let Some(acts) = &mut state.acts {
            let acts = acts.entry(act.segment).or_default();
            if !acts.contains(&index) {
                acts.push(index);
            }
        }
        state.last = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_names_the_leaves_that_it_was_made_of() {
        for indexes in [vec![], vec![10], vec![10, 11, 12], vec![11, 13, 14, 20], vec![15, 16]] {
            let act = act(10, true, &indexes);
            let mut covered = Covered::default();
            covered.add(&act);
            let found: Vec<_> = (0..30).filter(|index| covered.records(*index)).collect();
            assert_eq!((found, act.count), (indexes.clone(), indexes.len() as u64));
            assert!(indexes.iter().all(|index| covered.contents(*index)), "a record's content goes with it");
        }
        let contents = act(10, false, &[12]);
        let mut covered = Covered::default();
        covered.add(&contents);
        assert!(covered.contents(12) && !covered.records(12) && !covered.contents(11));
    }

    #[test]
    fn a_hostile_act_covers_nothing_more() {
        let act = Expiry { segment: 10, runs: vec![u64::MAX, 5, 3], ..Expiry::default() };
        assert!(ranges_of(&act).is_empty());
        let odd = Expiry { segment: 10, runs: vec![1, 2, 7], ..Expiry::default() };
        assert_eq!(ranges_of(&odd), vec![Range { start: 11, end: 13 }]);
    }
}
