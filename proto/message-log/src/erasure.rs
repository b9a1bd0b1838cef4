//! Erasing the contents of an exchange: first the act is durable in the log, then the key is overwritten, then the bytes.
//! A restart does again what a crash interrupted, and every restart what could not be finished so far.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trave_proto::schema::log::StoredContent;

use crate::disk::{fill_zeros, read_small, replace};
use crate::entry::kind;
use crate::error::LogError;
use crate::finding;
use crate::forgetting;
use crate::reading::{self, Located};
use crate::record::{CONTENT_PREFIX, HEADER};
use crate::remnant::Remnant;
use crate::segment::LeafEntry;
use crate::shared::{Recovered, Shared};

/// Makes unreadable the contents of `exchange` in the leaves before index `before`, where the erasure is logged. Returns
/// how many there are. Done twice, it changes nothing more. A record that cannot be read does not keep the others from
/// being erased; the error is told afterwards.
pub(crate) fn overwrite(shared: &Shared, exchange: &[u8; 16], before: u64) -> Result<u64, LogError> {
    let mut contents = Contents::default();
    for index in finding::of_exchange(shared, exchange, 0)?.into_iter().take_while(|index| *index < before) {
        let found = match reading::locate(shared, index) {
            // The bytes are in the archive alone, and its slot is all that is needed to make them unreadable there.
            Err(LogError::Pruned { .. }) => contents.add_pruned(shared, index),
            located => located.and_then(|located| contents.add(&located)),
        };
        contents.failed = found.err().or(contents.failed);
    }
    contents.destroy(shared)
}

/// What is to be overwritten: numbers, and no open file, so that an exchange may have as many messages as it likes.
#[derive(Default)]
pub(crate) struct Contents {
    count: u64,
    slots: BTreeSet<u64>,
    /// Where ciphertexts stand, by segment file.
    places: BTreeMap<PathBuf, Vec<Range<u64>>>,
    /// Why not all are here.
    failed: Option<LogError>,
}

impl Contents {
    fn add_pruned(&mut self, shared: &Shared, index: u64) -> Result<(), LogError> {
        let Some(segment) = finding::closed(shared, index) else { return Ok(()) };
        if let Some(slot) = Remnant::open(&*shared.disk, &segment.path)?.slot(index) {
            self.add_slot(slot);
        }
        Ok(())
    }

    /// Adds a content of which the key alone is here.
    pub(crate) fn add_slot(&mut self, slot: u64) {
        self.count += 1;
        self.slots.insert(slot);
    }

