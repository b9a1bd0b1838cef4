//! Small downloads.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{StatusCode, Uri, header};
use trave_host::client::{Fetch, FetchError};
use trave_host::drain::Drain;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::tls::{self, Authority, Clients, Http};

use crate::support::*;

fn routes() -> Router {
    Router::new()
        .route(
            "/echo",
            post(|body: Bytes| async { ([(header::CONTENT_TYPE, "application/timestamp-reply")], body) }),
        )
        .route("/large", get(|| async { vec![0_u8; 2048] }))
        .route("/missing", get(|| async { StatusCode::NOT_FOUND }))
        .route("/elsewhere", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/large")]) }))
        .route("/never", get(std::future::pending::<StatusCode>))
}

fn serve(listener: Listener, drain: &Drain) -> impl Fn(&str) -> Uri {
    let address = listener.local_addr().unwrap();
    let routes = routes();
    drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));
    move |path| format!("http://{address}{path}").parse().unwrap()
}

#[tokio::test]
async fn downloads_are_bounded_and_their_failures_named() {
    let drain = Drain::new();
    let at = serve(Listener::tcp(ANYWHERE.parse().unwrap(), Http::One).await.unwrap(), &drain);
    let fetch = Fetch::new(None).with_limit(2047).with_time(Duration::from_millis(300));
    let echoed = fetch.post(&at("/echo"), "application/timestamp-query", Bytes::from("query")).await.unwrap();
    assert_eq!(
        (&echoed.body[..], echoed.content_type.as_deref()),
        (&b"query"[..], Some("application/timestamp-reply"))
    );

    let refused = fetch.get(&at("/large")).await;
    assert!(matches!(refused, Err(FetchError::TooLarge { limit: 2047, .. })), "{refused:?}");
    assert_eq!(fetch.clone().with_limit(2048).get(&at("/large")).await.unwrap().body.len(), 2048);
    let refused = fetch.get(&at("/missing")).await;
    assert!(matches!(refused, Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. })), "{refused:?}");
    let refused = fetch.get(&at("/elsewhere")).await;
    assert!(matches!(refused, Err(FetchError::Status { status: StatusCode::FOUND, .. })), "{refused:?}");
    let refused = fetch.get(&at("/never")).await;
    assert!(matches!(refused, Err(FetchError::TimedOut { .. })), "{refused:?}");
    for address in ["ftp://127.0.0.1/", "/path", "http://user@127.0.0.1/", "https://127.0.0.1:1/"] {
        let refused = fetch.get(&address.parse().unwrap()).await;
        assert!(
            matches!(refused, Err(FetchError::Address { .. } | FetchError::Connect { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn https_is_downloaded_under_the_policy_given() {
    let (server, key) = identity("localhost");
    let drain = Drain::new();
    let tls = tls::Server::new(server, Clients::Anonymous, Http::TwoOrOne, clock()).unwrap();
    let (listener, address) = tls_listener(tls).await;
    let _plain = serve(listener, &drain);
    let uri: Uri = format!("https://{address}/large").parse().unwrap();

    let client = |policy| tls::Client::new(None, policy, Http::One, clock()).unwrap();
    let fetched = Fetch::new(Some(client(pinned([key])))).get(&uri).await.unwrap();
    assert_eq!(fetched.body.len(), 2048);

    let other = TestAuthority::new("CA").certificate();
    let policy = Authority::for_server(&[other], "localhost".try_into().unwrap()).unwrap();
    let refused = Fetch::new(Some(client(std::sync::Arc::new(policy)))).get(&uri).await.unwrap_err();
    assert!(told(&refused).contains("does not hold under the trusted authorities"), "{}", told(&refused));
}
