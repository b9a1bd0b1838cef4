//! Pseudonyms of the persons concerned, and of the callers' references: what stands in the log in the place of an identifier,
//! which is never stored.
//!
//! A pseudonym is the first 16 bytes of HMAC-SHA-256 over `trave person v1\n`, the length of the scheme (1), the scheme and
//! the canonical value ([`crate::person`]), under the key of a *period*: the calendar month (UTC) in which the leaf was
//! logged. Periods have random keys of 32 bytes, in files `keys/persons-<year>-<month>.bin`: line `trave persons key 1`,
//! number of the period (4), key (32), CRC-32 of these (4). Whoever has the key and the segments can try identifiers one
//! after the other; whoever has the segments alone can not. A key is drawn when the first person of its month is logged,
//! is durable before the record under it is written, and is overwritten when the period is to be forgotten.
//!
//! That of a reference ([`crate::reference`]) is made under the same key over `trave reference v1\n`, what it is (1) and the
//! canonical value: with another tag, so that no person is found by a case, and no case by a person.
//!
//! The record of a pseudonym (kind 7) stands before its leaf: version (1; 2 for a reference), period (4), salt (16), pseudonym (16). The salt
//! is random and serves one purpose: the checksum in the record's header, which outlives the pseudonym when that is
//! overwritten and is bound in the chain of the groups. CRC-32 is linear, so with an unknown salt it is as likely to be any
//! value for every pseudonym, and tells nobody who has a list of candidates, and even the key, anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::clock::Time;
use zeroize::Zeroizing;

use crate::disk::{Disk, fill_zeros, read_small, replace};
use crate::error::LogError;
use crate::person::Person;
use crate::reference::Reference;

/// Bytes of a pseudonym.
pub(crate) const HASH: usize = 16;
const SALT: usize = 16;
/// Bytes of the payload of its record.
pub(crate) const PSEUDONYM_LEN: usize = 1 + 4 + SALT + HASH;
/// The version of the record of a person's pseudonym, and that of a reference's.
const PERSON: u8 = 1;
const REFERENCE: u8 = 2;

/// A calendar month (UTC): months since January of the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u32);

impl Period {
    /// The month of a time.
    pub fn of(time: Time) -> Self {
        let (year, month) = time.year_and_month();
        Self(u32::try_from(year * 12 + month - 1).unwrap_or(0))
    }

    /// The month that lies so many months before.
    #[must_use]
    pub const fn earlier(self, months: u32) -> Self {
        Self(self.0.saturating_sub(months))
    }

    /// Reads `2026-11`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let (year, month) = (year.parse::<u32>().ok()?, month.parse::<u32>().ok()?);
        let period = Self(year.checked_mul(12)?.checked_add(month)?.checked_sub(1)?);
        (period.to_string() == text).then_some(period)
    }
}

/// `2026-11`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

/// The pseudonym of a person or of a reference in one record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pseudonym {
    version: u8,
    period: Period,
    salt: [u8; SALT],
    pub(crate) hash: [u8; HASH],
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pseudonym({}, hidden)", self.period)
    }
}

impl Pseudonym {
    /// Reads the payload of a record.
    pub(crate) fn of_payload(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; PSEUDONYM_LEN] = payload.try_into().ok()?;
        let (version, rest) = payload.split_first()?;
        let (period, rest) = rest.split_first_chunk()?;
        let (salt, hash) = rest.split_first_chunk()?;
        let period = Period(u32::from_le_bytes(*period));
        let known = [PERSON, REFERENCE].contains(version);
        known.then_some(Self { version: *version, period, salt: *salt, hash: hash.try_into().ok()? })
    }

    /// Whether it is that of a reference.
    pub(crate) const fn is_reference(&self) -> bool {
        self.version == REFERENCE
    }

    /// The payload of its record.
    pub(crate) fn payload(&self) -> [u8; PSEUDONYM_LEN] {
        let mut payload = [self.version; PSEUDONYM_LEN];
        payload[1..5].copy_from_slice(&self.period.0.to_le_bytes());
        payload[5..21].copy_from_slice(&self.salt);
        payload[21..].copy_from_slice(&self.hash);
        payload
    }
}

/// The keys of the periods.
#[derive(Debug)]
pub(crate) struct PeriodKeys {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keys: RwLock<BTreeMap<Period, Arc<hmac::Key>>>,
    /// Held while a key is made or destroyed.
    changing: Mutex<()>,
}

const MAGIC: &[u8; 20] = b"trave persons key 1\n";
const SECRET: usize = 32;
const FILE: usize = MAGIC.len() + 4 + SECRET + 4;

