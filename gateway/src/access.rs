//! Who may call what for which purpose: grants, deny by default. A yes is an object that names the grant that gave it.

mod endpoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message;
use trave_message_log::Artefact;
use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{Method, ServiceId, SubsystemId};
use trave_proto::message::Code;
use trave_proto::schema::log::{GrantChange, Leaf, leaf::Entry};

pub(crate) use endpoint::Endpoint;

/// Why a grant cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A field is not of its form.
    #[error("{field} {value:?} is not valid: {why}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What was given.
        value: String,
        /// What it should be.
        why: String,
    },
    /// No grant of this name.
    #[error("there is no grant {0}")]
    Unknown(String),
}

/// One grant: a client may call a service's methods that match a pattern, for the purposes and on the legal bases named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: String,
    /// Who may call.
    pub client: SubsystemId,
    /// What may be called.
    pub service: ServiceId,
    /// `/package.Service/Method`, `/package.Service/*` or `/*`; of HTTP `METHOD /path/*/**` or `/*`.
    pub method: String,
    /// For which purposes; at least one.
    pub purposes: Vec<Code>,
    /// On which legal bases; at least one.
    pub legal_bases: Vec<Code>,
    /// The leaf that made it, which proofs carry.
    pub(crate) leaf: Artefact,
}

impl Grant {
    /// The grant that `leaf` made, checked.
    pub fn from_leaf(leaf: &Leaf) -> Result<Option<Self>, GrantError> {
        let Some(Entry::Grant(change)) = &leaf.entry else { return Ok(None) };
        Ok(Some(Self {
            id: change.id.clone(),
            client: field("client", &change.client)?,
            service: field("service", &change.service)?,
            method: pattern(&change.method)?,
            purposes: codes("purpose", &change.purposes)?,
            legal_bases: codes("legal basis", &change.legal_bases)?,
            leaf: Artefact::new(leaf.encode_to_vec().into()),
        }))
    }

    fn allows(&self, topic: &Topic, endpoint: Option<&Endpoint>) -> bool {
        let what = match (&topic.method, endpoint) {
            (Some(method), None) => method.matches(&self.method),
            (None, Some(endpoint)) => endpoint.matches(&self.method),
            _ => false,
        };
        what && self.client == topic.client
            && self.service == topic.service
            && self.purposes.contains(&topic.purpose)
            && self.legal_bases.contains(&topic.legal_basis)
    }
}

fn field<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    value: &str,
) -> Result<T, GrantError> {
    value.parse().map_err(|why: T::Err| GrantError::Field {
        field,
        value: value.into(),
        why: why.to_string(),
    })
}

fn pattern(value: &str) -> Result<String, GrantError> {
    let concrete = value.strip_suffix('*').map_or_else(|| value.to_owned(), |prefix| format!("{prefix}x"));
    if value != "/*" && !endpoint::is_pattern(value) {
        field::<Method>("method", &concrete)?;
    }
    Ok(value.to_owned())
}

fn codes(name: &'static str, values: &[String]) -> Result<Vec<Code>, GrantError> {
    if values.is_empty() {
        let why = "name at least one: a grant without one allows nothing".into();
        return Err(GrantError::Field { field: name, value: String::new(), why });
    }
    values.iter().map(|value| field(name, value)).collect()
}

/// The grants in force. Readers see one immutable set; changes swap it.
#[derive(Debug, Default)]
pub struct Access {
    grants: ArcSwap<BTreeMap<String, Arc<Grant>>>,
}

impl Access {
    /// Takes a logged change into force: the log is the truth, this is its view. Replayed at start, in order.
    pub fn apply(&self, leaf: &Leaf) -> Result<(), GrantError> {
        let Some(Entry::Grant(GrantChange { id, in_force, .. })) = &leaf.entry else { return Ok(()) };
        let mut grants = BTreeMap::clone(&self.grants.load());
        if *in_force {
            if let Some(grant) = Grant::from_leaf(leaf)? {
                grants.insert(id.clone(), Arc::new(grant));
            }
        } else {
            grants.remove(id).ok_or_else(|| GrantError::Unknown(id.clone()))?;
        }
        self.grants.store(Arc::new(grants));
        Ok(())
    }

    /// The grants in force, by name.
    pub fn list(&self) -> Vec<Arc<Grant>> {
        self.grants.load().values().cloned().collect()
    }

    /// The grant of this name.
    pub fn get(&self, id: &str) -> Option<Arc<Grant>> {
        self.grants.load().get(id).cloned()
    }

