//! A disk that fails as real ones do: it forgets what was not synced, sector by sector, and can refuse any operation,
//! whether or not it has done it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, Held};

const SECTOR: usize = 512;
/// In the place of a node: the entry is a directory.
const DIRECTORY: usize = usize::MAX;

/// What becomes of the operation that is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was not done. A sync that fails so forgets what it should have written, as Linux does: a later sync says "done".
    Failed,
    /// It was done all the same.
    FailedButStored,
    /// It and everything after it was not done: the power is gone.
    PowerCut,
}

/// A handle of one process on the simulated disk.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    world: Arc<Mutex<World>>,
    process: u64,
}

#[derive(Debug, Default, Clone)]
struct World {
    nodes: Vec<Node>,
    /// Directory entries as processes see them.
    entries: BTreeMap<PathBuf, usize>,
    /// Directory entries that survive.
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<Change>,
    /// Only the newest process may do anything.
    process: u64,
    locked: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Bytes that were taken; the others are free.
    taken: u64,
    /// Files whose names begin so cannot be written.
    unwritable: Option<&'static str>,
    /// Files whose names begin so cannot be opened.
    closed: Option<&'static str>,
    open_files: usize,
    opened: u64,
    /// Most files that may be open at once.
    open_limit: Option<usize>,
}

#[derive(Debug, Default, Clone)]
struct Node {
    current: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

/// A small generator of numbers that look random (splitmix64): the same seed, the same power cut.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        Self { world: Arc::default(), process: 0 }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changing operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Makes the `after`-th changing operation from now fail.
    pub(crate) fn fail_after(&self, after: u64, fault: Fault) {
        let mut world = self.world();
        world.fault = Some((world.operations + after, fault));
    }

    /// From now on there is so much free space.
    pub(crate) fn set_free(&self, free: u64) {
        self.world().taken = u64::MAX - free;
    }

    /// From now on files whose names begin so cannot be written, as if they met a bad sector.
    pub(crate) fn fail_writes_of(&self, name: &'static str) {
        self.world().unwritable = Some(name);
    }

    /// The process dies and another begins; the system lives on, and shows what was written.
    pub(crate) fn restart(&self) -> Self {
        let mut world = self.world();
        world.process += 1;
        (world.locked, world.fault) = (false, None);
        Self { world: self.world.clone(), process: world.process }
    }

    /// Another disk with the same on it, of which nobody has opened anything.
    pub(crate) fn copied(&self) -> Self {
        let mut world = self.world().clone();
        (world.locked, world.fault, world.open_files) = (false, None, 0);
        world.process += 1;
        let process = world.process;
        Self { world: Arc::new(Mutex::new(world)), process }
    }

    /// The power is cut, and comes back: of what was not synced, any sectors and directory entries may be gone.
    pub(crate) fn cut_power(&self, dice: &mut Dice) -> Self {
        let restarted = self.restart();
        let mut world = self.world();
        // From "nothing reached the disk" to "everything did".
        let kept = dice.below(5);
        for change in std::mem::take(&mut world.pending) {
            if dice.below(4) < kept {
                apply(&mut world.durable, change);
            }
        }
        // What stands in a directory that is gone is gone.
        let durable = world.durable.clone();
        world.durable.retain(|path, _| above(path).all(|dir| durable.contains_key(dir)));
        world.entries = world.durable.clone();
        for node in &mut world.nodes {
            let longer = node.current.len() > node.durable.len() && dice.below(4) < kept;
            let mut survived = node.durable.clone();
            if longer {
                survived.resize(node.current.len(), 0);
            }
            for sector in std::mem::take(&mut node.dirty) {
                if dice.below(4) < kept {
                    copy_sector(&node.current, &mut survived, sector);
                }
            }
            (node.current, node.durable) = (survived.clone(), survived);
        }
        drop(world);
        restarted
    }

    /// The bytes of all files, as a thief of the disk finds them: also those of files without a name.
    pub(crate) fn all_bytes(&self) -> Vec<Vec<u8>> {
        self.world().nodes.iter().flat_map(|node| [node.current.clone(), node.durable.clone()]).collect()
    }

    /// From now on files whose names begin so cannot be opened, though they are there.
    pub(crate) fn fail_opens_of(&self, name: Option<&'static str>) {
        self.world().closed = name;
    }

    /// How often a file was opened.
    pub(crate) fn opened(&self) -> u64 {
        self.world().opened
    }

    /// From now on no more than `more` files can be open than are now.
    pub(crate) fn limit_open_files(&self, more: usize) {
        let mut world = self.world();
        world.open_limit = Some(world.open_files + more);
    }