    /// Overwrites the keys, then the bytes.
    pub(crate) fn destroy(self, shared: &Shared) -> Result<u64, LogError> {
        // Durable before a byte is overwritten: whoever finds a content half overwritten knows by its key that it may be.
        shared.keys.erase(self.slots.iter().copied())?;
        let Self { count, places, mut failed, .. } = self;
        for (path, places) in &places {
            let file = match shared.disk.open(path).map_err(LogError::disk("open", path)) {
                Ok(file) => file,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            for place in places {
                fill_zeros(&*file, place.start, place.end).map_err(LogError::disk("overwrite", path))?;
            }
            file.sync().map_err(LogError::disk("sync", path))?;
        }
        // Whoever has copied a segment meanwhile copies it again.
        shared.overwritten.fetch_add(1, Ordering::AcqRel);
        failed.map_or(Ok(count), Err)
    }

    /// Leaves the keys in these slots as they are: they are those of contents that stay.
    pub(crate) fn spare(&mut self, slots: &HashSet<u64>) {
        self.slots.retain(|slot| !slots.contains(slot));
    }

    /// Adds the content of a record, if it has one.
    pub(crate) fn add(&mut self, located: &Located) -> Result<(), LogError> {
        let Some(StoredContent { offset, length, key_slot, .. }) = located.read()?.attachment.content else {
            return Ok(());
        };
        self.count += 1;
        self.slots.insert(key_slot);
        let start = offset.saturating_add((HEADER + CONTENT_PREFIX) as u64);
        let end = offset.saturating_add(HEADER as u64).saturating_add(u64::from(length));
        // The attachment says where the content is; it must be where contents are, before its own leaf.
        if end > located.entry.offset {
            return Err(LogError::damaged(&located.path, located.entry.offset, "its content lies elsewhere"));
        }
        self.places.entry(located.path.clone()).or_default().push(start..end);
        Ok(())
    }
}

/// Does again the erasures of the last run, that is, since the log was last opened: a crash may have come between the act
/// and its effect. And those that could not be finished at an earlier start, as long as they cannot.
pub(crate) fn redo(shared: &Arc<Shared>, recovered: &mut Recovered) -> Result<(), LogError> {
    let kept = unfinished(shared)?;
    let mut left = BTreeSet::new();
    for (index, entry) in to_redo(shared, kept.as_ref())? {
        recovered.erasures_redone += 1;
        let done = match entry.kind {
            kind::PERSONS => {
                forgetting::act(shared, index).and_then(|act| forgetting::forget(shared, &act).map(|_| ()))
            }
            _ => overwrite(shared, &entry.exchange, index).map(|_| ()),
        };
        match done {
            Err(error) if error.is_failed_write() => return Err(error),
            Err(error) => {
                let why = error.in_full();
                let what = format!(
                    "the erasure in record {index} is not finished, and is tried again at every start: {why}"
                );
                recovered.warnings.push(what);
                left.insert(index);
            }
            Ok(()) => {}
        }
    }
    // Before the log says that it was opened: from then on, the list alone knows of them.
    if kept.unwrap_or_default() == left { Ok(()) } else { keep_unfinished(shared, &left) }
}

/// The erasures since the log was last opened and those in `kept`; without a list, all that there are.
fn to_redo(shared: &Arc<Shared>, kept: Option<&BTreeSet<u64>>) -> Result<BTreeMap<u64, LeafEntry>, LogError> {
    let size = shared.catalogue().open.next();
    let mut found = BTreeMap::new();
    for entry in finding::Entries::new(shared.clone(), 0..size).rev() {
        let (index, entry) = entry?;
        if entry.kind == kind::STARTED && kept.is_some() {
            break;
        }
        if matches!(entry.kind, kind::ERASURE | kind::PERSONS) {
            found.insert(index, entry);
        }
    }
    for index in kept.into_iter().flatten() {
        found.insert(*index, finding::entry(shared, *index)?.0);
    }
    Ok(found)
}

/// The file that names the erasures that could not be finished, one index a line, between a first line and a checksum.
const UNFINISHED_FILE: &str = "erasures";
const FIRST_LINE: &str = "trave unfinished erasures 1";
const MAX_UNFINISHED: u64 = 16 << 20;

/// The erasures that could not be finished when the log was last opened; `None` if that is not known.
fn unfinished(shared: &Shared) -> Result<Option<BTreeSet<u64>>, LogError> {
    let path = shared.dir.join(UNFINISHED_FILE);
    match read_small(&*shared.disk, &path, MAX_UNFINISHED) {
        Ok(None) => Ok(Some(BTreeSet::new())),
        Ok(Some(bytes)) => Ok(parse(&bytes)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(LogError::disk("read", &path)(error)),
    }
}

fn keep_unfinished(shared: &Shared, indexes: &BTreeSet<u64>) -> Result<(), LogError> {
    let path = shared.dir.join(UNFINISHED_FILE);
    let bytes = to_bytes(indexes);
    replace(&*shared.disk, &shared.dir, UNFINISHED_FILE, &bytes).map_err(LogError::disk("write", &path))
}

fn to_bytes(indexes: &BTreeSet<u64>) -> Vec<u8> {
    let lines: String = indexes.iter().map(|index| format!("{index}\n")).collect();
    let text = format!("{FIRST_LINE}\n{lines}");
    format!("{text}{:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
}

fn parse(bytes: &[u8]) -> Option<BTreeSet<u64>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let lines = text.strip_prefix(FIRST_LINE)?.lines().skip(1);
    // The last line is the checksum: what does not read back as it was written is no list.
    let indexes = lines.map_while(|line| line.parse().ok());
    let count = text.lines().count().checked_sub(2)?;
    let indexes: BTreeSet<u64> = indexes.take(count).collect();
    (to_bytes(&indexes) == bytes).then_some(indexes)
}
