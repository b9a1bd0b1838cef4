//! Trust services in one process, with the civil clock in the test's hand.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use tempfile::TempDir;
use tower::ServiceExt;
use trave_certs::authority::{Addresses, Issued};
use trave_certs::profile::Profile;
use trave_certs::service::{Keys, Settings, TrustServices};
use trave_certs::timestamping::Terms;
use trave_host::clock::ManualClock;
use trave_host::keys::{Sign, SigningKey, certificate_request};
use trave_proto::certificate::Certificate;
use trave_proto::clock::Time;

pub(crate) const START: Time = Time::from_millis(1_795_348_800_123);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct World {
    pub(crate) services: Arc<TrustServices>,
    pub(crate) clock: ManualClock,
    pub(crate) keys: Keys,
    pub(crate) settings: Settings,
    pub(crate) directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let key = || -> Arc<dyn Sign> { Arc::new(SigningKey::generate().unwrap()) };
        let keys = Keys { authority: key(), responder: key(), timestamping: key() };
        let settings = Settings {
            name: "NORD certification authority".to_owned(),
            addresses: Addresses {
                ocsp: Some("http://ca.example/ocsp".to_owned()),
                revocation_list: Some("http://ca.example/crl".to_owned()),
            },
            terms: terms(),
        };
        let services =
            TrustServices::create(directory.path(), &settings, &keys, Arc::new(clock.clone())).unwrap();
        Self { services: Arc::new(services), clock, keys, settings, directory }
    }

    /// The same directory and keys, opened again.
    pub(crate) fn reopened(&self) -> TrustServices {
        let clock = Arc::new(self.clock.clone());
        TrustServices::open(self.directory.path(), &self.settings, &self.keys, clock).unwrap()
    }

    pub(crate) fn authority(&self) -> &Certificate {
        self.services.authority.certificate()
    }

    pub(crate) fn issue(&self, profile: &Profile) -> Issued {
        self.services.authority.issue(profile, &request()).unwrap()
    }

    /// A signing certificate for the security server of Lübeck.
    pub(crate) fn signing(&self) -> (Issued, Certificate) {
        let issued = self.issue(&signing());
        let certificate = Certificate::from_der(&issued.chain[0]).unwrap();
        (issued, certificate)
    }

    pub(crate) async fn post(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        let request = Request::post(path).header("content-type", kind).body(Body::from(body.to_vec()));
        self.send(request.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = Arc::clone(&self.services).router().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 1024 * 1024).await.unwrap();
        Answer { status, headers, body }
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        policy: "1.3.6.1.4.1.32473.1.1".to_owned(),
        accuracy: Duration::from_millis(1500),
        ordering: false,
    }
}

pub(crate) fn signing() -> Profile {
    Profile::Signing {
        member: "NORD/SH/luebeck".parse().unwrap(),
        server: "NORD/SH/luebeck/s1".parse().unwrap(),
    }
}

pub(crate) fn authentication() -> Profile {
    Profile::Authentication {
        member: "NORD/SH/luebeck".parse().unwrap(),
        server: "NORD/SH/luebeck/s1".parse().unwrap(),
    }
}

/// A certificate request with a fresh key.
pub(crate) fn request() -> Vec<u8> {
    certificate_request(&SigningKey::generate().unwrap(), "anybody").unwrap()
}
