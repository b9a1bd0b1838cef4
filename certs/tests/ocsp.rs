//! The OCSP responder over HTTP, asked and verified by the protocol's own client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{DAY, HOUR, START, World};
use trave_certs::authority::Reason;
use trave_certs::responder::VALIDITY;
use trave_proto::certificate::Certificate;
use trave_proto::certificate::ocsp::{self, Expected, Good, OcspError};
use trave_proto::clock::Clock;

const REQUEST: &str = "application/ocsp-request";

fn verify(world: &World, response: &[u8], certificate: &Certificate) -> Result<Good, OcspError> {
    let expected = Expected { at: world.clock.now(), max_age: 2 * HOUR, nonce: None };
    ocsp::verify(response, certificate, world.authority(), expected)
}

fn question(world: &World, certificate: &Certificate) -> Vec<u8> {
    ocsp::request(certificate, world.authority(), None).unwrap()
}

/// What a client says to a response.
async fn ask(world: &World, certificate: &Certificate) -> Result<Good, OcspError> {
    let answer = world.post("/ocsp", REQUEST, &question(world, certificate)).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/ocsp-response"));
    verify(world, &answer.body, certificate)
}

async fn refusal(world: &World, request: &[u8]) -> OcspError {
    let answer = world.post("/ocsp", REQUEST, request).await;
    let (_, certificate) = world.signing();
    verify(world, &answer.body, &certificate).unwrap_err()
}

#[tokio::test]
async fn good_revoked_and_unknown() {
    let world = World::new();
    let (issued, certificate) = world.signing();
    let good = ask(&world, &certificate).await.unwrap();
    assert_eq!(good.this_update().as_secs(), START.as_secs());

    world.clock.advance(HOUR);
    let at = world.services.authority.revoke(&issued.serial, Reason::KeyCompromise).unwrap();
    match ask(&world, &certificate).await.unwrap_err() {
        OcspError::Revoked { at: told, reason } => {
            assert_eq!((told.as_secs(), reason), (at.as_secs(), "keyCompromise"));
        }
        other => panic!("{other}"),
    }
    // Of a namesake of this authority: another key, so not ours.
    let (_, foreign) = World::new().signing();
    assert_eq!(ask(&world, &foreign).await.unwrap_err(), OcspError::Unknown);
    let never_issued = ocsp::request(&foreign, world.authority(), None).unwrap();
    let answer = world.post("/ocsp", REQUEST, &never_issued).await;
    assert_eq!(verify(&world, &answer.body, &foreign).unwrap_err(), OcspError::Unknown);
}

#[tokio::test]
async fn a_nonce_is_repeated() {
    let world = World::new();
    let (_, certificate) = world.signing();
    for nonce in [&[1][..], &[2; 32], &[3; 128]] {
        let request = ocsp::request(&certificate, world.authority(), Some(nonce)).unwrap();
        let answer = world.post("/ocsp", REQUEST, &request).await;
        let expected = Expected { at: START, max_age: HOUR, nonce: Some(nonce) };
        assert!(ocsp::verify(&answer.body, &certificate, world.authority(), expected).is_ok());
    }
    for nonce in [&[][..], &[4; 129]] {
        let request = ocsp::request(&certificate, world.authority(), Some(nonce)).unwrap();
        assert_eq!(
            refusal(&world, &request).await,
            OcspError::Refused("malformedRequest"),
            "{}",
            nonce.len()
        );
    }
}