impl PeriodKeys {
    /// The keys in `dir`, whose entry is durable; and which files there are none, in words.
    pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Self, Vec<String>), LogError> {
        let (mut keys, mut warnings) = (BTreeMap::new(), Vec::new());
        for name in disk.list(dir).map_err(LogError::disk("list", dir))? {
            let path = dir.join(&name);
            if name.starts_with(PREFIX) && name.ends_with(".tmp") {
                // A key that was being made: nothing is under it.
                disk.remove(&path).map_err(LogError::disk("remove", &path))?;
            }
            let Some(period) = period_of(&name) else { continue };
            let read = read_small(&**disk, &path, FILE as u64).map_err(LogError::disk("read", &path));
            let bytes = read.map(|bytes| Zeroizing::new(bytes.unwrap_or_default()));
            match bytes.as_ref().map(|bytes| (parse(bytes, period), bytes)) {
                Ok((Some(key), _)) => _ = keys.insert(period, Arc::new(key)),
                // It was being destroyed, which is done again.
                Ok((None, bytes)) if bytes.iter().all(|byte| *byte == 0) => {}
                Ok((None, _)) => warnings.push(unreadable(&path, period, "it is not the key of its period")),
                Err(error) => warnings.push(unreadable(&path, period, &error.in_full())),
            }
        }
        let keys = RwLock::new(keys);
        Ok((Self { disk: disk.clone(), dir: dir.to_owned(), keys, changing: Mutex::default() }, warnings))
    }

    /// The pseudonym of a person in what is logged at `time`. Makes the key of the period if there is none, which waits for
    /// the disk once in a month.
    pub(crate) fn pseudonym(&self, time: Time, person: &Person) -> Result<Pseudonym, LogError> {
        self.made(time, PERSON, |key| hash(key, person))
    }

    /// The same of a reference.
    pub(crate) fn of_reference(&self, time: Time, reference: &Reference) -> Result<Pseudonym, LogError> {
        self.made(time, REFERENCE, |key| hash_reference(key, reference))
    }

    fn made(
        &self,
        time: Time,
        version: u8,
        hash: impl FnOnce(&hmac::Key) -> [u8; HASH],
    ) -> Result<Pseudonym, LogError> {
        let period = Period::of(time);
        let key = match self.key(period) {
            Some(key) => key,
            None => self.make(period)?,
        };
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).map_err(|_| NO_RANDOM)?;
        Ok(Pseudonym { version, period, salt, hash: hash(&key) })
    }

    /// The periods that have a key, the earliest first, with the pseudonym of a person in each.
    pub(crate) fn all_of(&self, person: &Person) -> Vec<(Period, [u8; HASH])> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(period, key)| (*period, hash(key, person))).collect()
    }

    /// The same of a reference.
    pub(crate) fn all_of_reference(&self, reference: &Reference) -> Vec<(Period, [u8; HASH])> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(period, key)| (*period, hash_reference(key, reference))).collect()
    }

    /// The periods before `before` that have a key file, readable or not.
    pub(crate) fn earlier_than(&self, before: Period) -> Result<Vec<Period>, LogError> {
        let names = self.disk.list(&self.dir).map_err(LogError::disk("list", &self.dir))?;
        let mut periods: Vec<_> = names.iter().filter_map(|name| period_of(name)).collect();
        periods.retain(|period| *period < before);
        Ok(periods)
    }

    /// Overwrites the keys of all periods before `before`, and removes their files. Says how many there were. Done again,
    /// it goes on where it was interrupted.
    pub(crate) fn destroy(&self, before: Period) -> Result<u64, LogError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that nothing more is put under a key that will be gone.
        self.keys.write().unwrap_or_else(PoisonError::into_inner).retain(|period, _| *period >= before);
        let periods = self.earlier_than(before)?;
        for period in &periods {
            let path = self.path(*period);
            let file = self.disk.open(&path).map_err(LogError::disk("open", &path))?;
            let overwritten = file.len().and_then(|len| fill_zeros(&*file, 0, len.max(FILE as u64)));
            overwritten.and_then(|()| file.sync()).map_err(LogError::disk("overwrite", &path))?;
            self.disk.remove(&path).map_err(LogError::disk("remove", &path))?;
        }
        if !periods.is_empty() {
            self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        }
        Ok(periods.len() as u64)
    }

    fn key(&self, period: Period) -> Option<Arc<hmac::Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&period).cloned()
    }

    fn make(&self, period: Period) -> Result<Arc<hmac::Key>, LogError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = self.key(period) {
            return Ok(made);
        }
        let mut bytes = Zeroizing::new([0; FILE]);
        bytes[..20].copy_from_slice(MAGIC);
        bytes[20..24].copy_from_slice(&period.0.to_le_bytes());
        SystemRandom::new().fill(&mut bytes[24..56]).map_err(|_| NO_RANDOM)?;
        let crc = crc32fast::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&crc.to_le_bytes());
        let path = self.path(period);
        replace(&*self.disk, &self.dir, &file_name(period), &*bytes)
            .map_err(LogError::disk("write", &path))?;
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes[24..56]));
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(period, key.clone());
        Ok(key)
    }

    fn path(&self, period: Period) -> PathBuf {
        self.dir.join(file_name(period))
    }
}

