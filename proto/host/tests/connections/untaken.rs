//! Answers that nobody takes, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trave_host::client::Channel;
use trave_host::drain::Drain;
use trave_host::listen::{Connection, Counts, Limits, Listener};
use trave_host::tls::Http;

use crate::support::{ANYWHERE, Plain, Raw};

/// More than all buffers between two programs hold.
const MUCH: usize = 32 << 20;
const LONG: Duration = Duration::from_secs(60);

async fn door(drain: &Drain, untaken: Duration, size: usize) -> (SocketAddr, Arc<Counts>) {
    let listener = Listener::tcp(ANYWHERE.parse().unwrap(), Http::TwoOrOne).await.unwrap();
    let listener = listener.with_limits(Limits { untaken, ..Limits::default() });
    let (address, counts) = (listener.local_addr().unwrap(), listener.counts());
    drain.spawn(listener.serve(drain.clone(), move |_: &mut Connection| {
        service_fn(move |_| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(vec![7; size]))))
        })
    }));
    (address, counts)
}

#[tokio::test]
async fn whoever_takes_nothing_is_given_up_over_http_1() {
    let drain = Drain::new();
    let (address, counts) = door(&drain, Duration::from_millis(300), MUCH).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // It reads nothing until the other side has given up.
    let given_up = async {
        while counts.broken_off() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, given_up).await.expect("nobody waits for ever");
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest).await;
    assert!(read.is_err() || rest.len() < MUCH, "what is left of it has no end");
    assert_eq!(counts.broken_off(), 1);
    drain.finish(LONG).await;
}

#[tokio::test]
async fn whoever_takes_what_there_is_gets_it_however_long_it_lasts() {
    let drain = Drain::new();
    let (address, counts) = door(&drain, Duration::from_secs(20), MUCH).await;
    let mut channel: Plain = Channel::plain(&address.to_string()).await.unwrap();
    let response = channel.send(Request::get("/").body(Empty::new()).unwrap()).await.unwrap();
    let (parts, mut body) = response.into_parts();
    assert_eq!(parts.headers["content-length"], MUCH.to_string());
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!((read, counts.broken_off()), (MUCH, 0));
    drain.begin();
    drop(channel);
    drain.finish(LONG).await;
}

#[tokio::test]
async fn the_last_piece_of_an_answer_is_watched_too() {
    let drain = Drain::new();
    let (address, counts) = door(&drain, Duration::from_millis(300), 16 << 10).await;
    // A window of one byte (SETTINGS_INITIAL_WINDOW_SIZE): all else of the answer waits for the next.
    let mut reader = Raw::connect(address, &[0, 4, 0, 0, 0, 1]).await;
    reader.get(1).await;
    let given_up = async {
        while let Some(came) = reader.next().await {
            if came.kind == Raw::RST_STREAM {
                return came.stream;
            }
        }
        panic!("the connection goes on");
    };
    let given_up = tokio::time::timeout(Duration::from_secs(20), given_up).await;
    assert_eq!(given_up.expect("nobody waits for ever"), 1);
    assert_eq!(counts.broken_off(), 1);
    drop(reader);
    drain.finish(LONG).await;
}
