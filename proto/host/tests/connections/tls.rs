//! Who is let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trave_host::drain::Drain;
use trave_host::tls::{self, Authority, Clients, Http, PeerPolicy, TlsError};
use trave_proto::clock::Time;

use crate::support::*;

#[tokio::test]
async fn both_sides_see_and_accept_each_other_by_their_listed_keys() {
    let (server, server_key) = identity("server.example");
    let (client, client_key) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([client_key]))).await;
    serve_mirror(listener, &drain);

    let mut channel = connect(address, &client_tls(&client, pinned([server_key]))).await.unwrap();
    assert_eq!(tls::public_key_digest(&channel.peer_chain()[0]).unwrap(), server_key);
    let answer = ask(&mut channel).await.unwrap();
    assert!(answer.starts_with("127.0.0.1:"), "{answer}");
    assert!(answer.ends_with(&format!(" {client_key} what the maker added")), "{answer}");
}

#[tokio::test]
async fn a_client_whose_key_is_not_listed_or_absent_is_refused() {
    let (server, server_key) = identity("server.example");
    let (listed, listed_key) = identity("client.example");
    let (stranger, _) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([listed_key]))).await;
    let counts = listener.counts();
    serve_mirror(listener, &drain);

    let anonymous = tls::Client::new(None, pinned([server_key]), Http::Two, clock()).unwrap();
    for client in [client_tls(&stranger, pinned([server_key])), anonymous] {
        // TLS 1.3 tells a client that it is refused only after its own handshake is done.
        assert!(!is_served(address, &client).await);
    }
    assert!(is_served(address, &client_tls(&listed, pinned([server_key]))).await);
    assert_eq!((counts.accepted(), counts.refused()), (3, 2));
}

#[tokio::test]
async fn a_server_whose_key_is_not_listed_is_refused_with_the_reason() {
    let (server, server_key) = identity("server.example");
    let (client, client_key) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([client_key]))).await;
    serve_mirror(listener, &drain);
    let refused = connect(address, &client_tls(&client, pinned([client_key]))).await.unwrap_err();
    let told = told(&refused);
    assert!(
        told.contains(&format!("the certificate's key {server_key} is not among those listed")),
        "{told}"
    );
}

#[tokio::test]
async fn an_authority_vouches_for_names_and_times_and_listed_keys() {
    let (authority, other) = (TestAuthority::new("CA"), TestAuthority::new("CA"));
    let (server, key) = authority.server("localhost");
    let drain = Drain::new();
    let tls = tls::Server::new(server, Clients::Anonymous, Http::Two, clock()).unwrap();
    let (listener, address) = tls_listener(tls).await;
    serve_mirror(listener, &drain);

    let trusted = |ca: &TestAuthority, name: &'static str| {
        Authority::for_server(&[ca.certificate()], name.try_into().unwrap()).unwrap()
    };
    let tries: [(Authority, Time, Option<&str>); 6] = [
        (trusted(&authority, "localhost"), NOW, None),
        (trusted(&authority, "localhost").with_keys([key]), NOW, None),
        (trusted(&authority, "other.example"), NOW, Some("not for other.example")),
        (trusted(&other, "localhost"), NOW, Some("does not hold under the trusted authorities")),
        (trusted(&authority, "localhost"), after_their_end(), Some("does not hold")),
        (trusted(&authority, "localhost").with_keys([]), NOW, Some("is not among those listed")),
    ];
    for (policy, time, refused) in tries {
        let clock = clock();
        clock.set(time);
        let told_policy = format!("{policy:?} at {time}");
        let tls = tls::Client::new(None, Arc::new(policy), Http::Two, clock).unwrap();
        match (connect(address, &tls).await, refused) {
            (Ok(mut channel), None) => assert!(ask(&mut channel).await.unwrap().contains("nobody")),
            (Err(error), Some(reason)) => {
                assert!(told(&error).contains(reason), "{told_policy}: {}", told(&error));
            }
            (outcome, _) => panic!("{told_policy}: {outcome:?}"),
        }
    }
}

/// Trust as it stands at this moment.
#[derive(Debug)]
struct Withdrawable(AtomicBool);

impl PeerPolicy for Withdrawable {
    fn check(&self, _chain: &[CertificateDer<'_>], _now: Time) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("suspended".to_owned()) }
    }
}

#[tokio::test]
async fn the_policy_is_asked_at_each_handshake_and_nothing_is_resumed() {
    let (server, server_key) = identity("server.example");
    let (client, _) = identity("client.example");
    let trust = Arc::new(Withdrawable(AtomicBool::new(true)));
    let drain = Drain::new();
    let (listener, address) =
        tls_listener(server_tls(&server, Arc::clone(&trust) as Arc<dyn PeerPolicy>)).await;
    serve_mirror(listener, &drain);
    // One client throughout: it would resume its session if there were one.
    let tls = client_tls(&client, pinned([server_key]));
    assert!(is_served(address, &tls).await);
    assert!(is_served(address, &tls).await);
    trust.0.store(false, Ordering::SeqCst);
    assert!(!is_served(address, &tls).await);
}

async fn is_served(address: SocketAddr, tls: &tls::Client) -> bool {
    match connect(address, tls).await {
        Ok(mut channel) => ask(&mut channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_while_old_ones_go_on() {
    let (server, first_key) = identity("server.example");
    let (chain, key, second_key) = self_signed("server.example");
    let (client, client_key) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([client_key]))).await;
    serve_mirror(listener, &drain);
    let tls = client_tls(&client, pinned([first_key, second_key]));
    let mut old = connect(address, &tls).await.unwrap();
    ask(&mut old).await.unwrap();

    let (other_chain, _, _) = self_signed("server.example");
    assert!(matches!(server.set(other_chain, key.clone()), Err(TlsError::OtherKey)));
    assert!(matches!(server.set(vec![], key.clone()), Err(TlsError::EmptyChain)));
    let between = connect(address, &tls).await.unwrap();
    assert_eq!(tls::public_key_digest(&between.peer_chain()[0]).unwrap(), first_key);

    server.set(chain, key).unwrap();
    let new = connect(address, &tls).await.unwrap();
    assert_eq!(tls::public_key_digest(&new.peer_chain()[0]).unwrap(), second_key);
    ask(&mut old).await.unwrap();
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (server, _) = identity("server.example");
    let (_, client_key) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([client_key]))).await;
    serve_mirror(listener, &drain);

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&tls_1_2_client_hello()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // Alert (21), two bytes: fatal (2), protocol_version (70); RFC 8446, section 6.2.
    assert_eq!(answer[0], 21, "{answer:?}");
    assert_eq!(answer[3..], [0, 2, 2, 70], "{answer:?}");
}

/// A ClientHello as a client of TLS 1.2 sends it (RFC 5246, section 7.4.1.2), with ECDHE and AES-GCM.
fn tls_1_2_client_hello() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0][..],        // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3][..],  // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let body = [
        &[3, 3][..],             // TLS 1.2
        &[7; 32][..],            // random
        &[0][..],                // no session
        &[0, 2, 0xc0, 0x2b][..], // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        &[1, 0][..],             // no compression
        &u16::try_from(extensions.len()).unwrap().to_be_bytes()[..],
        &extensions[..],
    ]
    .concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1, 0][..], &length[..], &body[..]].concat();
    let length = u16::try_from(handshake.len()).unwrap().to_be_bytes();
    [&[22, 3, 1][..], &length[..], &handshake[..]].concat()
}
