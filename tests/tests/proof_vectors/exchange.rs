//! An exchange as two servers would record it, with a place for a lie at every step.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{
    CallerContext, Content, Direction, Ending, Manifest, ManifestFields, Salt, commit_to_caller_context,
};
use trave_proto::proof::{Exported, ExportedContent, ExportedMessage, FIRST_LINE, ProofBuilder};
use trave_proto::schema::configuration::SignedAnchor;
use trave_proto::schema::log;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::message;
use trave_proto::schema::proof as proof_schema;
use trave_proto::signature::sign_batch;
use trave_proto::tree;

use crate::world::{CLIENT, METHOD, NOW, SERVICE, Server, World};

/// Records that stand in the log before the exchange's own.
const BEFORE: u64 = 3;

/// A message to be said.
pub(crate) struct Say {
    pub(crate) direction: Direction,
    pub(crate) content: Content,
    pub(crate) ending: Ending,
}

/// What becomes of contents in the proof.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Keep {
    All,
    None,
    Withheld,
    Erased,
}

/// A message that was signed.
pub(crate) struct Said {
    pub(crate) manifest: Manifest,
    pub(crate) signature: message::Signature,
    content: Content,
    caller_context: Option<(Bytes, Salt)>,
}

/// An exchange under way, and where it is to be untrue.
pub(crate) struct Plan<'w> {
    pub(crate) world: &'w World,
    pub(crate) at_provider: bool,
    pub(crate) messages: Vec<Say>,
    pub(crate) keep: Keep,
    pub(crate) route: Option<String>,
    /// Before a manifest is signed.
    pub(crate) fields: fn(&mut ManifestFields),
    /// Who signs in the sender's place.
    pub(crate) signer: fn(&'w World, Direction) -> &'w Server,
    /// Before a record is logged.
    pub(crate) entry: fn(&mut log::MessageEntry),
    pub(crate) grant: fn(&mut log::GrantChange),
    /// The version of the grant's record.
    pub(crate) grant_version: u32,
    /// The record of the local group that the message names beside the grant.
    pub(crate) group: Option<log::GroupChange>,
    pub(crate) ended: Option<log::ExchangeEnded>,
    /// How long after the exchange the checkpoint is stamped.
    pub(crate) stamped_after: i64,
    pub(crate) configuration: Option<Configuration>,
    pub(crate) anchors: Vec<SignedAnchor>,
    /// Instead of the signer's OCSP response.
    pub(crate) ocsp: Option<Bytes>,
    /// Instead of the other server's TLS certificate.
    pub(crate) tls: Option<Bytes>,
}

/// The server that signs when nobody lies.
pub(crate) fn honest(world: &World, direction: Direction) -> &Server {
    if direction == Direction::Request { &world.client } else { &world.provider }
}

pub(crate) fn request(body: &'static str) -> Say {
    let head = message::RequestHead {
        method: "POST".into(),
        path: METHOD.into(),
        query: None,
        headers: vec![message::Header { name: "content-type".into(), value: "application/grpc".into() }],
    };
    let content = Content { head: Some(head.encode_to_vec().into()), body: body.into(), trailers: None };
    Say { direction: Direction::Request, content, ending: Ending::End }
}

pub(crate) fn response(body: &'static str) -> Say {
    let head = message::ResponseHead { status: 200, headers: Vec::new() };
    let status = message::Header { name: "grpc-status".into(), value: "0".into() };
    let trailers = message::Trailers { headers: vec![status] };
    let content = Content {
        head: Some(head.encode_to_vec().into()),
        body: body.into(),
        trailers: Some(trailers.encode_to_vec().into()),
    };
    Say { direction: Direction::Response, content, ending: Ending::End }
}

/// The version of the records of an exchange, and of grants.
const WRITTEN: u32 = 2;

impl<'w> Plan<'w> {
    /// One question, one answer, from the provider's log or the client's.
    pub(crate) fn unary(world: &'w World, at_provider: bool) -> Self {
        Self {
            world,
            at_provider,
            messages: vec![request("wer?"), response("Anna Beispiel, Bäckerei")],
            keep: Keep::All,
            route: None,
            fields: |_| {},
            signer: honest,
            entry: |_| {},
            grant: |_| {},
            grant_version: WRITTEN,
            group: None,
            ended: None,
            stamped_after: 5,
            configuration: None,
            anchors: Vec::new(),
            ocsp: None,
            tls: None,
        }
    }

    fn configuration(&self) -> &Configuration {
        self.configuration.as_ref().unwrap_or(&self.world.configuration)
    }

    pub(crate) fn exchange(&self) -> ExchangeId {
        ExchangeId::new(NOW, &[7; 10])
    }

