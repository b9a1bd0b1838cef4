//! What is done behind the committer's back, so that no exchange waits for it: writing the index of a closed segment,
//! preparing the next segment's file and the next keys of contents, and looking how much space is left.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use trave_proto::digest::Digest;

use crate::concerned;
use crate::disk::{Disk, fill_zeros};
use crate::index::MemoryIndex;
use crate::index::file::{self, IndexFile};
use crate::shared::{Closed, Shared};

/// A file of zeros, ready to become a segment. No two have the same name: the committer may still be giving the last one
/// its own.
fn spare_name(number: u64) -> String {
    format!("spare-{number}.tmp")
}

/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// The thread that keeps house.
#[derive(Debug)]
pub(crate) struct Keeper {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    spare: Arc<Mutex<Option<(PathBuf, u64)>>>,
    shared: Arc<Shared>,
    /// Up to which slot keys were asked for.
    asked: u64,
}

enum Job {
    Closed(Arc<Closed>, Arc<MemoryIndex>, Digest),
    Spare,
    /// Make the keys of the slots before this one durable.
    Keys(u64),
}

impl Keeper {
    /// Starts the thread. Spare files have `segment_size` bytes; with fewer than `reserve` bytes free, the disk is full.
    pub(crate) fn start(shared: Arc<Shared>, segment_size: u64, reserve: u64) -> std::io::Result<Self> {
        look_at_space(&shared, reserve);
        let (jobs, todo) = channel();
        let spare = Arc::new(Mutex::new(None));
        let (made, of) = (spare.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("log-keeper".into()).spawn(move || {
            work(&of, (segment_size, reserve), &todo, &made);
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), spare, shared, asked: 0 })
    }

    /// A prepared file for a segment of `capacity` bytes, if there is one.
    pub(crate) fn take_spare(&self, capacity: u64) -> Option<PathBuf> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.take_if(|(_, size)| *size >= capacity).map(|(path, _)| path)
    }

    /// Has a spare file made, if there is none.
    pub(crate) fn prepare_spare(&self) {
        self.send(Job::Spare);
    }

    /// Has the next keys of contents made durable, if fewer than a block are ready.
    pub(crate) fn prepare_keys(&mut self) {
        // Once for each block: what is asked for is done, or the log has stopped.
        if let Some(due) = self.shared.key_ring.due().filter(|_| self.shared.key_ring.durable() >= self.asked)
        {
            self.asked = due;
            self.send(Job::Keys(due));
        }
    }

    /// Has the index of a closed segment written. `chain` is the value of its last marker.
    pub(crate) fn closed(&self, segment: Arc<Closed>, index: Arc<MemoryIndex>, chain: Digest) {
        self.send(Job::Closed(segment, index, chain));
    }

    /// Waits until everything is done, and ends.
    pub(crate) fn finish(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there is reported by its thread; nothing depends on what it did.
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) {
        // If the thread is gone, the index is made again at the next start.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish();
    }
}

fn work(
    shared: &Shared,
    (segment_size, reserve): (u64, u64),
    todo: &Receiver<Job>,
    spare: &Mutex<Option<(PathBuf, u64)>>,
) {
    let mut made = 0_u64;
    let mut unsettled = unsettled(shared);
    loop {
        let job = match todo.recv_timeout(SPACE_INTERVAL) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // One at a time, while nothing else is to be done.
                unsettled.pop().into_iter().for_each(|segment| keep_persons(shared, &segment));
                None
            }
            Ok(job) => Some(job),
        };
        look_at_space(shared, reserve);
        let Some(job) = job else { continue };
        match job {
            Job::Closed(segment, index, chain) => {
                keep_index(shared, &segment, &index, chain);
                if concerned::is_unsettled(&segment) {
                    keep_persons(shared, &segment);
                }
            }
            Job::Keys(to) => {
                if let Err(error) = shared.prepare_keys(to) {
                    tracing::warn!(error = %error.in_full(), "no keys could be prepared");
                }
            }
            Job::Spare => {
                let missing = spare.lock().unwrap_or_else(PoisonError::into_inner).is_none();
                if missing && has_room(shared, segment_size.saturating_add(reserve)) {
                    made += 1;
                    let path = shared.dir.join("segments").join(spare_name(made));
                    keep_spare(&*shared.disk, path, segment_size, spare);
                }
            }
        }
    }
}

/// Says whether the disk is full: then exchanges are refused, and what is left is for the log's own small records.
fn look_at_space(shared: &Shared, reserve: u64) {
    match shared.disk.free_bytes(&shared.dir) {
        Ok(free) => shared.disk_full.store(free < reserve, Ordering::Relaxed),
        Err(error) => tracing::warn!(%error, "free space of the log's disk is unknown"),
    }
}

/// Whether so many bytes are free. The reserve is for segments that are needed, not for one that may be.
fn has_room(shared: &Shared, bytes: u64) -> bool {
    shared.disk.free_bytes(&shared.dir).is_ok_and(|free| free >= bytes)
}

/// Makes a spare file. Without one, the next segment is made when it is needed.
fn keep_spare(disk: &dyn Disk, path: PathBuf, size: u64, spare: &Mutex<Option<(PathBuf, u64)>>) {
    match make_spare(disk, &path, size) {
        Ok(()) => *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, size)),
        Err(error) => {
            tracing::warn!(%error, "no spare segment could be prepared");
            // What was written of it takes space. If it cannot be removed now, the next start removes it.
            let _ = disk.remove(&path);
        }
    }
}

/// Writes the index file, and gives the memory back. The tree's files become durable before: a segment that has an index
/// file will not be read for its leaf hashes at the next start.
fn keep_index(shared: &Shared, segment: &Closed, index: &MemoryIndex, chain: Digest) {
    let path = file::path_of(&segment.path);
    let persisted = shared.tree_mut().persist();
    let kept = persisted
        .and_then(|()| file::write(&*shared.disk, &path, index, chain))
        .and_then(|()| IndexFile::open(&shared.disk, &path));
    match kept {
        Ok(file) => segment.set_index(Arc::new(file)),
        Err(error) => {
            tracing::warn!(error = %error.in_full(), "an index stays in memory; it is made again at the next start");
        }
    }
}

/// The segments whose tables of persons are in no file: those of a release that knew of none, and those that were lost.
fn unsettled(shared: &Shared) -> Vec<Arc<Closed>> {
    let closed = shared.catalogue().closed.clone();
    closed.into_iter().filter(|segment| concerned::is_unsettled(segment)).collect()
}

/// Writes a segment's table of persons. Without it, the segment is read whenever somebody looks for a person.
fn keep_persons(shared: &Shared, segment: &Closed) {
    let _making = shared.making();
    if !shared.is_current(segment) {
        return;
    }
    if let Err(error) = concerned::settle(shared, segment) {
        tracing::warn!(error = %error.in_full(), "a table of persons could not be written");
    }
}

fn make_spare(disk: &dyn Disk, path: &Path, size: u64) -> std::io::Result<()> {
    let file = disk.create(path)?;
    fill_zeros(&*file, 0, size)?;
    file.sync()
}
