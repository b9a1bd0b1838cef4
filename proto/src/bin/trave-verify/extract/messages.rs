//! A message's record as files: manifest, signature, certificates and their status, content.

use anyhow::Context as _;
use prost::Message as _;
use trave_proto::certificate::{Certificate, Profile, VerifiedChain};
use trave_proto::clock::Time;
use trave_proto::digest::{Digest, tag};
use trave_proto::global_configuration::Configuration;
use trave_proto::message::{Direction, Manifest};
use trave_proto::proof::Proof;
use trave_proto::schema::log::{CertificateChain, Leaf, MessageEntry, leaf::Entry};
use trave_proto::schema::proof::Record;
use trave_proto::signature::BatchSignature;

use super::script::Script;
use super::trust::Trusted;
use super::{Folder, pem, write_path};

/// Writes the message of `record`, if it is one.
pub(super) fn write(
    folder: &mut Folder,
    script: &mut Script,
    proof: &Proof,
    record: &Record,
    trusted: &Trusted,
) -> anyhow::Result<()> {
    let leaf = Leaf::decode(record.leaf.clone()).context("a record cannot be read")?;
    let Some(Entry::Message(entry)) = leaf.entry else { return Ok(()) };
    let manifest = Manifest::parse(entry.manifest.clone()).context("a manifest cannot be read")?;
    let at = if entry.sent { manifest.created } else { Time::from_millis(leaf.logged_ms) };
    let mut one = One::new(folder, script, record, &manifest);
    one.script.part(&format!("Message: {}", one.label));
    one.binding("manifest", "manifest.bin", &entry.manifest)?;
    let configuration =
        trusted.get(&entry.configuration_digest).context("a record's configuration is not in the file")?;
    one.digest("configuration", "configuration.bin", configuration.bytes())?;
    one.artefacts(proof, &entry)?;
    one.signer(proof, &entry, (configuration, at))?;
    one.content(record, &manifest)
}

/// One message on its way to the files.
struct One<'w> {
    folder: &'w mut Folder,
    script: &'w mut Script,
    record: &'w Record,
    label: String,
    name: String,
    leaf: String,
}

impl<'w> One<'w> {
    fn new(folder: &'w mut Folder, script: &'w mut Script, record: &'w Record, manifest: &Manifest) -> Self {
        let direction = match manifest.direction {
            Direction::Response => "response",
            _ => "request",
        };
        Self {
            folder,
            script,
            record,
            label: format!("{direction} {}", manifest.index),
            name: format!("messages/{direction}-{}", manifest.index),
            leaf: format!("records/{}/leaf.bin", record.index),
        }
    }

    fn write(&mut self, file: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let file = format!("{}/{file}", self.name);
        self.folder.write(&file, bytes).map(|()| file)
    }

    /// A file that stands in the leaf byte for byte.
    fn binding(&mut self, what: &str, file: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.write(file, bytes)?;
        let offset =
            find(&self.record.leaf, bytes).with_context(|| format!("the record does not hold the {what}"))?;
        self.script.stands_in(
            &format!("{}: the record holds this {what}", self.label),
            offset,
            &file,
            &self.leaf,
        );
        Ok(())
    }

    /// A file whose digest stands in the leaf.
    fn digest(&mut self, what: &str, file: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.write(file, bytes)?;
        let offset = find(&self.record.leaf, Digest::of(bytes).as_bytes());
        let offset = offset.with_context(|| format!("the record does not name the {what}"))?;
        self.script.digest_in(
            &format!("{}: the record names this {what}", self.label),
            offset,
            &file,
            &self.leaf,
        );
        Ok(())
    }

    fn artefacts(&mut self, proof: &Proof, entry: &MessageEntry) -> anyhow::Result<()> {
        for (what, file, digest) in [
            ("chain of certificates", "chain.bin", &entry.chain_digest),
            ("OCSP response", "ocsp.der", &entry.ocsp_digest),
            ("TLS certificate", "tls.der", &entry.tls_certificate_digest),
            ("grant", "grant.bin", &entry.grant_digest),
            ("group", "group.bin", &entry.group_digest),
        ] {
            if !digest.is_empty() {
                let artefact = artefact(proof, digest).with_context(|| format!("the {what} is missing"))?;
                self.digest(what, file, artefact)?;
            }
        }
        Ok(())
    }

