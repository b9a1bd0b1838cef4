//! Why a call would be allowed or refused: for the provider's operator alone. A caller is never told what there is.

use std::sync::Arc;

use tokio::time::Instant;
use trave_proto::access::{Call, Endpoint, Subject, Target};
use trave_proto::clock::Time;
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::{Method, ServiceId, SubsystemId};
use trave_proto::message::Code;

use super::known::{Grant, Known, Waiting};
use super::{Access, Groups};

/// A call that nobody made.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) client: SubsystemId,
    pub(crate) service: ServiceId,
    /// Of gRPC.
    pub(crate) method: Option<Method>,
    /// Of HTTP.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) purpose: Code,
    pub(crate) legal_basis: Code,
    pub(crate) at: Time,
}

/// What one grant says to it.
#[derive(Debug)]
pub(crate) struct Explained {
    pub(crate) grant: Arc<Grant>,
    pub(crate) waiting: bool,
    /// What does not fit; none where it allows the call.
    pub(crate) misfits: Vec<String>,
    /// What else is to be known.
    pub(crate) notes: Vec<String>,
}

impl Access {
    /// What each grant for the service says, those that lack the least first.
    pub(crate) fn explain(&self, question: &Question, configuration: &Configuration) -> Vec<Explained> {
        let known = self.known.load();
        let groups = Groups { known: &known, configuration };
        let target = match (&question.method, &question.endpoint) {
            (Some(method), _) => Target::Method(method),
            (None, Some(endpoint)) => Target::Endpoint(endpoint),
            (None, None) => Target::SomeEndpoint,
        };
        let call = Call {
            client: &question.client,
            service: &question.service,
            target,
            purpose: &question.purpose,
            legal_basis: &question.legal_basis,
            at: question.at,
            members: &groups,
        };
        let in_force = known.of(&question.service).iter().map(|grant| (grant, false));
        let waiting = known.waiting.values().filter_map(|waits| match waits {
            Waiting::Grant(grant) if grant.terms.service == question.service => Some((grant, true)),
            _ => None,
        });
        let mut explained: Vec<_> =
            in_force.chain(waiting).map(|(grant, waits)| explain_one(grant, waits, &call, &known)).collect();
        explained.sort_by_key(|one| one.misfits.len());
        explained
    }
}

fn explain_one(grant: &Arc<Grant>, waiting: bool, call: &Call<'_>, known: &Known) -> Explained {
    let terms = &grant.terms;
    let mut misfits: Vec<_> = terms.misfits(call).map(|misfit| misfit.to_string()).collect();
    if waiting {
        misfits.push("it is not in force: it waits for another person's approval".into());
    }
    let mut notes = Vec::new();
    match &terms.subject {
        Subject::Principal(_) => {}
        Subject::LocalGroup(code) if !known.groups.contains_key(code) => {
            notes.push(format!("there is no {}", terms.subject));
        }
        group if group.covers(call.client, call.members) => {
            notes.push(format!("{} belongs to {group}", call.client));
        }
        _ => {}
    }
    if let Some(rate) = &terms.rate {
        let wait = grant.allowance.wait(rate, Instant::now());
        notes.push(match wait.is_zero() {
            true => format!("no more than {rate}"),
            false => format!("no more than {rate}: used up now, for {} ms", wait.as_millis()),
        });
    }
    if let Some(exchanges) = terms.exchanges {
        notes.push(format!("no more than {exchanges} exchanges at a time"));
    }
    Explained { grant: Arc::clone(grant), waiting, misfits, notes }
}
