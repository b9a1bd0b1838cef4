//! Batch signatures: one signature over the Merkle root of several manifests, and the stage [`Signed`].
//!
//! The signed bytes are the tag `trave batch signature v1`, the size of the batch (4 bytes, big-endian) and the root
//! (RFC 6962 hashing, leaf = encoded manifest). Size and index are fixed by the signature, so a manifest can be shown
//! at one place of one batch only.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::digest::{Digest, tag};
use crate::message::{
    CallerContext, Content, ContentError, Direction, Manifest, ManifestError, ManifestFields, Salt,
    commit_to_caller_context,
};
use crate::schema::message as schema;
use crate::tree;

/// The most manifests that one signature covers.
pub const MAX_BATCH: usize = 1 << 16;
/// The most hashes in a path.
const MAX_PATH: usize = 16;
/// The longest signature of an algorithm that verifies here: RSA with 4096 bits.
const MAX_SIGNATURE: usize = 512;

/// Why a message is not what it should be, before anybody's key is looked at.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The signing key did not sign.
    #[error("the signing key cannot be used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More manifests than one signature covers, or none.
    #[error("a batch has 1 to {MAX_BATCH} manifests, this has {0}")]
    Batch(usize),
    /// The message has no signature.
    #[error("the message has no signature")]
    Missing,
    /// The parts of the signature do not fit each other.
    #[error("the batch signature is malformed: {0}")]
    Malformed(&'static str),
    /// The manifest cannot be read.
    #[error("the manifest is refused")]
    Manifest(#[source] ManifestError),
    /// The content or the caller context has parts that no message has.
    #[error("the content is refused")]
    Content(#[source] ContentError),
    /// The content or the caller context is not the one that the manifest commits to.
    #[error("the {0} is not the one that was signed")]
    Commitment(&'static str),
    /// A request where a response must be, or the reverse.
    #[error("the message travels in the wrong direction")]
    Direction,
}

/// Whoever can sign: a key in a file, or one in a security module.
pub trait Signer: Send + Sync {
    /// Signs `message` with the algorithm that follows from the key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;
}

/// The place of one manifest in a signed batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchSignature {
    value: Bytes,
    size: u32,
    index: u32,
    path: Vec<Digest>,
}

impl BatchSignature {
    /// Parses a signature as it travels: bounded, and of sizes that fit each other.
    pub fn parse(raw: &schema::Signature) -> Result<Self, SignatureError> {
        if raw.value.is_empty() || raw.value.len() > MAX_SIGNATURE {
            return Err(SignatureError::Malformed("its value is empty or too long"));
        }
        if raw.path.len() > MAX_PATH
            || raw.batch_index >= raw.batch_size
            || raw.batch_size as usize > MAX_BATCH
        {
            return Err(SignatureError::Malformed("index, size and path are out of bounds"));
        }
        let path = raw.path.iter().map(|hash| Digest::from_slice(hash)).collect::<Option<_>>();
        let path = path.ok_or(SignatureError::Malformed("a hash of its path has not 32 bytes"))?;
        Ok(Self { value: raw.value.clone(), size: raw.batch_size, index: raw.batch_index, path })
    }

    /// As it travels and as it is logged.
    pub fn to_schema(&self) -> schema::Signature {
        // One piece of memory for all hashes.
        let hashes: Vec<u8> = self.path.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let mut hashes = Bytes::from_owner(hashes);
        schema::Signature {
            value: self.value.clone(),
            batch_size: self.size,
            batch_index: self.index,
            path: self.path.iter().map(|_| hashes.split_to(Digest::LEN)).collect(),
        }
    }

    /// A batch of one with a value that no key made.
    #[cfg(test)]
    pub(crate) fn unchecked_in_tests(_: &Manifest) -> Self {
        Self { value: Bytes::from_static(b"none"), size: 1, index: 0, path: Vec::new() }
    }

    /// The signature itself.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// How many manifests the batch has.
    pub fn batch_size(&self) -> u32 {
        self.size
    }

    /// The bytes that were signed, if `manifest` stands in the batch where this signature says.
    pub fn signed_bytes(&self, manifest: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let leaf = tree::leaf_hash(manifest);
        let root = tree::root_from_path(&leaf, self.index.into(), self.size.into(), &self.path);
        root.map(|root| to_sign(self.size, &root)).ok_or(SignatureError::Malformed("its path does not fit"))
    }
}

fn to_sign(size: u32, root: &Digest) -> Vec<u8> {
    [tag::BATCH_SIGNATURE, &size.to_be_bytes(), root.as_bytes()].concat()
}

/// Signs several manifests with one signature; one for each comes back, in their order.
pub fn sign_batch(
    signer: &dyn Signer,
    manifests: &[&Manifest],
) -> Result<Vec<BatchSignature>, SignatureError> {
    let size = match u32::try_from(manifests.len()) {
        Ok(size @ 1..) if manifests.len() <= MAX_BATCH => size,
        _ => return Err(SignatureError::Batch(manifests.len())),
    };
    let leaves: Vec<_> = manifests.iter().map(|manifest| tree::leaf_hash(manifest.encoded())).collect();
    let (root, paths) = tree::root_and_paths(&leaves);
    let value: Bytes = signer.sign(&to_sign(size, &root)).map_err(SignatureError::Key)?.into();
    let place = |(index, path)| BatchSignature { value: value.clone(), size, index, path };
    Ok((0..size).zip(paths).map(place).collect())
}

/// A direction as a type, so that a response never stands where a request must.
pub trait Way: Send + Sync + 'static {
    /// The direction.
    const DIRECTION: Direction;
}

/// From the client's security server to the provider's.
#[derive(Debug, Clone, Copy)]
pub enum Request {}

/// From the provider's security server to the client's.
#[derive(Debug, Clone, Copy)]
pub enum Response {}

impl Way for Request {
    const DIRECTION: Direction = Direction::Request;
}

impl Way for Response {
    const DIRECTION: Direction = Direction::Response;
}

/// A message that is ready to be signed.
#[derive(Debug, Clone)]
pub struct Unsigned<W> {
    manifest: Manifest,
    parts: Parts,
    way: PhantomData<W>,
}

/// What a manifest commits to, with the salts.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Head, body and trailers.
    pub content: Content,
    /// The salt of the commitment to the content.
    pub content_salt: Salt,
    /// Encoded caller context and its salt; in the first message of a request.
    pub caller_context: Option<(Bytes, Salt)>,
}