    /// The batch signature, and the certificates of whoever made it.
    fn signer(
        &mut self,
        proof: &Proof,
        entry: &MessageEntry,
        (configuration, at): (&Configuration, Time),
    ) -> anyhow::Result<()> {
        let raw = self.record.signature.as_ref().context("a message has no signature")?;
        self.digest("signature", "signature.bin", &raw.encode_to_vec())?;
        let signature = BatchSignature::parse(raw).context("a signature cannot be read")?;
        let signed = signature.signed_bytes(&entry.manifest).context("a signature cannot be read")?;
        let (signed_file, value) =
            (self.write("signed.bin", &signed)?, self.write("signature.der", &raw.value)?);
        let path: Option<Vec<_>> = raw.path.iter().map(|hash| Digest::from_slice(hash)).collect();
        let (index, size) = (u64::from(raw.batch_index), u64::from(raw.batch_size));
        let name = self.name.clone();
        let steps = write_path(self.folder, &name, &path.unwrap_or_default(), index, size)?;
        self.script.run(&format!("tail -c 32 {signed_file} >{name}/root.bin || exit 2"));
        self.script.merkle(
            &format!("{}: the manifest stands in the signed batch", self.label),
            &format!("{name}/manifest.bin"),
            &format!("{name}/root.bin"),
            &steps,
        );
        let chain = artefact(proof, &entry.chain_digest).context("the chain is missing")?;
        let chain = CertificateChain::decode(chain.clone()).context("the chain cannot be read")?.certificates;
        let leaf = Certificate::from_der(chain.first().context("the chain is empty")?)?;
        let key = self.write("signer-key.pem", pem::public_key(leaf.spki()).as_bytes())?;
        self.write("signer.pem", pem::certificate(leaf.der()).as_bytes())?;
        let algorithm = leaf.public_key()?.algorithm();
        let label = self.label.clone();
        self.script.signature(&format!("{label}: signature"), algorithm, [&key, &value, &signed_file]);
        self.authority(&chain, configuration, at)
    }

    /// The authority that the chain leads to, and the status that it gave.
    fn authority(
        &mut self,
        chain: &[bytes::Bytes],
        configuration: &Configuration,
        at: Time,
    ) -> anyhow::Result<()> {
        let authorities = configuration.certification_authorities().iter().map(|one| &one.certificate);
        let authorities: Vec<_> = authorities.collect();
        let verified = VerifiedChain::verify(chain, &authorities, Profile::Signing, at)
            .with_context(|| format!("{}: the chain does not hold", self.label))?;
        let pems: String = chain.iter().map(|der| pem::certificate(der)).collect();
        self.write("chain.pem", pems.as_bytes())?;
        self.write("authority.pem", pem::certificate(verified.authority().der()).as_bytes())?;
        self.write("issuer.pem", pem::certificate(verified.issuer().der()).as_bytes())?;
        let (label, name) = (self.label.clone(), self.name.clone());
        self.script.chain(&format!("{label}: certificate"), &name, at);
        self.script.status(&format!("{label}: the certificate was not revoked"), &name, at);
        Ok(())
    }

    /// The content, and the bytes whose SHA-256 the manifest commits to.
    fn content(&mut self, record: &Record, manifest: &Manifest) -> anyhow::Result<()> {
        if let Some(content) = &record.content {
            let mut committed = [tag::CONTENT, &record.content_salt].concat();
            for (file, part) in [
                ("head.bin", content.head.as_ref()),
                ("body.bin", Some(&content.body)),
                ("trailers.bin", content.trailers.as_ref()),
            ] {
                commit(&mut committed, part.map(AsRef::as_ref));
                if let Some(part) = part {
                    self.write(file, part)?;
                }
            }
            self.commitment("content", "content-committed.bin", &committed, manifest)?;
        }
        if let Some(context) = &record.caller_context {
            let mut committed = [tag::CALLER_CONTEXT, &record.caller_context_salt].concat();
            commit(&mut committed, Some(context));
            self.write("caller-context.bin", context)?;
            self.commitment("caller context", "caller-context-committed.bin", &committed, manifest)?;
        }
        Ok(())
    }

    fn commitment(
        &mut self,
        what: &str,
        file: &str,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> anyhow::Result<()> {
        let file = self.write(file, bytes)?;
        let offset = find(manifest.encoded(), Digest::of(bytes).as_bytes());
        let offset =
            offset.with_context(|| format!("MISMATCH: the manifest does not commit to this {what}"))?;
        let signed = format!("{}/manifest.bin", self.name);
        self.script.digest_in(&format!("{}: this {what} was signed", self.label), offset, &file, &signed);
        Ok(())
    }
}

/// A part as the commitment has it: presence, length, bytes.
fn commit(committed: &mut Vec<u8>, part: Option<&[u8]>) {
    let part_length = part.map_or(0, <[u8]>::len) as u64;
    committed.push(u8::from(part.is_some()));
    committed.extend_from_slice(&part_length.to_be_bytes());
    committed.extend_from_slice(part.unwrap_or_default());
}

fn artefact<'p>(proof: &'p Proof, digest: &[u8]) -> Option<&'p bytes::Bytes> {
    proof.raw().artefacts.iter().find(|artefact| Digest::of(artefact).as_bytes()[..] == *digest)
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len().max(1)).position(|window| window == wanted)
}