#[tokio::test]
async fn get_is_cacheable_unless_it_has_a_nonce() {
    let world = World::new();
    let (_, certificate) = world.signing();
    let path = |request: &[u8]| {
        let text = STANDARD.encode(request);
        format!("/ocsp/{}", text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"))
    };
    world.clock.advance(HOUR / 4);
    let answer = world.get(&path(&question(&world, &certificate))).await;
    assert!(verify(&world, &answer.body, &certificate).is_ok());
    let seconds = VALIDITY.as_secs();
    // The time is counted from the last whole second.
    let control = format!("max-age={}, public, no-transform, must-revalidate", seconds - 1);
    assert_eq!(answer.header("cache-control"), control);
    assert_eq!(answer.header("last-modified"), "Sun, 22 Nov 2026 12:15:00 GMT");
    assert_eq!(answer.header("expires"), "Sun, 22 Nov 2026 13:15:00 GMT");
    assert_eq!(answer.header("etag").len(), 66);

    let request = ocsp::request(&certificate, world.authority(), Some(&[1; 16])).unwrap();
    let answer = world.get(&path(&request)).await;
    assert!(verify(&world, &answer.body, &certificate).is_ok());
    assert_eq!(answer.header("cache-control"), "no-store");
    let unescaped = format!("/ocsp/{}", STANDARD.encode(question(&world, &certificate)));
    let answer = world.get(&unescaped).await;
    assert!(verify(&world, &answer.body, &certificate).is_ok(), "base64 with its slashes as they are");
    for rubbish in ["/ocsp/rubbish", "/ocsp/%FF", &format!("/ocsp/{}", "A".repeat(4096))] {
        let answer = world.get(rubbish).await;
        let refused = answer.status == StatusCode::BAD_REQUEST
            || verify(&world, &answer.body, &certificate) == Err(OcspError::Refused("malformedRequest"));
        assert!(refused, "{rubbish}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let world = World::new();
    let (_, certificate) = world.signing();
    let good = question(&world, &certificate);
    for (why, request) in [
        ("empty", Vec::new()),
        ("rubbish", b"rubbish".to_vec()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("something follows", [&good[..], &[0]].concat()),
        ("nothing asked", vec![0x30, 4, 0x30, 2, 0x30, 0]),
    ] {
        assert_eq!(refusal(&world, &request).await, OcspError::Refused("malformedRequest"), "{why}");
    }
    let wrong_type = world.post("/ocsp", "text/plain", &good).await;
    assert_eq!(wrong_type.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = world.post("/ocsp", REQUEST, &vec![0; 65 * 1024]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn too_many_questions_and_critical_extensions_are_refused() {
    use rasn_ocsp::OcspRequest;
    let world = World::new();
    let (_, certificate) = world.signing();
    let mut many: OcspRequest = rasn::der::decode(&question(&world, &certificate)).unwrap();
    let one = many.tbs_request.request_list[0].clone();
    many.tbs_request.request_list = vec![one; 17];
    let request = rasn::der::encode(&many).unwrap();
    assert_eq!(refusal(&world, &request).await, OcspError::Refused("malformedRequest"));

    let nonce = ocsp::request(&certificate, world.authority(), Some(&[1; 16])).unwrap();
    let mut critical: OcspRequest = rasn::der::decode(&nonce).unwrap();
    let extensions = critical.tbs_request.request_extensions.as_mut().unwrap();
    let mut unknown = extensions[0].clone();
    unknown.extn_id = rasn::types::ObjectIdentifier::new_unchecked((&[1, 2, 3][..]).into());
    unknown.critical = true;
    extensions.push(unknown);
    let request = rasn::der::encode(&critical).unwrap();
    assert_eq!(refusal(&world, &request).await, OcspError::Refused("malformedRequest"));
}

#[tokio::test]
async fn the_responder_renews_its_certificate_in_time() {
    let world = World::new();
    let (_, certificate) = world.signing();
    for _ in 0..24 {
        world.clock.advance(30 * DAY);
        if world.clock.now() > certificate.not_after() {
            break;
        }
        assert!(ask(&world, &certificate).await.is_ok(), "at {}", world.clock.now());
    }
    let issued = world.services.authority.issued().unwrap();
    let responders = issued.iter().filter(|one| one.profile == "ocsp-responder").count();
    assert!((2..=4).contains(&responders), "{responders}");
}

#[tokio::test]
async fn the_revocation_list_is_served() {
    let world = World::new();
    let answer = world.get("/crl").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/pkix-crl"));
    assert_eq!(answer.body, world.services.authority.revocation_list().unwrap().der);
    assert!(answer.header("cache-control").starts_with("max-age=86400, public"));
}
