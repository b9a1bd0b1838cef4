//! Reading a whole log to see whether it is what was written: checksums, chain, tree, checkpoints, contents, indexes.
//!
//! Nothing is changed, and exchanges go on meanwhile. Every problem is said in words; one does not hide the next.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use trave_proto::checkpoint::{Checkpoint, NoteVerifier};
use trave_proto::digest::Digest;

use crate::archive::ArchiveState;
use crate::concerned;
use crate::error::LogError;
use crate::finding;
use crate::forgetting;
use crate::index::file::persons;
use crate::index::{Index, MemoryIndex, PersonRow, file};
use crate::pruning;
use crate::reading::{self, ContentState};
use crate::record::Kind;
use crate::recovery;
use crate::remnant::Remnant;
use crate::scan;
use crate::segment::{self, SegmentHeader};
use crate::shared::{Closed, Shared};
use crate::tree::Edge;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Leaves read.
    pub records: u64,
    /// Leaves that were pruned: their hashes are here, as is a statement.
    pub pruned: u64,
    /// Contents that decrypt.
    pub contents: u64,
    /// Contents that were erased, or whose time was over, as a record says.
    pub erased: u64,
    /// Records whose time was over, as a record says: the hashes of their leaves are left.
    pub expired: u64,
    /// Checkpoints that agree with the leaves.
    pub checkpoints: u64,
    /// What is wrong, in words; empty if nothing is.
    pub problems: Vec<String>,
}

impl Report {
    fn problem(&mut self, error: &LogError) {
        self.problems.push(error.in_full());
    }
}

/// Reads everything that is durable now.
pub(crate) fn check(shared: &Arc<Shared>, key: &NoteVerifier) -> Report {
    let mut before = shared.rewritten();
    loop {
        let report = check_once(shared, key);
        // A segment that is written anew meanwhile is met twice, or its file is gone.
        if report.problems.is_empty() || shared.rewritten() == before {
            return report;
        }
        before = shared.rewritten();
    }
}

fn check_once(shared: &Arc<Shared>, key: &NoteVerifier) -> Report {
    let mut check = Check { shared, key, report: Report::default(), tree: Edge::default(), chain: None };
    let (closed, open_path, size) = {
        let catalogue = shared.catalogue();
        (catalogue.closed.clone(), catalogue.open_path.clone(), catalogue.open.next())
    };
    let mut overwritten = BTreeSet::new();
    let mut persons = Vec::new();
    let (stated, unreadable) = pruning::stated(shared, size);
    unreadable.iter().for_each(|error| check.report.problem(error));
    for segment in &closed {
        if segment.is_pruned() {
            check.pruned(segment, &stated);
            continue;
        }
        let index = check.segment(&segment.path, segment.first, None);
        let Some(mut index) = index else { continue };
        overwritten.extend(std::mem::take(&mut index.overwritten));
        persons.push((segment.clone(), std::mem::take(&mut index.persons)));
        let differs = match same_index(&*segment.index(), &index) {
            Ok(None) => continue,
            Ok(Some(what)) => format!("it differs in {what} from the segment"),
            Err(error) => error.in_full(),
        };
        let (what, path) = ("remove it: it is made again at the next start", file::path_of(&segment.path));
        check.report.problems.push(format!("the index {}: {differs}; {what}", path.display()));
    }
    // An earlier generation has no open segment, and what erased pseudonyms in it stands in another log.
    if open_path.as_os_str().is_empty() {
        overwritten.clear();
    } else {
        let next = closed.last().map_or(0, |last| last.first + last.count);
        let open = check.segment(&open_path, next, Some(size));
        overwritten.extend(open.map(|index| index.overwritten).unwrap_or_default());
    }
    match recovery::is_restored(&*shared.disk, &shared.dir) {
        // An archive holds no pseudonyms, and so does what came out of it.
        Ok(true) => overwritten.clear(),
        Ok(false) => {}
        Err(error) => check.report.problem(&error),
    }
    if let Err(error) = check.persons(&persons, overwritten) {
        check.report.problem(&error);
    }
    check.kept_tree(size);
    for index in 0..size {
        check.content(index);
    }
    check.report
}