    fn recorder(&self) -> &'w Server {
        if self.at_provider { &self.world.provider } else { &self.world.client }
    }

    /// Signs the messages in their order.
    pub(crate) fn say(&self) -> Vec<Said> {
        let mut said: Vec<Said> = Vec::new();
        for (step, say) in self.messages.iter().enumerate() {
            let context = (step == 0).then(|| (caller_context(), Salt::new([4; 32])));
            let salt = Salt::new([say.direction as u8 * 16 + step as u8; 32]);
            let manifest = self.manifest(say, &said, (step, salt), context.as_ref());
            let signer = (self.signer)(self.world, say.direction);
            // In a batch with two manifests of other exchanges, so that there is a path.
            let others = [1_u8, 2].map(|other| {
                let exchange = ExchangeId::new(NOW, &[other; 10]);
                Manifest::new(ManifestFields { exchange, ..ManifestFields::clone(&manifest) })
            });
            let signatures = sign_batch(signer, &[&others[0], &others[1], &manifest]).unwrap();
            let signature = signatures[2].to_schema();
            said.push(Said { manifest, signature, content: say.content.clone(), caller_context: context });
        }
        said
    }

    fn manifest(
        &self,
        say: &Say,
        said: &[Said],
        (step, salt): (usize, Salt),
        context: Option<&(Bytes, Salt)>,
    ) -> Manifest {
        let own = |direction| said.iter().filter(move |s| s.manifest.direction == direction);
        let last = |direction| own(direction).next_back().map(|s| s.manifest.digest());
        let is_request = say.direction == Direction::Request;
        let (other, world) = (if is_request { Direction::Response } else { Direction::Request }, self.world);
        let (sender, receiver) =
            if is_request { (&world.client, &world.provider) } else { (&world.provider, &world.client) };
        let mut fields = ManifestFields {
            exchange: self.exchange(),
            direction: say.direction,
            index: own(say.direction).count() as u64,
            previous: last(say.direction),
            last_received: last(other),
            client: CLIENT.parse().unwrap(),
            service: SERVICE.parse().unwrap(),
            method: Some(METHOD.parse().unwrap()),
            sender: sender.id.parse().unwrap(),
            receiver: receiver.id.parse().unwrap(),
            log_origin: sender.origin.clone(),
            signing_certificate: (self.signer)(world, say.direction).certificate(),
            configuration_number: self.configuration().number(),
            configuration_digest: self.configuration().digest(),
            nonce: [if is_request { 1 } else { 2 }; 32],
            purpose: "gewerbeummeldung".parse().unwrap(),
            legal_basis: "GewO-14".parse().unwrap(),
            created: at(step),
            content_commitment: say.content.commit(&salt),
            caller_context_commitment: context.map(|(encoded, salt)| commit_to_caller_context(encoded, salt)),
            content_length: say.content.body.len() as u64,
            ending: say.ending,
            route: self.route.clone(),
            bridged_from: None,
            bridged_to: None,
        };
        (self.fields)(&mut fields);
        Manifest::new(fields)
    }

    /// The proof, taken apart: what is changed in it now was never checked by anybody.
    pub(crate) fn raw(&self) -> proof_schema::Proof {
        let mut logged = Logged::new(self);
        for (step, said) in self.say().into_iter().enumerate() {
            logged.message(self, step, said);
        }
        if let Some(ended) = &self.ended {
            logged.push(Entry::Ended(ended.clone()), at(9), None);
        }
        if self.keep == Keep::Erased {
            logged.push(Entry::Erasure(self.erasure()), at(10), None);
        }
        logged.prove(self)
    }

    fn erasure(&self) -> log::Erasure {
        let exchange_id = Bytes::copy_from_slice(self.exchange().as_bytes());
        log::Erasure { exchange_id, operator: "Operator Muster".into(), reason: "Löschfrist".into() }
    }

    /// The proof as a file.
    pub(crate) fn file(&self) -> Bytes {
        file(&self.raw())
    }
}

/// A proof as a file, whatever it holds.
pub(crate) fn file(raw: &proof_schema::Proof) -> Bytes {
    [FIRST_LINE, &raw.encode_to_vec()].concat().into()
}

fn at(step: usize) -> Time {
    NOW.plus(Duration::from_millis(20 * step as u64))
}

fn caller_context() -> Bytes {
    let context = CallerContext {
        user: "sachbearbeiterin.muster".into(),
        issue: "GA-2026-1234".into(),
        message_id: "m-1".into(),
        subject: "Anna Beispiel".into(),
        represented_party: String::new(),
    };
    context.encode()
}

/// A log with the exchange in it.
struct Logged {
    leaves: Vec<Bytes>,
    exported: Vec<Exported>,
    artefacts: BTreeMap<Digest, Bytes>,
    grant: Bytes,
}

