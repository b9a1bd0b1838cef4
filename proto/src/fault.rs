//! Faults: why an exchange failed, in words that cross the wire. Precise errors stay inside; this is their one outside.
//!
//! `docs/faults.md` is this table for readers; a test holds the two together.

use crate::schema::transport::{Fault as WireFault, RegisterReached};

/// Whose side an exchange failed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Client,
    ClientServer,
    ProviderServer,
    Register,
}

impl Side {
    /// As it is written in errors and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClientServer => "client_server",
            Self::ProviderServer => "provider_server",
            Self::Register => "register",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Client, Self::ClientServer, Self::ProviderServer, Self::Register]
            .into_iter()
            .find(|side| side.as_str() == text)
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:ident, $retry:literal;)*) => {
        /// Why an exchange failed. The leaves of X-Road's codes where it has one.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is written in errors and logs: lower snake case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The gRPC status that a caller gets.
            pub const fn grpc_status(self) -> GrpcStatus {
                match self { $(Self::$name => GrpcStatus::$status),* }
            }

            /// Whether the same call may succeed later without anything being changed, given that the register was not
            /// reached.
            const fn transient(self) -> bool {
                match self { $(Self::$name => $retry),* }
            }
        }
    };
}

reasons! {
    /// The call is not well-formed: a header is missing, doubled or not of its form.
    InvalidMessage = "invalid_message", InvalidArgument, false;
    /// The client identifier is missing, malformed or not the one that this listener speaks for.
    InvalidClientIdentifier = "invalid_client_identifier", PermissionDenied, false;
    /// No such member, subsystem or security server in the global configuration.
    UnknownMember = "unknown_member", NotFound, false;
    /// The security server that the caller names does not offer the service, or is none.
    InvalidSecurityServer = "invalid_security_server", NotFound, false;
    /// No such service in the catalogue.
    UnknownService = "unknown_service", NotFound, false;
    /// No such method of the service in the catalogue.
    UnknownMethod = "unknown_method", Unimplemented, false;
    /// The purpose is missing, not in the catalogue, or not one of the service.
    UnknownPurpose = "unknown_purpose", InvalidArgument, false;
    /// The legal basis is missing or not in the catalogue.
    UnknownLegalBasis = "unknown_legal_basis", InvalidArgument, false;
    /// No grant allows this client this service, method and purpose.
    AccessDenied = "access_denied", PermissionDenied, false;
    /// As many calls as the grant allows were made, or are under way.
    RateLimited = "rate_limited", ResourceExhausted, true;
    /// More bytes than the service or a message may have.
    TooLarge = "too_large", ResourceExhausted, false;
    /// As many exchanges as this server admits are under way.
    Overloaded = "overloaded", ResourceExhausted, true;
    /// The server is shutting down.
    MaintenanceMode = "maintenance_mode", Unavailable, true;
    /// The security server of the other side cannot be reached.
    NetworkError = "network_error", Unavailable, true;
    /// The TLS certificate of the other side is not the one that the global configuration lists.
    SslAuthenticationFailed = "ssl_authentication_failed", Unavailable, false;
    /// The message has no signature, or one that does not verify.
    InvalidSignatureValue = "invalid_signature_value", PermissionDenied, false;
    /// The signing certificate is unknown, expired, revoked, or not listed.
    CertValidation = "cert_validation", PermissionDenied, false;
    /// The signer may not sign for this client or service.
    SignerNotAllowed = "signer_not_allowed", PermissionDenied, false;
    /// The content is not the one that was signed.
    ContentMismatch = "content_mismatch", DataLoss, false;
    /// The message is for another server, of another connection, too old, or was seen before.
    Replayed = "replayed", PermissionDenied, false;
    /// The message is not the one that must follow.
    OutOfOrder = "out_of_order", DataLoss, false;
    /// The answer does not belong to the request.
    InconsistentResponse = "inconsistent_response", DataLoss, false;
    /// The global configuration has expired, is older than one seen, or two have one number.
    GlobalConfOutdated = "global_conf_outdated", Unavailable, true;
    /// The message cannot be signed.
    CannotCreateSignature = "cannot_create_signature", Unavailable, true;
    /// The message log cannot be written. What was in flight has an unknown outcome.
    LoggingFailed = "logging_failed", Unavailable, true;
    /// The disk is too full to log another exchange.
    DiskFull = "disk_full", ResourceExhausted, true;
    /// The message log has had no timestamp for longer than the policy allows.
    TimestamperFailed = "timestamper_failed", Unavailable, true;
    /// The message log has not been witnessed for longer than the policy allows.
    NotWitnessed = "not_witnessed", Unavailable, true;
    /// The register cannot be reached.
    ServiceFailed = "service_failed", Unavailable, true;
    /// The deadline passed.
    DeadlineExceeded = "deadline_exceeded", DeadlineExceeded, true;
    /// The caller or a connection broke the exchange off.
    Aborted = "aborted", Cancelled, true;
    /// An error of the security server itself.
    InternalError = "internal_error", Internal, false;
}