    /// Permits what a grant allows; everything else is refused. A call is either of a gRPC method, which `topic` names, or
    /// of an HTTP `endpoint`.
    pub(crate) fn permit(&self, topic: &Topic, endpoint: Option<Endpoint>) -> Result<Permitted, Fault> {
        let grants = self.grants.load();
        if let Some(grant) = grants.values().find(|grant| grant.allows(topic, endpoint.as_ref())) {
            return Ok(Permitted { grant: Arc::clone(grant), endpoint });
        }
        let why = format!(
            "no grant allows {} to call {} for purpose {} on legal basis {}; the provider's operator can grant it",
            topic.client, topic.service, topic.purpose, topic.legal_basis
        );
        Err(Fault::before_call(Reason::AccessDenied, Side::ProviderServer, why))
    }
}

/// The permission for one exchange. Only [`Access::permit`] makes it, and no register is called without it.
#[derive(Debug)]
pub(crate) struct Permitted {
    grant: Arc<Grant>,
    endpoint: Option<Endpoint>,
}

impl Permitted {
    /// The grant that permitted the exchange.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether a grant still allows it, later.
    pub(crate) fn still(&self, access: &Access, topic: &Topic) -> Result<(), Fault> {
        access.permit(topic, self.endpoint.clone()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trave_proto::clock::Time;
    use trave_proto::identifier::ExchangeId;

    fn change(in_force: bool) -> Leaf {
        let entry = Entry::Grant(GrantChange {
            id: "g1".into(),
            client: "NORD/SH/luebeck/gewerbeamt".into(),
            service: "NORD/MV/gewerberegister/register/auskunft".into(),
            method: "/gewerbe.v1.Register/*".into(),
            purposes: vec!["gewerbeummeldung".into()],
            in_force,
            operator: "op".into(),
            legal_bases: vec!["GewO-14".into()],
        });
        Leaf { version: 1, logged_ms: 1, entry: Some(entry) }
    }

    fn topic() -> Topic {
        Topic {
            exchange: ExchangeId::new(Time::from_millis(1), &[0; 10]),
            client: "NORD/SH/luebeck/gewerbeamt".parse().unwrap(),
            service: "NORD/MV/gewerberegister/register/auskunft".parse().unwrap(),
            method: Some("/gewerbe.v1.Register/Auskunft".parse().unwrap()),
            purpose: "gewerbeummeldung".parse().unwrap(),
            legal_basis: "GewO-14".parse().unwrap(),
            route: None,
        }
    }

    #[test]
    fn only_what_is_granted_is_permitted() {
        let access = Access::default();
        assert_eq!(access.permit(&topic(), None).unwrap_err().reason, Reason::AccessDenied);
        access.apply(&change(true)).unwrap();
        assert_eq!(access.permit(&topic(), None).unwrap().grant().id, "g1");
        let changes: [fn(&mut Topic); 5] = [
            |t| t.client = "NORD/SH/luebeck/bauamt".parse().unwrap(),
            |t| t.service = "NORD/MV/gewerberegister/register/anderes".parse().unwrap(),
            |t| t.method = Some("/gewerbe.v1.Anderer/Auskunft".parse().unwrap()),
            |t| t.purpose = "neugier".parse().unwrap(),
            |t| t.legal_basis = "keine".parse().unwrap(),
        ];
        for change in changes {
            let mut other = topic();
            change(&mut other);
            assert!(access.permit(&other, None).is_err(), "{other:?}");
        }
        let over_http = Topic { method: None, ..topic() };
        let endpoint = Endpoint {
            method: "POST".into(),
            path: "/gewerbe.v1.Register/Auskunft".into(),
            destination: None,
        };
        assert!(
            access.permit(&over_http, Some(endpoint)).is_err(),
            "a grant of gRPC methods is none for HTTP"
        );
        assert!(access.permit(&over_http, None).is_err());
        access.apply(&change(false)).unwrap();
        assert!(access.permit(&topic(), None).is_err());
        assert!(matches!(access.apply(&change(false)), Err(GrantError::Unknown(_))));
    }

    #[test]
    fn a_grant_without_purpose_or_with_a_broken_pattern_is_refused() {
        type Change = fn(&mut GrantChange);
        let changes: [Change; 4] = [
            |c| c.purposes.clear(),
            |c| c.legal_bases.clear(),
            |c| c.method = "*".into(),
            |c| c.method = "/gewerbe.v1.Register/Aus*kunft".into(),
        ];
        for alter in changes {
            let mut leaf = change(true);
            if let Some(Entry::Grant(grant)) = &mut leaf.entry {
                alter(grant);
            }
            assert!(Access::default().apply(&leaf).is_err(), "{leaf:?}");
        }
    }
}
