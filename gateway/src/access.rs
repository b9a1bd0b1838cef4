//! Who may call what for which purpose: grants, deny by default. A yes is an object that names the grant that gave it.

mod allowance;
mod known;
mod explain;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;
use trave_message_log::Artefact;
use trave_proto::access::{Call, Members, Membership, Subject, Target};
use trave_proto::clock::Time;
use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::{ServiceId, SubsystemId};
use trave_proto::message::Code;
use trave_proto::schema::log::Leaf;

pub(crate) use allowance::Place as GrantedPlace;
use allowance::{Exceeded, Place};
pub(crate) use explain::Question;
pub use known::{AccessError, Grant, Group, Known, Waiting};
pub(crate) use trave_proto::access::Endpoint;

/// What grants are judged by beside the call: who is in the groups of the instance, and what time it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) configuration: &'a Configuration,
    pub(crate) now: Time,
}

/// The grants in force, and the local groups. Readers see one immutable state; changes swap it.
#[derive(Debug)]
pub struct Access {
    known: ArcSwap<Known>,
    changed: watch::Sender<()>,
}

impl Default for Access {
    fn default() -> Self {
        Self::new(Known::default())
    }
}

impl Access {
    /// What the log said when it was read.
    pub fn new(known: Known) -> Self {
        Self { known: ArcSwap::from_pointee(known.indexed()), changed: watch::Sender::new(()) }
    }

    /// Takes a logged change into force: the log is the truth, this is its view. One at a time, in the log's order.
    pub fn apply(&self, leaf: &Leaf) -> Result<(), AccessError> {
        let mut known = Known::clone(&self.known.load());
        known.take(leaf)?;
        self.known.store(Arc::new(known.indexed()));
        self.changed.send_replace(());
        Ok(())
    }

    /// Tells when something changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The grants in force, by name.
    pub fn list(&self) -> Vec<Arc<Grant>> {
        self.known.load().grants.values().cloned().collect()
    }

    /// The local groups, by code.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.known.load().groups.values().cloned().collect()
    }

    /// What waits for another person's approval, by id.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.known.load().waiting.values().cloned().collect()
    }

    /// The grant of this name, in force.
    pub fn get(&self, id: &str) -> Option<Arc<Grant>> {
        self.known.load().grants.get(id).cloned()
    }

    /// The local group of this code.
    pub fn group(&self, code: &Code) -> Option<Arc<Group>> {
        self.known.load().groups.get(code).cloned()
    }

    /// What waits under this id.
    pub fn waits(&self, id: &str) -> Option<Waiting> {
        self.known.load().waiting.get(id).cloned()
    }

    /// The patterns of methods or endpoints of `service` that some grant allows `client` now, for one purpose or other.
    pub(crate) fn patterns(
        &self,
        client: &SubsystemId,
        service: &ServiceId,
        circumstances: Circumstances<'_>,
    ) -> Vec<String> {
        let known = self.known.load();
        let groups = Groups { known: &known, configuration: circumstances.configuration };
        let of_client = known
            .of(service)
            .iter()
            .map(|grant| &grant.terms)
            .filter(|terms| terms.subject.covers(client, &groups) && terms.hold_at(circumstances.now));
        of_client.map(|terms| terms.method.clone()).collect()
    }

    /// Permits what a grant allows; everything else is refused. A call is either of a gRPC method, which `topic` names, or
    /// of an HTTP `endpoint`. It counts for the grant's rate.
    pub(crate) fn permit(
        &self,
        topic: &Topic,
        endpoint: Option<Endpoint>,
        circumstances: Circumstances<'_>,
    ) -> Result<Permitted, Fault> {
        let known = self.known.load();
        let groups = Groups { known: &known, configuration: circumstances.configuration };
        let Some(call) = call(topic, endpoint.as_ref(), &groups, circumstances.now) else {
            return Err(denied(topic));
        };
        let (mut exceeded, now) = (None, Instant::now());
        for grant in known.of(&topic.service).iter().filter(|grant| grant.terms.fit(&call)) {
            match grant.allowance.take(&grant.terms, now) {
                Ok(place) => {
                    let group = groups.leaf(&grant.terms.subject);
                    return Ok(Permitted { grant: Arc::clone(grant), group, endpoint, place: Some(place) });
                }
                Err(more) => exceeded = Some(sooner(exceeded, more)),
            }
        }
        Err(exceeded.map_or_else(|| denied(topic), limited))
    }

    /// Whether some grant allows it, and until when one does at the longest; that counts for no rate.
    fn allows(
        &self,
        topic: &Topic,
        endpoint: Option<&Endpoint>,
        circumstances: Circumstances<'_>,
    ) -> Option<Lasts> {
        let known = self.known.load();
        let groups = Groups { known: &known, configuration: circumstances.configuration };
        let call = call(topic, endpoint, &groups, circumstances.now)?;
        let fitting = known.of(&topic.service).iter().filter(|grant| grant.terms.fit(&call));
        let lasts = |grant: &Arc<Grant>| grant.terms.not_after.map_or(Lasts::Open, Lasts::Until);
        fitting.map(lasts).max()
    }
}