/// gRPC status codes that faults map to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the standard's names")]
pub enum GrpcStatus {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
}

impl Reason {
    /// The reason of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// Why an exchange failed, as the caller, the log and the peer get it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which row of the table.
    pub reason: Reason,
    /// Whose side failed.
    pub side: Side,
    /// For a person; never a key, salt, content or caller context.
    pub message: String,
    /// Whether the register's call had begun.
    pub register_reached: RegisterReached,
}

impl Fault {
    /// A fault before the register was called.
    pub fn before_call(reason: Reason, side: Side, message: impl Into<String>) -> Self {
        Self { reason, side, message: message.into(), register_reached: RegisterReached::No }
    }

    /// The same fault, with what is known of the register.
    #[must_use]
    pub fn with_register(self, register_reached: RegisterReached) -> Self {
        Self { register_reached, ..self }
    }

    /// Whether the same call may be made again without the risk of doing the thing twice.
    pub fn retry_safe(&self) -> bool {
        self.register_reached == RegisterReached::No && self.reason.transient()
    }

    /// As `register_reached` is written in errors.
    pub fn register_reached_str(&self) -> &'static str {
        match self.register_reached {
            RegisterReached::No => "no",
            RegisterReached::Yes => "yes",
            RegisterReached::Unknown | RegisterReached::Unspecified => "unknown",
        }
    }

    /// As it crosses the wire to the other security server.
    pub fn to_wire(&self) -> WireFault {
        WireFault {
            reason: self.reason.as_str().into(),
            message: self.message.clone(),
            side: self.side.as_str().into(),
            register_reached: self.register_reached.into(),
            retry_safe: self.retry_safe(),
        }
    }

    /// A fault that the peer reports. It is not signed, so it is believed in its words only: an unknown reason becomes an
    /// internal error of the peer's, and its message is made [`plain`].
    pub fn from_wire(wire: WireFault) -> Self {
        let reached = wire.register_reached();
        let known = Reason::parse(&wire.reason).zip(Side::parse(&wire.side));
        // A peer speaks for its own side and for the register behind it, never for ours.
        let side_of = |side| if side == Side::Register { side } else { Side::ProviderServer };
        match known {
            Some((reason, side)) => {
                Self { reason, side: side_of(side), message: plain(&wire.message), register_reached: reached }
            }
            None => Self {
                reason: Reason::InternalError,
                side: Side::ProviderServer,
                message: "the provider's security server reported an error that is not in the table".into(),
                register_reached: RegisterReached::Unknown,
            },
        }
    }
}

/// What another side says, made fit for logs, headers and terminals: at most 512 characters, letters, digits and the
/// punctuation of ASCII; anything else, such as line ends and marks of direction, becomes a question mark.
pub fn plain(text: &str) -> String {
    let fit = |c: char| if c.is_alphanumeric() || (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(512).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let fault = Fault::before_call(*reason, Side::ProviderServer, "why");
            assert_eq!(Fault::from_wire(fault.to_wire()), fault);
        }
    }

    #[test]
    fn a_retry_is_safe_only_where_the_register_was_not_reached() {
        let fault = Fault::before_call(Reason::NetworkError, Side::ClientServer, "no connection");
        assert!(fault.retry_safe());
        assert!(!fault.clone().with_register(RegisterReached::Unknown).retry_safe());
        assert!(!Fault::before_call(Reason::AccessDenied, Side::ProviderServer, "").retry_safe());
    }

    #[test]
    fn a_peer_cannot_make_us_print_what_it_likes() {
        let wire = |message: &str| Fault::before_call(Reason::AccessDenied, Side::Client, message).to_wire();
        let fault = Fault::from_wire(wire("a\nb\u{202e}ü"));
        assert_eq!((fault.message.as_str(), fault.side), ("a?b?ü", Side::ProviderServer));
        assert_eq!(Fault::from_wire(wire(&"x".repeat(2000))).message.len(), 512);
        let unknown = WireFault { reason: "other".into(), ..wire("") };
        assert_eq!(Fault::from_wire(unknown).reason, Reason::InternalError);
    }
}
