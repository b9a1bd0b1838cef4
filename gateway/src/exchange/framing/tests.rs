use super::testing::Frames;
use super::*;
use std::convert::Infallible;
use std::pin::pin;

fn grpc(len: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    message.extend(std::iter::repeat_n(7, len));
    message
}

async fn cut(framing: Framing, frames: Vec<Frame<Bytes>>) -> Vec<Piece> {
    let mut pieces = Pieces::new(Frames::of(frames), framing, Bounds::of(&Limits::default()));
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        all.push(piece);
    }
    all
}

fn sizes(pieces: &[Piece]) -> Vec<(usize, bool)> {
    pieces.iter().map(|piece| (piece.body.len(), piece.end)).collect()
}

#[tokio::test]
async fn a_unary_call_is_one_piece() {
    let pieces = cut(Framing::Grpc, vec![Frame::data(grpc(1000).into())]).await;
    assert_eq!(sizes(&pieces), [(1005, true)]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let pieces = cut(Framing::Grpc, vec![Frame::data(grpc(3).into()), Frame::trailers(trailers)]).await;
    assert_eq!(sizes(&pieces), [(8, true)]);
    assert!(pieces[0].trailers.is_some());
}

#[tokio::test]
async fn each_grpc_message_is_a_piece_however_it_was_framed() {
    let stream = [grpc(3), grpc(0), grpc(4)].concat();
    for step in [1, 2, 5, 7, stream.len()] {
        let frames = stream.chunks(step).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))).collect();
        let pieces = cut(Framing::Grpc, frames).await;
        let lens: Vec<_> = pieces.iter().map(|piece| piece.body.len()).filter(|len| *len > 0).collect();
        assert_eq!(lens, [8, 5, 9], "frames of {step}");
        assert!(pieces.last().unwrap().end);
    }
}

#[tokio::test]
async fn a_long_message_is_several_pieces_and_loses_nothing() {
    let message = grpc(4 << 20);
    let frames = message.chunks(16 << 10).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))).collect();
    let pieces = cut(Framing::Grpc, frames).await;
    assert!(pieces.len() >= 5 && pieces.iter().all(|piece| piece.body.len() <= MAX_BODY));
    let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.body.to_vec()).collect();
    assert!(joined == message);
}

#[tokio::test]
async fn what_has_come_is_one_piece_of_anything_but_grpc() {
    let frames = |count| (0..count).map(|_| Frame::data(Bytes::from(vec![7; 16 << 10]))).collect::<Vec<_>>();
    assert_eq!(sizes(&cut(Framing::Raw, frames(4)).await), [(64 << 10, true)]);
    let pieces = cut(Framing::Raw, frames(200)).await;
    assert!(pieces.len() <= 5 && pieces.iter().all(|piece| piece.body.len() <= MAX_BODY));
    assert_eq!(pieces.iter().map(|piece| piece.body.len()).sum::<usize>(), 200 * (16 << 10));
    let mut with_trailers = frames(2);
    with_trailers.push(Frame::trailers(HeaderMap::new()));
    let pieces = cut(Framing::Raw, with_trailers).await;
    assert!(pieces.len() == 1 && pieces[0].end && pieces[0].trailers.is_some());
}

