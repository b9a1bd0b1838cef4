//! Contents of messages, kept encrypted: one random key per exchange, held in a file apart, so that overwriting 64 bytes
//! makes every copy of a content unreadable.
//!
//! Key files (`keys/keys-<n>.bin`, open to the owner alone) hold fixed slots of 64 bytes: state (4), CRC-32 (4), exchange
//! (16), key (32), zeros (8). A slot number is never used twice.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::digest::Digest;
use trave_proto::schema::message::Envelope;
use zeroize::{Zeroize as _, Zeroizing};

use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::error::LogError;
use crate::record::CONTENT_PREFIX;

/// What is kept of a message beside its record, as far as the policy of its service says so.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ContentParts {
    /// Salt of the commitment to the content.
    pub content_salt: Bytes,
    /// Encoded head.
    pub head: Option<Bytes>,
    /// Body.
    pub body: Bytes,
    /// Encoded trailers.
    pub trailers: Option<Bytes>,
    /// Salt of the commitment to the caller context; empty where there is none.
    pub caller_context_salt: Bytes,
    /// Encoded caller context.
    pub caller_context: Option<Bytes>,
}

impl fmt::Debug for ContentParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentParts({} bytes of body, hidden)", self.body.len())
    }
}

/// An encrypted content, ready for its record.
pub(crate) struct Sealed {
    pub(crate) key: Arc<ContentKey>,
    /// Slot, exchange, nonce, ciphertext: the payload of the record.
    pub(crate) payload: Vec<u8>,
}

/// The key of one exchange's contents. Zeroized when dropped; ring's copy of it is not, and lives no longer.
pub(crate) struct ContentKey {
    pub(crate) slot: u64,
    exchange: [u8; 16],
    secret: Zeroizing<[u8; 32]>,
    cipher: LessSafeKey,
    /// Counted up, so that no nonce is ever used twice under one key, whatever callers hand in. Keys are not used for
    /// encryption again after a restart.
    nonces: AtomicU64,
    stored: AtomicBool,
}

impl ContentKey {
    fn new(slot: u64, exchange: [u8; 16], secret: Zeroizing<[u8; 32]>) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.as_ref()).ok()?);
        Some(Self {
            slot,
            exchange,
            secret,
            cipher,
            nonces: AtomicU64::new(0),
            stored: AtomicBool::new(false),
        })
    }

    /// Whether the key is durable in its slot.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Relaxed)
    }

    /// Says that the key is durable in its slot.
    pub(crate) fn set_stored(&self) {
        self.stored.store(true, Ordering::Relaxed);
    }

    fn seal(self: &Arc<Self>, manifest: &[u8], parts: &ContentParts) -> Result<Sealed, LogError> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonces.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let envelope = Envelope {
            content_salt: parts.content_salt.clone(),
            head: parts.head.clone(),
            body: parts.body.clone(),
            trailers: parts.trailers.clone(),
            caller_context_salt: parts.caller_context_salt.clone(),
            caller_context: parts.caller_context.clone(),
            ..Envelope::default()
        };
        let mut payload = Vec::with_capacity(CONTENT_PREFIX + envelope.encoded_len() + 16);
        payload.extend_from_slice(&self.slot.to_le_bytes());
        payload.extend_from_slice(&self.exchange);
        payload.extend_from_slice(&nonce);
        let full = LogError::Refused("the content is too large to encrypt");
        envelope.encode(&mut payload).map_err(|_| full.clone())?;
        let tag = self
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(&self.exchange, manifest)),
                &mut payload[CONTENT_PREFIX..],
            )
            .map_err(|_| full)?;
        payload.extend_from_slice(tag.as_ref());
        Ok(Sealed { key: self.clone(), payload })
    }

    /// Decrypts the payload of a content record; none if it was not encrypted by this key for this manifest.
    fn open(&self, manifest: &[u8], payload: &[u8]) -> Option<ContentParts> {
        let (prefix, sealed) = payload.split_at_checked(CONTENT_PREFIX)?;
        let nonce: [u8; 12] = prefix[24..].try_into().ok()?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened =
            self.cipher.open_in_place(nonce, Aad::from(associated(&self.exchange, manifest)), &mut plain);
        let parts =
            opened.ok().and_then(|plain| Envelope::decode(&plain[..]).ok()).map(|envelope| ContentParts {
                content_salt: envelope.content_salt,
                head: envelope.head,
                body: envelope.body,
                trailers: envelope.trailers,
                caller_context_salt: envelope.caller_context_salt,
                caller_context: envelope.caller_context,
            });
        plain.zeroize();
        parts
    }

    fn slot_bytes(&self) -> Zeroizing<[u8; SLOT]> {
        let mut bytes = Zeroizing::new([0; SLOT]);
        bytes[..4].copy_from_slice(&LIVE.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.exchange);
        bytes[24..56].copy_from_slice(self.secret.as_ref());
        let crc = crc32fast::hash(&bytes[8..56]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What the ciphertext is bound to: this exchange and this manifest.
fn associated(exchange: &[u8; 16], manifest: &[u8]) -> Vec<u8> {
    [&b"trave stored content v1\n"[..], exchange, Digest::of(manifest).as_ref()].concat()
}

/// The keys of the exchanges that are under way, so that the messages of one share a key.
#[derive(Debug)]
pub(crate) struct KeyRing {
    next_slot: AtomicU64,
    random: SystemRandom,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    keys: HashMap<[u8; 16], Arc<ContentKey>>,
    order: VecDeque<[u8; 16]>,
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({} keys)", self.keys.len())
    }
}

/// Most keys held in memory. An exchange that outlives this many others gets a second key: erasing follows the slots
/// that its records name.
const MAX_RECENT: usize = 16_384;

impl KeyRing {
    /// Keys get slots from `next_slot` on.
    pub(crate) fn new(next_slot: u64) -> Self {
        Self { next_slot: AtomicU64::new(next_slot), random: SystemRandom::new(), recent: Mutex::default() }
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

    fn key(&self, exchange: [u8; 16]) -> Result<Arc<ContentKey>, LogError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = recent.keys.get(&exchange) {
            return Ok(key.clone());
        }
        let mut secret = Zeroizing::new([0; 32]);
        let random = LogError::Refused("the system gives no random numbers");
        self.random.fill(secret.as_mut()).map_err(|_| random.clone())?;
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let key = Arc::new(ContentKey::new(slot, exchange, secret).ok_or(random)?);
        if recent.order.len() >= MAX_RECENT
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.keys.remove(&oldest);
        }
        recent.order.push_back(exchange);
        recent.keys.insert(exchange, key.clone());
        Ok(key)
    }

    /// Forgets the key of an exchange, so that nothing more is encrypted under it.
    pub(crate) fn forget(&self, exchange: &[u8; 16]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.keys.remove(exchange);
        recent.order.retain(|known| known != exchange);
    }
}

