//! What a grant says, and whether a call fits it. The provider's security server decides by these rules, and whoever reads
//! a proof years later judges by the same.

mod endpoint;
mod subject;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::Time;
use crate::identifier::{Method, ServiceId, SubsystemId};
use crate::message::Code;
use crate::schema::log::{GrantChange, RateLimit};

pub use endpoint::{Endpoint, is_endpoint_pattern};
pub use subject::{Members, MembersError, Membership, Principal, Subject, SubjectError};

/// Longest period of a rate.
const MAX_PERIOD: Duration = Duration::from_secs(31 * 24 * 3600);
/// Most calls of a rate.
const MAX_CALLS: u32 = 1_000_000;

/// Why a grant cannot be read: a field is not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} is not valid: {why}")]
pub struct TermsError {
    /// Which field.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What it should be.
    pub why: String,
}

impl TermsError {
    fn new(field: &'static str, value: &str, why: impl fmt::Display) -> Self {
        Self { field, value: value.into(), why: why.to_string() }
    }
}

/// What a grant says, each field checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// Who may call.
    pub subject: Subject,
    /// What may be called.
    pub service: ServiceId,
    /// `/package.Service/Method`, `/package.Service/*` or `/*`; of HTTP `METHOD /path/*/**` or `/*`.
    pub method: String,
    /// For which purposes; at least one.
    pub purposes: Vec<Code>,
    /// On which legal bases; at least one.
    pub legal_bases: Vec<Code>,
    /// From when on.
    pub not_before: Option<Time>,
    /// Until when.
    pub not_after: Option<Time>,
    /// How often.
    pub rate: Option<Rate>,
    /// How many exchanges at a time.
    pub exchanges: Option<NonZeroU32>,
}

/// How often something may be done: `calls` in `period`, and `burst` at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// So many calls, 1 to 1,000,000.
    pub calls: u32,
    /// In this time, at most 31 days.
    pub period: Duration,
    /// So many at once, 1 to 1,000,000.
    pub burst: u32,
}

impl Terms {
    /// Reads what a change of the log, or an operator's request, says of a grant.
    pub fn parse(change: &GrantChange) -> Result<Self, TermsError> {
        let time = |field, value: Option<i64>| match value {
            Some(millis) if millis < 0 => {
                Err(TermsError::new(field, &millis.to_string(), "it is before 1970"))
            }
            other => Ok(other.map(Time::from_millis)),
        };
        let (not_before, not_after) =
            (time("not_before", change.not_before_ms)?, time("not_after", change.not_after_ms)?);
        if let (Some(from), Some(until)) = (not_before, not_after)
            && until < from
        {
            return Err(TermsError::new("not_after", &until.to_string(), format!("it is before {from}")));
        }
        Ok(Self {
            subject: field("client", &change.client)?,
            service: field("service", &change.service)?,
            method: pattern(&change.method)?,
            purposes: codes("purpose", &change.purposes)?,
            legal_bases: codes("legal basis", &change.legal_bases)?,
            not_before,
            not_after,
            rate: change.rate_limit.as_ref().map(Rate::parse).transpose()?,
            exchanges: NonZeroU32::new(change.exchanges),
        })
    }

    /// Whether the call fits.
    pub fn fit(&self, call: &Call<'_>) -> bool {
        self.misfits(call).next().is_none()
    }

    /// What of the call does not fit; nothing if it is allowed.
    pub fn misfits<'t>(&'t self, call: &Call<'_>) -> impl Iterator<Item = Misfit<'t>> {
        type Check = for<'t> fn(&'t Terms, &Call<'_>) -> Option<Misfit<'t>>;
        const CHECKS: [Check; 6] = [
            |terms, call| (terms.service != *call.service).then_some(Misfit::Service(&terms.service)),
            |terms, call| {
                let held = terms.subject.covers(call.client, call.members);
                (!held).then_some(Misfit::Subject(&terms.subject))
            },
            |terms, call| (!call.target.matches(&terms.method)).then_some(Misfit::Method(&terms.method)),
            |terms, call| {
                (!terms.purposes.contains(call.purpose)).then_some(Misfit::Purpose(&terms.purposes))
            },
            |terms, call| {
                let named = terms.legal_bases.contains(call.legal_basis);
                (!named).then_some(Misfit::LegalBasis(&terms.legal_bases))
            },
            |terms, call| terms.out_of_time(call.at),
        ];
        CHECKS.iter().filter_map(move |check| check(self, call))
    }

    /// Whether it holds at that time.
    pub fn hold_at(&self, at: Time) -> bool {
        self.out_of_time(at).is_none()
    }

