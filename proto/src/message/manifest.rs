//! The manifest: who asks whom for what, when, on which legal basis, and commitments to what was said.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;

use crate::clock::Time;
use crate::digest::Digest;
use crate::encoding::{EncodingError, decode_canonical};
use crate::identifier::{
    ExchangeId, IdentifierError, MAX_PART, MemberId, Method, ServerId, ServiceId, SubsystemId, XRoadClientId,
    XRoadServiceId,
};
use crate::schema::message as schema;
pub use crate::schema::message::{Direction, Ending};

use super::{MAX_BODY, MAX_MANIFEST};

/// The version that names no bridge.
const PLAIN: u32 = 1;
/// The version that names one: whoever knows only the one before says that it is newer, not that it is wrong.
const BRIDGED: u32 = 2;
/// Longest origin of a log and longest name of a route, in bytes.
const MAX_NAME: usize = 256;

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than any manifest.
    #[error("a manifest has at most {MAX_MANIFEST} bytes, this has {0}")]
    TooLong(usize),
    /// A version that this release does not know.
    #[error("manifest version {0} is not known here")]
    Version(u32),
    /// Not the canonical encoding of a manifest.
    #[error("the manifest cannot be read")]
    Encoding(#[source] EncodingError),
    /// A field that must be an identifier is none.
    #[error("the manifest's {field} is no identifier")]
    Identifier {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        source: IdentifierError,
    },
    /// A field has a value that it cannot have.
    #[error("the manifest's {0} is not valid")]
    Field(&'static str),
}

/// A code of the catalogue: a purpose or a legal basis. 1 to 64 characters of `A–Z a–z 0–9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(std::sync::Arc<str>);

impl Code {
    /// The code as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Code {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_PART || !text.bytes().all(allowed) {
            return Err(ManifestError::Field("code"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest says, each field checked by itself. The schema documents each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the schema, documented there")]
pub struct ManifestFields {
    pub exchange: ExchangeId,
    pub direction: Direction,
    pub index: u64,
    pub previous: Option<Digest>,
    pub last_received: Option<Digest>,
    pub client: SubsystemId,
    pub service: ServiceId,
    pub method: Option<Method>,
    pub sender: ServerId,
    pub receiver: ServerId,
    pub log_origin: String,
    pub signing_certificate: Digest,
    pub configuration_number: u64,
    pub configuration_digest: Digest,
    pub nonce: [u8; 32],
    pub purpose: Code,
    pub legal_basis: Code,
    pub created: Time,
    pub content_commitment: Digest,
    pub caller_context_commitment: Option<Digest>,
    pub content_length: u64,
    pub ending: Ending,
    pub route: Option<String>,
    pub bridged_from: Option<XRoadClientId>,
    pub bridged_to: Option<XRoadServiceId>,
}

impl ManifestFields {
    /// The member whose signing certificate may sign this manifest: the client's for a request, the service's for a
    /// response.
    pub fn signing_member(&self) -> MemberId {
        match self.direction {
            Direction::Response => self.service.subsystem().member(),
            _ => self.client.member(),
        }
    }
}

/// A manifest with the bytes that are signed. The two always agree: it is only made by encoding or by strict parsing.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    fields: ManifestFields,
    encoded: Bytes,
    digest: Digest,
}

impl Manifest {
    /// Encodes `fields`.
    pub fn new(fields: ManifestFields) -> Self {
        let encoded: Bytes = to_schema(&fields).encode_to_vec().into();
        let digest = Digest::of(&encoded);
        Self { fields, encoded, digest }
    }

    /// Parses `encoded` strictly: canonical, of a known version, every field within its bounds.
    pub fn parse(encoded: Bytes) -> Result<Self, ManifestError> {
        if encoded.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(encoded.len()));
        }
        let raw: schema::Manifest = decode_canonical("manifest", encoded.clone())
            .map_err(|error| of_a_later_version(&encoded, error))?;
        let fields = from_schema(raw)?;
        let digest = Digest::of(&encoded);
        Ok(Self { fields, encoded, digest })
    }

    /// The latest version of the format that is known here.
    pub const VERSION: u32 = BRIDGED;

    /// The bytes that are signed.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// SHA-256 of the bytes: what the next manifest names.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl std::ops::Deref for Manifest {
    type Target = ManifestFields;

    fn deref(&self) -> &ManifestFields {
        &self.fields
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.fmt(f)
    }
}

fn to_schema(fields: &ManifestFields) -> schema::Manifest {
    let optional = |digest: Option<Digest>| digest.map(Digest::to_bytes).unwrap_or_default();
    schema::Manifest {
        version: if fields.bridged_from.is_some() || fields.bridged_to.is_some() { BRIDGED } else { PLAIN },
        exchange_id: Bytes::from_owner(*fields.exchange.as_bytes()),
        direction: fields.direction.into(),
        index: fields.index,
        previous: optional(fields.previous),
        last_received: optional(fields.last_received),
        client: fields.client.to_string(),
        service: fields.service.to_string(),
        method: fields.method.as_ref().map(Method::to_string).unwrap_or_default(),
        sender: fields.sender.to_string(),
        receiver: fields.receiver.to_string(),
        log_origin: fields.log_origin.clone(),
        signing_certificate: fields.signing_certificate.to_bytes(),
        configuration_number: fields.configuration_number,
        configuration_digest: fields.configuration_digest.to_bytes(),
        nonce: Bytes::from_owner(fields.nonce),
        purpose: fields.purpose.to_string(),
        legal_basis: fields.legal_basis.to_string(),
        created_ms: fields.created.as_millis(),
        content_commitment: fields.content_commitment.to_bytes(),
        caller_context_commitment: optional(fields.caller_context_commitment),
        content_length: fields.content_length,
        ending: fields.ending.into(),
        route: fields.route.clone().unwrap_or_default(),
        bridged_from: fields.bridged_from.as_ref().map(XRoadClientId::to_string).unwrap_or_default(),
        bridged_to: fields.bridged_to.as_ref().map(XRoadServiceId::to_string).unwrap_or_default(),
    }
}

fn from_schema(raw: schema::Manifest) -> Result<ManifestFields, ManifestError> {
    let bridged = !(raw.bridged_from.is_empty() && raw.bridged_to.is_empty());
    match (raw.version, bridged) {
        (PLAIN, false) | (BRIDGED, true) => {}
        (PLAIN | BRIDGED, _) => return Err(ManifestError::Field("version")),
        (version, _) => return Err(ManifestError::Version(version)),
    }
    let direction = match Direction::try_from(raw.direction) {
        Ok(direction @ (Direction::Request | Direction::Response)) => direction,
        _ => return Err(ManifestError::Field("direction")),
    };
    let ending = match Ending::try_from(raw.ending) {
        Ok(ending @ (Ending::Continue | Ending::End | Ending::Abort)) => ending,
        _ => return Err(ManifestError::Field("ending")),
    };
    let caller_context_commitment =
        optional_digest("caller_context_commitment", &raw.caller_context_commitment)?;
    let previous = optional_digest("previous", &raw.previous)?;
    if previous.is_some() != (raw.index > 0) {
        return Err(ManifestError::Field("previous"));
    }
    if caller_context_commitment.is_some() && (raw.index > 0 || direction == Direction::Response) {
        return Err(ManifestError::Field("caller_context_commitment"));
    }
    if direction == Direction::Request && !raw.bridged_to.is_empty() {
        // Whoever asks cannot know it.
        return Err(ManifestError::Field("bridged_to"));
    }
    if direction == Direction::Response && raw.last_received.is_empty() {
        // An answer names what it answers, always: else it could be paired with another question later.
        return Err(ManifestError::Field("last_received"));
    }
    Ok(ManifestFields {
        exchange: identifier("exchange_id", ExchangeId::from_slice(&raw.exchange_id))?,
        direction,
        index: raw.index,
        previous,
        last_received: optional_digest("last_received", &raw.last_received)?,
        client: identifier("client", raw.client.parse())?,
        service: identifier("service", raw.service.parse())?,
        method: optional_identifier("method", &raw.method)?,
        sender: identifier("sender", raw.sender.parse())?,
        receiver: identifier("receiver", raw.receiver.parse())?,
        log_origin: name("log_origin", raw.log_origin)?.ok_or(ManifestError::Field("log_origin"))?,
        signing_certificate: digest("signing_certificate", &raw.signing_certificate)?,
        configuration_number: raw.configuration_number,
        configuration_digest: digest("configuration_digest", &raw.configuration_digest)?,
        nonce: raw.nonce.as_ref().try_into().map_err(|_| ManifestError::Field("nonce"))?,
        purpose: raw.purpose.parse().map_err(|_| ManifestError::Field("purpose"))?,
        legal_basis: raw.legal_basis.parse().map_err(|_| ManifestError::Field("legal_basis"))?,
        created: Time::from_millis(raw.created_ms),
        content_commitment: digest("content_commitment", &raw.content_commitment)?,
        caller_context_commitment,
        content_length: match raw.content_length {
            length if length <= MAX_BODY as u64 => length,
            _ => return Err(ManifestError::Field("content_length")),
        },
        ending,
        route: name("route", raw.route)?,
        bridged_from: optional_identifier("bridged_from", &raw.bridged_from)?,
        bridged_to: optional_identifier("bridged_to", &raw.bridged_to)?,
    })
}

/// Fields that are not known here may be those of a later version.
fn of_a_later_version(encoded: &[u8], error: EncodingError) -> ManifestError {
    match schema::Manifest::decode(encoded) {
        Ok(raw) if raw.version > Manifest::VERSION => ManifestError::Version(raw.version),
        _ => ManifestError::Encoding(error),
    }
}

fn identifier<T>(field: &'static str, parsed: Result<T, IdentifierError>) -> Result<T, ManifestError> {
    parsed.map_err(|source| ManifestError::Identifier { field, source })
}

/// None if empty.
fn optional_identifier<T: FromStr<Err = IdentifierError>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, ManifestError> {
    if text.is_empty() { Ok(None) } else { identifier(field, text.parse()).map(Some) }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, ManifestError> {
    Digest::from_slice(bytes).ok_or(ManifestError::Field(field))
}

fn optional_digest(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, ManifestError> {
    if bytes.is_empty() { Ok(None) } else { digest(field, bytes).map(Some) }
}

/// A printable name of bounded length; none if empty.
fn name(field: &'static str, text: String) -> Result<Option<String>, ManifestError> {
    if text.len() > MAX_NAME || text.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
        return Err(ManifestError::Field(field));
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A valid request's fields.
    pub(crate) fn sample() -> ManifestFields {
        ManifestFields {
            exchange: ExchangeId::new(Time::from_millis(1_795_288_440_005), &[7; 10]),
            direction: Direction::Request,
            index: 0,
            previous: None,
            last_received: None,
            client: "NORD/SH/luebeck/gewerbeamt".parse().unwrap(),
            service: "NORD/MV/gewerberegister/register/auskunft".parse().unwrap(),
            method: Some("/gewerbe.v1.Register/Auskunft".parse().unwrap()),
            sender: "NORD/SH/luebeck/s1".parse().unwrap(),
            receiver: "NORD/MV/gewerberegister/s1".parse().unwrap(),
            log_origin: "trave.example/NORD/SH/luebeck/s1/1".into(),
            signing_certificate: Digest::of(b"certificate"),
            configuration_number: 3,
            configuration_digest: Digest::of(b"configuration"),
            nonce: [9; 32],
            purpose: "gewerbeummeldung".parse().unwrap(),
            legal_basis: "GewO-14".parse().unwrap(),
            created: Time::from_millis(1_795_288_440_005),
            content_commitment: Digest::of(b"content"),
            caller_context_commitment: Some(Digest::of(b"caller")),
            content_length: 42,
            ending: Ending::End,
            route: None,
            bridged_from: None,
            bridged_to: None,
        }
    }

    #[test]
    fn parses_what_it_encodes() {
        let manifest = Manifest::new(sample());
        let parsed = Manifest::parse(manifest.encoded().clone()).unwrap();
        assert_eq!(parsed, manifest);
        assert_eq!(parsed.signing_member().as_str(), "NORD/SH/luebeck");
        assert!(manifest.encoded().len() < 640, "{} bytes", manifest.encoded().len());
    }

    type Change = fn(&mut schema::Manifest);

    #[test]
    fn every_field_out_of_bounds_is_refused() {
        let changes: [(&str, Change); 22] = [
            ("version", |m| m.version = 3),
            ("no version", |m| m.version = 0),
            ("the version of a bridge, and none is named", |m| m.version = 2),
            ("exchange id", |m| m.exchange_id = Bytes::from_static(&[0; 16])),
            ("direction", |m| m.direction = 0),
            ("direction beyond", |m| m.direction = 7),
            ("previous at index 0", |m| m.previous = Digest::of(b"").to_bytes()),
            ("index without previous", |m| m.index = 1),
            ("last received", |m| m.last_received = Bytes::from_static(&[1; 31])),
            ("client", |m| m.client = "NORD/SH/luebeck".into()),
            ("method", |m| m.method = "/a/b/c".into()),
            ("log origin", |m| m.log_origin.clear()),
            ("log origin with space", |m| m.log_origin = "a b".into()),
            ("nonce", |m| m.nonce = Bytes::from_static(&[0; 16])),
            ("purpose", |m| m.purpose = "um zu fragen".into()),
            ("legal basis", |m| m.legal_basis.clear()),
            ("content length", |m| m.content_length = MAX_BODY as u64 + 1),
            ("ending", |m| m.ending = 0),
            ("bridged from", |m| (m.version, m.bridged_from) = (2, "EE/GOV".into())),
            ("bridged from in another spelling", |m| (m.version, m.bridged_from) = (2, "EE/GOV/%61".into())),
            ("bridged from with a line", |m| (m.version, m.bridged_from) = (2, "EE/GOV/a\nb".into())),
            ("a request that knows where it goes", |m| {
                (m.version, m.bridged_to) = (2, "EE/GOV/1/sub/rr".into());
            }),
        ];
        for (what, change) in changes {
            let mut raw = to_schema(&sample());
            change(&mut raw);
            assert!(Manifest::parse(raw.encode_to_vec().into()).is_err(), "{what}");
        }
        assert!(matches!(Manifest::parse(vec![0; MAX_MANIFEST + 1].into()), Err(ManifestError::TooLong(_))));
    }

    #[test]
    fn a_bridge_marks_what_passes_it() {
        let from = ManifestFields { bridged_from: Some("EE/GOV/70000310".parse().unwrap()), ..sample() };
        let parsed = |fields| Manifest::parse(Manifest::new(fields).encoded().clone());
        assert_eq!(parsed(from.clone()).unwrap().bridged_from, from.bridged_from);
        let last_received = Some(Digest::of(b"request"));
        let to = ManifestFields {
            direction: Direction::Response,
            last_received,
            caller_context_commitment: None,
            bridged_to: Some("EE/GOV/1/sub/rr".parse().unwrap()),
            ..from
        };
        assert_eq!(parsed(to.clone()).unwrap().bridged_to, to.bridged_to);
        let mut unsaid = to_schema(&to);
        assert_eq!(unsaid.version, 2);
        unsaid.version = 1;
        let refused = Manifest::parse(unsaid.encode_to_vec().into());
        assert!(matches!(refused, Err(ManifestError::Field("version"))), "{refused:?}");
        let part = "x".repeat(127);
        let most = ManifestFields {
            bridged_from: Some(format!("{part}/{part}/{part}/{part}").parse().unwrap()),
            bridged_to: Some(format!("{part}/{part}/{part}/{part}/{part}").parse().unwrap()),
            ..to
        };
        assert!(Manifest::new(most).encoded().len() < MAX_MANIFEST, "the longest names fit");
    }

    #[test]
    fn what_a_later_version_says_is_newer_and_not_wrong() {
        let parsed = |version| {
            let raw = schema::Manifest { version, ..to_schema(&sample()) };
            // A field 31 that no manifest of today has.
            Manifest::parse([&raw.encode_to_vec()[..], &[0xf8, 0x01, 1]].concat().into())
        };
        assert!(matches!(parsed(3), Err(ManifestError::Version(3))));
        for known in [1, 2] {
            assert!(matches!(parsed(known), Err(ManifestError::Encoding(_))));
        }
    }

    #[test]
    fn a_response_has_no_caller_context() {
        let last_received = Some(Digest::of(b"request"));
        let fields = ManifestFields { direction: Direction::Response, last_received, ..sample() };
        let parsed = |fields| Manifest::parse(Manifest::new(fields).encoded().clone());
        assert!(parsed(fields.clone()).is_err());
        let fields = ManifestFields { caller_context_commitment: None, ..fields };
        assert!(parsed(fields.clone()).is_ok());
        assert!(parsed(ManifestFields { last_received: None, ..fields }).is_err(), "it answers nothing");
    }
}