impl Logged {
    fn new(plan: &Plan<'_>) -> Self {
        let versioned = |version, entry| {
            let logged_ms = NOW.as_millis() - 1000;
            Bytes::from(log::Leaf { version, logged_ms, entry: Some(entry) }.encode_to_vec())
        };
        let leaf = |entry| versioned(WRITTEN, entry);
        let started =
            log::LogStarted { origin: plan.recorder().origin.clone(), release: "0".into(), size: 0 };
        let mut grant = log::GrantChange {
            id: "g1".into(),
            client: CLIENT.into(),
            service: SERVICE.into(),
            method: "/gewerbe.v1.Register/*".into(),
            purposes: vec!["gewerbeummeldung".into()],
            in_force: true,
            operator: "Operatorin Muster".into(),
            legal_bases: vec!["GewO-14".into()],
            ..log::GrantChange::default()
        };
        (plan.grant)(&mut grant);
        let grant = versioned(plan.grant_version, Entry::Grant(grant));
        let other = leaf(Entry::Degradation(log::Degradation { kind: "clock_skew".into(), begins: true }));
        let leaves = vec![leaf(Entry::Started(started)), grant.clone(), other];
        assert_eq!(leaves.len() as u64, BEFORE);
        Self { leaves, exported: Vec::new(), artefacts: BTreeMap::new(), grant }
    }

    fn artefact(&mut self, bytes: Bytes) -> Bytes {
        let digest = Digest::of(&bytes);
        self.artefacts.insert(digest, bytes);
        digest.to_bytes()
    }

    fn push(&mut self, entry: Entry, logged: Time, message: Option<ExportedMessage>) {
        let leaf = log::Leaf::of(logged.as_millis(), entry);
        let leaf = Bytes::from(leaf.encode_to_vec());
        let index = self.leaves.len() as u64;
        self.leaves.push(leaf.clone());
        self.exported.push(Exported { leaf, index, path: Vec::new(), message });
    }

    fn message(&mut self, plan: &Plan<'_>, step: usize, said: Said) {
        let direction = said.manifest.direction;
        let is_request = direction == Direction::Request;
        let signer = (plan.signer)(plan.world, direction);
        let peer = if plan.at_provider { &plan.world.client } else { &plan.world.provider };
        let chain = log::CertificateChain { certificates: signer.signing_chain.clone() }.encode_to_vec();
        let mut entry = log::MessageEntry {
            manifest: said.manifest.encoded().clone(),
            signature_digest: Digest::of(&said.signature.encode_to_vec()).to_bytes(),
            chain_digest: self.artefact(chain.into()),
            ocsp_digest: self.artefact(plan.ocsp.as_ref().unwrap_or(&signer.ocsp).clone()),
            configuration_digest: plan.configuration().digest().to_bytes(),
            tls_certificate_digest: self.artefact(plan.tls.as_ref().unwrap_or(&peer.tls).clone()),
            grant_digest: Bytes::new(),
            group_digest: Bytes::new(),
            sent: is_request != plan.at_provider,
        };
        if is_request && plan.at_provider && said.manifest.index == 0 {
            entry.grant_digest = self.artefact(self.grant.clone());
            if let Some(group) = &plan.group {
                let entry_of_group = Entry::Group(group.clone());
                let leaf = log::Leaf::of(NOW.as_millis() - 500, entry_of_group);
                entry.group_digest = self.artefact(leaf.encode_to_vec().into());
            }
        }
        (plan.entry)(&mut entry);
        let salt = Salt::new([direction as u8 * 16 + step as u8; 32]);
        let content = match plan.keep {
            Keep::All => ExportedContent::Included(said.content, salt),
            Keep::None => ExportedContent::NotKept,
            Keep::Withheld => ExportedContent::Withheld,
            Keep::Erased => ExportedContent::Erased,
        };
        let caller_context = said.caller_context.filter(|_| plan.keep == Keep::All);
        let message = ExportedMessage { signature: said.signature, content, caller_context };
        let logged = at(step).plus(Duration::from_millis(5));
        self.push(Entry::Message(entry), logged, Some(message));
    }

    fn prove(mut self, plan: &Plan<'_>) -> proof_schema::Proof {
        for _ in 0..2 {
            let other = Entry::Degradation(log::Degradation { kind: "clock_skew".into(), begins: false });
            let leaf = log::Leaf::of(at(11).as_millis(), other);
            self.leaves.push(leaf.encode_to_vec().into());
        }
        let hashes: Vec<_> = self.leaves.iter().map(|leaf| tree::leaf_hash(leaf)).collect();
        let mut builder = ProofBuilder::new(plan.exchange(), plan.anchors.clone());
        for mut record in self.exported {
            record.path = tree::path(&hashes, record.index as usize).unwrap();
            builder.record(record).unwrap();
        }
        for artefact in self.artefacts.into_values() {
            builder.artefact(artefact);
        }
        builder.configuration(plan.configuration());
        let stamped = Time::from_millis(NOW.as_millis() + 1000 * plan.stamped_after);
        let log_key = plan.recorder().log_key();
        let size = hashes.len() as u64;
        let (note, token) = plan.world.seal(&log_key, tree::root(&hashes), size, stamped);
        builder.build(note, token, Bytes::new()).unwrap().raw().clone()
    }
}
