//! A request as its register gets it: of a gRPC method, or of an HTTP path behind the service's address.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::Method;

use super::head::{DESTINATION, GrpcHead, RestHead};
use crate::access::Endpoint;
use crate::services::Service;

/// Method, target and headers, as they were permitted.
pub(super) struct RegisterHead {
    pub(super) method: Verb,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// What is left to the deadline that the caller named.
    pub(super) timeout: Option<Duration>,
}

impl RegisterHead {
    /// Reads the head of a verified request.
    pub(super) fn read(
        method: &Option<Method>,
        head: Option<&Bytes>,
        service: &Service,
    ) -> Result<Self, Fault> {
        let encoded = head.ok_or_else(|| malformed("its first message has no head"))?;
        let Some(method) = method else { return rest(encoded, service) };
        let GrpcHead { method, headers, timeout } = GrpcHead::read(encoded, method).map_err(malformed)?;
        Ok(Self { method: Verb::POST, target: method.as_str().to_owned(), headers, timeout })
    }
}

fn rest(encoded: &Bytes, service: &Service) -> Result<RegisterHead, Fault> {
    let mut head = RestHead::read(encoded).map_err(malformed)?;
    let (scheme, address) = service.origin();
    if let Some(path) = &head.destination {
        let seen = format!("{scheme}://{address}{}{}", service.base(), path.as_str());
        let seen = HeaderValue::from_str(&seen).map_err(|_| malformed("its destination"))?;
        head.headers.insert(DESTINATION, seen);
    }
    let target = head.target(service.base());
    Ok(RegisterHead { method: head.method, target, headers: head.headers, timeout: None })
}

/// What an HTTP call is about, to be permitted; none of a gRPC call, whose method says it.
pub(super) fn endpoint(method: Option<&Method>, head: Option<&Bytes>) -> Result<Option<Endpoint>, Fault> {
    if method.is_some() {
        return Ok(None);
    }
    let head = head.ok_or_else(|| malformed("its first message has no head"))?;
    let head = RestHead::read(head).map_err(malformed)?;
    Ok(Some(Endpoint {
        method: head.method.as_str().to_owned(),
        path: head.path.as_str().to_owned(),
        destination: head.destination.map(|path| path.as_str().to_owned()),
    }))
}

/// A request that is authentic and not of its form.
pub(super) fn malformed(why: &str) -> Fault {
    let why = format!("the request is signed and cannot be read: {why}");
    Fault::before_call(Reason::InvalidMessage, Side::ProviderServer, why)
}