    fn out_of_time(&self, at: Time) -> Option<Misfit<'_>> {
        match (self.not_before, self.not_after) {
            (Some(from), _) if at < from => Some(Misfit::NotYet(from)),
            (_, Some(until)) if at > until => Some(Misfit::Expired(until)),
            _ => None,
        }
    }
}

/// A call, as far as grants look at it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Who calls.
    pub client: &'c SubsystemId,
    /// What is called.
    pub service: &'c ServiceId,
    /// What of it.
    pub target: Target<'c>,
    /// For which purpose.
    pub purpose: &'c Code,
    /// On which legal basis.
    pub legal_basis: &'c Code,
    /// When, by the civil clock.
    pub at: Time,
    /// Who belongs to which group then.
    pub members: &'c dyn Membership,
}

/// What of a service is called.
#[derive(Debug, Clone, Copy)]
pub enum Target<'c> {
    /// A gRPC method.
    Method(&'c Method),
    /// An HTTP method and path.
    Endpoint(&'c Endpoint),
    /// Something over HTTP; which method and path is not known. Any pattern for HTTP matches.
    SomeEndpoint,
}

impl Target<'_> {
    fn matches(&self, pattern: &str) -> bool {
        match self {
            Self::Method(method) => method.matches(pattern),
            Self::Endpoint(endpoint) => endpoint.matches(pattern),
            Self::SomeEndpoint => pattern == "/*" || is_endpoint_pattern(pattern),
        }
    }
}

/// What of a call does not fit a grant, with what the grant says instead. For the provider's own eyes: a caller is not
/// told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit<'t> {
    /// It is for another service.
    Service(&'t ServiceId),
    /// It is for somebody else, or the client does not belong to the group.
    Subject(&'t Subject),
    /// It is for other methods or paths.
    Method(&'t str),
    /// It is for other purposes.
    Purpose(&'t [Code]),
    /// It is on other legal bases.
    LegalBasis(&'t [Code]),
    /// It does not hold yet.
    NotYet(Time),
    /// It does not hold any more.
    Expired(Time),
}

impl fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |codes: &[Code]| codes.iter().map(Code::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::Service(service) => write!(f, "it is for the service {service}"),
            Self::Subject(Subject::Principal(principal)) => write!(f, "it is for {principal} only"),
            Self::Subject(group) => write!(f, "the client does not belong to {group}"),
            Self::Method(pattern) => write!(f, "it is for {pattern} only"),
            Self::Purpose(codes) => write!(f, "its purposes are {}", list(codes)),
            Self::LegalBasis(codes) => write!(f, "its legal bases are {}", list(codes)),
            Self::NotYet(from) => write!(f, "it holds from {from} on"),
            Self::Expired(until) => write!(f, "it held until {until}"),
        }
    }
}

impl Rate {
    fn parse(limit: &RateLimit) -> Result<Self, TermsError> {
        let value = format!("{} in {} ms, {} at once", limit.calls, limit.period_ms, limit.burst);
        let period = Duration::from_millis(limit.period_ms);
        let counts = (1..=MAX_CALLS).contains(&limit.calls) && (1..=MAX_CALLS).contains(&limit.burst);
        if !counts || period.is_zero() || period > MAX_PERIOD {
            let why = "1 to 1000000 calls, and as many at once, in 1 ms to 31 days";
            return Err(TermsError::new("rate", &value, why));
        }
        Ok(Self { calls: limit.calls, period, burst: limit.burst })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.period.as_millis();
        write!(f, "{} calls in {millis} ms, {} at once", self.calls, self.burst)
    }
}

fn field<T: FromStr<Err: fmt::Display>>(field: &'static str, value: &str) -> Result<T, TermsError> {
    value.parse().map_err(|why: T::Err| TermsError::new(field, value, why))
}

fn pattern(value: &str) -> Result<String, TermsError> {
    let concrete = value.strip_suffix('*').map_or_else(|| value.to_owned(), |prefix| format!("{prefix}x"));
    if value != "/*" && !is_endpoint_pattern(value) {
        concrete.parse::<Method>().map_err(|why| TermsError::new("method", value, why))?;
    }
    Ok(value.to_owned())
}

fn codes(name: &'static str, values: &[String]) -> Result<Vec<Code>, TermsError> {
    if values.is_empty() {
        return Err(TermsError::new(name, "", "name at least one: a grant without one allows nothing"));
    }
    values.iter().map(|value| field(name, value)).collect()
}

#[cfg(test)]
mod tests;
