//! The timestamping authority over HTTP, asked and verified by the protocol's own client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use common::{DAY, START, World, request, terms};
use rasn_cms::tsp::TimeStampReq;
use trave_certs::profile::Profile;
use trave_certs::timestamping::{Terms, TimestampingError, Tsa};
use trave_host::clock::ManualClock;
use trave_host::keys::{KeyError, Sign, SigningKey, certificate_request};
use trave_proto::clock::{Clock, Time};
use trave_proto::digest::Digest;
use trave_proto::timestamp::{Failure, Nonce, Timestamp, TokenError, request as query, token_of};

const QUERY: &str = "application/timestamp-query";
const NONCE: Nonce = Nonce::from_random([9; 8]);

fn digest() -> Digest {
    Digest::of(b"what shall be proved")
}

/// A timestamping authority for itself, with its certificate and clock.
struct Alone {
    tsa: Tsa,
    clock: ManualClock,
}

impl Alone {
    fn new(terms: Terms) -> Self {
        Self::certified(terms, &Profile::TimestampingAuthority { name: "TSA".to_owned() })
    }

    fn certified(terms: Terms, profile: &Profile) -> Self {
        let (world, key) = (World::new(), SigningKey::generate().unwrap());
        let request = certificate_request(&key, "TSA").unwrap();
        let issued = world.services.authority.issue(profile, &request).unwrap();
        let clock = Arc::new(world.clock.clone());
        let tsa = Tsa::new(&issued.chain[0], Arc::new(key), clock, terms).unwrap();
        Self { tsa, clock: world.clock }
    }

    fn stamp(&self) -> Result<Timestamp, TokenError> {
        self.verify(&self.tsa.answer(&query(&digest(), NONCE)))
    }

    fn verify(&self, response: &[u8]) -> Result<Timestamp, TokenError> {
        let authorities = [self.tsa.certificate().der()];
        Timestamp::verify(&token_of(response)?, &digest(), Some(NONCE), &authorities)
    }

    /// Why a request is refused after `change`.
    fn refused(&self, change: impl FnOnce(&mut TimeStampReq)) -> Failure {
        let mut request: TimeStampReq = rasn::der::decode(&query(&digest(), NONCE)).unwrap();
        change(&mut request);
        failure(&self.tsa.answer(&rasn::der::encode(&request).unwrap()))
    }
}

fn failure(response: &[u8]) -> Failure {
    match token_of(response).unwrap_err() {
        TokenError::Refused { status: "rejection", failure: Some(failure), text } if !text.is_empty() => {
            failure
        }
        other => panic!("{other:?}"),
    }
}

fn object_identifier(arcs: &'static [u32]) -> rasn::types::ObjectIdentifier {
    rasn::types::ObjectIdentifier::new_unchecked(arcs.into())
}