impl Parts {
    fn check(&self) -> Result<(), SignatureError> {
        self.content.check().map_err(SignatureError::Content)?;
        let context = self.caller_context.as_ref().map_or(0, |(encoded, _)| encoded.len());
        CallerContext::check_len(context).map_err(SignatureError::Content)
    }

    fn caller_context_commitment(&self) -> Option<Digest> {
        self.caller_context.as_ref().map(|(encoded, salt)| commit_to_caller_context(encoded, salt))
    }
}

impl<W: Way> Unsigned<W> {
    /// A message of `fields` and `parts`. Direction, commitments and length are set here, whatever `fields` hold.
    pub fn new(fields: ManifestFields, parts: Parts) -> Result<Self, SignatureError> {
        parts.check()?;
        let manifest = Manifest::new(ManifestFields {
            direction: W::DIRECTION,
            content_commitment: parts.content.commit(&parts.content_salt),
            caller_context_commitment: parts.caller_context_commitment(),
            content_length: parts.content.body.len() as u64,
            ..fields
        });
        Ok(Self { manifest, parts, way: PhantomData })
    }

    /// What is signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes the signature that [`sign_batch`] made for this manifest. Refused if it was made for another.
    pub fn signed(self, signature: BatchSignature) -> Result<Signed<W>, SignatureError> {
        signature.signed_bytes(self.manifest.encoded())?;
        Ok(Signed { manifest: self.manifest, parts: self.parts, signature, way: PhantomData })
    }
}

/// A message with a signature that has the right form: made by signing it here, or received and not yet verified.
/// It can be sent and verified; it cannot be served.
#[derive(Debug, Clone)]
pub struct Signed<W> {
    manifest: Manifest,
    parts: Parts,
    signature: BatchSignature,
    way: PhantomData<W>,
}

impl<W: Way> Signed<W> {
    /// Takes a received envelope apart: strict, bounded, and with the content that the manifest commits to. Whether the
    /// signature holds, and whose it is, is for [`crate::verification`] to say.
    pub fn receive(envelope: schema::Envelope) -> Result<Self, SignatureError> {
        let signature = BatchSignature::parse(envelope.signature.as_ref().ok_or(SignatureError::Missing)?)?;
        let manifest = Manifest::parse(envelope.manifest).map_err(SignatureError::Manifest)?;
        if manifest.direction != W::DIRECTION {
            return Err(SignatureError::Direction);
        }
        let content = Content { head: envelope.head, body: envelope.body, trailers: envelope.trailers };
        let caller_context = match (envelope.caller_context, envelope.caller_context_salt) {
            (None, salt) if salt.is_empty() => None,
            (None, _) => return Err(SignatureError::Content(ContentError::Salt)),
            (Some(encoded), salt) => {
                Some((encoded, Salt::from_slice(&salt).map_err(SignatureError::Content)?))
            }
        };
        let content_salt = Salt::from_slice(&envelope.content_salt).map_err(SignatureError::Content)?;
        let signed = Self {
            manifest,
            parts: Parts { content, content_salt, caller_context },
            signature,
            way: PhantomData,
        };
        signed.check_commitments()?;
        Ok(signed)
    }

