//! The one writer of a log: gathers what is queued into a group, writes it, makes it durable, and only then tells.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use trave_proto::checkpoint::{Checkpoint, NoteSigner};

use crate::batching::Queue;
use crate::compaction::{self, Installed, Rewritten};
use crate::continuity::{CHECKPOINT_FILE, must_extend};
use crate::disk::{fill_zeros, replace};
use crate::erasure;
use crate::error::LogError;
use crate::forgetting::{self, Forgetting};
use crate::group::{Group, Prepared};
use crate::index::MemoryIndex;
use crate::index::file::persons::Table;
use crate::keeper::Keeper;
use crate::open_segment::{self, OpenSegment};
use crate::segment::{DATA, Item, SegmentHeader};
use crate::shared::{Closed, Counters, Shared, SignedCheckpoint};

/// What the committer is asked for.
pub(crate) enum Command {
    /// Log a leaf.
    Append(Prepared),
    /// Sign a checkpoint over all that is durable.
    Checkpoint(oneshot::Sender<Result<SignedCheckpoint, LogError>>),
    /// Keep a timestamp token over the checkpoint of this size.
    Timestamp(u64, Bytes, oneshot::Sender<Result<(), LogError>>),
    /// Overwrite keys and contents of an exchange, as the erasure at this index says.
    Erase([u8; 16], u64, oneshot::Sender<Result<u64, LogError>>),
    /// Overwrite pseudonyms or their keys, as the act that is durable says.
    Forget(Forgetting, oneshot::Sender<Result<u64, LogError>>),
    /// Close the segment that is written to, if it holds any leaf.
    Roll(oneshot::Sender<Result<(), LogError>>),
    /// Put a segment that was written anew in its place.
    Install(Box<Rewritten>, oneshot::Sender<Result<Installed, LogError>>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(_) => "Append",
            Self::Checkpoint(_) => "Checkpoint",
            Self::Timestamp(..) => "Timestamp",
            Self::Erase(..) => "Erase",
            Self::Forget(..) => "Forget",
            Self::Roll(_) => "Roll",
            Self::Install(..) => "Install",
        })
    }
}

/// Writes to the log. There is one, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: OpenSegment,
    pub(crate) signer: NoteSigner,
    pub(crate) segment_size: u64,
    pub(crate) keeper: Keeper,
    /// Memory of the last group, for the next.
    spare: Vec<u8>,
}