    /// A handle of a file, if one more may be open.
    fn handle(&self, node: usize) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if world.open_limit.is_some_and(|limit| world.open_files >= limit) {
            return Err(io::Error::other("too many open files"));
        }
        world.open_files += 1;
        world.opened += 1;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), node }))
    }

    fn change<T>(&self, perform: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        if world.process != self.process {
            return Err(io::Error::other("this process is dead"));
        }
        world.operations += 1;
        match world.fault {
            Some((at, Fault::Failed)) if at == world.operations => Err(io::Error::other("made to fail")),
            Some((at, Fault::PowerCut)) if at <= world.operations => Err(io::Error::other("no power")),
            Some((at, Fault::FailedButStored)) if at == world.operations => {
                perform(&mut world)?;
                Err(io::Error::other("made to fail, but stored"))
            }
            _ => perform(&mut world),
        }
    }
}

fn apply(entries: &mut BTreeMap<PathBuf, usize>, change: Change) {
    match change {
        Change::Link(path, node) => {
            entries.insert(path, node);
        }
        Change::Unlink(path) => {
            entries.remove(&path);
        }
        Change::Rename(from, to, node) => {
            entries.remove(&from);
            entries.insert(to, node);
        }
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(to.len()).min(from.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

/// The directories above a path, without the root.
fn above(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|dir| dir.parent().is_some())
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _)) = self;
        path.parent()
    }
}

impl World {
    fn is_unwritable(&self, node: usize) -> bool {
        let Some(start) = self.unwritable else { return false };
        self.entries.iter().any(|(path, found)| *found == node && is_named(path, start))
    }

    fn record(&mut self, change: Change) {
        apply(&mut self.entries, change.clone());
        self.pending.push(change);
    }
}

#[derive(Debug)]
struct Lock(Arc<Mutex<World>>, u64);

impl Held for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut world = self.0.lock().unwrap();
        if world.process == self.1 {
            world.locked = false;
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let inside = dir.join("inside");
        let mut missing: Vec<_> = above(&inside).map(Path::to_owned).collect();
        missing.retain(|dir| !self.world().entries.contains_key(dir));
        missing.into_iter().rev().try_for_each(|dir| {
            self.change(|world| {
                world.record(Change::Link(dir, DIRECTORY));
                Ok(())
            })
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.entries.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.change(|world| {
            if !above(path).all(|dir| world.entries.contains_key(dir)) {
                return Err(not_found());
            }
            world.nodes.push(Node::default());
            let node = world.nodes.len() - 1;
            world.record(Change::Link(path.to_owned(), node));
            Ok(node)
        })?;
        self.handle(node)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let node = *self.world().entries.get(path).ok_or_else(not_found)?;
        if self.world().closed.is_some_and(|start| is_named(path, start)) {
            return Err(io::Error::other("made to fail"));
        }
        self.handle(node)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|world| {
            let node = *world.entries.get(from).ok_or_else(not_found)?;
            world.record(Change::Rename(from.to_owned(), to.to_owned(), node));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|world| {
            world.record(Change::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|world| {
            let (synced, left) =
                std::mem::take(&mut world.pending).into_iter().partition(|change| change.dir() == Some(dir));
            world.pending = left;
            Vec::into_iter(synced).for_each(|change| apply(&mut world.durable, change));
            Ok(())
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX - self.world().taken)
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Held>>> {
        let mut world = self.world();
        if std::mem::replace(&mut world.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock(self.world.clone(), self.process))))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    node: usize,
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.world().open_files -= 1;
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.world().nodes[self.node].current.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.disk.world();
        let from = usize::try_from(offset).unwrap();
        let bytes = world.nodes[self.node].current.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.change(|world| {
            if world.is_unwritable(self.node) {
                return Err(io::Error::other("made to fail"));
            }
            let node = &mut world.nodes[self.node];
            let from = usize::try_from(offset).unwrap();
            let to = from + bytes.len();
            if to > node.current.len() {
                node.current.resize(to, 0);
            }
            node.current[from..to].copy_from_slice(bytes);
            node.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut done = false;
        let result = self.disk.change(|world| {
            done = true;
            let node = &mut world.nodes[self.node];
            node.durable.resize(node.current.len(), 0);
            for sector in std::mem::take(&mut node.dirty) {
                copy_sector(&node.current, &mut node.durable, sector);
            }
            Ok(())
        });
        let powered = !matches!(self.disk.world().fault, Some((_, Fault::PowerCut)));
        if !done
            && powered
            && let Some(node) = self.disk.world().nodes.get_mut(self.node)
        {
            node.dirty.clear();
        }
        result
    }
}
