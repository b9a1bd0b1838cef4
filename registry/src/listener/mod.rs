//! The registry's doors: one for administrators, one for security servers.

mod admin;
mod distribution;
mod management;

use std::future::Future;

use tonic::{Code, Status};
use trave_host::config::with_causes;

pub(crate) use admin::{AdministratorsOnly, admin_routes};
pub(crate) use distribution::distribution_routes;
pub(crate) use management::management_routes;

use crate::registration::RegistrationError;

/// Runs `decision` to its end even if whoever asked goes away: between the log and the memory nothing is dropped.
async fn whole<T: Send + 'static>(
    decision: impl Future<Output = Result<T, RegistrationError>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(decision).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(status(&error)),
        Err(_) => Err(Status::internal("the registry failed; the log says what was done")),
    }
}

fn status(error: &RegistrationError) -> Status {
    use RegistrationError as E;
    let code = match error {
        E::NothingPublished
        | E::Stage { .. }
        | E::Proposed(_)
        | E::Follow(_)
        | E::UnknownServer(_)
        | E::TokenUsed => Code::FailedPrecondition,
        E::NoAdministrator | E::OtherKey | E::Act(_) | E::Token | E::TokenExpired => Code::PermissionDenied,
        E::Known(_) => Code::AlreadyExists,
        E::Future | E::Malformed(_) => Code::InvalidArgument,
        E::Unknown(_) => Code::NotFound,
        E::TooMany(_) => Code::ResourceExhausted,
        E::Journal(_) | E::Random => Code::Unavailable,
    };
    if matches!(code, Code::Unavailable) {
        tracing::error!(error = with_causes(error), "the registry cannot work");
    }
    Status::new(code, with_causes(error))
}