    fn check_commitments(&self) -> Result<(), SignatureError> {
        self.parts.check()?;
        let content = &self.parts.content;
        if content.commit(&self.parts.content_salt) != self.manifest.content_commitment
            || content.body.len() as u64 != self.manifest.content_length
        {
            return Err(SignatureError::Commitment("content"));
        }
        if self.parts.caller_context_commitment() != self.manifest.caller_context_commitment {
            return Err(SignatureError::Commitment("caller context"));
        }
        Ok(())
    }

    /// As it travels.
    pub fn to_envelope(&self) -> schema::Envelope {
        let Parts { content, content_salt, caller_context } = &self.parts;
        let (caller_context, salt) = caller_context.clone().unzip();
        schema::Envelope {
            manifest: self.manifest.encoded().clone(),
            signature: Some(self.signature.to_schema()),
            content_salt: content_salt.to_bytes(),
            head: content.head.clone(),
            body: content.body.clone(),
            trailers: content.trailers.clone(),
            caller_context_salt: salt.map(Salt::to_bytes).unwrap_or_default(),
            caller_context,
        }
    }

    /// What is signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The place in its batch.
    pub fn signature(&self) -> &BatchSignature {
        &self.signature
    }

    /// What the manifest commits to. The content is the sender's word until the message is verified.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Ending;
    use proptest::prelude::*;

    struct Echo;

    impl Signer for Echo {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Digest::of(message).as_bytes().to_vec())
        }
    }

    fn unsigned(index: u64) -> Unsigned<Request> {
        let mut fields = crate::message::tests_sample();
        fields.index = index;
        fields.previous = (index > 0).then(|| Digest::of(b"previous"));
        fields.ending = Ending::End;
        let content = Content { body: Bytes::from_static(b"wer?"), ..Content::default() };
        let caller_context = (index == 0).then(|| (CallerContext::default().encode(), Salt::new([4; 32])));
        Unsigned::new(fields, Parts { content, content_salt: Salt::new([3; 32]), caller_context }).unwrap()
    }

    fn signed() -> Signed<Request> {
        let message = unsigned(0);
        let signature = sign_batch(&Echo, &[message.manifest()]).unwrap().remove(0);
        message.signed(signature).unwrap()
    }

    #[test]
    fn a_batch_signs_each_manifest_at_its_place_only() {
        let messages: Vec<_> = (0..5).map(unsigned).collect();
        let manifests: Vec<_> = messages.iter().map(Unsigned::manifest).collect();
        let signatures = sign_batch(&Echo, &manifests).unwrap();
        for (message, signature) in messages.iter().zip(&signatures) {
            let bytes = signature.signed_bytes(message.manifest().encoded()).unwrap();
            assert_eq!(Digest::of(&bytes).as_bytes(), signature.value().as_ref());
            let other = signature.signed_bytes(messages[0].manifest().encoded()).unwrap();
            assert_eq!(other == bytes, message.manifest() == messages[0].manifest());
        }
        assert!(matches!(sign_batch(&Echo, &[]), Err(SignatureError::Batch(0))));
    }

    #[test]
    fn what_is_sent_is_received() {
        let sent = signed();
        let received = Signed::<Request>::receive(sent.to_envelope()).unwrap();
        assert_eq!(received.manifest(), sent.manifest());
        assert!(matches!(Signed::<Response>::receive(sent.to_envelope()), Err(SignatureError::Direction)));
    }

    #[test]
    fn altered_parts_are_refused_by_name() {
        type Change = fn(&mut schema::Envelope);
        let changes: [(&str, Change); 8] = [
            ("body", |e| e.body = Bytes::from_static(b"wen?")),
            ("head", |e| e.head = Some(Bytes::new())),
            ("trailers", |e| e.trailers = Some(Bytes::new())),
            ("salt", |e| e.content_salt = Bytes::from_static(&[0; 32])),
            ("short salt", |e| e.content_salt = Bytes::new()),
            ("no caller context", |e| e.caller_context = None),
            ("caller context", |e| e.caller_context = Some(Bytes::from_static(b"x"))),
            ("no signature", |e| e.signature = None),
        ];
        for (what, change) in changes {
            let mut envelope = signed().to_envelope();
            change(&mut envelope);
            assert!(Signed::<Request>::receive(envelope).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_batch_is_too_strange_to_be_refused(
            value in prop::collection::vec(any::<u8>(), 0..600), size: u32, index: u32, hashes in 0_usize..20
        ) {
            let path = vec![Bytes::from_static(&[0; 32]); hashes];
            let raw = schema::Signature { value: value.into(), batch_size: size, batch_index: index, path };
            if let Ok(signature) = BatchSignature::parse(&raw) {
                prop_assert!(index < size && size as usize <= MAX_BATCH);
                let _ = signature.signed_bytes(b"manifest");
            }
        }
    }
}