const NO_RANDOM: LogError = LogError::Refused("the system gives no random numbers");
const PREFIX: &str = "persons-";

fn file_name(period: Period) -> String {
    format!("{PREFIX}{period}.bin")
}

fn period_of(name: &str) -> Option<Period> {
    Period::parse(name.strip_prefix(PREFIX)?.strip_suffix(".bin")?)
}

fn unreadable(path: &Path, period: Period, why: &str) -> String {
    format!("{}: {why}; persons concerned in {period} are not found: restore it", path.display())
}

fn parse(bytes: &[u8], period: Period) -> Option<hmac::Key> {
    let bytes: &[u8; FILE] = bytes.try_into().ok()?;
    let (body, crc) = bytes.split_at(FILE - 4);
    let rest = body.strip_prefix(MAGIC)?.strip_prefix(&period.0.to_le_bytes())?;
    (crc == crc32fast::hash(body).to_le_bytes()).then(|| hmac::Key::new(hmac::HMAC_SHA256, rest))
}

fn hash(key: &hmac::Key, person: &Person) -> [u8; HASH] {
    let mut context = hmac::Context::with_key(key);
    context.update(b"trave person v1\n");
    // A scheme is short by its making.
    context.update(&[u8::try_from(person.scheme().len()).unwrap_or(u8::MAX)]);
    context.update(person.scheme().as_bytes());
    context.update(person.value().as_bytes());
    first_bytes(context)
}

fn hash_reference(key: &hmac::Key, reference: &Reference) -> [u8; HASH] {
    let mut context = hmac::Context::with_key(key);
    context.update(b"trave reference v1\n");
    context.update(&[reference.kind() as u8]);
    context.update(reference.value().as_bytes());
    first_bytes(context)
}

fn first_bytes(context: hmac::Context) -> [u8; HASH] {
    let tag = context.sign();
    let mut hash = [0; HASH];
    hash.copy_from_slice(&tag.as_ref()[..HASH]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_months() {
        let november = Period::of(Time::from_millis(1_795_288_440_005));
        assert_eq!(november.to_string(), "2026-11");
        assert_eq!(november.earlier(11).to_string(), "2025-12");
        assert_eq!(Period::parse("2026-11"), Some(november));
        for wrong in ["2026-0", "2026-00", "2026-13", "26-11", "2026-1", "+026-11", "2026", ""] {
            assert_eq!(Period::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pseudonym_is_what_the_documentation_says() {
        // HMAC-SHA-256 under 32 bytes 07 of "trave person v1\n", 09, "steuer-id", "12345678901", by Python's hmac.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let hash = hash(&key, &Person::parse("steuer-id:12 345 678 901").unwrap());
        assert_eq!(hex(&hash), VECTOR);
        // The same under "trave reference v1\n", 02, "GA 2026-1187".
        let hash = hash_reference(&key, &Reference::case(" GA 2026-1187").unwrap());
        assert_eq!(hex(&hash), "5889d55634d52e27f3005100db983df9");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const VECTOR: &str = "5eae8989cdf776187e5a86608b0b8ec9";

    #[test]
    fn a_record_reads_back() {
        let pseudonym =
            Pseudonym { version: PERSON, period: Period(24_322), salt: [1; SALT], hash: [2; HASH] };
        assert!(!pseudonym.is_reference() && Pseudonym { version: REFERENCE, ..pseudonym }.is_reference());
        let payload = pseudonym.payload();
        assert_eq!(Pseudonym::of_payload(&payload), Some(pseudonym));
        assert_eq!(Pseudonym::of_payload(&payload[1..]), None);
        assert_eq!(Pseudonym::of_payload(&[9; PSEUDONYM_LEN]), None, "another version");
    }
}
