//! What a caller says of itself in headers, read strictly: nothing of it is believed.

use std::str::FromStr;

use http::{HeaderMap, HeaderValue};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ServerId, ServiceId, SubsystemId, XRoadClientId};
use trave_proto::message::{CallerContext, Code};

/// What a caller says of itself and of what it wants; nothing of it is believed yet.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub(crate) client: Option<SubsystemId>,
    pub(crate) service: Option<ServiceId>,
    pub(crate) purpose: Option<Code>,
    pub(crate) legal_basis: Option<Code>,
    pub(crate) context: CallerContext,
    /// The one security server that is to answer.
    pub(crate) security_server: Option<ServerId>,
    /// At a bridge: the client of the other instance, as its security server names it.
    pub(crate) bridged_from: Option<XRoadClientId>,
}

impl Declared {
    /// Reads the headers that are ours. A doubled or malformed one is refused.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        Ok(Self {
            client: parsed(headers, "x-road-client", Reason::InvalidClientIdentifier)?,
            service: parsed(headers, "x-road-service", Reason::UnknownService)?,
            purpose: parsed(headers, "trave-purpose", Reason::UnknownPurpose)?,
            legal_basis: parsed(headers, "trave-legal-basis", Reason::UnknownLegalBasis)?,
            context: context(headers)?,
            security_server: parsed(headers, "x-road-security-server", Reason::InvalidSecurityServer)?,
            bridged_from: None,
        })
    }

    /// Reads those headers in which a security server of X-Road tells of a call to its service. What it says of service and
    /// security server are its own: they decide nothing here. Nor can its client choose a purpose: other than the bridge
    /// says, none is heard.
    pub(crate) fn read_at_bridge(headers: &HeaderMap) -> Result<Self, Fault> {
        Ok(Self {
            purpose: parsed(headers, "trave-purpose", Reason::UnknownPurpose)?,
            legal_basis: parsed(headers, "trave-legal-basis", Reason::UnknownLegalBasis)?,
            context: context(headers)?,
            bridged_from: foreign_client(headers)?,
            ..Self::default()
        })
    }
}

/// Who acts, for which case: declared, kept, not verified.
fn context(headers: &HeaderMap) -> Result<CallerContext, Fault> {
    Ok(CallerContext {
        user: text(headers, "x-road-userid")?,
        issue: text(headers, "x-road-issue")?,
        message_id: text(headers, "x-road-id")?,
        subject: text(headers, "trave-subject")?,
        represented_party: represented_party(headers)?,
    })
}

/// The client that a security server of X-Road names, in whichever spelling.
fn foreign_client(headers: &HeaderMap) -> Result<Option<XRoadClientId>, Fault> {
    let name = "x-road-client";
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| invalid(format!("the header {name} is not UTF-8")))?;
    XRoadClientId::of(text).map(Some).map_err(|why| {
        let why = format!("the header {name} is not valid: {why}");
        Fault::before_call(Reason::InvalidClientIdentifier, Side::Client, why)
    })
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(invalid(format!("the header {name} stands twice"))),
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    headers: &HeaderMap,
    name: &str,
    reason: Reason,
) -> Result<Option<T>, Fault> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = value.to_str().map_err(|_| invalid(format!("the header {name} is not printable ASCII")))?;
    let error = |why: T::Err| {
        Fault::before_call(reason, Side::Client, format!("the header {name} is not valid: {why}"))
    };
    text.parse().map(Some).map_err(error)
}

/// Free text in UTF-8, at most 1 KiB; empty if absent. No header's value begins or ends with a blank (RFC 9113, section 8.2.1),
/// but HTTP/2 could carry one that does, and the next hop over HTTP/1.1 would lose its blanks: what we signed would not be what
/// the register got, and an `X-Road-Id` would not come back as it went.
fn text(headers: &HeaderMap, name: &str) -> Result<String, Fault> {
    let Some(value) = single(headers, name)? else { return Ok(String::new()) };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if text.trim_matches([' ', '\t']).len() < text.len() => {
            Err(invalid(format!("the header {name} begins or ends with a blank: leave it out")))
        }
        Ok(text) if text.len() <= 1024 => Ok(text.to_owned()),
        _ => Err(invalid(format!("the header {name} is not UTF-8 of at most 1024 bytes"))),
    }
}

/// `[class/]code`: for whom the caller acts.
fn represented_party(headers: &HeaderMap) -> Result<String, Fault> {
    let party = text(headers, "x-road-represented-party")?;
    match party.split('/').count() <= 2 {
        true => Ok(party),
        false => Err(invalid("the header x-road-represented-party is not CLASS/CODE or CODE".into())),
    }
}

fn invalid(message: String) -> Fault {
    Fault::before_call(Reason::InvalidMessage, Side::Client, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_has_no_blanks_at_its_ends() {
        for name in
            ["x-road-id", "x-road-userid", "x-road-issue", "x-road-represented-party", "trave-subject"]
        {
            let read = |value: &'static str| {
                let headers = HeaderMap::from_iter([(
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )]);
                [Declared::read(&headers), Declared::read_at_bridge(&headers)]
                    .map(|declared| declared.map_err(|fault| (fault.reason, fault.side)).map(|_| ()))
            };
            assert_eq!(read("m 1"), [Ok(()), Ok(())]);
            for blank in [" m", "m ", "\tm", "m\t", " "] {
                let refused = Err((Reason::InvalidMessage, Side::Client));
                assert_eq!(read(blank), [refused, refused], "{name}: {blank:?}");
            }
        }
    }
}
