//! What is appended to a log: a leaf, and what stands beside it.

use bytes::Bytes;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Attachment, Leaf, leaf};
use trave_proto::schema::message::Signature;

use crate::contents::ContentParts;
use crate::person::Person;
use crate::reference::Reference;

/// Bytes named by their SHA-256: a certificate chain, an OCSP answer, a configuration. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    digest: Digest,
    /// The digest as records hold it, shared by them all.
    named: Bytes,
    bytes: Bytes,
}

impl Artefact {
    /// Computes the digest, once for all the records that name it.
    pub fn new(bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self { digest, named: digest.to_bytes(), bytes }
    }

    /// SHA-256 of the bytes, as a record names them.
    pub fn named(&self) -> Bytes {
        self.named.clone()
    }

    /// SHA-256 of the bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Most persons of one message.
pub const MAX_PERSONS: usize = 16;

/// What is appended.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the tree binds.
    pub leaf: Leaf,
    /// Of a message: its signature.
    pub signature: Option<Signature>,
    /// What is needed to verify the leaf: stored once per segment.
    pub artefacts: Vec<Artefact>,
    /// Of a message: its content, if the policy of the service keeps it.
    pub content: Option<ContentParts>,
    /// Of a message: the persons concerned, at most [`MAX_PERSONS`]. Their pseudonyms alone are kept.
    pub persons: Vec<Person>,
    /// Of a message: what its caller calls it by, one of a kind. Their pseudonyms alone are kept.
    pub references: Vec<Reference>,
    /// Whether it ends its exchange: the key of the contents is not held in memory any longer. If something comes after
    /// all, it gets a key of its own.
    pub last: bool,
}

impl Entry {
    /// A leaf with nothing beside it.
    pub const fn new(leaf: Leaf) -> Self {
        Self {
            leaf,
            signature: None,
            artefacts: Vec::new(),
            content: None,
            persons: Vec::new(),
            references: Vec::new(),
            last: false,
        }
    }
}

/// The artefacts that a leaf names itself: they need not be named beside it once more.
pub(crate) fn named_by(leaf: &Leaf) -> impl Iterator<Item = Digest> + use<> {
    let named = match &leaf.entry {
        Some(leaf::Entry::Message(message)) => [
            &message.chain_digest,
            &message.ocsp_digest,
            &message.tls_certificate_digest,
            &message.grant_digest,
            &message.group_digest,
        ]
        .map(|digest| Digest::from_slice(digest)),
        _ => [None; 5],
    };
    named.into_iter().flatten()
}

/// The artefacts that a record needs: those that its leaf names, and those that are named beside it.
pub(crate) fn artefacts_of(leaf: &Leaf, attachment: &Attachment) -> impl Iterator<Item = Digest> {
    named_by(leaf).chain(attachment.artefacts.iter().filter_map(|digest| Digest::from_slice(digest)))
}

/// Kinds of leaves: the field numbers of `trave.log.v1.Leaf.entry`.
pub mod kind {
    /// A signed message.
    pub const MESSAGE: u8 = 10;
    /// The end of an exchange otherwise than by a complete response.
    pub const ENDED: u8 = 11;
    /// A refusal.
    pub const REFUSAL: u8 = 12;
    /// A grant, given or withdrawn.
    pub const GRANT: u8 = 13;
    /// An erasure.
    pub const ERASURE: u8 = 14;
    /// A configuration came into use.
    pub const CONFIGURATION: u8 = 15;
    /// Degraded operation begins or ends.
    pub const DEGRADATION: u8 = 16;
    /// Somebody read the log.
    pub const READ: u8 = 17;
    /// An act of the registry's administrators.
    pub const ACT: u8 = 18;
    /// The log was opened.
    pub const STARTED: u8 = 19;
    /// A local group changed.
    pub const GROUP: u8 = 20;
    /// A checkpoint of another server's log.
    pub const PEER_CHECKPOINT: u8 = 24;
    /// A message that was lost came back from the other side.
    pub const RECOVERED: u8 = 25;
    /// An auditor asked for a search by person.
    pub const PERSON_SEARCH_ASKED: u8 = 26;
    /// A second person released it.
    pub const PERSON_SEARCH_RELEASED: u8 = 27;
    /// Pseudonyms of persons were erased, or their keys destroyed.
    pub const PERSONS: u8 = 28;
    /// The log begins in the place of another.
    pub const GENERATION: u8 = 29;
    /// Two logs were compared.
    pub const RECONCILIATION: u8 = 31;
    /// A segment was archived, an archived object removed, or a range pruned.
    pub const ARCHIVE: u8 = 30;
    /// Something was overwritten in an earlier generation of the log.
    pub const EARLIER: u8 = 32;
    /// A legal hold, or its end.
    pub const HOLD: u8 = 21;
    /// Contents or records whose time was over were overwritten.
    pub const EXPIRY: u8 = 22;
    /// An erasure that was applied for, approved or told.
    pub const ERASURE_NOTICE: u8 = 23;
    /// An alarm about another server's log begins, is acknowledged, or ends.
    pub const PEER_CONDITION: u8 = 35;
    /// An hour could not be compared with another server's log.
    pub const HOUR_NOT_COMPARED: u8 = 36;
    /// Another server said what its log holds of an hour, before it was told anything.
    pub const SUMMARY_COMMITTED: u8 = 37;
}
