//! What two security servers compare of their message logs: the messages of one hour, named, ordered, and digested.
//!
//! Both logs hold the very bytes that were signed, so two logs agree on an hour exactly if they hold the same manifests.

use std::ops::Range;
use std::time::Duration;

use crate::clock::Time;
use crate::digest::{Digest, tag};
use crate::identifier::{ExchangeId, IdentifierError, ServerId};
use crate::message::{Direction, Manifest};
use crate::schema::transport as schema;

/// One hour of civil time. An exchange belongs to the hour of its id's time (UUIDv7, RFC 9562), which its client's server
/// chose and all its messages carry: so both sides put it into the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(i64);

const HOUR: i64 = 60 * 60 * 1000;
/// What is compared, how it is digested, and who says what first. In version 1 nobody had to commit to anything before being
/// told, and in version 2 who asked could repeat what it was told: who speaks those is not compared with.
const VERSION: u32 = 3;

impl Period {
    /// How long it is.
    pub const LENGTH: Duration = Duration::from_millis(HOUR.unsigned_abs());

    /// The hour in which `time` lies.
    pub const fn of(time: Time) -> Self {
        Self(time.as_millis().div_euclid(HOUR))
    }

    /// As it stands in a message; none if it is no whole hour, or of a version that is not known here.
    pub fn read(period: &schema::Period) -> Option<Self> {
        let from = Time::from_millis(period.from_ms);
        let read = Self::of(from);
        (period.version == VERSION && read.begin() == from && (0..i64::from(u32::MAX)).contains(&read.0))
            .then_some(read)
    }

    /// As it stands in a message.
    pub const fn to_schema(self) -> schema::Period {
        schema::Period { version: VERSION, from_ms: self.begin().as_millis() }
    }

    /// When it begins.
    pub const fn begin(self) -> Time {
        Time::from_millis(self.0.saturating_mul(HOUR))
    }

    /// When it is over.
    pub const fn end(self) -> Time {
        self.next().begin()
    }

    /// The hour after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The times in it.
    pub const fn times(self) -> Range<Time> {
        self.begin()..self.end()
    }
}

/// The name of a message: its exchange, direction, and place in it. Names are ordered as their bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name([u8; Name::LEN]);

impl Name {
    /// Bytes of a name.
    pub const LEN: usize = 25;

    /// The name of a message.
    pub fn of(manifest: &Manifest) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(manifest.exchange.as_bytes());
        // There are two directions, 1 and 2.
        bytes[16] = if manifest.direction == Direction::Response { 2 } else { 1 };
        bytes[17..].copy_from_slice(&manifest.index.to_be_bytes());
        Self(bytes)
    }

    /// A name as it stands in a message; none if it has not 25 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Its bytes as a message holds them.
    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }

    /// The exchange.
    ///
    /// # Errors
    /// If somebody made up an id that is none.
    pub fn exchange(&self) -> Result<ExchangeId, IdentifierError> {
        ExchangeId::from_slice(&self.0[..16])
    }

    /// The direction.
    pub const fn direction(&self) -> Direction {
        match self.0[16] {
            1 => Direction::Request,
            2 => Direction::Response,
            _ => Direction::Unspecified,
        }
    }

    /// The position in its direction, from 0.
    pub fn index(&self) -> u64 {
        self.0[17..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// The smallest name beyond it; none if there is none.
    pub fn successor(&self) -> Option<Self> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (next, over) = byte.overflowing_add(1);
            *byte = next;
            if !over {
                return Some(Self(bytes));
            }
        }
        None
    }
}

/// What a server is asked by another one, so that it commits to what it holds before it is told anything: it can neither
/// repeat an earlier answer, nor give back what it was answered itself.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// Fresh and random, of the asker's. Who asks for more proves in the same way that it knows the list: then whom it asks
    /// stands here as the asker.
    pub nonce: &'a [u8; NONCE],
    /// Who asks.
    pub asker: &'a ServerId,
    /// Who answers.
    pub answerer: &'a ServerId,
    /// Of which hour.
    pub period: Period,
}

/// Bytes of a nonce.
pub const NONCE: usize = 32;

/// How many messages a log holds, and the digest over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many there are.
    pub count: u64,
    /// SHA-256 over a tag and, for each in the order of their names, name and manifest's SHA-256.
    pub digest: Digest,
}

