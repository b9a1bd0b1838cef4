//! How a security server makes a proof of what its log holds. What is put together here is checked by nobody until it is
//! verified: whoever exports should call [`verify`](super::verify) before giving the file away.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::reading::read_leaf;
use super::report::Failure;
use super::{COSIGNED, FIRST_LINE, MAX_PROOF, PLAIN, Proof, limits};
use crate::digest::Digest;
use crate::global_configuration::Configuration;
use crate::identifier::ExchangeId;
use crate::message::{Content, Manifest, Salt};
use crate::schema::configuration::{SignedAnchor, SignedConfiguration};
use crate::schema::log::{Leaf, leaf::Entry};
use crate::schema::message as message_schema;
use crate::schema::proof::{self as schema, ContentState, Record};

/// Why a proof cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A leaf of the log cannot be read.
    #[error("record {index} cannot be read: {why}")]
    Leaf {
        /// Its place in the log.
        index: u64,
        /// What is wrong.
        why: String,
    },
    /// A message's record without the message's parts, or the reverse.
    #[error("record {0} is a message without its signature, or a signature without its message")]
    Parts(u64),
    /// Something that a record names was not added.
    #[error("the {what} {digest} that a record names was not added")]
    Missing {
        /// Artefact or configuration.
        what: &'static str,
        /// Its SHA-256.
        digest: Digest,
    },
    /// More than a proof may hold.
    #[error("the exchange is too large for a proof: leave out its contents")]
    TooLarge,
}

/// A record of the exchange, as the log holds it.
#[derive(Debug, Clone)]
pub struct Exported {
    /// Encoded `trave.log.v1.Leaf`.
    pub leaf: Bytes,
    /// Its place in the log, from 0.
    pub index: u64,
    /// Audit path (RFC 6962 section 2.1.1) to the checkpoint's root, nearest sibling first.
    pub path: Vec<Digest>,
    /// What stands beside a message's leaf; none for other records.
    pub message: Option<ExportedMessage>,
}

/// What stands beside the leaf of a message.
#[derive(Debug, Clone)]
pub struct ExportedMessage {
    /// The batch signature, as logged.
    pub signature: message_schema::Signature,
    /// The content, or why it is not there.
    pub content: ExportedContent,
    /// Encoded `CallerContext` and its salt, if it is kept and given.
    pub caller_context: Option<(Bytes, Salt)>,
}

/// A content, or why it is not there.
#[derive(Debug, Clone)]
pub enum ExportedContent {
    /// It is given, with its salt.
    Included(Content, Salt),
    /// The exporter does not have it: its policy did not keep it, or not any longer, or its log was restored without keys.
    NotKept,
    /// It was erased; the record of the erasure is exported too.
    Erased,
    /// It is kept, and not given.
    Withheld,
}

/// Gathers what a proof needs.
#[derive(Debug)]
pub struct ProofBuilder {
    exchange: ExchangeId,
    anchors: Vec<SignedAnchor>,
    configurations: BTreeMap<(u64, Digest), SignedConfiguration>,
    artefacts: BTreeMap<Digest, Bytes>,
    records: BTreeMap<u64, Record>,
    needed_configurations: BTreeSet<Digest>,
    recorders_configurations: BTreeSet<Digest>,
    needed_artefacts: BTreeSet<Digest>,
}

impl ProofBuilder {
    /// A proof of `exchange`. `anchors` is the whole chain that this server knows, the instance's first anchor first;
    /// it may be empty while the first is still in force.
    pub fn new(exchange: ExchangeId, anchors: Vec<SignedAnchor>) -> Self {
        Self {
            exchange,
            anchors,
            configurations: BTreeMap::new(),
            artefacts: BTreeMap::new(),
            records: BTreeMap::new(),
            needed_configurations: BTreeSet::new(),
            recorders_configurations: BTreeSet::new(),
            needed_artefacts: BTreeSet::new(),
        }
    }

    /// Whether a record of the exchange is part of its proof: its messages, and the records of its end and of its erasure.
    /// A refusal is none: there is no message to prove.
    pub fn takes(leaf: &Leaf) -> bool {
        matches!(
            leaf.entry,
            Some(Entry::Message(_) | Entry::Recovered(_) | Entry::Ended(_) | Entry::Erasure(_))
        )
    }

