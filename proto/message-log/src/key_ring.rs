//! Which key an exchange has: the next of those that were made in advance, a block at a time, so that no record waits for
//! the disk to keep its key.
//!
//! What holds, whatever happens at any instant:
//! - *A key encrypts in the process that drew it alone.* Keys come from the random generator into memory, and from there
//!   to the disk; none comes back from the disk to encrypt. So no key is given to two exchanges and no nonce comes twice,
//!   even if a key file is lost, restored, or shows what is not on the disk.
//! - *A key is durable in its slot before a record under it is written.* The keeper sees to that long before; where it did
//!   not, the committer does.
//! - *A slot that a record names is never written again*, but to erase it: blocks begin behind the last slot that the log
//!   names, and each is written once.
//! - *A key that no record of the recovered log names is gone.* Before the first exchange, the slots of earlier processes
//!   that stand behind the last one named get fresh keys. So a content that a crash left half written stays unreadable.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use crate::contents::{ContentKey, ContentParts, Sealed};
use crate::error::LogError;
use crate::keys::SECRET;

/// The keys of the exchanges that are under way, and those that wait for theirs.
#[derive(Debug)]
pub(crate) struct KeyRing {
    block: u64,
    random: SystemRandom,
    state: Mutex<State>,
    /// Held while a block is written: each is written once, in order.
    writing: Mutex<()>,
    /// Slots before this one are durable.
    durable: AtomicU64,
    /// Slots before this one are taken.
    taken: AtomicU64,
}

#[derive(Default)]
struct State {
    recent: HashMap<[u8; 16], Arc<ContentKey>>,
    order: VecDeque<[u8; 16]>,
    /// In the order of their slots, without gaps: blocks of which something is to be taken or to be written.
    blocks: VecDeque<Block>,
}

/// Keys for the slots from `first` on. Zeroized when they are taken and written.
#[derive(Clone)]
struct Block {
    first: u64,
    secrets: Zeroizing<Vec<[u8; SECRET]>>,
    /// So many of them are taken, durable, and zeros here.
    cleared: usize,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} keys, {} blocks)", self.recent.len(), self.blocks.len())
    }
}

/// Most keys held in memory. An exchange that outlives this many others gets a second key: erasing follows the slots
/// that its records name.
const MAX_RECENT: usize = 16_384;
/// Most slots that are taken and not yet durable: more than the log's queue holds.
const MAX_WAITING: u64 = 16_384;

impl KeyRing {
    /// Keys get slots from `next_slot` on. Blocks have `block` keys, which divides the slots of a file.
    pub(crate) fn new(next_slot: u64, block: u64) -> Self {
        Self {
            block,
            random: SystemRandom::new(),
            state: Mutex::default(),
            writing: Mutex::default(),
            durable: AtomicU64::new(next_slot),
            taken: AtomicU64::new(next_slot),
        }
    }

    /// Encrypts a content under the key of its exchange.
    pub(crate) fn seal(
        &self,
        exchange: [u8; 16],
        manifest: &[u8],
        parts: &ContentParts,
    ) -> Result<Sealed, LogError> {
        self.key(exchange)?.seal(manifest, parts)
    }

    /// Lets go of the key of an exchange of which nothing more is expected.
    pub(crate) fn finished(&self, exchange: &[u8; 16]) {
        self.state().recent.remove(exchange);
    }

    /// Forgets the key of an exchange, so that nothing more is encrypted under it.
    pub(crate) fn forget(&self, exchange: &[u8; 16]) {
        let mut state = self.state();
        state.recent.remove(exchange);
        state.order.retain(|known| known != exchange);
    }

    /// Slots before this one are durable in their files.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Up to which slot keys should be durable by now, if they are not: a block of them should wait for exchanges.
    pub(crate) fn due(&self) -> Option<u64> {
        let due = self.taken.load(Ordering::Relaxed) + self.block;
        (self.durable() < due).then_some(due)
    }

    /// Has the keys of all slots before `to` written, by `write`, which gets a first slot and the keys from there on, and
    /// makes them durable. If it fails, the log must take nothing more: the keys may be taken already.
    pub(crate) fn prepare(
        &self,
        to: u64,
        write: impl Fn(u64, &[[u8; SECRET]]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while self.durable() < to {
            let block = self.unwritten()?;
            write(block.first, &block.secrets)?;
            let mut state = self.state();
            self.durable.store(block.end(), Ordering::Release);
            self.clear(&mut state);
        }
        Ok(())
    }

    /// The first block that is not durable, which stays where it is to be taken from; a new one if there is none.
    fn unwritten(&self) -> Result<Block, LogError> {
        let (mut state, durable) = (self.state(), self.durable());
        if let Some(block) = state.blocks.iter().find(|block| block.first >= durable) {
            return Ok(block.clone());
        }
        Ok(self.draw(&mut state)?.clone())
    }

    fn key(&self, exchange: [u8; 16]) -> Result<Arc<ContentKey>, LogError> {
        let mut state = self.state();
        if let Some(key) = state.recent.get(&exchange) {
            return Ok(key.clone());
        }
        let key = Arc::new(self.take(&mut state, exchange)?);
        if state.order.len() >= MAX_RECENT
            && let Some(oldest) = state.order.pop_front()
        {
            state.recent.remove(&oldest);
        }
        state.order.push_back(exchange);
        state.recent.insert(exchange, key.clone());
        Ok(key)
    }

    /// Takes the next key. It may not be durable yet: then the committer waits for that, and not the caller.
    fn take(&self, state: &mut State, exchange: [u8; 16]) -> Result<ContentKey, LogError> {
        let slot = self.taken.load(Ordering::Relaxed);
        if slot >= self.durable().saturating_add(MAX_WAITING) {
            return Err(LogError::Busy);
        }
        let found = state.blocks.iter().find(|block| slot < block.end());
        let block = match found {
            Some(block) => block,
            None => self.draw(state)?,
        };
        let secret = usize::try_from(slot - block.first).ok().and_then(|at| block.secrets.get(at));
        let key = secret.and_then(|secret| ContentKey::new(slot, exchange, secret));
        let key = key.ok_or(LogError::Refused("there is no key for the content"))?;
        self.taken.store(slot + 1, Ordering::Relaxed);
        self.clear(state);
        Ok(key)
    }

    /// Draws the keys of the next block, which ends where blocks do: so that each lies in one file.
    fn draw<'a>(&self, state: &'a mut State) -> Result<&'a Block, LogError> {
        let first = state.blocks.back().map_or(self.durable(), Block::end);
        let count = self.block - first % self.block;
        let mut secrets = Zeroizing::new(vec![[0; SECRET]; usize::try_from(count).unwrap_or(0)]);
        let drawn = self.random.fill(secrets.as_flattened_mut());
        drawn.map_err(|_| LogError::Refused("the system gives no random numbers"))?;
        state.blocks.push_back(Block { first, secrets, cleared: 0 });
        state.blocks.back().ok_or(LogError::Refused("there is no key for the content"))
    }

    /// Removes from memory the keys that are taken and written.
    fn clear(&self, state: &mut State) {
        let done = self.durable().min(self.taken.load(Ordering::Relaxed));
        while state.blocks.front().is_some_and(|block| block.end() <= done) {
            state.blocks.pop_front();
        }
        if let Some(block) = state.blocks.front_mut()
            && let Some(used) = usize::try_from(done.saturating_sub(block.first)).ok()
            && let Some(secrets) = block.secrets.get_mut(block.cleared..used)
        {
            secrets.as_flattened_mut().zeroize();
            block.cleared = used;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    fn end(&self) -> u64 {
        self.first + self.secrets.len() as u64
    }
}