impl Summary {
    /// Of these messages, in the order of their names and digests.
    pub fn of<'r>(records: impl Iterator<Item = &'r (Name, Digest)>) -> Self {
        Self::digested(&[tag::RECONCILIATION], records)
    }

    /// Of all messages of an hour, in the same order, as the answer to a challenge. SHA-256 over a tag, the nonce, the asker
    /// and the answerer, each behind its length (4 bytes, big-endian), the hour's begin (milliseconds, 8 bytes, big-endian),
    /// and name and manifest's SHA-256 of each message. Who does not hold the list cannot give it: not from the plain
    /// summary, and not from what somebody else, or the asker itself, answers.
    pub fn answering<'r>(
        challenge: &Challenge<'_>,
        records: impl Iterator<Item = &'r (Name, Digest)>,
    ) -> Self {
        let Challenge { nonce, asker, answerer, period } = *challenge;
        let (asker, answerer) = (asker.as_str().as_bytes(), answerer.as_str().as_bytes());
        let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts: [&[u8]; 7] = [
            tag::RECONCILIATION_ANSWER,
            nonce,
            &length(asker),
            asker,
            &length(answerer),
            answerer,
            &period.begin().as_millis().to_be_bytes(),
        ];
        Self::digested(&parts, records)
    }

    fn digested<'r>(before: &[&[u8]], records: impl Iterator<Item = &'r (Name, Digest)>) -> Self {
        let mut count = 0;
        let parts = records
            .inspect(|_| count += 1)
            .flat_map(|(name, digest)| [name.as_bytes().as_slice(), digest.as_ref()]);
        let digest = Digest::of_each(before.iter().copied().chain(parts));
        Self { count, digest }
    }

    /// As it stands in a message; none if it is not one.
    pub fn read(summary: &schema::RecordSummary) -> Option<Self> {
        Some(Self { count: summary.count, digest: Digest::from_slice(&summary.digest)? })
    }

    /// As it stands in a message.
    pub fn to_schema(self) -> schema::RecordSummary {
        schema::RecordSummary { count: self.count, digest: self.digest.to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_on_the_hour_and_has_no_gap_to_the_next() {
        let time = Time::from_millis(1_795_255_200_000 + 1_234_567);
        let period = Period::of(time);
        assert_eq!(period.begin().as_millis(), 1_795_255_200_000);
        assert_eq!(period.end(), period.next().begin());
        assert!(period.times().contains(&time) && !period.times().contains(&period.end()));
        assert_eq!(Period::read(&period.to_schema()), Some(period));
        let off = schema::Period { from_ms: 1_795_255_200_001, ..period.to_schema() };
        assert_eq!(Period::read(&off), None);
        for version in [0, 1, 2, 4] {
            assert_eq!(Period::read(&schema::Period { version, ..period.to_schema() }), None, "{version}");
        }
        assert_eq!(Period::read(&schema::Period { from_ms: i64::MIN, ..period.to_schema() }), None);
    }

    #[test]
    fn names_count_on_and_end() {
        let mut bytes = [7; Name::LEN];
        (bytes[16], bytes[23], bytes[24]) = (2, 0, 0xff);
        let name = Name::from_slice(&bytes).unwrap();
        assert_eq!((name.direction(), name.index() & 0xffff), (Direction::Response, 0xff));
        let next = name.successor().unwrap();
        assert!(next > name);
        assert_eq!(next.index() & 0xffff, 0x100);
        assert_eq!(Name::from_slice(&[0xff; Name::LEN]).unwrap().successor(), None);
        assert_eq!(Name::from_slice(&bytes[1..]), None);
    }

    #[test]
    fn a_summary_is_of_names_and_digests_alike() {
        let one = (Name([1; Name::LEN]), Digest::of(b"one"));
        let two = (Name([2; Name::LEN]), Digest::of(b"two"));
        let summary = |records: &[(Name, Digest)]| Summary::of(records.iter());
        assert_eq!(summary(&[one, two]).count, 2);
        for other in [&[one][..], &[(one.0, two.1), (two.0, one.1)], &[(two.0, one.1)], &[]] {
            assert_ne!(summary(&[one, two]).digest, summary(other).digest);
        }
        // Byte for byte, as the schema says.
        let bytes = [b"trave reconciliation v1\n", &one.0.0[..], one.1.as_ref()].concat();
        assert_eq!(summary(&[one]).digest, Digest::of(&bytes));
        assert_eq!(Summary::read(&summary(&[one]).to_schema()), Some(summary(&[one])));
    }

    #[test]
    fn an_answer_is_of_one_question_to_one_server_and_of_the_whole_list() {
        let (sh, mv) = ("NORD/SH/luebeck/s1".parse().unwrap(), "NORD/MV/register/s1".parse().unwrap());
        let period = Period::of(Time::from_millis(1_795_255_200_000));
        let challenge = Challenge { nonce: &[7; 32], asker: &sh, answerer: &mv, period };
        let one = (Name([1; Name::LEN]), Digest::of(b"one"));
        let answer = |challenge: &Challenge<'_>| Summary::answering(challenge, [one].iter());
        let good = answer(&challenge);
        assert_eq!(good, answer(&challenge.clone()));
        for other in [
            Challenge { nonce: &[8; 32], ..challenge },
            Challenge { asker: &mv, answerer: &sh, ..challenge },
            Challenge { period: period.next(), ..challenge },
        ] {
            assert_ne!(good.digest, answer(&other).digest);
        }
        assert_ne!(good.digest, Summary::of([one].iter()).digest);
        assert_ne!(good.digest, Summary::answering(&challenge, [].iter()).digest);
        let bytes = [
            b"trave reconciliation answer v2\n",
            &[7; 32][..],
            &18_u32.to_be_bytes(),
            b"NORD/SH/luebeck/s1",
            &19_u32.to_be_bytes(),
            b"NORD/MV/register/s1",
            &1_795_255_200_000_i64.to_be_bytes(),
            &one.0.0,
            one.1.as_ref(),
        ];
        assert_eq!(good.digest, Digest::of(&bytes.concat()), "byte for byte");
    }
}
