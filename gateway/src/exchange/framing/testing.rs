//! What tests read instead of a caller's body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};

/// A body whose frames have all come. (A stream of tokio-stream would pause now and then, as if they had not.)
pub(in super::super) struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Frames {
    pub(in super::super) fn of(frames: Vec<Frame<Bytes>>) -> Self {
        Self(frames.into_iter())
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}
