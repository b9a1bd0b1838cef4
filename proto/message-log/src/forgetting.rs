//! Erasing the pseudonyms of a person, and destroying the keys of periods: first the act is durable in the log, then the
//! bytes are overwritten: records in segments first, then the tables that were made of them. A restart does again what a
//! crash interrupted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trave_proto::schema::log::{PersonsChange, leaf};

use crate::concerned;
use crate::disk::{DiskFile, fill_zeros};
use crate::entry::kind;
use crate::error::LogError;
use crate::finding;
use crate::pseudonyms::{PSEUDONYM_LEN, Period};
use crate::reading;
use crate::record::{HEADER, Header, Kind};
use crate::segment::{EXPIRED, SegmentHeader};
use crate::shared::Shared;

/// What a leaf of [`kind::PERSONS`] says is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forgetting {
    /// Pseudonyms, by their leaf and where their record begins.
    pub(crate) places: Vec<(u64, u64)>,
    /// All keys of periods before this one.
    pub(crate) before: Option<Period>,
    /// The place of the act, where it is done again; none where it is done for the first time. What was done before a
    /// segment was written anew is done, and its places there are no more.
    pub(crate) again: Option<u64>,
}

impl Forgetting {
    /// Of a leaf's entry.
    pub(crate) fn of(change: &PersonsChange) -> Self {
        let places = change.erased.iter().map(|place| (place.leaf, place.offset)).collect();
        Self { places, before: Period::parse(&change.destroyed_before), again: None }
    }
}

/// Does what an act says. Says how many pseudonyms or keys it concerned. Done twice, it changes nothing more.
pub(crate) fn forget(shared: &Shared, forgetting: &Forgetting) -> Result<u64, LogError> {
    let keys = forgetting.before.map_or(Ok(0), |before| shared.period_keys.destroy(before))?;
    let mut by_file: BTreeMap<PathBuf, Vec<(u64, u64)>> = BTreeMap::new();
    let mut failed = None;
    for &(leaf, offset) in &forgetting.places {
        let is_pruned = || finding::closed(shared, leaf).is_some_and(|segment| segment.is_pruned());
        match finding::entry(shared, leaf) {
            Ok((entry, _)) if entry.kind == EXPIRED => {}
            // No archive holds pseudonyms: the table that is here was all that was left.
            Ok(_) if is_pruned() => {}
            Ok((_, path)) if is_done(shared, &path, forgetting.again)? => {}
            Ok((entry, path)) if offset < entry.offset => {
                by_file.entry(path).or_default().push((leaf, offset))
            }
            Ok((_, path)) => failed = Some(LogError::damaged(&path, offset, "a pseudonym behind its leaf")),
            Err(error) => failed = Some(error),
        }
    }
    for (path, places) in &by_file {
        let file = shared.disk.open(path).map_err(LogError::disk("open", path))?;
        for &(_, offset) in places {
            match is_pseudonym(&*file, offset) {
                Ok(true) => {
                    let from = offset + HEADER as u64;
                    fill_zeros(&*file, from, from + PSEUDONYM_LEN as u64)
                        .map_err(LogError::disk("overwrite", path))?;
                }
                Ok(false) => failed = Some(LogError::damaged(path, offset, "no pseudonym stands there")),
                Err(error) => failed = Some(LogError::disk("read", path)(error)),
            }
        }
        file.sync().map_err(LogError::disk("sync", path))?;
    }
    // Whoever has copied a segment meanwhile copies it again.
    shared.overwritten.fetch_add(1, Ordering::AcqRel);
    take_out(shared, &forgetting.places)?;
    failed.map_or(Ok(keys + forgetting.places.len() as u64), Err)
}

/// Whether a segment was written anew since this act: then what it says was done before.
fn is_done(shared: &Shared, path: &Path, again: Option<u64>) -> Result<bool, LogError> {
    // The act itself was in the log by then.
    again.map_or(Ok(false), |act| is_rewritten_since(shared, path, act.saturating_add(1)))
}

/// Whether a segment was written anew when the log had `size` leaves or more: then nothing stands where it stood.
pub(crate) fn is_rewritten_since(shared: &Shared, path: &Path, size: u64) -> Result<bool, LogError> {
    let file = match shared.disk.open(path) {
        Ok(file) => file,
        // It was pruned: there is nothing to be mistaken for something else.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(LogError::disk("open", path)(error)),
    };
    Ok(SegmentHeader::read(&*file, path)?.compact.is_some_and(|compact| compact.as_of >= size))
}

/// Nothing but a pseudonym is overwritten, whatever an act says.
fn is_pseudonym(file: &dyn DiskFile, offset: u64) -> std::io::Result<bool> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, offset)?;
    let header = Header::read(&bytes);
    Ok(header.is_some_and(|header| header.kind == Kind::Pseudonym && header.len == PSEUDONYM_LEN))
}

/// Takes pseudonyms out of the tables.
fn take_out(shared: &Shared, places: &[(u64, u64)]) -> Result<(), LogError> {
    let closed = {
        let mut catalogue = shared.catalogue_mut();
        concerned::wipe_rows(&mut catalogue.open.persons, |row| places.contains(&(row.leaf, row.offset)));
        catalogue.closed.clone()
    };
    for segment in closed {
        let within = segment.first..segment.first + segment.count;
        let here: Vec<_> = places.iter().filter(|(leaf, _)| within.contains(leaf)).copied().collect();
        if !here.is_empty() {
            concerned::remove(shared, &segment, &here)?;
        }
    }
    Ok(())
}

/// What the act in leaf `index` says is to be done.
pub(crate) fn act(shared: &Shared, index: u64) -> Result<Forgetting, LogError> {
    match reading::locate(shared, index)?.read()?.leaf.entry {
        Some(leaf::Entry::Persons(change)) => {
            Ok(Forgetting { again: Some(index), ..Forgetting::of(&change) })
        }
        _ => Err(LogError::Refused("a leaf that says nothing of persons")),
    }
}

/// The places of all pseudonyms that acts in the log have had erased.
pub(crate) fn erased(shared: &Arc<Shared>) -> Result<std::collections::BTreeSet<(u64, u64)>, LogError> {
    let size = shared.catalogue().open.next();
    let mut places = std::collections::BTreeSet::new();
    for entry in finding::Entries::new(shared.clone(), 0..size) {
        let (index, entry) = entry?;
        if entry.kind == kind::PERSONS {
            places.extend(act(shared, index)?.places);
        }
    }
    Ok(places)
}
