//! Why an erasure does not go on, and who is told what of it.

use trave_host::config::with_causes;
use trave_message_log::LogError;

/// Why an erasure does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErasureError {
    #[error("no erasure {0} waits\nhint: `erasures list` shows those that do")]
    Unknown(String),
    #[error("this is no erasure: {0}")]
    Malformed(&'static str),
    #[error(
        "the part of the log in which the person stands was written anew since it was applied for\nhint: `erasures drop` it, and apply for it again"
    )]
    Moved,
    #[error("too many erasures that this security server told wait for a decision")]
    TooMany,
    #[error("what was told before is still being taken; tell it again in a minute")]
    Busy,
    #[error("the message log failed")]
    Log(#[source] LogError),
    #[error("reading the message log failed")]
    Interrupted,
}

impl ErasureError {
    /// For another security server: what goes wrong on this one's disk is told to its own operator.
    pub(crate) fn for_peer(&self) -> tonic::Status {
        match self {
            Self::Log(_) | Self::Interrupted => {
                tracing::warn!(error = with_causes(self), "what a peer tells of erasures is not taken");
                let why = "the message log of this security server fails; its operator must look at it";
                tonic::Status::unavailable(why)
            }
            _ => self.refusal(),
        }
    }

    /// For this server's operator.
    pub(crate) fn refusal(&self) -> tonic::Status {
        let why = with_causes(self);
        match self {
            Self::Unknown(_) => tonic::Status::not_found(why),
            Self::Malformed(_) => tonic::Status::invalid_argument(why),
            Self::Moved => tonic::Status::failed_precondition(why),
            Self::TooMany | Self::Busy => tonic::Status::resource_exhausted(why),
            Self::Log(_) | Self::Interrupted => tonic::Status::unavailable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_told_where_this_servers_log_lies() {
        let error = ErasureError::Log(LogError::Disk {
            what: "read",
            path: "/srv/trave/data/log/segments/1".into(),
            source: std::io::Error::other("broken").into(),
        });
        assert!(error.refusal().message().contains("/srv/trave"), "the operator is");
        let told = error.for_peer();
        assert!(!told.message().contains("/srv") && told.code() == tonic::Code::Unavailable, "{told}");
        assert_eq!(ErasureError::TooMany.for_peer().code(), tonic::Code::ResourceExhausted);
    }
}
