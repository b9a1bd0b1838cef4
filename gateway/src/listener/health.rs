//! `grpc.health.v1` at the operations door: the same verdict as `/healthz`, for whoever watches machines over gRPC.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as HealthService;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use trave_host::drain::Drain;
use trave_host::metrics::Health;

use crate::upkeep::Upkeep;

/// How often a watched verdict is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A watch whose last word was not read for so long is given up.
const UNREAD: Duration = Duration::from_secs(10);
/// Watches at a time: one more is refused.
const WATCHES: usize = 64;

/// Tells the health of the server as a whole, which has the empty name; it offers no other.
#[derive(Debug)]
pub(super) struct Told {
    upkeep: Arc<Upkeep>,
    drain: Drain,
    watches: Arc<Semaphore>,
}

impl Told {
    pub(super) fn new(upkeep: Arc<Upkeep>, drain: Drain) -> Self {
        Self { upkeep, drain, watches: Arc::new(Semaphore::new(WATCHES)) }
    }

    fn of(&self, service: &str) -> Result<ServingStatus, Status> {
        if service.is_empty() {
            return Ok(now(&self.upkeep, &self.drain));
        }
        Err(Status::not_found(
            "this server tells its health as a whole: ask for the service with the empty name",
        ))
    }
}

/// A server that is about to stop takes nothing new: it counts as not serving.
fn now(upkeep: &Upkeep, drain: &Drain) -> ServingStatus {
    match upkeep.health() {
        Health::Serving(_) if !drain.has_begun() => ServingStatus::Serving,
        Health::Serving(_) | Health::Failing(_) => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthService for Told {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.of(&request.get_ref().service).map(|status| Response::new(response(status)))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let place = Arc::clone(&self.watches).try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted("as many watches as are admitted stand"))?;
        let (told, watched) = mpsc::channel(1);
        let known = request.get_ref().service.is_empty();
        let (upkeep, drain) = (Arc::clone(&self.upkeep), self.drain.clone());
        self.drain.spawn(async move {
            let _place = place;
            let mut last = None;
            loop {
                let ends = drain.has_begun();
                // A name that is not known may come to be, says the protocol: its watch stays open.
                let status = if known { now(&upkeep, &drain) } else { ServingStatus::ServiceUnknown };
                if last != Some(status) {
                    let sent = tokio::time::timeout(UNREAD, told.send(Ok(response(status)))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                if ends {
                    return;
                }
                last = Some(status);
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = drain.begun() => {}
                    () = told.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(watched)))
    }
}
