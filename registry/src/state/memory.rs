//! What follows from the events, in memory: acts and where they stand, tokens, enrolments, the configuration in force.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, Configuration, ConfigurationError};
use trave_proto::management::{Act, ActError, ActId};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{CertificatesIssued, EnrolRequest, SignedAct, registry_event::Event};

/// Why the events do not make a state: the log is not this registry's, or the program has a mistake.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An act that cannot be read.
    #[error("an act in the registry's log cannot be read")]
    Act(#[source] ActError),
    /// A published configuration that does not hold under the anchor.
    #[error("a published configuration in the registry's log does not hold; is this the anchor of that log?")]
    Configuration(#[source] ConfigurationError),
    /// An event about an act that never was.
    #[error("the registry's log speaks of the act {0}, which it does not hold")]
    UnknownAct(String),
}

/// Where an act stands. Whether it has expired, its own time says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A security server asks to enrol; nobody has applied for it yet.
    Requested,
    /// One administrator has signed.
    Applied,
    /// Two have; it awaits its publication.
    Approved,
    /// It is in force since the configuration of this number.
    InForce(u64),
    /// An administrator rejected it.
    Rejected,
}

/// An act, with the signatures it has so far.
#[derive(Debug, Clone)]
pub(crate) struct ActRecord {
    pub(crate) act: Act,
    pub(crate) signed: SignedAct,
    pub(crate) stage: Stage,
}

impl ActRecord {
    /// Whether it can still come into force.
    pub(crate) fn is_pending(&self, now: Time) -> bool {
        matches!(self.stage, Stage::Requested | Stage::Applied | Stage::Approved) && now <= self.act.expires()
    }
}

/// A token that was handed out.
#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    pub(crate) server: String,
    pub(crate) expires: Time,
    /// The enrolment for which it was used.
    pub(crate) used: Option<ActId>,
}

/// An enrolment that a security server asked for.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    pub(crate) request: EnrolRequest,
    pub(crate) certificates: Option<CertificatesIssued>,
}

/// A configuration that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) configuration: Configuration,
    /// The same, as acts are applied to it.
    pub(crate) decoded: GlobalConfiguration,
    /// Encoded `SignedConfiguration`, as it is served.
    pub(crate) encoded: Bytes,
}

impl Published {
    fn new(signed: &SignedConfiguration, anchor: &Anchor) -> Result<Self, StateError> {
        let configuration = Configuration::verify(signed, anchor).map_err(StateError::Configuration)?;
        // It was verified, so it decodes; nothing here relies on that.
        let decoded = GlobalConfiguration::decode(signed.configuration.clone()).unwrap_or_default();
        Ok(Self { configuration, decoded, encoded: signed.encode_to_vec().into() })
    }
}

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    anchor: Anchor,
    latest: Option<Arc<Published>>,
    proposal: Option<Bytes>,
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
            proposal: None,
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
                self.proposal = Some(bytes);
                return Ok(());
            }
            Event::Abandoned(_) => {
                self.proposal = None;
                return Ok(());
            }
            Event::Published(signed) => return self.publish(&signed),
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

    fn publish(&mut self, signed: &SignedConfiguration) -> Result<(), StateError> {
        let published = Published::new(signed, &self.anchor)?;
        let number = published.configuration.number();
        for digest in published.configuration.acts() {
            let Some(id) = self.by_digest.get(digest).copied() else {
                return Err(StateError::UnknownAct(digest.to_string()));
            };
            self.approved.retain(|other| *other != id);
            self.set_stage(id, Stage::InForce(number));
            if self.enrolments.get(&id).is_some_and(|enrolment| enrolment.certificates.is_none()) {
                self.uncertified.insert(id);
            }
        }
        self.latest = Some(Arc::new(published));
        self.proposal = None;
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