struct Check<'a> {
    shared: &'a Arc<Shared>,
    key: &'a NoteVerifier,
    report: Report,
    tree: Edge,
    /// Chain value of the last segment's last marker.
    chain: Option<Digest>,
}

impl Check<'_> {
    /// A segment that is not here: a statement in the log must say so, and its hashes must still lead to the checkpoints
    /// that come later.
    fn pruned(&mut self, segment: &Closed, stated: &ArchiveState) {
        self.report.pruned += segment.count;
        if !stated.is_pruned(segment.first, segment::generation(&segment.path)) {
            let last = segment.first + segment.count - 1;
            let what = format!(
                "the records {} to {last} are not here, and no statement says that they were pruned",
                segment.first
            );
            self.report.problems.push(what);
        }
        match Remnant::open(&*self.shared.disk, &segment.path) {
            Ok(kept) if kept.is_of(segment.first, segment.count) => {}
            Ok(kept) => {
                self.report.problem(&LogError::damaged(&kept.path, 0, "it is of another segment"));
            }
            Err(error) => self.report.problem(&error),
        }
        let index = segment.index();
        for leaf in segment.first..segment.first + segment.count {
            match index.leaf(leaf) {
                Ok(Some(entry)) => self.tree.push(entry.hash),
                Ok(None) => self.report.problem(&segment.pruned()),
                Err(error) => self.report.problem(&error),
            }
        }
        // The index holds the chain value, too; where the segment after this one is here, it must begin with that.
        self.chain = None;
    }

    /// Reads a segment from end to end. `open_size`: it is still written to, and had that many leaves.
    fn segment(&mut self, path: &Path, first: u64, open_size: Option<u64>) -> Option<MemoryIndex> {
        self.report.segments += 1;
        let read = self.read(path, first, open_size);
        if let Err(error) = &read {
            self.report.problem(error);
        }
        let index = read.ok()?;
        self.report.records += index.leaves.len() as u64;
        // Checkpoints are written right after the leaves that they cover.
        let mut leaves = index.leaves.iter();
        for note in index.notes.iter().filter(|note| note.checkpoint) {
            while self.tree.size() < note.size
                && let Some(leaf) = leaves.next()
            {
                self.tree.push(leaf.hash);
            }
            match self.checkpoint(path, note.offset) {
                Ok(()) => self.report.checkpoints += 1,
                Err(error) => self.report.problem(&error),
            }
        }
        leaves.for_each(|leaf| self.tree.push(leaf.hash));
        Some(index)
    }

    fn read(&mut self, path: &Path, first: u64, open_size: Option<u64>) -> Result<MemoryIndex, LogError> {
        let disk = &self.shared.disk;
        let file = disk.open(path).map_err(LogError::disk("open", path))?;
        let header = SegmentHeader::read(&*file, path)?;
        if header.first != first || self.chain.is_some_and(|chain| chain != header.chain) {
            return Err(LogError::damaged(path, 0, "it does not continue the segment before it"));
        }
        let Some(size) = open_size else {
            let (index, chain) = scan::read_closed(&**disk, path, header, &self.shared.keys)?;
            self.chain = Some(chain);
            return Ok(index);
        };
        let (index, extent, _) = scan::read_last(&*file, path, header, &self.shared.keys)?;
        // What is being written just now may look torn; what was durable before must not.
        if extent.next < size {
            let why = extent.torn.unwrap_or_else(|| "zeros".to_owned());
            return Err(LogError::damaged(path, extent.end, why));
        }
        Ok(index)
    }

    fn checkpoint(&self, path: &Path, offset: u64) -> Result<(), LogError> {
        let file = self.shared.disk.open(path).map_err(LogError::disk("open", path))?;
        let note = reading::read_record(&*file, path, offset, Kind::Checkpoint)?;
        let checkpoint = Checkpoint::verify(&note, std::slice::from_ref(self.key))
            .map_err(|error| LogError::damaged(path, offset, format!("the checkpoint: {error}")))?;
        let Checkpoint { size, root, .. } = checkpoint;
        if (self.tree.size(), self.tree.root()) != (size, root) {
            let what = "the leaves before it give another root".to_owned();
            return Err(LogError::ContradictsCheckpoint { size, what });
        }
        Ok(())
    }

    /// Holds the tree that is kept against the leaves.
    fn kept_tree(&mut self, size: u64) {
        let entries = finding::Entries::new(self.shared.clone(), 0..size);
        let wrong = entries.filter(|entry| match entry {
            Ok((index, entry)) => self.shared.tree().leaf(*index).ok() != Some(entry.hash),
            Err(_) => true,
        });
        let wrong = wrong.count();
        if wrong > 0 {
            let what = format!(
                "the tree's files differ from the log in {wrong} leaves; they are made again when needed"
            );
            self.report.problems.push(what);
        }
    }

    /// Holds the tables of persons against the segments, and what was overwritten against the acts that say so. What is
    /// erased meanwhile is in the acts, which are read last.
    fn persons(
        &mut self,
        read: &[(Arc<Closed>, Vec<PersonRow>)],
        overwritten: BTreeSet<(u64, u64)>,
    ) -> Result<(), LogError> {
        let mut missing = Vec::new();
        for (segment, rows) in read {
            let kept: BTreeSet<_> = concerned::all(self.shared, segment)?.into_iter().collect();
            let read: BTreeSet<_> = rows.iter().copied().collect();
            missing.extend(read.difference(&kept).map(|row| (segment, (row.leaf, row.offset))));
            if let Some(row) = kept.difference(&read).next() {
                let (path, leaf) = (persons::path_of(&segment.path), row.leaf);
                let what = "remove it: it is made again from the segment after the next start";
                let differs = format!("{}: leaf {leaf} differs from the segment; {what}", path.display());
                self.report.problems.push(differs);
            }
        }
        if missing.is_empty() && overwritten.is_empty() {
            return Ok(());
        }
        let erased = forgetting::erased(self.shared)?;
        for (segment, (leaf, _)) in missing.iter().filter(|(_, place)| !erased.contains(place)) {
            let path = persons::path_of(&segment.path);
            let what = "remove it: it is made again from the segment after the next start";
            self.report.problems.push(format!("{}: it lacks leaf {leaf}; {what}", path.display()));
        }
        for (leaf, _) in overwritten.difference(&erased) {
            let what = "was overwritten, and no record says so";
            self.report.problems.push(format!("a pseudonym beside record {leaf} {what}"));
        }
        Ok(())
    }

    fn content(&mut self, index: u64) {
        match reading::record(self.shared, index) {
            Err(LogError::Pruned { .. }) => {}
            Err(LogError::Expired { index }) => match reading::covered(self.shared, index) {
                Ok(covered) if covered.records(index) => self.report.expired += 1,
                Ok(_) => self.report.problems.push(format!(
                    "MISMATCH: record {index} is missing, and no record says that it has expired"
                )),
                Err(error) => self.report.problem(&error),
            },
            Err(error) => self.report.problem(&error),
            Ok(record) => match record.content {
                ContentState::Included(_) => self.report.contents += 1,
                ContentState::Erased | ContentState::Expired => self.report.erased += 1,
                ContentState::NotKept | ContentState::NotRestored => {}
                ContentState::Mismatch(why) => {
                    self.report.problems.push(format!("the content of record {index}: {why}"));
                }
            },
        }
    }
}

/// In what an index differs from what was read from its segment.
fn same_index(kept: &dyn Index, read: &MemoryIndex) -> Result<Option<&'static str>, LogError> {
    for (at, leaf) in (read.first..).zip(&read.leaves) {
        if kept.leaf(at)? != Some(*leaf) {
            return Ok(Some("a leaf"));
        }
    }
    for (exchange, leaves) in &read.exchanges {
        if kept.of_exchange(exchange)? != *leaves {
            return Ok(Some("an exchange"));
        }
    }
    for digest in read.artefacts.keys() {
        if kept.artefact(digest)?.is_none() {
            return Ok(Some("an artefact"));
        }
    }
    Ok((kept.notes()? != read.notes).then_some("a checkpoint"))
}
