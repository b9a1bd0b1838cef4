//! What a message says: head, body and trailers, who acts for which case, and the salted commitments to both.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::digest::{Digest, tag};
use crate::schema::message as schema;

use super::{MAX_BODY, MAX_CALLER_CONTEXT, MAX_HEAD};

/// Why a content or a caller context is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContentError {
    /// A part is longer than a message may hold.
    #[error("the {part} of the message has {len} bytes, more than {max}")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its bytes.
        len: usize,
        /// The most allowed.
        max: usize,
    },
    /// A salt is not 32 bytes.
    #[error("a salt has 32 bytes")]
    Salt,
}

/// 32 random bytes that keep a commitment from being guessed. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// From random bytes, fresh for each commitment.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// A salt as it stands in an envelope.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ContentError> {
        bytes.try_into().map(Self).map_err(|_| ContentError::Salt)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 bytes as an envelope holds them.
    pub fn to_bytes(self) -> Bytes {
        // Of an owner, as a digest's: a clone of it does not allocate.
        Bytes::from_owner(self.0)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// Head, body and trailers of one message. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Encoded `RequestHead` or `ResponseHead`, in the first message of a direction.
    pub head: Option<Bytes>,
    /// A piece of the body, at most [`MAX_BODY`] bytes.
    pub body: Bytes,
    /// Encoded `Trailers`, in the last message of a direction that has any.
    pub trailers: Option<Bytes>,
}

impl Content {
    /// The commitment: SHA-256 over tag, salt and the parts, each with its presence and its length.
    pub fn commit(&self, salt: &Salt) -> Digest {
        let [head, body, trailers] =
            [prefix(self.head.as_deref()), prefix(Some(&self.body)), prefix(self.trailers.as_deref())];
        Digest::of_parts(&[
            tag::CONTENT,
            salt.as_bytes(),
            &head,
            self.head.as_deref().unwrap_or_default(),
            &body,
            &self.body,
            &trailers,
            self.trailers.as_deref().unwrap_or_default(),
        ])
    }

    /// Refuses parts that are longer than a message may hold.
    pub fn check(&self) -> Result<(), ContentError> {
        let head = self.head.as_ref().map_or(0, Bytes::len);
        let trailers = self.trailers.as_ref().map_or(0, Bytes::len);
        for (part, len, max) in
            [("head", head, MAX_HEAD), ("body", self.body.len(), MAX_BODY), ("trailers", trailers, MAX_HEAD)]
        {
            if len > max {
                return Err(ContentError::TooLong { part, len, max });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes of body)", self.body.len())
    }
}

/// One byte for presence, eight for the length: no two different triples of parts give the same bytes.
fn prefix(part: Option<&[u8]>) -> [u8; 9] {
    let mut prefix = [0; 9];
    if let Some(part) = part {
        prefix[0] = 1;
        prefix[1..].copy_from_slice(&(part.len() as u64).to_be_bytes());
    }
    prefix
}

/// Who acts, for which case, about whom: declared by the agency system, not verified. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallerContext {
    /// `x-road-userid`
    pub user: String,
    /// `x-road-issue`: the case or file number.
    pub issue: String,
    /// `x-road-id`: the caller's own message id.
    pub message_id: String,
    /// `trave-subject`: the person concerned.
    pub subject: String,
    /// `x-road-represented-party`: for whom the caller acts.
    pub represented_party: String,
}

impl CallerContext {
    /// The encoding that is committed to and that travels.
    pub fn encode(&self) -> Bytes {
        schema::CallerContext {
            user: self.user.clone(),
            issue: self.issue.clone(),
            message_id: self.message_id.clone(),
            subject: self.subject.clone(),
            represented_party: self.represented_party.clone(),
        }
        .encode_to_vec()
        .into()
    }

    /// The caller context that `bytes` encode.
    pub fn decode(bytes: &[u8]) -> Result<Self, crate::encoding::EncodingError> {
        let decoded: schema::CallerContext = crate::encoding::decode_canonical("caller context", bytes)?;
        let schema::CallerContext { user, issue, message_id, subject, represented_party } = decoded;
        Ok(Self { user, issue, message_id, subject, represented_party })
    }

    /// Refuses more than [`MAX_CALLER_CONTEXT`] bytes.
    pub fn check_len(len: usize) -> Result<(), ContentError> {
        if len > MAX_CALLER_CONTEXT {
            let part = "caller context";
            return Err(ContentError::TooLong { part, len, max: MAX_CALLER_CONTEXT });
        }
        Ok(())
    }
}

impl fmt::Debug for CallerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerContext(..)")
    }
}

/// The commitment to an encoded caller context.
pub fn commit_to_caller_context(encoded: &[u8], salt: &Salt) -> Digest {
    Digest::of_parts(&[tag::CALLER_CONTEXT, salt.as_bytes(), &prefix(Some(encoded)), encoded])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt::new([1; 32]);

    fn content(head: Option<&'static str>, body: &'static str, trailers: Option<&'static str>) -> Content {
        let part = |text: &'static str| Bytes::from_static(text.as_bytes());
        Content { head: head.map(part), body: part(body), trailers: trailers.map(part) }
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_commitment() {
        let all = [
            content(None, "", None),
            content(Some(""), "", None),
            content(None, "", Some("")),
            content(Some("ab"), "c", None),
            content(Some("a"), "bc", None),
            content(None, "abc", None),
            content(None, "ab", Some("c")),
        ];
        let mut commitments: Vec<_> = all.iter().map(|content| content.commit(&SALT)).collect();
        commitments.push(all[0].commit(&Salt::new([2; 32])));
        commitments.push(commit_to_caller_context(b"abc", &SALT));
        let count = commitments.len();
        commitments.sort();
        commitments.dedup();
        assert_eq!(commitments.len(), count);
    }

    #[test]
    fn a_part_that_is_too_long_is_named() {
        let content = Content { body: vec![0; MAX_BODY + 1].into(), ..Content::default() };
        assert!(matches!(content.check(), Err(ContentError::TooLong { part: "body", .. })));
        assert!(Content { body: vec![0; MAX_BODY].into(), ..Content::default() }.check().is_ok());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let context = CallerContext { subject: "Anna Beispiel".into(), ..CallerContext::default() };
        assert!(!format!("{context:?} {SALT:?} {:?}", content(None, "geheim", None)).contains("geheim"));
        assert!(!format!("{context:?}").contains("Anna"));
        assert_eq!(CallerContext::decode(&context.encode()).unwrap(), context);
    }
}