fn call<'c>(
    topic: &'c Topic,
    endpoint: Option<&'c Endpoint>,
    members: &'c dyn Membership,
    at: Time,
) -> Option<Call<'c>> {
    let target = match (&topic.method, endpoint) {
        (Some(method), None) => Target::Method(method),
        (None, Some(endpoint)) => Target::Endpoint(endpoint),
        _ => return None,
    };
    let Topic { client, service, purpose, legal_basis, .. } = topic;
    Some(Call { client, service, target, purpose, legal_basis, at, members })
}

fn denied(topic: &Topic) -> Fault {
    let why = format!(
        "no grant allows {} to call {} for purpose {} on legal basis {}; the provider's operator can grant it",
        topic.client, topic.service, topic.purpose, topic.legal_basis
    );
    Fault::before_call(Reason::AccessDenied, Side::ProviderServer, why)
}

/// Of two limits the one that ends first, as far as that is known.
fn sooner(one: Option<Exceeded>, other: Exceeded) -> Exceeded {
    match (one, other) {
        (Some(Exceeded::Rate(one)), Exceeded::Rate(other)) => Exceeded::Rate(one.min(other)),
        (Some(Exceeded::Rate(wait)), _) | (_, Exceeded::Rate(wait)) => Exceeded::Rate(wait),
        _ => Exceeded::Exchanges,
    }
}

fn limited(exceeded: Exceeded) -> Fault {
    let (reason, why) = match exceeded {
        Exceeded::Rate(wait) => {
            // Rounded up: earlier would be in vain.
            let millis = wait.as_nanos().div_ceil(1_000_000);
            (Reason::RateLimited, format!("as many calls as are granted were made: try again in {millis} ms"))
        }
        Exceeded::Exchanges => (
            Reason::RateLimited,
            "as many exchanges as are granted at a time are under way; try again shortly".into(),
        ),
    };
    Fault::before_call(reason, Side::ProviderServer, why)
}

/// Who belongs to which group: local ones as the log says, global ones as the configuration says.
#[derive(Debug)]
struct Groups<'a> {
    known: &'a Known,
    configuration: &'a Configuration,
}

impl Groups<'_> {
    /// The record of the local group that a grant is for.
    fn leaf(&self, subject: &Subject) -> Option<Artefact> {
        let Subject::LocalGroup(code) = subject else { return None };
        self.known.groups.get(code).map(|group| group.leaf.clone())
    }
}

impl Membership for Groups<'_> {
    fn local(&self, group: &Code) -> Option<&Members> {
        self.known.groups.get(group).map(|group| &group.members)
    }

    fn global(&self, group: &Code) -> Option<&Members> {
        self.configuration.group(group.as_str()).map(|group| &group.members)
    }
}

/// How long a permission lasts if nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lasts {
    /// To the end of this moment.
    Until(Time),
    /// Without end.
    Open,
}

/// The permission for one exchange. Only [`Access::permit`] makes it, and no register is called without it.
#[derive(Debug)]
pub(crate) struct Permitted {
    grant: Arc<Grant>,
    group: Option<Artefact>,
    endpoint: Option<Endpoint>,
    place: Option<Place>,
}

impl Permitted {
    /// The exchange's place among those that the grant allows at a time, to be held until its answer has left.
    pub(crate) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The grant that permitted the exchange.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The record of the local group through which it did, if the grant is for one.
    pub(crate) fn group(&self) -> Option<&Artefact> {
        self.group.as_ref()
    }

    /// Whether a grant still allows it, later: this one or another one.
    pub(crate) fn still(
        &self,
        access: &Access,
        topic: &Topic,
        circumstances: Circumstances<'_>,
    ) -> Result<Lasts, Fault> {
        access.allows(topic, self.endpoint.as_ref(), circumstances).ok_or_else(|| denied(topic))
    }
}

#[cfg(test)]
mod tests;