    /// Adds a record that the builder [takes](Self::takes).
    pub fn record(&mut self, record: Exported) -> Result<(), BuildError> {
        let index = record.index;
        let refused = |why: String| BuildError::Leaf { index, why };
        let (entry, _) = read_leaf(&record.leaf).map_err(|failure| match failure {
            Failure::Fails(why) | Failure::CannotTell(why) => refused(why),
        })?;
        let mut raw = match (&entry, record.message) {
            (Entry::Message(_) | Entry::Recovered(_), Some(message)) => message_record(message),
            (Entry::Ended(_) | Entry::Erasure(_), None) => Record::default(),
            (Entry::Message(_) | Entry::Recovered(_) | Entry::Ended(_) | Entry::Erasure(_), _) => {
                return Err(BuildError::Parts(index));
            }
            _ => return Err(refused("records of this kind are not part of a proof".into())),
        };
        let message = match &entry {
            Entry::Message(entry) => Some(entry),
            Entry::Recovered(recovered) => recovered.message.as_ref(),
            _ => None,
        };
        if let Some(entry) = message {
            let manifest =
                Manifest::parse(entry.manifest.clone()).map_err(|error| refused(error.to_string()))?;
            let digest = |bytes: &Bytes| Digest::from_slice(bytes);
            let artefacts = [
                &entry.chain_digest,
                &entry.ocsp_digest,
                &entry.tls_certificate_digest,
                &entry.grant_digest,
                &entry.group_digest,
            ];
            self.needed_artefacts.extend(artefacts.into_iter().filter_map(digest));
            let configurations = [digest(&entry.configuration_digest), Some(manifest.configuration_digest)];
            self.recorders_configurations.extend(configurations[0]);
            self.needed_configurations.extend(configurations.into_iter().flatten());
        }
        raw.leaf = record.leaf;
        raw.index = index;
        raw.path = record.path.iter().map(|hash| hash.to_bytes()).collect();
        self.records.insert(index, raw);
        Ok(())
    }

    /// SHA-256 of each artefact that the records name: encoded chains, OCSP responses, TLS certificates (DER), encoded
    /// leaves of grants.
    pub fn needed_artefacts(&self) -> impl Iterator<Item = Digest> {
        self.needed_artefacts.iter().copied()
    }

    /// SHA-256 of each configuration that the records and their manifests name.
    pub fn needed_configurations(&self) -> impl Iterator<Item = Digest> {
        self.needed_configurations.iter().copied()
    }

    /// Adds an artefact; what no record names is left out of the file.
    pub fn artefact(&mut self, artefact: Bytes) {
        self.artefacts.insert(Digest::of(&artefact), artefact);
    }

    /// SHA-256 of each configuration that the recorder used: whose witnesses cosign its log for this proof.
    pub fn recorders_configurations(&self) -> impl Iterator<Item = &Digest> {
        self.recorders_configurations.iter()
    }

    /// Adds a configuration; what no record names is left out of the file.
    pub fn configuration(&mut self, configuration: &Configuration) {
        let key = (configuration.number(), configuration.digest());
        self.configurations.insert(key, configuration.signed().clone());
    }

    /// The proof, under a checkpoint: its note (C2SP), its token (RFC 3161, DER; empty while there is none, and then
    /// the proof cannot be told yet), and the lines of witnesses that a recorder's configuration lists; may be empty.
    pub fn build(
        mut self,
        note: Bytes,
        timestamp_token: Bytes,
        cosignatures: Bytes,
    ) -> Result<Proof, BuildError> {
        self.artefacts.retain(|digest, _| self.needed_artefacts.contains(digest));
        self.configurations.retain(|(_, digest), _| self.needed_configurations.contains(digest));
        let missing = |what| move |digest: &Digest| BuildError::Missing { what, digest: *digest };
        if let Some(digest) = self.needed_artefacts.iter().find(|digest| !self.artefacts.contains_key(digest))
        {
            return Err(missing("artefact")(digest));
        }
        let given = |digest: &&Digest| self.configurations.keys().any(|(_, given)| given == *digest);
        if let Some(digest) = self.needed_configurations.iter().find(|digest| !given(digest)) {
            return Err(missing("configuration")(digest));
        }
        let raw = schema::Proof {
            version: if cosignatures.is_empty() { PLAIN } else { COSIGNED },
            exchange_id: Bytes::copy_from_slice(self.exchange.as_bytes()),
            anchors: self.anchors,
            configurations: self.configurations.into_values().collect(),
            artefacts: self.artefacts.into_values().collect(),
            records: self.records.into_values().collect(),
            checkpoint: Some(schema::Checkpoint { note, timestamp_token, cosignatures }),
        };
        let proof = Proof { raw };
        let file = proof.encode();
        let fits = file.len() <= MAX_PROOF && limits::check(&file[FIRST_LINE.len()..]).is_ok();
        if fits { Ok(proof) } else { Err(BuildError::TooLarge) }
    }
}

fn message_record(message: ExportedMessage) -> Record {
    let (state, content, salt) = match message.content {
        ExportedContent::Included(Content { head, body, trailers }, salt) => {
            let content = message_schema::Content { head, body, trailers };
            (ContentState::Included, Some(content), salt.to_bytes())
        }
        ExportedContent::NotKept => (ContentState::NotKept, None, Bytes::new()),
        ExportedContent::Erased => (ContentState::Erased, None, Bytes::new()),
        ExportedContent::Withheld => (ContentState::Withheld, None, Bytes::new()),
    };
    let (caller_context, context_salt) = message.caller_context.unzip();
    Record {
        signature: Some(message.signature),
        content_state: state.into(),
        content_salt: salt,
        content,
        caller_context_salt: context_salt.map(Salt::to_bytes).unwrap_or_default(),
        caller_context,
        ..Record::default()
    }
}
