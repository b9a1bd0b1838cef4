//! What X-Road's clients ask about services rather than of them: `listClients`, `listMethods`, `allowedMethods`,
//! `getOpenAPI`. None of it is about a person: it is no exchange, and its
//! refusals alone are logged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::global_configuration::{Configuration, SecurityServerEntry};
use trave_proto::identifier::{ServerId, SubsystemId};
use trave_proto::schema::transport::{
    DescribeServicesRequest, DescribeServicesResponse, OfferedEndpoint, OfferedService,
};

use crate::access::Circumstances;
use crate::exchange::{self, Caller, Exchanges, Kind};
use crate::recorder::Refused;
use crate::relayed::Relayed;

/// How long the provider's security server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Clients(Option<String>),
    /// The services of a subsystem: all of them, or those that the caller may call.
    Methods(SubsystemId, bool),
    OpenApi(SubsystemId, String),
}

/// The answer to a question about services; none if the request is none.
pub(crate) async fn answer(
    exchanges: &Exchanges,
    caller: &Caller,
    parts: &Parts,
) -> Option<Response<Relayed>> {
    let asked = read(parts)?;
    let answered = match asked {
        // On the heap: what is rare does not make every call large.
        Ok(asked) => Box::pin(tell(exchanges, caller, parts, asked)).await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = &answered {
        exchanges.recorder.refused(Refused { exchange: None, fault, topic: None, peer: None }).await;
    }
    Some(answered.map_or_else(
        |fault| exchange::refusal(Kind::Rest, &parts.headers, &fault, None, caller.bridge.as_deref()),
        |body| {
            let mut response = Response::new(Relayed::whole(body, None, None));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        },
    ))
}

fn read(parts: &Parts) -> Option<Result<Asked, Fault>> {
    if parts.method != Method::GET {
        return None;
    }
    let query = |name: &str| {
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    };
    if parts.uri.path() == "/listClients" {
        return Some(Ok(Asked::Clients(query("xRoadInstance"))));
    }
    let (subsystem, what) = parts.uri.path().strip_prefix("/r1/")?.rsplit_once('/')?;
    let subsystem: SubsystemId = subsystem.parse().ok()?;
    match what {
        "listMethods" => Some(Ok(Asked::Methods(subsystem, false))),
        "allowedMethods" => Some(Ok(Asked::Methods(subsystem, true))),
        "getOpenAPI" => Some(match query("serviceCode") {
            Some(code) => Ok(Asked::OpenApi(subsystem, code)),
            None => Err(invalid("name the service in the query: getOpenAPI?serviceCode=CODE")),
        }),
        _ => None,
    }
}

async fn tell(exchanges: &Exchanges, caller: &Caller, parts: &Parts, asked: Asked) -> Result<Bytes, Fault> {
    let snapshot = exchanges.trust.valid(Side::ClientServer)?;
    let (subsystem, allowed, code) = match asked {
        Asked::Clients(instance) => return clients(&snapshot.configuration, instance.as_deref()),
        Asked::Methods(subsystem, allowed) => (subsystem, allowed, String::new()),
        Asked::OpenApi(subsystem, code) => (subsystem, false, code),
    };
    let (client, only) = exchange::who_asks(caller, &parts.headers)?;
    let request = DescribeServicesRequest {
        client: client.to_string(),
        subsystem: subsystem.to_string(),
        service_code: code.clone(),
    };
    let described =
        describe(exchanges, &snapshot.configuration, only.as_ref(), (&subsystem, request)).await?;
    if !code.is_empty() {
        let mut services = described.services.into_iter().filter(|service| service.service_code == code);
        let description = services.next().map(|service| service.description).unwrap_or_default();
        return match description.is_empty() {
            false => Ok(description),
            true => {
                let why = format!("{subsystem}/{code} has no OpenAPI description");
                Err(Fault::before_call(Reason::UnknownService, Side::ProviderServer, why))
            }
        };
    }
    let services = described.services.iter().filter(|service| !allowed || !service.allowed.is_empty());
    let listed: Vec<Value> = services.map(|service| listed(&subsystem, service, allowed)).collect();
    Ok(json!({ "service": listed }).to_string().into())
}

fn clients(configuration: &Configuration, instance: Option<&str>) -> Result<Bytes, Fault> {
    if instance.is_some_and(|instance| instance != configuration.instance()) {
        return Err(invalid("this security server knows no such instance"));
    }
    let mut members = Vec::new();
    for member in configuration.members() {
        let mut id = json!({
            "xroad_instance": member.id.instance(), "member_class": member.id.class(),
            "member_code": member.id.code(), "object_type": "MEMBER",
        });
        members.push(json!({ "id": id, "name": member.name }));
        for subsystem in &member.subsystems {
            id["object_type"] = "SUBSYSTEM".into();
            id["subsystem_code"] = subsystem.code().into();
            let name = configuration.subsystem(subsystem).map(|entry| entry.name.as_str());
            members.push(json!({ "id": id, "name": member.name, "subsystem_name": name }));
        }
    }
    Ok(json!({ "member": members }).to_string().into())
}

fn listed(subsystem: &SubsystemId, service: &OfferedService, allowed: bool) -> Value {
    let member = subsystem.member();
    let endpoints = if allowed { &service.allowed } else { &service.endpoints };
    let endpoint = |endpoint: &OfferedEndpoint| json!({ "method": endpoint.method, "path": endpoint.path });
    json!({
        "xroad_instance": subsystem.instance(), "member_class": subsystem.class(),
        "member_code": member.code(), "subsystem_code": subsystem.code(),
        "service_code": service.service_code, "object_type": "SERVICE",
        "service_type": if service.described { "OPENAPI" } else if service.rest { "REST" } else { "GRPC" },
        "endpoint_list": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// Asks a security server on which the subsystem is registered.
async fn describe(
    exchanges: &Exchanges,
    configuration: &Configuration,
    only: Option<&ServerId>,
    (subsystem, request): (&SubsystemId, DescribeServicesRequest),
) -> Result<DescribeServicesResponse, Fault> {
    let why = format!("no security server offers services of {subsystem}");
    let mut last = Fault::before_call(Reason::UnknownMember, Side::Client, why);
    let wanted =
        |server: &&SecurityServerEntry| !server.is_suspended() && only.is_none_or(|only| server.id() == only);
    for server in exchanges.peers.ranked(configuration.servers_of(subsystem).filter(wanted)) {
        let asked = tokio::time::timeout(PATIENCE, async {
            let connection = exchanges.peers.connection(server).await;
            let connection = connection.map_err(|error| error.fault(Side::ClientServer))?;
            connection.client().describe_services(request.clone()).await.map_err(|status| {
                let why =
                    format!("the provider's security server does not tell: {}", plain(status.message()));
                Fault::before_call(Reason::NetworkError, Side::ProviderServer, why)
            })
        });
        match asked.await {
            Ok(Ok(described)) => return Ok(described.into_inner()),
            Ok(Err(fault)) => last = fault,
            Err(_) => {
                let why = format!("the security server {} did not answer in time", server.id());
                last = Fault::before_call(Reason::NetworkError, Side::ClientServer, why);
            }
        }
    }
    Err(last)
}

/// What a subsystem offers here, and what of it `client` may call. The description goes with the one service that is
/// named.
pub(crate) fn offered(
    exchanges: &Exchanges,
    client: &SubsystemId,
    subsystem: &SubsystemId,
    code: &str,
) -> DescribeServicesResponse {
    let mut services: Vec<Arc<crate::services::Service>> =
        exchanges.offers.load().services.of(subsystem).collect();
    services.sort_by_key(|service| service.id().clone());
    let snapshot = exchanges.trust.snapshot();
    let now = exchanges.clock.now();
    let circumstances = Circumstances { configuration: &snapshot.configuration, now };
    let describe = |service: Arc<crate::services::Service>| {
        let granted = exchanges.access.patterns(client, service.id(), circumstances);
        OfferedService {
            service_code: service.id().code().into(),
            rest: !service.is_grpc(),
            endpoints: service.endpoints().to_vec(),
            allowed: granted.iter().map(|pattern| endpoint(pattern)).collect(),
            described: service.description().is_some(),
            description: service
                .description()
                .filter(|_| service.id().code() == code)
                .cloned()
                .unwrap_or_default(),
        }
    };
    DescribeServicesResponse { services: services.into_iter().map(describe).collect() }
}

/// What a grant's pattern covers, as X-Road writes it.
fn endpoint(pattern: &str) -> OfferedEndpoint {
    let (method, path) = match pattern.split_once(' ') {
        Some((method, path)) => (method, path),
        None if pattern == "/*" => ("*", "**"),
        None => ("POST", pattern),
    };
    OfferedEndpoint { method: method.into(), path: path.into() }
}

fn invalid(why: &str) -> Fault {
    Fault::before_call(Reason::InvalidMessage, Side::Client, why)
}
