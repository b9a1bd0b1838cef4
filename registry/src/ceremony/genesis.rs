//! The first configuration: nobody but the administrators, the trust services and the rules.

use std::time::Duration;

use trave_certs::service::TrustServices;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::management::check_genesis;
use trave_proto::schema::configuration::TrustServices as NamedTrustServices;
use trave_proto::schema::configuration::{
    Administrator, Algorithm, CertificationAuthority, GlobalConfiguration, Policy, TimestampingAuthority,
};

use super::{Ceremony, CeremonyError, Person};

/// A signed message stands in a checkpoint of its sender's log within a day.
const MERGE_DELAY: Duration = Duration::from_secs(24 * 3600);
/// OCSP responses are at most eight hours old.
const OCSP_MAX_AGE: Duration = Duration::from_secs(8 * 3600);

impl Ceremony {
    pub(super) fn genesis(
        &self,
        services: &TrustServices,
        people: &[Person],
        now: Time,
    ) -> Result<GlobalConfiguration, CeremonyError> {
        let mut administrators: Vec<_> = people.iter().map(administrator).collect();
        administrators.sort_by(|a, b| a.name.cmp(&b.name));
        let validity = Duration::from_secs(u64::from(self.validity_minutes) * 60);
        let genesis = GlobalConfiguration {
            version: 1,
            instance: self.instance.clone(),
            number: 1,
            issued_ms: now.as_millis(),
            valid_until_ms: now.plus(validity).as_millis(),
            trust_services: Some(self.named_trust_services(services)),
            administrators,
            policy: Some(policy()),
            ..Default::default()
        };
        check_genesis(&genesis).map_err(CeremonyError::Genesis)?;
        Ok(genesis)
    }

    fn named_trust_services(&self, services: &TrustServices) -> NamedTrustServices {
        let (instance, base) = (&self.instance, format!("http://{}", self.trust_services_listen));
        let authority = CertificationAuthority {
            name: format!("{instance} Trust Services"),
            certificate: services.authority.certificate().der().clone(),
            ocsp_urls: vec![format!("{base}/ocsp")],
            crl_urls: vec![format!("{base}/crl")],
        };
        let timestamping = services.timestamping.iter().map(|authority| TimestampingAuthority {
            name: format!("{instance} Trust Services TSA"),
            certificate: authority.certificate().der().clone(),
            url: format!("{base}/tsa"),
        });
        NamedTrustServices {
            certification_authorities: vec![authority],
            timestamping_authorities: timestamping.collect(),
        }
    }
}

fn administrator(person: &Person) -> Administrator {
    Administrator {
        name: person.name.clone(),
        class: person.class.clone(),
        key: Digest::of(&person.public_key).to_bytes(),
        public_key: person.public_key.clone().into(),
    }
}

fn policy() -> Policy {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Policy {
        merge_delay_ms: millis(MERGE_DELAY),
        ocsp_max_age_ms: millis(OCSP_MAX_AGE),
        approval_by_other_class: true,
        algorithms: vec![Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }],
        ..Default::default()
    }
}
