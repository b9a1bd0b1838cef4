//! The end of a server: what was begun is finished.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::Semaphore;
use trave_host::client::{Channel, not_taken_up};
use trave_host::drain::Drain;
use trave_host::listen::Listener;
use trave_host::tls::Http;

use crate::support::*;

/// Serves requests that wait until they are let go; tells when one has come.
async fn slow_server(drain: &Drain) -> (String, Arc<Semaphore>, Arc<Semaphore>) {
    let listener = Listener::tcp(ANYWHERE.parse().unwrap(), Http::Two).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (come, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let shared = (Arc::clone(&come), Arc::clone(&go));
    drain.spawn(listener.serve(drain.clone(), move |_| {
        let (come, go) = shared.clone();
        service_fn(move |_: Request<Incoming>| {
            let (come, go) = (Arc::clone(&come), Arc::clone(&go));
            async move {
                come.add_permits(1);
                go.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("finished")))
            }
        })
    }));
    (address, come, go)
}

#[tokio::test]
async fn requests_in_flight_are_answered_and_new_connections_refused() {
    let drain = Drain::new();
    let (address, come, go) = slow_server(&drain).await;
    let mut channel: Plain = Channel::plain(&address).await.unwrap();
    let mut second = channel.clone();
    let request = tokio::spawn(async move { ask(&mut channel).await });
    come.acquire().await.unwrap().forget();

    let finishing = tokio::spawn({
        let drain = drain.clone();
        async move { drain.finish(Duration::from_secs(20)).await }
    });
    while Channel::<http_body_util::Empty<Bytes>>::plain(&address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The connection has said that it takes no more (GOAWAY).
    while !second.is_closed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_millis(50), ask(&mut second)).await {
            assert!(not_taken_up(&error), "{error:?}: it may be asked again elsewhere");
            break;
        }
    }
    assert!(!finishing.is_finished(), "a request is in flight");
    go.add_permits(10);
    assert_eq!(request.await.unwrap().unwrap(), "finished");
    assert_eq!(finishing.await.unwrap(), 0);
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off_after_the_bound() {
    let drain = Drain::new();
    let (address, come, _go) = slow_server(&drain).await;
    let mut channel: Plain = Channel::plain(&address).await.unwrap();
    let request = tokio::spawn(async move { ask(&mut channel).await });
    come.acquire().await.unwrap().forget();
    assert_eq!(drain.finish(Duration::from_millis(50)).await, 1);
    let error = request.await.unwrap().unwrap_err();
    assert!(!not_taken_up(&error), "{error:?}: it had been begun");
}

#[tokio::test]
async fn idle_connections_and_silent_callers_do_not_hold_up_the_end() {
    let drain = Drain::new();
    let (address, _come, _go) = slow_server(&drain).await;
    let _idle: Plain = Channel::plain(&address).await.unwrap();
    let _silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);
}
