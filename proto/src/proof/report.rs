//! What became of a proof: each check by name, with its outcome, and what the proof does not show.

use super::story::Story;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckName {
    /// The file holds what its records name, nothing twice and nothing else.
    Structure,
    /// The anchors lead from the verifier's own to those that signed.
    Anchors,
    /// Each configuration is signed by as many configuration keys as its anchor demands.
    Configurations,
    /// The checkpoint is signed by the log that the configuration lists for this security server.
    Checkpoint,
    /// A timestamping authority of the configuration stamped the checkpoint (RFC 3161).
    Timestamp,
    /// The witnesses who cosigned the checkpoint are those whom the configuration lists (C2SP tlog-cosignature).
    Cosignatures,
    /// Each record stands in the log under the checkpoint (RFC 6962).
    Inclusion,
    /// Each record binds the signature, certificates and configuration given here.
    Bindings,
    /// Each message is signed by the security server and member that may sign it, with a certificate that was good.
    Signatures,
    /// The TLS connection was with the security server that the message names.
    Connections,
    /// The messages follow one another as sent, and are about one thing.
    Order,
    /// Whether the exchange is there from its first to its last message.
    Completeness,
    /// The contents given are those that were signed; those not given are missing for a reason.
    Contents,
    /// The caller context given is the one that was signed.
    CallerContext,
    /// The provider had granted this client this service for this purpose.
    Permission,
    /// Service, method, purpose and legal basis stand in the catalogue of that time.
    Catalogue,
    /// The times do not contradict one another.
    Times,
}

impl CheckName {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 17] = [
        Self::Structure,
        Self::Anchors,
        Self::Configurations,
        Self::Checkpoint,
        Self::Timestamp,
        Self::Cosignatures,
        Self::Inclusion,
        Self::Bindings,
        Self::Signatures,
        Self::Connections,
        Self::Order,
        Self::Completeness,
        Self::Contents,
        Self::CallerContext,
        Self::Permission,
        Self::Catalogue,
        Self::Times,
    ];

    /// A name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Anchors => "anchors",
            Self::Configurations => "configurations",
            Self::Checkpoint => "checkpoint",
            Self::Timestamp => "timestamp",
            Self::Cosignatures => "cosignatures",
            Self::Inclusion => "inclusion",
            Self::Bindings => "bindings",
            Self::Signatures => "signatures",
            Self::Connections => "connections",
            Self::Order => "order",
            Self::Completeness => "completeness",
            Self::Contents => "contents",
            Self::CallerContext => "caller_context",
            Self::Permission => "permission",
            Self::Catalogue => "catalogue",
            Self::Times => "times",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not, and why.
    Fails(String),
    /// It cannot be told, and why.
    CannotTell(String),
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is about.
    pub name: CheckName,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, for whoever wants to look: numbers, names, digests.
    pub detail: String,
}

/// What follows from all checks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Every check holds.
    Holds,
    /// At least one does not.
    DoesNotHold,
    /// None fails, but at least one cannot be told.
    CannotTell,
}

/// What a proof leaves open, whatever its checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotProved {
    /// No witness of another state has cosigned the checkpoint.
    Witness,
    /// Both security servers could have agreed to record what did not happen.
    Collusion,
    /// That what the register answered is true.
    RegisterTruth,
    /// That nothing else was asked or answered.
    NothingElse,
    /// The time of each message by itself: before the timestamp there are only the servers' clocks.
    ExactTimes,
    /// At the provider: that the answer arrived. At the client: that its agency system used it.
    Delivery,
    /// The caller context is what the agency system declared.
    CallerContextDeclared,
    /// Client, service, purpose or legal basis were fixed by a route, not named by the caller.
    DeclaredByRoute,
    /// What lies beyond a bridge to an existing X-Road instance: who asked there, or what the service there answered.
    BeyondBridge,
    /// What was said: at least one content is not in the file.
    ContentNotIncluded,
    /// At the client: whether and how the provider had permitted the exchange.
    ProviderPermission,
    /// At the provider: that the record of the grant stands in its log; the file holds the record only.
    GrantInclusion,
    /// That the grant covers the HTTP method and path: they are in the content, which is not in the file.
    GrantEndpoint,
    /// That this log held a message at its time: it was lost, and came back from the other side, signed as it had been.
    LoggedThen,
}

impl NotProved {
    /// A name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Witness => "witness",
            Self::Collusion => "collusion",
            Self::RegisterTruth => "register_truth",
            Self::NothingElse => "nothing_else",
            Self::ExactTimes => "exact_times",
            Self::Delivery => "delivery",
            Self::CallerContextDeclared => "caller_context_declared",
            Self::DeclaredByRoute => "declared_by_route",
            Self::BeyondBridge => "beyond_bridge",
            Self::ContentNotIncluded => "content_not_included",
            Self::ProviderPermission => "provider_permission",
            Self::GrantInclusion => "grant_inclusion",
            Self::GrantEndpoint => "grant_endpoint",
            Self::LoggedThen => "logged_then",
        }
    }
}

/// What [`verify`](super::verify) found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What follows.
    pub conclusion: Conclusion,
    /// What the file tells; proved only if the conclusion says so. Absent where not even the configurations hold.
    pub story: Option<Story>,
    /// Each check, in the order of [`CheckName::ALL`]; those that do not apply are left out.
    pub checks: Vec<Check>,
    /// What is not proved in any case.
    pub not_proved: Vec<NotProved>,
}

/// Why a check does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Fails(String),
    CannotTell(String),
}

impl Failure {
    pub(super) fn fails(why: impl Into<String>) -> Self {
        Self::Fails(why.into())
    }

    pub(super) fn cannot_tell(why: impl Into<String>) -> Self {
        Self::CannotTell(why.into())
    }

    /// With all that lies behind `error`.
    pub(super) fn because(what: &str, error: &dyn std::error::Error) -> Self {
        let mut why = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            why.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Fails(why)
    }
}

/// What a check that holds gives to those after it, and what it found.
pub(super) type Found<T> = Result<(T, String), Failure>;

/// The checks made so far.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<Check>);

impl Checks {
    /// Notes the outcome of a check.
    pub(super) fn note<T>(&mut self, name: CheckName, found: Found<T>) -> Option<T> {
        let (value, outcome, detail) = match found {
            Ok((value, detail)) => (Some(value), Outcome::Holds, detail),
            Err(Failure::Fails(why)) => (None, Outcome::Fails(why), String::new()),
            Err(Failure::CannotTell(why)) => (None, Outcome::CannotTell(why), String::new()),
        };
        self.0.push(Check { name, outcome, detail });
        value
    }

    /// All checks but those that do not `apply`; those that were not made cannot be told.
    pub(super) fn finish(mut self, apply: impl Fn(CheckName) -> bool) -> (Conclusion, Vec<Check>) {
        for name in CheckName::ALL.into_iter().filter(|name| apply(*name)) {
            if !self.0.iter().any(|check| check.name == name) {
                let why = "not checked, because a check before it does not hold".to_owned();
                self.0.push(Check { name, outcome: Outcome::CannotTell(why), detail: String::new() });
            }
        }
        self.0.sort_by_key(|check| check.name);
        let any = |wanted: fn(&Outcome) -> bool| self.0.iter().any(|check| wanted(&check.outcome));
        let conclusion = if any(|outcome| matches!(outcome, Outcome::Fails(_))) {
            Conclusion::DoesNotHold
        } else if any(|outcome| matches!(outcome, Outcome::CannotTell(_))) {
            Conclusion::CannotTell
        } else {
            Conclusion::Holds
        };
        (conclusion, self.0)
    }
}
