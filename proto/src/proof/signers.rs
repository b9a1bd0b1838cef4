//! Whose word each message is: what the record binds, who signed, whether they might, and over which connection.

use std::collections::HashMap;

use super::reading::{Logged, Reading};
use super::report::{Failure, Found};
use super::trust::Trust;
use crate::certificate::Certificate;
use crate::checkpoint::Checkpoint;
use crate::digest::Digest;
use crate::encoding::decode_canonical;
use crate::global_configuration::Configuration;
use crate::schema::log::CertificateChain;
use crate::verification::{NoMemory, TrustedSigner};
use prost::Message;

/// Each record binds the signature in the file, and each message the log that it was promised to.
pub(super) fn bindings(reading: &Reading<'_>, trust: &Trust, checkpoint: &Checkpoint) -> Found<()> {
    for message in &reading.messages {
        let label = message.label();
        let encoded = message.signature.to_schema().encode_to_vec();
        if Digest::of(&encoded) != message.signature_digest {
            return Err(Failure::fails(format!("{label}: the signature is not the one that was recorded")));
        }
        let origin = &message.manifest.log_origin;
        let listed = trust.get(&message.signed_under())?.log_key(origin);
        // What came back may have been promised to an earlier generation of the log.
        let own = message.sent && message.recovered_from.is_none() && *origin != checkpoint.origin;
        if own || listed.is_none_or(|log| log.server != message.manifest.sender) {
            let why = format!("{label}: the log {origin:?} that it was promised to is not its sender's");
            return Err(Failure::Fails(why));
        }
    }
    Ok(((), format!("{} messages", reading.messages.len())))
}

/// Each message is signed by whoever may sign it, under the configuration that the recorder used and at the time at
/// which it relied on the signer.
pub(super) fn signatures(reading: &Reading<'_>, trust: &Trust) -> Found<()> {
    let mut signers = Signers { reading, known: HashMap::new() };
    let mut names = Vec::new();
    for message in &reading.messages {
        let configuration = trust.get(&message.signed_under())?;
        let signer = signers.of(message, configuration)?;
        signer
            .verify_manifest((&message.manifest, &message.signature), configuration, message.at(), &NoMemory)
            .map_err(|error| Failure::because(&message.label(), &error))?;
        let subject = signer.chain().subject();
        let name = format!("{}, {} ({})", subject.member, subject.server, subject.public_key.algorithm());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(((), names.join("; ")))
}

/// Signers that were verified, by chain, status and configuration: the messages of a stream share one.
struct Signers<'r, 'p> {
    reading: &'r Reading<'p>,
    known: HashMap<[Digest; 3], TrustedSigner>,
}

impl Signers<'_, '_> {
    fn of(&mut self, message: &Logged<'_>, configuration: &Configuration) -> Result<&TrustedSigner, Failure> {
        let key = [message.chain, message.ocsp, message.signed_under()];
        // Later times are asked of the signer itself; for an earlier one it is verified anew.
        let known = self.known.get(&key).is_some_and(|signer| signer.chain().verified_at() <= message.at());
        if !known {
            let refused = |error: &dyn std::error::Error| Failure::because(&message.label(), error);
            let chain: CertificateChain =
                decode_canonical("certificate chain", self.reading.artefact(&message.chain)?.clone())
                    .map_err(|error| refused(&error))?;
            let ocsp = self.reading.artefact(&message.ocsp)?.clone();
            let signer = TrustedSigner::verify(&chain.certificates, ocsp, configuration, message.at())
                .map_err(|error| refused(&error))?;
            self.known.insert(key, signer);
        }
        self.known.get(&key).ok_or_else(|| Failure::fails("a signer is missing"))
    }
}

/// The TLS certificate that each record names is the other security server's. It is empty only where a message was
/// recorded before the other side was met.
pub(super) fn connections(reading: &Reading<'_>, trust: &Trust) -> Found<()> {
    let mut seen = Vec::new();
    for message in &reading.messages {
        let refused = |why: &str| Failure::fails(format!("{}: {why}", message.label()));
        let Some(digest) = message.tls_certificate else {
            if message.sent || message.recovered_from.is_some() {
                continue;
            }
            return Err(refused("it was received, and no TLS certificate is recorded"));
        };
        let certificate = Certificate::from_der(reading.artefact(&digest)?)
            .map_err(|error| Failure::because(&message.label(), &error))?;
        if !certificate.is_valid_at(message.at()) {
            return Err(refused("the TLS certificate was not valid at that time"));
        }
        let peer = message.peer();
        let entry = trust.get(&message.configuration)?.security_server(peer);
        if !entry.is_some_and(|entry| entry.lists_authentication_key(&certificate.spki_digest())) {
            return Err(refused(&format!("the TLS certificate's key is not listed for {peer}")));
        }
        if !seen.contains(peer) {
            seen.push(peer.clone());
        }
    }
    let peers: Vec<_> = seen.iter().map(ToString::to_string).collect();
    Ok(((), peers.join(", ")))
}
