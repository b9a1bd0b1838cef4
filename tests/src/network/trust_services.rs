//! The instance's trust services, which go by the same clock: certification authority, OCSP responder, timestamping
//! authority, over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use trave_certs::authority::{Addresses, Issued, Reason};
use trave_certs::profile::Profile;
use trave_certs::service::{Keys as ServiceKeys, Settings, TrustServices};
use trave_certs::timestamping::Terms;
use trave_host::drain::Drain;
use trave_host::keys::{Sign, certificate_request};
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::tls::Http;
use trave_proto::clock::Clock;
use trave_proto::identifier::ServerId;
use trave_proto::schema::configuration::{
    CertificationAuthority, TimestampingAuthority, TrustServices as Listed,
};

use super::keys::Identities;

/// Running trust services.
#[derive(Debug)]
pub struct Authorities {
    services: Arc<TrustServices>,
    address: String,
    drain: Drain,
    _directory: TempDir,
}

impl Authorities {
    /// Begins them, with `clock`.
    pub async fn start(clock: Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), Http::TwoOrOne).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [authority, responder, timestamping] =
            Identities::get().trust_services.clone().map(|key| key as Arc<dyn Sign>);
        let settings = Settings {
            name: "Probe-CA NORD".into(),
            addresses: Addresses {
                ocsp: Some(format!("http://{address}/ocsp")),
                revocation_list: Some(format!("http://{address}/crl")),
            },
            terms: Terms {
                policy: "1.3.6.1.4.1.32473.1".into(),
                accuracy: Duration::from_secs(1),
                ordering: false,
            },
        };
        let keys = ServiceKeys { authority, responder, timestamping };
        let services = Arc::new(TrustServices::create(directory.path(), &settings, &keys, clock).unwrap());
        let (router, drain) = (Arc::clone(&services).router(), Drain::new());
        drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(router.clone())));
        Self { services, address, drain, _directory: directory }
    }

    /// As the global configuration lists them.
    pub fn listed(&self) -> Listed {
        let address = &self.address;
        let certificate = |certificate: &trave_proto::certificate::Certificate| {
            Bytes::copy_from_slice(certificate.der().as_ref())
        };
        let timestamping = self.services.timestamping.as_ref().unwrap();
        Listed {
            certification_authorities: vec![CertificationAuthority {
                name: "Probe-CA NORD".into(),
                certificate: certificate(self.services.authority.certificate()),
                ocsp_urls: vec![format!("http://{address}/ocsp")],
                crl_urls: vec![format!("http://{address}/crl")],
            }],
            timestamping_authorities: vec![TimestampingAuthority {
                name: "Probe-TSA NORD".into(),
                certificate: certificate(timestamping.certificate()),
                url: format!("http://{address}/tsa"),
            }],
        }
    }

    /// A certificate for TLS of `server`.
    pub fn authentication(&self, server: &str, key: &dyn Sign, validity: Duration) -> Issued {
        let server: ServerId = server.parse().unwrap();
        self.issue(Profile::Authentication { member: server.member(), server }, key, validity)
    }

    /// A certificate for messages of `server`'s member.
    pub fn signing(&self, server: &str, key: &dyn Sign, validity: Duration) -> Issued {
        let server: ServerId = server.parse().unwrap();
        self.issue(Profile::Signing { member: server.member(), server }, key, validity)
    }

    fn issue(&self, profile: Profile, key: &dyn Sign, validity: Duration) -> Issued {
        let request = certificate_request(key, "probe").unwrap();
        self.services.authority.issue_for(&profile, &request, validity).unwrap()
    }

    /// Revokes a certificate.
    pub fn revoke(&self, issued: &Issued) {
        self.services.authority.revoke(&issued.serial, Reason::KeyCompromise).unwrap();
    }

    /// The responder's answer about the leaf of `chain`.
    pub fn ocsp(&self, chain: &[Bytes]) -> Bytes {
        let leaf = trave_proto::certificate::Certificate::from_der(&chain[0]).unwrap();
        let request =
            trave_proto::certificate::ocsp::request(&leaf, self.services.authority.certificate(), None)
                .unwrap();
        self.services.responder.answer(&request).der
    }

    /// Ends them.
    pub async fn stop(&self) {
        self.drain.finish(Duration::from_secs(5)).await;
    }
}