/// Reads a body of these bytes, so many at a time, which then stands open for as long as `open` says.
async fn read(
    framing: Framing,
    bounds: Bounds,
    (bytes, step): (&[u8], usize),
    open: bool,
) -> Result<usize, Cut> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let chunks: Vec<_> = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
    tokio::spawn(async move {
        for data in chunks {
            if open {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if sender.send(Ok::<_, Infallible>(Frame::data(data))).await.is_err() {
                return;
            }
        }
        if open {
            sender.closed().await;
        }
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    read_all(http_body_util::StreamBody::new(stream), framing, bounds).await
}

async fn read_all<B: Body<Data = Bytes> + Unpin>(
    body: B,
    framing: Framing,
    bounds: Bounds,
) -> Result<usize, Cut> {
    let mut pieces = Pieces::new(body, framing, bounds);
    let mut read = 0;
    while let Some(piece) = pieces.next().await? {
        read += piece.body.len();
    }
    Ok(read)
}

#[tokio::test]
async fn what_has_begun_comes_on_or_is_given_up() {
    let slow = Duration::from_millis(200);
    let bounds = Bounds { slow, ..Bounds::of(&Limits::default()) };
    let (message, long) = (grpc(8 << 10), grpc(2 << 20));
    for (bytes, step) in [(&message[..], 1), (&message[..3], 3), (&long[..MAX_BODY + 9], MAX_BODY)] {
        assert_eq!(read(Framing::Grpc, bounds, (bytes, step), true).await, Err(Cut::Slow(slow)));
    }
    // Between messages there is no hurry.
    let waits = read(Framing::Grpc, bounds, (&message, message.len()), true);
    assert!(tokio::time::timeout(5 * slow, waits).await.is_err());
    let raw = read(Framing::Raw, bounds, (&message, 100), true);
    assert!(tokio::time::timeout(10 * slow, raw).await.is_err(), "nor where no length was said");
}

/// A body of a length that was said, of which a few bytes come now and then.
struct Drips {
    left: u64,
    step: u64,
    next: Pin<Box<tokio::time::Sleep>>,
    every: Duration,
}

impl Body for Drips {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.next.as_mut().poll(context));
        let next = Instant::now() + self.every;
        self.next.as_mut().reset(next);
        let step = self.step.min(self.left);
        self.left -= step;
        Poll::Ready(Some(Ok(Frame::data(vec![7; usize::try_from(step).unwrap()].into()))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}

#[tokio::test]
async fn a_body_of_a_length_that_was_said_comes_on_or_is_given_up() {
    let slow = Duration::from_secs(1);
    let bounds = Bounds { slow, ..Bounds::of(&Limits::default()) };
    let drip = |step| Drips {
        left: 3 * COMING as u64,
        step,
        next: Box::pin(tokio::time::sleep(Duration::ZERO)),
        every: Duration::from_millis(20),
    };
    // Each byte in time by itself, and none of them a reason to wait for the next for as long again.
    let dripping = tokio::time::timeout(20 * slow, read_all(drip(1), Framing::Raw, bounds));
    assert_eq!(dripping.await.expect("it is given up"), Err(Cut::Slow(slow)));
    // Time in which nobody asks for more is not the sender's.
    let mut pieces = Pieces::new(drip(COMING as u64), Framing::Raw, bounds);
    let mut read = 0;
    while let Some(piece) = pieces.next().await.unwrap() {
        read += piece.body.len();
        tokio::time::sleep(slow + slow / 10).await;
    }
    assert_eq!(read, 3 * COMING);
}

#[tokio::test]
async fn what_is_too_long_is_cut_where_it_is_known() {
    let limits = Limits { message_mib: 1, body_mib: Some(3), ..Limits::default() };
    let bounds = Bounds::of(&limits);
    let (most, long) = (grpc(1 << 20), grpc((1 << 20) + 1));
    assert_eq!(read(Framing::Grpc, bounds, (&long[..5], 5), true).await, Err(Cut::Message(1 << 20)));
    assert_eq!(read(Framing::Grpc, bounds, (&most, 1 << 20), false).await, Ok(most.len()));
    let all = vec![0; (3 << 20) + 1];
    assert_eq!(read(Framing::Raw, bounds, (&all, 1 << 20), true).await, Err(Cut::Body(3 << 20)));
    assert_eq!(read(Framing::Raw, bounds, (&all[1..], 1 << 20), false).await, Ok(3 << 20));
}

#[tokio::test]
async fn what_comes_while_a_message_is_on_its_way_is_the_next_piece() {
    let (frames, body) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, &str>>(1);
    let body = http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let mut pieces = Pieces::new(body, Framing::Raw, Bounds::of(&Limits::default()));
    let come = async {
        for _ in 0..20 {
            frames.send(Ok(Frame::data(Bytes::from_static(&[7; 100])))).await.unwrap();
        }
        // As long as it is being signed, nothing of it waits in the caller's hands.
        frames.send(Err("broken off")).await.unwrap();
    };
    pieces.gather_while(pin!(come)).await;
    assert_eq!(pieces.next().await.unwrap().unwrap().body.len(), 2000);
    assert_eq!(pieces.next().await.unwrap_err(), Cut::Broken);

    let endless = http_body_util::StreamBody::new(tokio_stream::iter(std::iter::repeat_with(|| {
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; 16 << 10])))
    })));
    let mut pieces = Pieces::new(endless, Framing::Raw, Bounds::of(&Limits::default()));
    pieces.gather_while(pin!(tokio::time::sleep(Duration::from_millis(20)))).await;
    assert!(pieces.held.len() <= MAX_BODY, "one message is read ahead, and no more");
}

#[tokio::test]
async fn an_incomplete_message_passes_as_it_came() {
    let pieces = cut(Framing::Grpc, vec![Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]))]).await;
    assert_eq!(sizes(&pieces), [(6, true)]);
    assert_eq!(sizes(&cut(Framing::Grpc, vec![]).await), [(0, true)]);
}
