//! The door for security servers that enrol: the registry shows its pinned key, and each request is sealed with the
//! token's secret.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use trave_host::stubs::management::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use trave_proto::schema::management::{
    EnrolRequest, EnrolResponse, GetEnrolmentRequest, GetEnrolmentResponse,
};

use super::whole;
use crate::registration::Registration;

/// Longest request, in bytes: two certificate requests and a log key are far below.
const MAX_REQUEST: usize = 32 * 1024;
/// Requests per second that are looked at, and how many may come at once: strangers can reach this door.
const RATE: f64 = 20.0;
const BURST: f64 = 100.0;

/// The routes for enrolment.
pub(crate) fn management_routes(registration: Arc<Registration>) -> Routes {
    let service = EnrolmentServiceServer::new(Desk { registration, pace: Pace::new() });
    Routes::new(service.max_decoding_message_size(MAX_REQUEST))
}

struct Desk {
    registration: Arc<Registration>,
    pace: Pace,
}

#[tonic::async_trait]
impl EnrolmentService for Desk {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        self.pace.admit()?;
        let registration = self.registration.clone();
        let request = request.into_inner();
        whole(async move { registration.enrol(request).await }).await.map(Response::new)
    }

    async fn get_enrolment(
        &self,
        request: Request<GetEnrolmentRequest>,
    ) -> Result<Response<GetEnrolmentResponse>, Status> {
        self.pace.admit()?;
        let registration = self.registration.clone();
        let request = request.into_inner();
        whole(async move { registration.enrolment(&request).await }).await.map(Response::new)
    }
}

/// How many requests are looked at: a bucket that fills with time.
struct Pace(Mutex<(f64, Instant)>);

impl Pace {
    fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    fn admit(&self) -> Result<(), Status> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<(), Status> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = (bucket.0 + now.duration_since(bucket.1).as_secs_f64() * RATE).min(BURST);
        *bucket = (filled, now);
        if filled < 1.0 {
            return Err(Status::resource_exhausted("too many enrolment requests; try again in a minute"));
        }
        bucket.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_pace_is_bounded_and_recovers() {
        let pace = Pace::new();
        let now = Instant::now();
        let admitted = |now| (0..1_000).filter(|_| pace.admit_at(now).is_ok()).count();
        assert_eq!(admitted(now), 100);
        assert_eq!(admitted(now + Duration::from_millis(500)), 10);
        assert_eq!(admitted(now + Duration::from_millis(500)), 0);
    }
}