#[tokio::test]
async fn a_digest_is_stamped_over_http() {
    let world = World::new();
    let answer = world.post("/tsa", QUERY, &query(&digest(), NONCE)).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::OK, "application/timestamp-reply")
    );
    let authority = world.services.timestamping.as_ref().unwrap().certificate().der();
    let token = token_of(&answer.body).unwrap();
    let stamp = Timestamp::verify(&token, &digest(), Some(NONCE), &[authority]).unwrap();
    assert_eq!(stamp.time(), START, "to the millisecond");
    assert_eq!(stamp.accuracy(), Some(Duration::from_millis(1500)));
    assert_eq!(stamp.policy(), "1.3.6.1.4.1.32473.1.1");
    assert_eq!(stamp.serial().len(), 16);

    let wrong_type = world.post("/tsa", "text/plain", &query(&digest(), NONCE)).await;
    assert_eq!(wrong_type.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = world.post("/tsa", QUERY, &vec![0; 65 * 1024]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn serial_numbers_never_repeat() {
    let alone = Alone::new(terms());
    assert_ne!(alone.stamp().unwrap().serial(), alone.stamp().unwrap().serial());
}

#[test]
fn the_certificate_comes_only_if_asked_for() {
    let alone = Alone::new(terms());
    let mut request: TimeStampReq = rasn::der::decode(&query(&digest(), NONCE)).unwrap();
    request.cert_req = false;
    let without = alone.tsa.answer(&rasn::der::encode(&request).unwrap());
    let with = alone.tsa.answer(&query(&digest(), NONCE));
    assert!(alone.verify(&without).is_ok() && alone.verify(&with).is_ok());
    let certificate = alone.tsa.certificate().der();
    let holds = |response: &[u8]| response.windows(certificate.len()).any(|window| window == certificate);
    assert!(holds(&with) && !holds(&without));
}

#[test]
fn every_rejection_has_its_reason() {
    let alone = Alone::new(terms());
    assert_eq!(failure(&alone.tsa.answer(b"rubbish")), Failure::BadDataFormat);
    assert_eq!(failure(&alone.tsa.answer(&vec![0x30; 65 * 1024])), Failure::BadDataFormat);
    let longer = [query(&digest(), NONCE), vec![0]].concat();
    assert_eq!(failure(&alone.tsa.answer(&longer)), Failure::BadDataFormat);
    let short = |request: &mut TimeStampReq| request.message_imprint.hashed_message = vec![0; 20].into();
    assert_eq!(alone.refused(short), Failure::BadDataFormat);
    let sha_1 = |request: &mut TimeStampReq| {
        request.message_imprint.hash_algorithm.algorithm = object_identifier(&[1, 3, 14, 3, 2, 26]);
    };
    assert_eq!(alone.refused(sha_1), Failure::BadAlgorithm);
    assert_eq!(alone.refused(|request| request.version = 2), Failure::BadRequest);
    let long_nonce: rasn::types::Integer =
        rasn::der::decode(&[&[0x02, 33][..], &[0x7f; 33]].concat()).unwrap();
    assert_eq!(alone.refused(|request| request.nonce = Some(long_nonce)), Failure::BadRequest);
    let policy = object_identifier(&[1, 2, 3]);
    assert_eq!(alone.refused(|request| request.req_policy = Some(policy)), Failure::UnacceptedPolicy);
    let extension = rasn_pkix::Extension {
        extn_id: object_identifier(&[1, 2, 3]),
        critical: false,
        extn_value: vec![5, 0].into(),
    };
    assert_eq!(
        alone.refused(|request| request.extensions = Some(vec![extension].into())),
        Failure::UnacceptedExtension
    );
}

#[test]
fn the_policy_may_be_named() {
    let alone = Alone::new(terms());
    let mut request: TimeStampReq = rasn::der::decode(&query(&digest(), NONCE)).unwrap();
    request.req_policy = Some(object_identifier(&[1, 3, 6, 1, 4, 1, 32473, 1, 1]));
    assert!(alone.verify(&alone.tsa.answer(&rasn::der::encode(&request).unwrap())).is_ok());
}

#[test]
fn a_clock_that_went_back_is_not_believed() {
    let alone = Alone::new(terms());
    alone.clock.advance(DAY);
    alone.stamp().unwrap();
    alone.clock.set(alone.clock.now().minus(Duration::from_secs(1)));
    assert!(alone.stamp().is_ok(), "within its accuracy");
    alone.clock.set(alone.clock.now().minus(Duration::from_secs(1)));
    assert_eq!(failure(&alone.tsa.answer(&query(&digest(), NONCE))), Failure::TimeNotAvailable);
}

#[test]
fn outside_its_certificates_validity_there_is_no_time() {
    let alone = Alone::new(terms());
    alone.clock.advance(4000 * DAY);
    assert_eq!(failure(&alone.tsa.answer(&query(&digest(), NONCE))), Failure::TimeNotAvailable);
    let early = Alone::new(terms());
    early.clock.set(Time::from_millis(0));
    assert_eq!(failure(&early.tsa.answer(&query(&digest(), NONCE))), Failure::TimeNotAvailable);
}

#[test]
fn ordered_timestamps_are_each_later_than_the_one_before() {
    let alone = Alone::new(Terms { ordering: true, accuracy: Duration::from_millis(10), ..terms() });
    let times: Vec<Time> = (0..11).map(|_| alone.stamp().unwrap().time()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    // The clock stands still, and more of them would leave the stated accuracy.
    assert_eq!(failure(&alone.tsa.answer(&query(&digest(), NONCE))), Failure::TimeNotAvailable);
    alone.clock.advance(Duration::from_millis(1));
    assert!(alone.stamp().is_ok());
}

/// A hardware module that is gone.
#[derive(Debug)]
struct Gone(SigningKey);

impl Sign for Gone {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Cryptography { action: "sign" })
    }

    fn public_key_info(&self) -> &[u8] {
        self.0.public_key_info()
    }
}

#[test]
fn a_key_that_fails_is_a_system_failure() {
    let (world, key) = (World::new(), SigningKey::generate().unwrap());
    let profile = Profile::TimestampingAuthority { name: "TSA".to_owned() };
    let request = certificate_request(&key, "TSA").unwrap();
    let issued = world.services.authority.issue(&profile, &request).unwrap();
    let tsa =
        Tsa::new(&issued.chain[0], Arc::new(Gone(key)), Arc::new(world.clock.clone()), terms()).unwrap();
    assert_eq!(failure(&tsa.answer(&query(&digest(), NONCE))), Failure::SystemFailure);
}

#[test]
fn a_certificate_for_something_else_stamps_nothing() {
    let profile = Profile::Administrator { name: "Anna Petersen".to_owned() };
    let posing = Alone::certified(terms(), &profile);
    assert_eq!(posing.stamp().unwrap_err(), TokenError::NotForTimestamping);
}

#[test]
fn an_authority_begins_with_its_own_certificate_and_sound_terms() {
    let (world, key) = (World::new(), SigningKey::generate().unwrap());
    let profile = Profile::TimestampingAuthority { name: "TSA".to_owned() };
    let issued = world.services.authority.issue(&profile, &request()).unwrap();
    let key: Arc<dyn Sign> = Arc::new(key);
    let begin = |certificate: &[u8], key: &Arc<dyn Sign>, terms: Terms| {
        Tsa::new(certificate, Arc::clone(key), Arc::new(world.clock.clone()), terms).unwrap_err()
    };
    assert_eq!(begin(&issued.chain[0], &key, terms()), TimestampingError::OtherCertificate);
    let own = world.services.timestamping.as_ref().unwrap().certificate().der();
    let key = &world.keys.timestamping;
    for policy in ["", "1", "9.9", "1.2.x", "1.2.99999999999"] {
        let wrong = Terms { policy: policy.to_owned(), ..terms() };
        assert_eq!(begin(own, key, wrong), TimestampingError::Policy(policy.to_owned()));
    }
    for accuracy in [Duration::ZERO, Duration::from_secs(3601)] {
        assert_eq!(begin(own, key, Terms { accuracy, ..terms() }), TimestampingError::Accuracy);
    }
}
