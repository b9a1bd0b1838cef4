//! How a container comes into being: its files, the exporter's signature over them, and the timestamp over that. The archive
//! timestamp follows.

use bytes::Bytes;
use prost::Message;

use super::archive::Entry;
use super::archiving::Unarchived;
use super::cades::{self, Seal};
use super::page::{readme, states};
use super::parts::{self, Part, PartName, PartState};
use super::verify::why;
use super::{
    CONFIGURATION_NAME, ContainerError, ENGLISH_NAME, GERMAN_NAME, MANIFEST_NAME, MEDIA_TYPE, MIMETYPE_NAME,
    PARTS_NAME, PROOF_NAME, README_NAME, SIGNATURE_NAME, manifest,
};
use crate::certificate::SignatureAlgorithm;
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration};
use crate::page::{self, Language};
use crate::proof::{self, Conclusion, Proof};
use crate::verification::TrustedSigner;

/// The files of a container, of a proof that holds.
#[derive(Debug)]
pub struct Unsealed {
    files: Files,
}

/// A container with the exporter's signature.
#[derive(Debug)]
pub struct Unstamped {
    files: Files,
    signature: Bytes,
}

#[derive(Debug)]
struct Files {
    entries: Vec<Entry>,
    manifest: Vec<u8>,
    signer: TrustedSigner,
    at: Time,
}

impl Unsealed {
    /// The files for `proof`, which is verified against `anchor` first. `configuration` is the one in force at `at`, when
    /// `signer`, the exporter, seals.
    pub fn new(
        proof: &Proof,
        (anchor, configuration): (&Anchor, &Configuration),
        signer: TrustedSigner,
        at: Time,
    ) -> Result<Self, ContainerError> {
        let report = proof::verify(proof, anchor, Some(at));
        let Some(story) = report.story.as_ref().filter(|_| report.conclusion == Conclusion::Holds) else {
            return Err(ContainerError::Proof(why(&report)));
        };
        let (mut parts, contents) = parts::of(proof, &report)?;
        if parts.iter().any(|part| part.state == PartState::Mismatch) {
            return Err(ContainerError::Proof("MISMATCH of a content".into()));
        }
        parts.insert(
            0,
            Part { name: PartName::Proof, state: PartState::Verified, files: vec![PROOF_NAME.into()] },
        );
        let text = |lang| format!("{}\n{}", states(lang, &parts), page::of(&report, proof, anchor, lang));
        let mut entries = vec![
            Entry::new(MIMETYPE_NAME, MEDIA_TYPE),
            Entry::new(README_NAME, readme(&story.exchange, signer.chain().subject())),
            Entry::new(GERMAN_NAME, text(Language::De)),
            Entry::new(ENGLISH_NAME, text(Language::En)),
            Entry::new(PARTS_NAME, parts::table(&story.exchange, &parts)),
            Entry::new(CONFIGURATION_NAME, configuration.signed().encode_to_vec()),
            Entry::new(PROOF_NAME, proof.encode()),
        ];
        entries.extend(contents);
        let manifest = manifest::of(&entries);
        Ok(Self { files: Files { entries, manifest, signer, at } })
    }

    /// What the exporter's key signs.
    pub fn to_sign(&self) -> Result<Vec<u8>, ContainerError> {
        self.files.attributes()
    }

    /// The container with its signature over [`Self::to_sign`].
    pub fn signed(self, signature: impl Into<Bytes>) -> Result<Unstamped, ContainerError> {
        let signature = signature.into();
        let verified = self.files.signer.chain().verify_signature(&self.files.attributes()?, &signature);
        verified.map_err(|_| ContainerError::Signature)?;
        Ok(Unstamped { files: self.files, signature })
    }
}

impl Unstamped {
    /// What the timestamp is over: the SHA-256 of the signature (EN 319 122-1 section 5.3).
    pub fn digest(&self) -> Digest {
        Digest::of(&self.signature)
    }

    /// The sealed container, with the timestamp (TimeStampToken, DER). `trusted` are the anchor and the configuration in force.
    pub fn stamped(
        self,
        token: Bytes,
        trusted: (&Anchor, &Configuration),
    ) -> Result<Unarchived, ContainerError> {
        let Self { files: Files { mut entries, manifest, signer, at }, signature } = self;
        let chain = signer.chain();
        let authority = chain.authority();
        let read = chain.certificates().map(|der| crate::certificate::Certificate::from_der(der));
        let mut certificates = read.collect::<Result<Vec<_>, _>>().map_err(|_| ContainerError::Signature)?;
        certificates.push(authority.clone());
        let seal = Seal { certificates, signing_time: at, signature, token, ocsp: signer.ocsp_response().1 };
        let encoded = seal.encode(&manifest, chain.subject().public_key.algorithm());
        entries.push(Entry::new(MANIFEST_NAME, manifest));
        entries.push(Entry::new(SIGNATURE_NAME, encoded.ok_or(ContainerError::Signature)?));
        Unarchived::sealed(entries, trusted)
    }
}

impl Files {
    fn attributes(&self) -> Result<Vec<u8>, ContainerError> {
        let (certificate, algorithm) = (self.signer.chain().certificate(), self.algorithm());
        cades::attributes(&self.manifest, certificate, algorithm, self.at).ok_or(ContainerError::Signature)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.signer.chain().subject().public_key.algorithm()
    }
}
