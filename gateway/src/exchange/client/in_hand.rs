//! A call's request as its caller gives it, and what is kept of it while it may have to be said again to another security
//! server: its beginning, within bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trave_proto::message::MAX_BODY;

use super::super::framing::{Bounds, Cut, Framing, Piece, Pieces};
use super::super::outgoing::first_piece;

/// Pieces of one call that are kept at most; together they are no more than one message may be.
const MOST: usize = 8;

/// A call's request, piece by piece.
pub(super) struct InHand<B: Body> {
    pieces: Pieces<B>,
    begun: bool,
}

impl<B: Body<Data = Bytes> + Unpin> InHand<B> {
    pub(super) fn new(body: B, framing: Framing, bounds: Bounds) -> Self {
        Self { pieces: Pieces::new(body, framing, bounds), begun: false }
    }

    /// Reads on while `busy` runs, as [`Pieces::gather_while`] does.
    pub(super) fn gather_while<F: Future>(&mut self, busy: Pin<&mut F>) -> impl Future<Output = F::Output> {
        self.pieces.gather_while(busy)
    }

    /// The next piece to be said: one that was said before in vain, else one from the caller.
    pub(super) async fn next(&mut self, kept: &Kept) -> Result<Option<Piece>, Cut> {
        if let Some(piece) = kept.next() {
            return Ok(Some(piece));
        }
        let piece = match self.begun {
            true => self.pieces.next().await?,
            false => Some(first_piece(&mut self.pieces).await?),
        };
        self.begun = true;
        if let Some(piece) = &piece {
            kept.keep(piece);
        }
        Ok(piece)
    }
}

/// What was said of a request. It is let go when an answer begins, or when it becomes too much: then the call is never made
/// again.
#[derive(Debug)]
pub(super) struct Kept {
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pieces: VecDeque<Piece>,
    /// How many of them were said in this try.
    said: usize,
    bytes: usize,
    /// Whether all that the caller gave is here.
    whole: bool,
    room: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Nothing yet; `room` is what all calls together may keep, in KiB.
    pub(super) fn new(room: Arc<Semaphore>) -> Self {
        let state = State { pieces: VecDeque::new(), said: 0, bytes: 0, whole: true, room: None };
        Self { room, state: Mutex::new(state) }
    }

    /// Whether the request can be said from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.state().whole
    }

    /// Begins from the beginning.
    pub(super) fn again(&self) {
        self.state().said = 0;
    }

    /// The request will not be said again: what was said of it is forgotten.
    pub(super) fn let_go(&self) {
        self.state().let_go();
    }

    fn next(&self) -> Option<Piece> {
        let mut state = self.state();
        if !state.whole {
            return state.pieces.pop_front();
        }
        let piece = copy(state.pieces.get(state.said)?);
        state.said += 1;
        Some(piece)
    }

    fn keep(&self, piece: &Piece) {
        let mut state = self.state();
        if !state.whole {
            return;
        }
        let bytes = state.bytes + piece.body.len();
        let kib = u32::try_from(piece.body.len() / 1024 + 1).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(kib) {
            Ok(room) if bytes <= MAX_BODY && state.pieces.len() < MOST => {
                match &mut state.room {
                    Some(held) => held.merge(room),
                    held => *held = Some(room),
                }
                state.pieces.push_back(copy(piece));
                (state.bytes, state.said) = (bytes, state.said + 1);
            }
            _ => state.let_go(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same bytes, not copied.
fn copy(piece: &Piece) -> Piece {
    Piece { body: piece.body.clone(), end: piece.end, trailers: piece.trailers.clone() }
}

impl State {
    /// What is still to be said in this try stays until it is.
    fn let_go(&mut self) {
        if self.whole {
            self.pieces.drain(..self.said);
            (self.whole, self.room) = (false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::framing::testing::Frames;
    use super::*;
    use crate::config::Limits;
    use hyper::body::Frame;

    fn message(len: u32) -> Bytes {
        let mut message = vec![0];
        message.extend_from_slice(&len.to_be_bytes());
        message.resize(5 + len as usize, 7);
        message.into()
    }

    fn request(lens: &[u32]) -> InHand<Frames> {
        let frames = lens.iter().map(|len| Frame::data(message(*len))).collect();
        InHand::new(Frames::of(frames), Framing::Grpc, Bounds::of(&Limits::default()))
    }

    async fn bytes(request: &mut InHand<Frames>, kept: &Kept) -> usize {
        request.next(kept).await.unwrap().unwrap().body.len()
    }

    #[tokio::test]
    async fn what_was_said_is_said_again_and_then_the_rest() {
        let (mut request, room) = (request(&[1, 2, 3]), Arc::new(Semaphore::new(10)));
        let kept = Kept::new(Arc::clone(&room));
        assert_eq!((bytes(&mut request, &kept).await, bytes(&mut request, &kept).await), (6, 7));
        assert_eq!(room.available_permits(), 8);
        kept.again();
        let all = [
            bytes(&mut request, &kept).await,
            bytes(&mut request, &kept).await,
            bytes(&mut request, &kept).await,
        ];
        assert_eq!(all, [6, 7, 8]);
        assert!(kept.is_whole());
    }

    #[tokio::test]
    async fn an_answer_that_begins_early_loses_nothing_of_what_is_still_to_be_said() {
        let (mut request, room) = (request(&[1, 2, 3]), Arc::new(Semaphore::new(10)));
        let kept = Kept::new(Arc::clone(&room));
        bytes(&mut request, &kept).await;
        bytes(&mut request, &kept).await;
        kept.again();
        assert_eq!(bytes(&mut request, &kept).await, 6);
        kept.let_go();
        assert_eq!((kept.is_whole(), room.available_permits()), (false, 10));
        assert_eq!((bytes(&mut request, &kept).await, bytes(&mut request, &kept).await), (7, 8));
    }

    #[tokio::test]
    async fn what_is_too_much_is_not_kept() {
        let room = Arc::new(Semaphore::new(1));
        let kept = Kept::new(Arc::clone(&room));
        let mut small = request(&[1, 2, 3]);
        bytes(&mut small, &kept).await;
        assert!(kept.is_whole());
        bytes(&mut small, &kept).await;
        assert!(
            !kept.is_whole() && room.available_permits() == 1,
            "all calls together keep no more than that"
        );

        let room = Arc::new(Semaphore::new(1 << 20));
        let (kept, mut long) = (Kept::new(Arc::clone(&room)), request(&[1 << 20]));
        bytes(&mut long, &kept).await;
        assert!(kept.is_whole());
        bytes(&mut long, &kept).await;
        assert!(!kept.is_whole(), "one call keeps no more than a message may be");
        let (kept, mut many) = (Kept::new(Arc::clone(&room)), request(&[1; 20]));
        for _ in 0..MOST {
            bytes(&mut many, &kept).await;
        }
        assert!(kept.is_whole());
        bytes(&mut many, &kept).await;
        assert!(!kept.is_whole());
    }
}