/// The most memory that is kept from one group to the next.
const MAX_SPARE: usize = 1 << 20;

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        segment: OpenSegment,
        signer: NoteSigner,
        segment_size: u64,
        keeper: Keeper,
    ) -> Self {
        Self { shared, segment, signer, segment_size, keeper, spare: Vec::new() }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue<Command>) {
        while let Some(batch) = queue.next_batch() {
            let mut appends = Vec::with_capacity(batch.len());
            for command in batch {
                if let Command::Append(prepared) = command {
                    appends.push(prepared);
                    continue;
                }
                self.append(std::mem::take(&mut appends));
                self.perform(command);
            }
            self.append(appends);
        }
        self.end();
    }

    /// Appends leaves as one group, and tells each how it went.
    fn append(&mut self, group: Vec<Prepared>) {
        if group.is_empty() {
            return;
        }
        let first = self.shared.healthy().and_then(|()| self.commit(&group));
        for (at, prepared) in group.into_iter().enumerate() {
            if let Some(done) = prepared.done {
                // Whoever no longer waits does not need to know.
                let _ = done.send(first.clone().map(|first| first + at as u64));
            }
        }
    }

    fn perform(&mut self, command: Command) {
        let healthy = self.shared.healthy();
        match command {
            Command::Append(prepared) => self.append(vec![prepared]),
            Command::Checkpoint(done) => {
                let _ = done.send(healthy.and_then(|()| self.checkpoint()));
            }
            Command::Timestamp(size, token, done) => {
                let _ = done.send(healthy.and_then(|()| self.timestamp(size, &token)));
            }
            Command::Erase(exchange, before, done) => {
                let erased = healthy.and_then(|()| erasure::overwrite(&self.shared, &exchange, before));
                let _ = done.send(erased.map_err(|error| self.failed(error)));
            }
            Command::Forget(forgetting, done) => {
                let forgotten = healthy.and_then(|()| forgetting::forget(&self.shared, &forgetting));
                let _ = done.send(forgotten.map_err(|error| self.failed(error)));
            }
            Command::Roll(done) => {
                let empty = self.shared.catalogue().open.leaves.is_empty();
                let rolled = healthy.and_then(|()| if empty { Ok(()) } else { self.roll(0) });
                let _ = done.send(rolled);
            }
            Command::Install(rewritten, done) => {
                let installed = healthy.and_then(|()| compaction::install(&self.shared, *rewritten));
                let _ = done.send(installed.map_err(|error| self.failed(error)));
            }
        }
    }

    /// After a write that failed, what the disk holds is unknown.
    fn failed(&self, error: LogError) -> LogError {
        if error.is_failed_write() { self.shared.poison(error) } else { error }
    }

    /// Makes leaves durable, in this order, and returns the index of the first.
    pub(crate) fn commit(&mut self, group: &[Prepared]) -> Result<u64, LogError> {
        let first = self.shared.catalogue().open.next();
        let slots = group.iter().filter_map(|prepared| prepared.content.as_ref()).map(|content| content.slot);
        if let Some(last) = slots.max() {
            // Before the contents: a content without its key would look like tampering after a power cut.
            self.shared.prepare_keys(last + 1)?;
            self.keeper.prepare_keys();
        }
        self.write(|group_bytes, segment, known| {
            for prepared in group {
                group_bytes.leaf(prepared, segment, known);
            }
        })?;
        Counters::add(&self.shared.counters.records, group.len() as u64);
        Ok(first)
    }

    /// Lays out a group, in a new segment if it does not fit into this one, writes it and makes it durable.
    fn write(&mut self, fill: impl Fn(&mut Group, u64, Option<&MemoryIndex>)) -> Result<(), LogError> {
        let mut group = self.lay_out(&fill);
        if self.segment.end + group.len() > self.segment.capacity {
            self.make_room(group.len(), self.lay_out_alone(&fill).len())?;
            group = self.lay_out(&fill);
        }
        let (bytes, items, chain) = group.finish(&self.segment.header, &self.segment.chain);
        let OpenSegment { file, path, end, .. } = &self.segment;
        let written = file
            .write_all_at(&bytes, *end)
            .map_err(LogError::disk("write", path))
            .and_then(|()| file.sync().map_err(LogError::disk("sync", path)));
        written.map_err(|error| self.shared.poison(error))?;
        self.segment.end += bytes.len() as u64;
        self.segment.chain = chain;
        Counters::add(&self.shared.counters.bytes, bytes.len() as u64);
        self.keep(bytes);
        Counters::add(&self.shared.counters.groups, 1);
        Counters::add(&self.shared.counters.syncs, 1);
        self.publish(&items)
    }

    /// Keeps the memory of a group for the next, unless it was an unusually large one.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= MAX_SPARE {
            bytes.clear();
            self.spare = bytes;
        }
    }

    fn lay_out(&mut self, fill: &impl Fn(&mut Group, u64, Option<&MemoryIndex>)) -> Group {
        let bytes = std::mem::take(&mut self.spare);
        let catalogue = self.shared.catalogue();
        let mut group = Group::new(self.segment.end, catalogue.open.next(), bytes);
        fill(&mut group, catalogue.open.first, Some(&catalogue.open));
        group
    }

    /// The same group as it would stand first in a segment: with all its artefacts.
    fn lay_out_alone(&self, fill: &impl Fn(&mut Group, u64, Option<&MemoryIndex>)) -> Group {
        let next = self.shared.catalogue().open.next();
        let mut group = Group::new(DATA, next, Vec::new());
        fill(&mut group, next, None);
        group
    }

    /// Shows readers what is durable now.
    fn publish(&self, items: &[Item]) -> Result<(), LogError> {
        // Both change under one lock, so that whoever makes the tree again from the catalogue misses no leaf.
        let mut tree = self.shared.tree_mut();
        let grown = items.iter().try_for_each(|item| match item {
            Item::Leaf(entry, _) => tree.append(entry.hash),
            _ => Ok(()),
        });
        // The leaves are durable, but no checkpoint could be signed over them any more.
        grown.map_err(|error| self.shared.poison(error))?;
        let mut catalogue = self.shared.catalogue_mut();
        items.iter().for_each(|item| catalogue.open.add(item));
        Ok(())
    }

    /// Begins a new segment, for a group of `alone` bytes; or makes this one longer for one of `here` bytes, if it holds
    /// no leaf yet: two segments cannot begin with the same leaf.
    fn make_room(&mut self, here: u64, alone: u64) -> Result<(), LogError> {
        if !self.shared.catalogue().open.leaves.is_empty() {
            return self.roll(alone);
        }
        let OpenSegment { file, path, end, capacity, .. } = &mut self.segment;
        let longer = *end + here;
        let extended = fill_zeros(&**file, *capacity, longer).and_then(|()| file.sync());
        *capacity = longer;
        extended.map_err(LogError::disk("extend", path)).map_err(|error| self.shared.poison(error))
    }

    /// Closes the segment and begins the next, which can hold `needed` bytes in one group.
    fn roll(&mut self, needed: u64) -> Result<(), LogError> {
        let first = self.shared.catalogue().open.next();
        let capacity = self.segment_size.max(DATA + needed);
        let prepared = self.keeper.take_spare(capacity);
        let header = SegmentHeader { first, chain: self.segment.chain, ..self.segment.header };
        let next = open_segment::begin(
            &*self.shared.disk,
            &self.shared.dir.join("segments"),
            header,
            capacity,
            prepared,
        )
        .map_err(|error| self.shared.poison(error))?;
        let path = std::mem::replace(&mut self.segment, next).path;
        let closed = {
            let mut catalogue = self.shared.catalogue_mut();
            let mut fresh = MemoryIndex::new(first);
            fresh.next_slot = catalogue.open.next_slot;
            let mut index = std::mem::replace(&mut catalogue.open, fresh);
            let persons = Table::Memory(std::mem::take(&mut index.persons));
            let (count, times) = (index.leaves.len() as u64, index.times());
            let index = Arc::new(index);
            let closed = Closed::new(path, index.first, count, times, index.clone());
            let closed = Arc::new(closed.with_persons(persons));
            catalogue.closed.push(closed.clone());
            catalogue.open_path = self.segment.path.clone();
            (closed, index)
        };
        self.keeper.closed(closed.0, closed.1, self.segment.header.chain);
        self.keeper.prepare_spare();
        Ok(())
    }

    /// Signs a checkpoint over all leaves. It is durable, in the log and beside it, before it is given away.
    pub(crate) fn checkpoint(&mut self) -> Result<SignedCheckpoint, LogError> {
        let last = self.shared.catalogue().checkpoint.clone();
        let (size, root) = {
            let tree = self.shared.tree();
            (tree.size(), tree.head())
        };
        if let Some(last) = last {
            must_extend(&self.shared, &last.checkpoint)?;
            if last.checkpoint.size == size {
                return Ok(last);
            }
        }
        let checkpoint = Checkpoint { origin: self.signer.name().to_owned(), size, root };
        let note = checkpoint.sign(&self.signer).to_bytes();
        self.write(|group, _, _| group.checkpoint(note.clone()))?;
        replace(&*self.shared.disk, &self.shared.dir, CHECKPOINT_FILE, &note)
            .map_err(LogError::disk("write", &self.shared.dir.join(CHECKPOINT_FILE)))
            .map_err(|error| self.shared.poison(error))?;
        let signed = SignedCheckpoint { checkpoint, note: note.into(), timestamp: None };
        self.shared.catalogue_mut().checkpoint = Some(signed.clone());
        Ok(signed)
    }

    fn timestamp(&mut self, size: u64, token: &Bytes) -> Result<(), LogError> {
        let latest = self.shared.catalogue().checkpoint.as_ref().map(|signed| signed.checkpoint.size);
        if latest.is_none_or(|latest| size > latest) {
            return Err(LogError::OutOfRange { asked: size, size: latest.unwrap_or(0) });
        }
        self.write(|group, _, _| group.timestamp(size, token))?;
        if let Some(signed) = &mut self.shared.catalogue_mut().checkpoint
            && signed.checkpoint.size == size
        {
            signed.timestamp = Some(token.clone());
        }
        Ok(())
    }

    /// Ends with an empty group, so that the group before it can never be taken for a torn write.
    fn end(mut self) {
        if self.shared.healthy().is_ok() && self.write(|_, _, _| {}).is_err() {
            tracing::warn!("the log was closed without a last marker");
        }
        self.keeper.finish();
    }
}
