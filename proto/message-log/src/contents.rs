//! Contents of messages, kept encrypted: one random key per exchange, so that overwriting the key makes every copy of them
//! unreadable.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use trave_proto::digest::Digest;
use trave_proto::schema::message::Envelope;
use zeroize::Zeroize as _;

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
    pub(crate) slot: u64,
    /// Slot, exchange, nonce, ciphertext: the payload of the record.
    pub(crate) payload: Vec<u8>,
}

/// The key of one exchange's contents. It encrypts in the process that made it alone: what is read from a key file only
/// decrypts. ring's copy of it is not zeroized, and lives no longer.
pub(crate) struct ContentKey {
    pub(crate) slot: u64,
    exchange: [u8; 16],
    cipher: LessSafeKey,
    /// Counted up, so that no nonce is ever used twice under one key, whatever callers hand in.
    nonces: AtomicU64,
}

impl ContentKey {
    /// The key that stands, or will stand, in this slot; none if it has not 32 bytes.
    pub(crate) fn new(slot: u64, exchange: [u8; 16], secret: &[u8]) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).ok()?);
        Some(Self { slot, exchange, cipher, nonces: AtomicU64::new(0) })
    }

    /// Encrypts a content under this key.
    pub(crate) fn seal(&self, manifest: &[u8], parts: &ContentParts) -> Result<Sealed, LogError> {
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
        Ok(Sealed { slot: self.slot, payload })
    }

    /// Decrypts the payload of a content record; none if it was not encrypted by this key for this manifest.
    pub(crate) fn open(&self, manifest: &[u8], payload: &[u8]) -> Option<ContentParts> {
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
}

/// What the ciphertext is bound to: this exchange and this manifest.
fn associated(exchange: &[u8; 16], manifest: &[u8]) -> Vec<u8> {
    [&b"trave stored content v1\n"[..], exchange, Digest::of(manifest).as_ref()].concat()
}
