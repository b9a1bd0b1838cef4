//! Bodies that come while others go, long ones, and those that are broken off.

use super::*;

/// A body of frames that come when they are sent.
fn open_body() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, HttpBody) {
    let (sender, frames) = mpsc::channel(1);
    (sender, StreamBody::new(ReceiverStream::new(frames)).boxed_unsync())
}

/// Answers as it is asked: `/up` tells how much came, `/down/N` gives N bytes, `/events` gives what comes in.
fn streams(request: Request<Incoming>) -> Answering {
    Box::pin(async move {
        let (parts, mut body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches("/base").to_owned();
        let (sender, answer) = open_body();
        let response = Response::builder();
        if path == "/up" {
            let (mut count, mut trailers) = (0, None);
            while let Some(Ok(frame)) = body.frame().await {
                match frame.into_data() {
                    Ok(data) => count += data.len(),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            let foot =
                trailers.and_then(|trailers| Some(trailers.get("x-foot")?.to_str().unwrap().to_owned()));
            return response.body(full(format!("{count} {}", foot.unwrap_or_default()))).unwrap();
        }
        let mut response = response;
        if let Some(len) = path.strip_prefix("/down/") {
            let len: usize = len.parse().unwrap();
            response = response.header("content-length", len).header("accept-ranges", "bytes");
            tokio::spawn(async move {
                let mut left = len;
                while left > 0 {
                    let part = left.min(64 << 10);
                    left -= part;
                    let _ = sender.send(Ok(Frame::data(vec![7; part].into()))).await;
                }
            });
        } else if path == "/broken" || path == "/broken/length" {
            if path == "/broken/length" {
                response = response.header("content-length", "1000");
            }
            tokio::spawn(async move {
                let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = sender.send(Err("the script breaks off".into())).await;
            });
        } else {
            response = response.header("content-type", "text/event-stream").header("trailer", "x-foot");
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    if let Ok(data) = frame.into_data() {
                        let _ = sender.send(Ok(Frame::data(data))).await;
                    }
                }
                let foot = HeaderMap::from_iter([("x-foot".parse().unwrap(), "end".parse().unwrap())]);
                let _ = sender.send(Ok(Frame::trailers(foot))).await;
            });
        }
        response.body(answer).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_stream_at_once_and_events_come_as_they_are_sent() {
    for two in [false, true] {
        let world = World::with(two, streams, &[("r1", "/*")]).await;
        let (sender, body) = open_body();
        let request = asking("POST", "/events").header("te", "trailers").body(body).unwrap();
        let mut answer = world.open(request).await.into_body();
        for event in ["data: eins\n\n", "data: zwei\n\n", "data: drei\n\n"] {
            sender.send(Ok(Frame::data(event.into()))).await.unwrap();
            // Nothing follows until this one has come back.
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await.unwrap();
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
        }
        drop(sender);
        let foot = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(foot["x-foot"], "end");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_pass_with_their_length_and_trailers() {
    const LEN: usize = 20 << 20;
    let world = World::start(streams).await;
    let answer = world.ask(asking("GET", &format!("/down/{LEN}")).body(nothing()).unwrap()).await;
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("20971520"), LEN));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.body.iter().all(|byte| *byte == 7));
    let tells = world.instance.sh.tells(answer.exchange());
    assert_eq!(tells, ["sent request end", "received response end"]);
    let answer = world.ask(asking("PUT", "/up").body(full(vec![7; LEN])).unwrap()).await;
    assert_eq!(answer.body, format!("{LEN} "));
    assert_eq!(world.register.last().all("content-length"), ["20971520"]);
    let (sender, body) = open_body();
    tokio::spawn(async move {
        for _ in 0..100 {
            sender.send(Ok(Frame::data(vec![7; 10_000].into()))).await.unwrap();
        }
        let foot = HeaderMap::from_iter([("x-foot".parse().unwrap(), "sum".parse().unwrap())]);
        sender.send(Ok(Frame::trailers(foot))).await.unwrap();
    });
    let answer = world.ask(asking("POST", "/up").header("trailer", "x-foot").body(body).unwrap()).await;
    assert_eq!(answer.body, "1000000 sum");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registers_time_begins_when_all_was_asked() {
    let world = World::start(streams).await;
    let (sender, body) = open_body();
    tokio::spawn(async move {
        // Longer than the five seconds that the service allows.
        for _ in 0..13 {
            sender.send(Ok(Frame::data(Bytes::from_static(b"langsam")))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let answer = world.ask(asking("POST", "/up").body(body).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"91 "[..]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_off_never_looks_whole() {
    for two in [false, true] {
        let world = World::with(two, streams, &[("r1", "/*")]).await;
        for path in ["/broken", "/broken/length"] {
            let response = world.open(asking("GET", path).body(nothing()).unwrap()).await;
            let id: ExchangeId = response.headers()["trave-exchange-id"].to_str().unwrap().parse().unwrap();
            assert!(response.into_body().collect().await.is_err(), "HTTP/1.1 {path}");
            let channel: Channel<HttpBody> =
                Channel::plain(&world.instance.sh.door.to_string()).await.unwrap();
            let response = channel.clone().send(asking("GET", path).body(nothing()).unwrap()).await.unwrap();
            assert!(response.into_body().collect().await.is_err(), "HTTP/2 {path}");
            let tells = world.instance.sh.until(|tells| tells.len() > 2, id).await;
            assert!(tells[2].starts_with("ended") && tells[2].ends_with("register yes"), "{tells:?}");
        }
        // And a caller who breaks off is told to the register.
        let (sender, body) = open_body();
        let response = world.open(asking("POST", "/events").body(body).unwrap()).await;
        let id: ExchangeId = response.headers()["trave-exchange-id"].to_str().unwrap().parse().unwrap();
        sender.send(Err("gone".into())).await.unwrap();
        let ended = |tells: &[String]| tells.last().is_some_and(|last| last.starts_with("ended aborted"));
        world.instance.sh.until(ended, id).await;
        world.instance.mv.until(ended, id).await;
        world.stop().await;
    }
}
