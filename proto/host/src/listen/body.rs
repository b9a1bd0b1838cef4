//! Requests whose bodies come too slowly are given up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::map_request;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The same routes, where the body of each request must have arrived `limit` after its header, except on the paths that
/// `streams` names: those have deadlines of their own.
pub fn with_body_deadline(routes: Router, limit: Duration, streams: &'static [&'static str]) -> Router {
    routes.layer(map_request(move |request: Request| async move {
        if streams.contains(&request.uri().path()) {
            return request;
        }
        let deadline = Instant::now() + limit;
        request.map(|body| Body::new(InTime { body, deadline: Box::pin(sleep_until(deadline)) }))
    }))
}

/// A body that breaks off at its deadline.
struct InTime {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for InTime {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                let late = io::Error::new(io::ErrorKind::TimedOut, "the request's body came too slowly");
                Poll::Ready(Some(Err(axum::Error::new(late))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
