//! What the operator is told of access: its history from the log, and why a call would be allowed or refused.

use tokio::sync::mpsc;
use tonic::Status;
use trave_message_log::{Log, LogError, kind};
use trave_proto::access::Endpoint;
use trave_proto::clock::Time;
use trave_proto::path::Canonical;
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::list_changes_response::Change;
use trave_proto::schema::operator::{
    ExplainGrantRequest, ExplainGrantResponse, ExplainedGrant, ListChangesRequest, ListChangesResponse,
};
use trave_proto::search::given;

use super::grants::listed;
use super::{Desk, WAITING, log_failed, reading, words};
use crate::access::Question;

type Changes = mpsc::Receiver<Result<ListChangesResponse, Status>>;

impl Desk {
    /// The changes of grants and groups, the earliest first. That somebody reads them is logged before anything is shown.
    pub(super) async fn changes(
        &self,
        request: ListChangesRequest,
        reader: String,
    ) -> Result<Changes, Status> {
        let reason = words("the reason for reading the log", &request.reason)?;
        given("id", request.id.as_deref()).map_err(|empty| Status::invalid_argument(empty.to_string()))?;
        let (log, id) = (self.exchanges.recorder.log().clone(), request.id);
        let query = id.as_ref().map_or_else(|| "grant history".into(), |id| format!("grant history {id:?}"));
        let found = reading({
            let log = log.clone();
            move || places(&log, id.as_deref())
        });
        let found = found.await?;
        self.log_read(LogRead { reader, reason, query, results: found.len() as u64 }).await?;
        let (sender, changes) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            for index in found {
                let change = told(&log, index).map_err(|error| log_failed(&error));
                // A reader who has gone needs no more.
                if sender.blocking_send(change).is_err() {
                    return;
                }
            }
        });
        Ok(changes)
    }

    /// Why a call would be allowed or refused.
    pub(super) fn explained(&self, request: &ExplainGrantRequest) -> Result<ExplainGrantResponse, Status> {
        let now = self.exchanges.clock.now();
        let question = question(request, now)?;
        let snapshot = self.exchanges.trust.snapshot();
        let explained = self.exchanges.access.explain(&question, &snapshot.configuration);
        let allowed = explained.iter().find(|one| one.misfits.is_empty());
        Ok(ExplainGrantResponse {
            allowed_by: allowed.map(|one| one.grant.id().to_owned()).unwrap_or_default(),
            obstacles: self.obstacles(&question),
            grants: explained
                .into_iter()
                .map(|one| ExplainedGrant {
                    grant: Some(listed(&one.grant, one.waiting)),
                    misfits: one.misfits,
                    notes: one.notes,
                })
                .collect(),
        })
    }

    /// What refuses the call before any grant is looked at.
    fn obstacles(&self, question: &Question) -> Vec<String> {
        let snapshot = self.exchanges.trust.snapshot();
        let configuration = &snapshot.configuration;
        let mut obstacles = Vec::new();
        let mut unless = |known: bool, what: String| {
            if !known {
                obstacles.push(what);
            }
        };
        let Question { client, service, purpose, legal_basis, .. } = question;
        let listed = configuration.service(service);
        unless(
            configuration.subsystem(client).is_some(),
            format!("the global configuration does not know the client {client}"),
        );
        unless(listed.is_some(), format!("the catalogue does not know the service {service}"));
        let offered = self.exchanges.service(service).is_some();
        unless(offered, format!("this security server does not offer {service}"));
        if let Some(listed) = listed {
            let fits = match &question.method {
                Some(method) => listed.has_method(method),
                None => !listed.is_grpc,
            };
            unless(fits, format!("the catalogue knows no such method or endpoint of {service}"));
            let purpose = purpose.as_str();
            let known = listed.allows_purpose(purpose) && configuration.purpose(purpose).is_some();
            unless(known, format!("{purpose} is not a purpose for which {service} may be called"));
        }
        unless(
            configuration.legal_basis(legal_basis.as_str()).is_some(),
            format!("the catalogue does not know the legal basis {legal_basis}"),
        );
        obstacles
    }
}

fn question(request: &ExplainGrantRequest, now: Time) -> Result<Question, Status> {
    fn read<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Status> {
        text.parse().map_err(|why| Status::invalid_argument(format!("the {what} is not valid: {why}")))
    }
    let endpoint = match (request.method.is_empty(), request.endpoint.is_empty()) {
        (false, true) => None,
        (true, false) => {
            let destination = (!request.destination.is_empty()).then_some(request.destination.as_str());
            Some(endpoint(&request.endpoint, destination).map_err(Status::invalid_argument)?)
        }
        _ => return Err(Status::invalid_argument("name either a gRPC method or an endpoint")),
    };
    let method = (!request.method.is_empty()).then(|| read("method", &request.method)).transpose()?;
    Ok(Question {
        client: read("client", &request.client)?,
        service: read("service", &request.service)?,
        method,
        endpoint,
        purpose: read("purpose", &request.purpose)?,
        legal_basis: read("legal basis", &request.legal_basis)?,
        at: request.at_ms.map_or(now, Time::from_millis),
    })
}

/// `GET /path`, the path as it would be decided on.
fn endpoint(text: &str, destination: Option<&str>) -> Result<Endpoint, String> {
    let (method, path) = text.split_once(' ').ok_or("an endpoint reads GET /path")?;
    let canonical = |path| Canonical::of(path).map(|path| path.as_str().to_owned());
    let (path, destination) = (canonical(path)?, destination.map(canonical).transpose()?);
    Ok(Endpoint { method: method.into(), path, destination })
}

/// Where the changes stand that concern `id`, or all changes.
fn places(log: &Log, asked: Option<&str>) -> Result<Vec<u64>, LogError> {
    let mut places = Vec::new();
    for record in log.scan_kind(kind::GRANT, 0).chain(log.scan_kind(kind::GROUP, 0)) {
        let record = record?;
        let concerns = asked.is_none_or(|id| match &record.leaf.entry {
            Some(LeafEntry::Grant(grant)) => grant.id == id,
            Some(LeafEntry::Group(group)) => {
                group.id == id || id.strip_prefix("local-group:") == Some(group.group.as_str())
            }
            _ => false,
        });
        if concerns {
            places.push(record.index);
        }
    }
    places.sort_unstable();
    Ok(places)
}

fn told(log: &Log, index: u64) -> Result<ListChangesResponse, LogError> {
    let leaf = log.leaf(index)?;
    let change = match leaf.entry {
        Some(LeafEntry::Grant(grant)) => Some(Change::Grant(grant)),
        Some(LeafEntry::Group(group)) => Some(Change::Group(group)),
        _ => None,
    };
    Ok(ListChangesResponse { time_ms: leaf.logged_ms, index, change })
}
