//! What follows from the events, in memory: acts and where they stand, tokens, enrolments, the configuration in force.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;
use trave_proto::management::{Act, ActId};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{SignedAct, registry_event::Event};

use super::records::{ActRecord, Enrolment, Published, Stage, StateError, TokenRecord};

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    anchor: Anchor,
    latest: Option<Arc<Published>>,
    /// Number and digest of the configuration in force: the next is built upon it.
    link: Option<(u64, Digest)>,
    /// The last configuration of the log, until [`State::settle`] verifies it.
    unverified: Option<SignedConfiguration>,
    proposal: Option<Bytes>,
    /// The acts that the proposal would put into force.
    proposed: HashSet<Digest>,
    acts: HashMap<ActId, ActRecord>,
    by_digest: HashMap<Digest, ActId>,
    /// In the order in which they were applied for or asked for.
    order: Vec<ActId>,
    /// Those that are approved and not published, in the order of their approval.
    approved: Vec<ActId>,
    tokens: HashMap<String, TokenRecord>,
    enrolments: HashMap<ActId, Enrolment>,
    /// Enrolments in force whose certificates are not issued yet.
    uncertified: BTreeSet<ActId>,
}

impl State {
    /// Before the first event.
    pub(crate) fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            latest: None,
            link: None,
            unverified: None,
            proposal: None,
            proposed: HashSet::new(),
            acts: HashMap::new(),
            by_digest: HashMap::new(),
            order: Vec::new(),
            approved: Vec::new(),
            tokens: HashMap::new(),
            enrolments: HashMap::new(),
            uncertified: BTreeSet::new(),
        }
    }

    /// The configuration in force.
    pub(crate) fn latest(&self) -> Option<&Arc<Published>> {
        self.latest.as_ref()
    }

    /// The configuration that the cosigners are being asked to sign.
    pub(crate) fn proposal(&self) -> Option<&Bytes> {
        self.proposal.as_ref()
    }

    /// Whether an act is in the configuration that the cosigners are being asked to sign.
    pub(crate) fn is_proposed(&self, act: &Act) -> bool {
        self.proposed.contains(&act.digest())
    }

    /// An act.
    pub(crate) fn act(&self, id: &ActId) -> Option<&ActRecord> {
        self.acts.get(id)
    }

    /// The acts that lead to an encoded configuration, as it names them, in its order.
    pub(crate) fn acts_of(&self, configuration: &Bytes) -> Vec<SignedAct> {
        let configuration = GlobalConfiguration::decode(configuration.clone()).unwrap_or_default();
        let digests = configuration.acts.iter().filter_map(|digest| Digest::from_slice(digest));
        let ids = digests.filter_map(|digest| self.by_digest.get(&digest));
        ids.filter_map(|id| self.acts.get(id).map(|record| record.signed.clone())).collect()
    }

    /// All acts, oldest first.
    pub(crate) fn acts(&self) -> impl DoubleEndedIterator<Item = &ActRecord> {
        self.order.iter().filter_map(|id| self.acts.get(id))
    }

    /// Acts that are approved and not published, in the order of their approval.
    pub(crate) fn approved(&self) -> impl Iterator<Item = &ActRecord> {
        self.approved.iter().filter_map(|id| self.acts.get(id))
    }

    /// A token, by its id.
    pub(crate) fn token(&self, id: &str) -> Option<&TokenRecord> {
        self.tokens.get(id)
    }

    /// How many tokens can still be used at `now`.
    pub(crate) fn open_tokens(&self, now: Time) -> usize {
        self.tokens.values().filter(|token| token.used.is_none() && now <= token.expires).count()
    }

    /// An enrolment, by the id of its act.
    pub(crate) fn enrolment(&self, id: &ActId) -> Option<&Enrolment> {
        self.enrolments.get(id)
    }

    /// All enrolments, in no particular order.
    pub(crate) fn enrolments(&self) -> impl Iterator<Item = (&ActId, &Enrolment)> {
        self.enrolments.iter()
    }

    /// Enrolments in force whose certificates are not issued yet.
    pub(crate) fn uncertified(&self) -> impl Iterator<Item = (&ActId, &Enrolment)> {
        self.uncertified.iter().filter_map(|id| Some((id, self.enrolments.get(id)?)))
    }

    /// Takes in an event that is durable.
    pub(crate) fn apply(&mut self, event: Event) -> Result<(), StateError> {
        if let Some(signed) = self.published_by(&event)? {
            let published = Published::new(&signed, &self.anchor)?;
            self.put_in_force(&signed)?;
            self.latest = Some(Arc::new(published));
        }
        self.note(event)
    }

    /// Takes in an event of the log, before [`Self::settle`]. Answers the configuration that it published.
    ///
    /// Configurations prove themselves by their chain up to the last one, and only that one by the anchor: so an
    /// instance whose keys are exchanged keeps its history.
    pub(crate) fn replay(&mut self, event: Event) -> Result<Option<SignedConfiguration>, StateError> {
        let signed = self.published_by(&event)?;
        if let Some(signed) = &signed {
            self.put_in_force(signed)?;
            self.unverified = Some(signed.clone());
        }
        self.note(event).map(|()| signed)
    }

    /// Ends the replay: the last configuration must hold under the anchor, and with it all that it is built upon.
    pub(crate) fn settle(&mut self) -> Result<(), StateError> {
        if let Some(signed) = self.unverified.take() {
            self.latest = Some(Arc::new(Published::new(&signed, &self.anchor)?));
        }
        Ok(())
    }

    /// The configuration that an event publishes, if it publishes one.
    pub(crate) fn published_by(&self, event: &Event) -> Result<Option<SignedConfiguration>, StateError> {
        match event {
            Event::Published(signed) => Ok(Some(signed.clone())),
            Event::ProposalSigned(signed) => {
                let proposal = self.proposal.clone();
                let proposal = proposal.filter(|bytes| Digest::of(bytes).as_bytes()[..] == signed.digest[..]);
                let unknown = || StateError::UnknownProposal(hex::encode(&signed.digest));
                let configuration = proposal.ok_or_else(unknown)?;
                let signatures = signed.signatures.clone();
                Ok(Some(SignedConfiguration { configuration, signatures }))
            }
            _ => Ok(None),
        }
    }

    fn note(&mut self, event: Event) -> Result<(), StateError> {
        match event {
            Event::Applied(signed) => self.put_act(signed, Stage::Applied)?,
            Event::Approved(signed) => {
                let id = self.put_act(signed, Stage::Approved)?;
                self.approved.push(id);
                id
            }
            Event::Rejected(rejected) => {
                let id = self.known(&rejected.id)?;
                self.approved.retain(|other| *other != id);
                self.set_stage(id, Stage::Rejected)
            }
            Event::Failed(failed) => {
                let id = self.known(&failed.id)?;
                self.approved.retain(|other| *other != id);
                self.set_stage(id, Stage::Failed)
            }
            Event::EnrolmentRequested(asked) => {
                let signed = SignedAct { act: asked.act, ..Default::default() };
                let id = self.put_act(signed, Stage::Requested)?;
                let request = asked.request.unwrap_or_default();
                if let Some(token) = self.tokens.get_mut(&request.token_id) {
                    token.used = Some(id);
                }
                self.enrolments.insert(id, Enrolment { request, certificates: None });
                return Ok(());
            }
            Event::TokenIssued(token) => {
                let (server, expires) = (token.security_server, Time::from_millis(token.expires_ms));
                self.tokens.insert(token.token_id, TokenRecord { server, expires, used: None });
                return Ok(());
            }
            Event::Proposed(bytes) => {
                let decoded = GlobalConfiguration::decode(bytes.clone()).unwrap_or_default();
                self.proposed = decoded.acts.iter().filter_map(|act| Digest::from_slice(act)).collect();
                self.proposal = Some(bytes);
                return Ok(());
            }
            Event::Abandoned(_) => {
                self.proposal = None;
                self.proposed.clear();
                return Ok(());
            }
            // Taken in before, as a configuration.
            Event::Published(_) | Event::ProposalSigned(_) => return Ok(()),
            Event::CertificatesIssued(issued) => {
                let id = self.known(&issued.id)?;
                self.uncertified.remove(&id);
                if let Some(enrolment) = self.enrolments.get_mut(&id) {
                    enrolment.certificates = Some(issued);
                }
                id
            }
        };
        Ok(())
    }

    /// Puts a configuration and its acts into force. Its signatures are looked at elsewhere.
    fn put_in_force(&mut self, signed: &SignedConfiguration) -> Result<(), StateError> {
        let bytes = &signed.configuration;
        let decoded = GlobalConfiguration::decode(bytes.clone()).unwrap_or_default();
        let number = decoded.number;
        let built = match &self.link {
            None => number == 1,
            Some((last, digest)) => number == last + 1 && decoded.previous[..] == digest.as_bytes()[..],
        };
        if !built {
            return Err(StateError::Chain(number));
        }
        for digest in &decoded.acts {
            let id = Digest::from_slice(digest).and_then(|digest| self.by_digest.get(&digest).copied());
            let id = id.ok_or_else(|| StateError::UnknownAct(hex::encode(digest)))?;
            self.approved.retain(|other| *other != id);
            self.set_stage(id, Stage::InForce(number));
            if self.enrolments.get(&id).is_some_and(|enrolment| enrolment.certificates.is_none()) {
                self.uncertified.insert(id);
            }
        }
        self.link = Some((number, Digest::of(bytes)));
        self.proposal = None;
        self.proposed.clear();
        Ok(())
    }

    fn put_act(&mut self, signed: SignedAct, stage: Stage) -> Result<ActId, StateError> {
        let act = Act::parse(&signed.act).map_err(StateError::Act)?;
        let id = act.id();
        self.by_digest.insert(act.digest(), id);
        if self.acts.insert(id, ActRecord { act, signed, stage }).is_none() {
            self.order.push(id);
        }
        Ok(id)
    }

    fn set_stage(&mut self, id: ActId, stage: Stage) -> ActId {
        if let Some(record) = self.acts.get_mut(&id) {
            record.stage = stage;
        }
        id
    }

    fn known(&self, id: &[u8]) -> Result<ActId, StateError> {
        let known = ActId::from_slice(id).filter(|id| self.acts.contains_key(id));
        known.ok_or_else(|| StateError::UnknownAct(hex::encode(id)))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
