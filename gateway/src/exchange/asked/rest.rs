//! What an HTTP request asks: `/r1/INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE/path?query` as X-Road has it, or a path that a
//! route stands for.

use http::header::HOST;
use http::request::Parts;
use http::{Uri, Version};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ServiceId;

use super::{Route, Routes};
use crate::exchange::head::{self, Canonical};

/// What X-Road's message protocol for REST, version 1, begins its paths with.
const PROTOCOL: &str = "/r1/";

/// A service, and what is asked of it.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) service: ServiceId,
    pub(super) path: Canonical,
    pub(super) query: Option<String>,
    pub(super) route: Option<&'a Route>,
}

impl<'a> Target<'a> {
    /// The target of a request; refused where programs could differ on what it is.
    pub(super) fn of(routes: &'a Routes, parts: &Parts) -> Result<Self, Fault> {
        head::method(parts.method.as_str()).map_err(invalid)?;
        head::content_length(&parts.headers).map_err(invalid)?;
        check_host(parts)?;
        let query = parts.uri.query().map(str::to_owned);
        query.as_deref().map_or(Ok(()), head::check_query).map_err(invalid)?;
        let (service, path, route) = place(routes, parts.uri.path())?;
        Ok(Self { service, path, query, route })
    }

    /// The head as it is signed. A destination that the caller sees behind this door becomes one within the service, and
    /// one elsewhere is refused.
    pub(super) fn head(
        &self,
        routes: &Routes,
        parts: &Parts,
    ) -> Result<trave_proto::schema::message::RequestHead, Fault> {
        let mut head = head::rest_request_head(parts, &self.path, self.query.clone());
        let mut destinations =
            head.headers.iter_mut().filter(|header| header.name == head::DESTINATION.as_str());
        if let Some(destination) = destinations.next().filter(|_| head::names_two_paths(&parts.method)) {
            let seen: Option<Uri> = Uri::try_from(&*destination.value).ok();
            let seen = seen.filter(|seen| seen.query().is_none() && destinations.next().is_none());
            let seen = seen.ok_or_else(|| invalid("the header destination is not one URI"))?;
            let (service, path, _) = place(routes, seen.path())?;
            let here = seen.authority().is_none_or(|authority| is_here(parts, authority.as_str()));
            if service != self.service || !here {
                return Err(invalid("the header destination is not within the service"));
            }
            destination.value = path.as_str().to_owned().into();
        }
        Ok(head)
    }
}

/// Service, path within it, and route, of a path that a caller uses.
fn place<'a>(routes: &'a Routes, path: &str) -> Result<(ServiceId, Canonical, Option<&'a Route>), Fault> {
    if path.strip_prefix(PROTOCOL).is_some() {
        return named(routes, path);
    }
    let path = Canonical::of(path).map_err(invalid)?;
    let Some(route) = routes.of(path.as_str()) else {
        let why = "no route begins like this path; name the service in it: /r1/INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE/path";
        return Err(Fault::before_call(Reason::UnknownService, Side::Client, why));
    };
    let within = path.as_str().strip_prefix(route.path.trim_end_matches('/')).unwrap_or_default();
    Ok((route.service.clone(), Canonical::of(within).map_err(invalid)?, Some(route)))
}

/// A path that names its service. Each part of the identifier is decoded on its own, and is an identifier then.
fn named<'a>(routes: &'a Routes, path: &str) -> Result<(ServiceId, Canonical, Option<&'a Route>), Fault> {
    let mut parts = path[PROTOCOL.len()..].splitn(6, '/');
    let decoded: Result<Vec<_>, _> = parts.by_ref().take(5).map(head::decoded).collect();
    let service: Result<ServiceId, _> = decoded.map_err(invalid)?.join("/").parse();
    let service = service.map_err(|why| {
        let why = format!("the path does not name a service: {why}");
        Fault::before_call(Reason::UnknownService, Side::Client, why)
    })?;
    let within = parts.next().map_or(Ok(Canonical::default()), |rest| Canonical::of(&format!("/{rest}")));
    let within = within.map_err(invalid)?;
    let slash = if within.as_str().is_empty() { "/" } else { "" };
    let route = routes.of(&format!("{PROTOCOL}{service}{}{slash}", within.as_str()));
    if route.is_some_and(|route| route.service != service) {
        let why = "the path names another service than its route";
        return Err(Fault::before_call(Reason::UnknownService, Side::Client, why));
    }
    Ok((service, within, route))
}

/// One host, or none: two could be believed by different programs (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
fn check_host(parts: &Parts) -> Result<(), Fault> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(invalid("the request names two hosts"));
    }
    match (host, parts.uri.authority()) {
        (None, None) if parts.version == Version::HTTP_11 => Err(invalid("the request names no host")),
        (Some(host), Some(authority)) if host.as_bytes() != authority.as_str().as_bytes() => {
            Err(invalid("the request names two hosts"))
        }
        _ => Ok(()),
    }
}

/// Whether an authority is the one by which the caller reached this door.
fn is_here(parts: &Parts, authority: &str) -> bool {
    let host = parts.headers.get(HOST).map(|host| host.as_bytes());
    let own = parts.uri.authority().map(|own| own.as_str().as_bytes()).or(host);
    own.is_some_and(|own| own.eq_ignore_ascii_case(authority.as_bytes()))
}

fn invalid(why: &'static str) -> Fault {
    Fault::before_call(Reason::InvalidMessage, Side::Client, why)
}