const SLOT: usize = 64;
const SLOTS_PER_FILE: u64 = 4_096;
const LIVE: u32 = 1;
const ERASED: u32 = 2;

/// What a key slot holds.
pub(crate) enum SlotState {
    /// The key of this exchange.
    Live(Box<ContentKey>),
    /// The key was overwritten.
    Erased,
    /// No key, or that of another exchange: why.
    Missing(String),
}

/// The key files. Written by the committer alone.
#[derive(Debug)]
pub(crate) struct KeyFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl KeyFiles {
    /// The key files in `dir`.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        disk.create_dir(dir).map_err(LogError::disk("create", dir))?;
        Ok(Self { disk: disk.clone(), dir: dir.to_owned() })
    }

    /// The first slot that was never used. Writes the last file's bytes again and makes them durable: after a failed
    /// sync of an earlier process, the system may show bytes that the disk does not have.
    pub(crate) fn recover(&self) -> Result<u64, LogError> {
        let names = self.disk.list(&self.dir).map_err(LogError::disk("list", &self.dir))?;
        self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        let Some(last) = names.iter().filter_map(|name| file_number(name)).max() else { return Ok(0) };
        let (file, path) = self.file(last)?;
        let len = file.len().map_err(LogError::disk("read", &path))?.min(SLOTS_PER_FILE * SLOT as u64);
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or(0)]);
        file.read_exact_at(&mut bytes, 0).map_err(LogError::disk("read", &path))?;
        let used = bytes.chunks(SLOT).rposition(|slot| *slot != [0; SLOT][..]).map_or(0, |at| at + 1);
        let rewritten = bytes.len().min(used * SLOT);
        file.write_all_at(&bytes[..rewritten], 0).map_err(LogError::disk("write", &path))?;
        file.sync().map_err(LogError::disk("sync", &path))?;
        Ok(last * SLOTS_PER_FILE + used as u64)
    }

    /// Writes keys into their slots and makes them durable. Returns how often it synced.
    pub(crate) fn store<'a>(&self, keys: impl Iterator<Item = &'a ContentKey>) -> Result<u64, LogError> {
        let mut written = HashMap::new();
        for key in keys {
            let (file, path) = self.slot_file(key.slot, &mut written)?;
            file.write_all_at(key.slot_bytes().as_ref(), place(key.slot))
                .map_err(LogError::disk("write", &path))?;
        }
        sync_all(&written)
    }

    /// Overwrites slots and makes that durable. Slots that hold no key are left as they are.
    pub(crate) fn erase(&self, slots: &[u64]) -> Result<(), LogError> {
        let mut written = HashMap::new();
        for slot in slots {
            let path = self.dir.join(format!("keys-{:010}.bin", slot / SLOTS_PER_FILE));
            if self.disk.open(&path).is_err() {
                continue;
            }
            let (file, path) = self.slot_file(*slot, &mut written)?;
            let mut bytes = [0; SLOT];
            bytes[..4].copy_from_slice(&ERASED.to_le_bytes());
            file.write_all_at(&bytes, place(*slot)).map_err(LogError::disk("write", &path))?;
        }
        sync_all(&written).map(|_| ())
    }

    /// What stands in a slot that a record of `exchange` names.
    pub(crate) fn read(&self, slot: u64, exchange: &[u8; 16]) -> SlotState {
        let path = self.dir.join(format!("keys-{:010}.bin", slot / SLOTS_PER_FILE));
        let mut bytes = Zeroizing::new([0; SLOT]);
        let read = self.disk.open(&path).and_then(|file| file.read_exact_at(bytes.as_mut(), place(slot)));
        if let Err(error) = read {
            return SlotState::Missing(format!("the key file {} cannot be read: {error}", path.display()));
        }
        let [s0, s1, s2, s3, c0, c1, c2, c3, ..] = *bytes;
        match u32::from_le_bytes([s0, s1, s2, s3]) {
            ERASED => SlotState::Erased,
            LIVE if u32::from_le_bytes([c0, c1, c2, c3]) == crc32fast::hash(&bytes[8..56])
                && bytes[8..24] == exchange[..] =>
            {
                let mut secret = Zeroizing::new([0; 32]);
                secret.copy_from_slice(&bytes[24..56]);
                ContentKey::new(slot, *exchange, secret).map_or_else(
                    || SlotState::Missing("the key is not a key".into()),
                    |key| SlotState::Live(Box::new(key)),
                )
            }
            _ => SlotState::Missing(format!("slot {slot} of the key file does not hold the exchange's key")),
        }
    }

    /// Decrypts the payload of a content record.
    pub(crate) fn decrypt(key: &ContentKey, manifest: &[u8], payload: &[u8]) -> Option<ContentParts> {
        key.open(manifest, payload)
    }

    fn slot_file(
        &self,
        slot: u64,
        open: &mut HashMap<u64, (Arc<dyn DiskFile>, PathBuf)>,
    ) -> Result<(Arc<dyn DiskFile>, PathBuf), LogError> {
        let number = slot / SLOTS_PER_FILE;
        if let Some(known) = open.get(&number) {
            return Ok(known.clone());
        }
        let found = self.file(number)?;
        open.insert(number, found.clone());
        Ok(found)
    }

    /// Opens a key file, or makes it: preallocated, and durable with its directory entry.
    fn file(&self, number: u64) -> Result<(Arc<dyn DiskFile>, PathBuf), LogError> {
        let path = self.dir.join(format!("keys-{number:010}.bin"));
        let full = SLOTS_PER_FILE * SLOT as u64;
        let file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.disk.create(&path).map_err(LogError::disk("create", &path))?
            }
            Err(error) => return Err(LogError::disk("open", &path)(error)),
        };
        let len = file.len().map_err(LogError::disk("read", &path))?;
        if len < full {
            fill_zeros(&*file, len, full).map_err(LogError::disk("write", &path))?;
            file.sync().map_err(LogError::disk("sync", &path))?;
            self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        }
        Ok((file, path))
    }
}

fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("keys-")?.strip_suffix(".bin")?.parse().ok()
}

const fn place(slot: u64) -> u64 {
    slot % SLOTS_PER_FILE * SLOT as u64
}

fn sync_all(files: &HashMap<u64, (Arc<dyn DiskFile>, PathBuf)>) -> Result<u64, LogError> {
    for (file, path) in files.values() {
        file.sync().map_err(LogError::disk("sync", path))?;
    }
    Ok(files.len() as u64)
}
