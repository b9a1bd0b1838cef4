//! Enrolment of a security server: by one-time token, decided by two administrators, ending with certificates that hold.

#![allow(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

mod network;

use std::sync::Arc;
use std::time::Duration;

use network::joining::Joining;
use network::{DAY, FRAUKE_SH, HOUR, Network, SERVER, UWE_MV, decide, declined, luebeck, server};
use tonic::Code;
use trave_host::client::Fetch;
use trave_host::tls::{self, Http, Pinned};
use trave_proto::certificate::{Certificate, Profile, VerifiedChain, VerifiedRevocationList};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::{Anchor, Configuration};
use trave_proto::management::ActId;
use trave_proto::schema::management::{GetEnrolmentRequest, RemoveKey, act::Change};
use trave_registry::administrator::{Administrator, AdministratorError};
use trave_registry::{Cosigner, Registry};

/// An instance in which the server is registered, and its two administrators.
async fn registered(network: &Network) -> (Registry, Cosigner, Administrator, Administrator) {
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    decide(&mut frauke, &mut uwe, luebeck()).await;
    decide(&mut frauke, &mut uwe, server()).await;
    (registry, cosigner, frauke, uwe)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_enrols_with_a_token_and_two_administrators_decide() {
    let network = Network::new();
    let (registry, cosigner, mut frauke, mut uwe) = registered(&network).await;
    let token = frauke.token(SERVER, HOUR).await.unwrap();
    let mut joining = Joining::new(&token, network.clock()).await;
    let request = joining.request();
    let answer = joining.send(request.clone()).await.unwrap();
    assert_eq!(answer.fingerprint, joining.fingerprint());
    assert_eq!(joining.send(request).await.unwrap(), answer, "a lost answer is given again");
    assert_eq!(joining.status(&answer.enrolment_id).await.unwrap().state, "requested");

    let id = ActId::from_slice(&answer.enrolment_id).unwrap();
    let wrong = frauke.apply_for_enrolment(id, "0000 0000 0000 0000 0000 0000").await;
    assert!(matches!(wrong, Err(AdministratorError::Fingerprint { .. })));
    frauke.apply_for_enrolment(id, &joining.fingerprint()).await.unwrap();
    assert_eq!(joining.status(&answer.enrolment_id).await.unwrap().state, "applied");
    let unseen = uwe.approve(id, None).await;
    assert!(matches!(unseen, Err(AdministratorError::Unseen(_))));
    let shown = uwe.pending(id).await.unwrap();
    assert_eq!(shown.applicant, "Frauke Hansen");
    let uncompared = uwe.approve(&shown, None).await;
    assert!(matches!(uncompared, Err(AdministratorError::Fingerprint { .. })));
    assert_eq!(uwe.approve(id, Some(&joining.fingerprint())).await.unwrap(), 4);

    let enrolled = in_force(&mut joining, &answer.enrolment_id).await;
    let anchor = Anchor::parse(&enrolled.anchor).unwrap();
    assert_eq!(anchor.digest(), joining.token.anchor);
    let configuration = Configuration::verify(&enrolled.configuration.unwrap(), &anchor).unwrap();
    let entry = configuration.security_server(&joining.token.server).unwrap();
    let (authentication, signing) = joining.keys();
    assert!(entry.lists_authentication_key(&authentication) && entry.lists_signing_key(&signing));
    assert_eq!(entry.logs()[0].public_key, joining.log.public_key());
    let authorities: Vec<_> =
        configuration.certification_authorities().iter().map(|ca| ca.certificate.clone()).collect();
    let now = network.clock.now();
    for (chain, profile, key) in [
        (&enrolled.authentication_chain, Profile::Authentication, authentication),
        (&enrolled.signing_chain, Profile::Signing, signing),
    ] {
        let verified = VerifiedChain::verify(chain, &authorities, profile, now).unwrap();
        assert_eq!(verified.subject().server.as_str(), SERVER);
        assert_eq!(verified.subject().member.as_str(), "NORD/SH/luebeck");
        assert_eq!(verified.subject().spki_digest, key);
    }

    // The certificates are the same after a restart, and the token still enrols nobody else.
    registry.stop().await;
    let registry = network.registry().await;
    let formatted = joining.token.clone();
    let token = trave_proto::management::EnrolmentToken {
        registry: registry.public_address().to_string(),
        ..formatted
    };
    let token = token.format().unwrap();
    let mut other = Joining::new(&token, network.clock()).await;
    let again = other.status(&answer.enrolment_id).await.unwrap();
    assert_eq!(again.signing_chain, enrolled.signing_chain);
    let refused = other.send(other.request()).await.unwrap_err();
    assert!(refused.message().contains("used already, for other keys"), "{refused}");
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_of_force_has_its_certificate_revoked() {
    let network = Network::new();
    let (registry, cosigner, mut frauke, mut uwe) = registered(&network).await;
    let token = frauke.token(SERVER, HOUR).await.unwrap();
    let mut joining = Joining::new(&token, network.clock()).await;
    let answer = joining.send(joining.request()).await.unwrap();
    let id = ActId::from_slice(&answer.enrolment_id).unwrap();
    frauke.apply_for_enrolment(id, &answer.fingerprint).await.unwrap();
    uwe.approve(id, Some(&answer.fingerprint)).await.unwrap();
    let enrolled = in_force(&mut joining, &answer.enrolment_id).await;
    let (_, signing) = joining.keys();
    let remove = RemoveKey { security_server: SERVER.into(), key: signing.to_bytes() };
    decide(&mut frauke, &mut uwe, Change::RemoveKey(remove)).await;

    let ca = network.configuration().await.certification_authorities()[0].clone();
    let authority = Certificate::from_der(&ca.certificate).unwrap();
    let serial = |chain: &[bytes::Bytes]| Certificate::from_der(&chain[0]).unwrap().serial().to_vec();
    let list = async || {
        let list = Fetch::new(None).get(&ca.crl_urls[0].parse().unwrap()).await.unwrap();
        VerifiedRevocationList::verify(&list.body, &authority, network.clock.now()).unwrap()
    };
    // Revocation follows the publication; it is not waited for.
    let mut revoked = list().await;
    for _ in 0..100 {
        if revoked.revoked_at(&serial(&enrolled.signing_chain)).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        revoked = list().await;
    }
    assert!(revoked.revoked_at(&serial(&enrolled.signing_chain)).is_some());
    assert!(revoked.revoked_at(&serial(&enrolled.authentication_chain)).is_none());
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_wrong_expired_or_for_others_enrol_nobody() {
    let network = Network::new();
    let (registry, cosigner, mut frauke, _) = registered(&network).await;
    let unknown = declined(frauke.token("NORD/SH/luebeck/s9", HOUR).await);
    assert!(unknown.contains("no registered security server"), "{unknown}");
    assert!(declined(frauke.token(SERVER, 30 * DAY).await).contains("one minute to seven days"));

    let token = frauke.token(SERVER, HOUR).await.unwrap();
    let mut joining = Joining::new(&token, network.clock()).await;
    let mut unsealed = joining.request();
    unsealed.mac = vec![0; 32].into();
    let mut altered = joining.request();
    altered.log.as_mut().unwrap().origin.push('x');
    let mut elsewhere = joining.request();
    elsewhere.security_server = "NORD/SH/luebeck/s2".into();
    let mut unknown = joining.request();
    unknown.token_id = "00".repeat(16);
    for request in [unsealed, altered, elsewhere, unknown] {
        let refused = joining.send(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("not known here, or the request is not sealed"), "{refused}");
    }
    let mut same_key = joining.request();
    same_key.signing_request = same_key.authentication_request.clone();
    let mut forged = joining.request();
    let mut der = forged.signing_request.to_vec();
    *der.last_mut().unwrap() ^= 1;
    forged.signing_request = der.into();
    for mut request in [same_key, forged] {
        request.mac = trave_proto::management::enrolment_mac(&joining.token.secret, &request);
        assert_eq!(joining.send(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut large = joining.request();
    large.signing_request = vec![0; 64 * 1024].into();
    assert!(joining.send(large).await.is_err());
    let asked = GetEnrolmentRequest { enrolment_id: vec![1; 16].into(), mac: vec![0; 32].into() };
    assert_eq!(joining.ask_with(asked).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(frauke.acts(true).await.unwrap().is_empty(), "nothing of all this is left");

    network.clock.advance(HOUR + Duration::from_secs(1));
    let late = joining.send(joining.request()).await.unwrap_err();
    assert!(late.message().contains("has expired"), "{late}");
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_and_anchor_are_served_over_https() {
    let network = Network::new();
    let (registry, cosigner, ..) = registered(&network).await;
    let key = network.settings(FRAUKE_SH).registry_key;
    let tls = tls::Client::new(None, Arc::new(Pinned::new([key])), Http::One, network.clock()).unwrap();
    let fetch = Fetch::new(Some(tls)).with_limit(1 << 20);
    let base = format!("https://{}", registry.public_address());
    let get = async |path: &str| fetch.get(&format!("{base}{path}").parse().unwrap()).await;
    let anchor = Anchor::parse(&get("/anchor").await.unwrap().body).unwrap();
    assert_eq!(anchor.digest(), network.instance.anchor_digest);
    let latest = get("/configuration/latest").await.unwrap();
    assert_eq!(latest.content_type.as_deref(), Some("application/vnd.trave.configuration"));
    let latest = Configuration::verify_encoded(latest.body, &anchor).unwrap();
    assert_eq!(latest.number(), 3);
    let second = Configuration::verify_encoded(get("/configuration/2").await.unwrap().body, &anchor).unwrap();
    assert_eq!(latest.follows(&second), Ok(()));
    for absent in ["/configuration/0", "/configuration/4", "/configuration/02", "/configuration/x", "/"] {
        assert!(get(absent).await.is_err(), "{absent}");
    }
    registry.stop().await;
    cosigner.stop().await;
}

/// Asks until the enrolment is in force.
async fn in_force(
    joining: &mut Joining,
    id: &bytes::Bytes,
) -> trave_proto::schema::management::GetEnrolmentResponse {
    for _ in 0..100 {
        let answer = joining.status(id).await.unwrap();
        if answer.state == "in_force" {
            return answer;
        }
        assert_eq!(answer.state, "approved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in force in time")
}
