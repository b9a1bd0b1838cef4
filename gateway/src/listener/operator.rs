//! The door for the operator of this security server: a Unix socket that its owner alone can open, and whom the
//! configuration names. Whatever is read or
//! changed here is logged first, with the user's number as the system tells it.

mod disk;
mod erasures;
mod grants;
mod groups;
mod holds;
mod told;
mod persons;
mod pruning;
mod reconciling;

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::listen::{Connection, Limits, Listener, TowerToHyperService};
use trave_host::stubs::operator::operator_service_server::{OperatorService, OperatorServiceServer};
use trave_message_log::LogError;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::{
    AcknowledgeAlarmRequest, AcknowledgeAlarmResponse, ApproveRequest, ApproveResponse, ChangeGroupRequest,
    ChangeGroupResponse, CheckLogRequest, CheckLogResponse, DiskReportRequest, DiskReportResponse,
    DropErasureRequest, DropErasureResponse, DropPruningRequest, DropPruningResponse, ErasePersonRequest,
    ErasePersonResponse, EraseRequest, EraseResponse, ExplainGrantRequest, ExplainGrantResponse,
    GrantRequest, GrantResponse, LiftHoldRequest, LiftHoldResponse, ListAlarmsRequest, ListAlarmsResponse,
    ListChangesRequest, ListChangesResponse, ListErasuresRequest, ListErasuresResponse, ListGrantsRequest,
    ListGrantsResponse, ListGroupsRequest, ListGroupsResponse, ListHoldsRequest, ListHoldsResponse,
    ListLogRequest, ListLogResponse, ListPruningsRequest, ListPruningsResponse, ListReconciliationsRequest,
    ListReconciliationsResponse, ProofFormat, ProveRequest, ProveResponse, PruneRequest, PruneResponse,
    ReconcileRequest, ReconcileResponse, RevokeGrantRequest, RevokeGrantResponse, SetHoldRequest,
    SetHoldResponse, StatusRequest, StatusResponse,
};

use super::citizen;
use crate::access::Waiting;
use crate::exchange::Exchanges;
use crate::generations::Generations;
use crate::journal::{self, Query};
use crate::proof::{self, Contents, ExportError};
use crate::upkeep::{Lapse, Upkeep};

use grants::listed;
pub(crate) use persons::Policy;

/// The operator's programs at a time.
const CONNECTIONS: usize = 16;
/// Longest request, in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Entries and pieces that wait for a slow reader.
const WAITING: usize = 16;
/// Bytes of a proof in one answer.
const PIECE: usize = 256 * 1024;
/// Longest name or reason that is logged, in characters.
const MAX_WORDS: usize = 500;

/// Serves until the server drains.
pub(crate) async fn serve(
    listener: Listener,
    policy: Policy,
    (exchanges, upkeep): (Arc<Exchanges>, Arc<Upkeep>),
    drain: Drain,
) {
    let (changes, exports, tasks) = (Arc::default(), Arc::default(), drain.clone());
    let citizens = citizen::for_operator(&exchanges, &upkeep);
    let desk = Desk { exchanges, upkeep, policy, changes, exports, tasks };
    let service = OperatorServiceServer::new(desk).max_decoding_message_size(MAX_REQUEST);
    let router = tonic::service::Routes::new(service).add_service(citizens).into_axum_router();
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let listener = listener.with_limits(limits);
    listener.serve(drain, move |_: &mut Connection| TowerToHyperService::new(router.clone())).await;
}

#[derive(Debug, Clone)]
struct Desk {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    policy: Policy,
    /// Grants change one at a time: logged, then in force, in the same order.
    changes: Arc<Mutex<()>>,
    exports: Arc<Mutex<()>>,
    tasks: Drain,
}

impl Desk {
    /// Runs `act` to its end, also if the operator's program goes away meanwhile.
    async fn whole<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let done = self.tasks.spawn(act).await.ok().flatten();
        done.unwrap_or_else(|| Err(Status::unavailable("this security server is stopping")))
            .map(Response::new)
    }

    /// The generations of the log before this one.
    fn generations(&self) -> Arc<Generations> {
        Arc::clone(self.upkeep.erasing().generations())
    }

    /// Logs that somebody reads, before anything is shown.
    async fn log_read(&self, read: LogRead) -> Result<(), Status> {
        let logged = self.exchanges.recorder.event(LeafEntry::Read(read), Vec::new()).await;
        logged.map(|_| ()).map_err(|error| log_failed(&error))
    }
}

/// Who is at the other end, for the record.
pub(super) fn who<T>(request: &Request<T>, declared: &str) -> Result<String, Status> {
    persons::person(request, declared).map(|person| person.name)
}

/// Text that is logged: of one line, not empty, not endless.
pub(super) fn words(what: &str, text: &str) -> Result<String, Status> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("{what} is missing")));
    }
    if text.chars().count() > MAX_WORDS || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "{what} is not one line of at most {MAX_WORDS} characters"
        )));
    }
    Ok(text.to_owned())
}

fn exchange_id(bytes: &[u8]) -> Result<ExchangeId, Status> {
    ExchangeId::from_slice(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn log_failed(error: &LogError) -> Status {
    Status::unavailable(format!("the message log failed: {}", with_causes(error)))
}

/// Runs what reads the disk where nobody waits for it.
pub(super) async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Status> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|_| Status::internal("reading the message log failed"))?.map_err(|error| log_failed(&error))
}

fn export_failed(error: &ExportError) -> Status {
    let code = match error {
        ExportError::Unknown(_) | ExportError::Expired(..) => Code::NotFound,
        ExportError::NoMessages(_) | ExportError::TooLarge | ExportError::NeverSealed(..) => {
            Code::FailedPrecondition
        }
        ExportError::Seal(_) | ExportError::Stamp(_) | ExportError::Key(_) => Code::Unavailable,
        ExportError::Container(error) if proof::is_mismatch(error) => Code::DataLoss,
        ExportError::Mismatch { .. } | ExportError::DoesNotHold(_) => Code::DataLoss,
        _ => Code::Internal,
    };
    Status::new(code, with_causes(error))
}

#[tonic::async_trait]
impl OperatorService for Desk {
    async fn grant(&self, request: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.make_grant(request, person).await }).await
    }

    async fn revoke_grant(
        &self,
        request: Request<RevokeGrantRequest>,
    ) -> Result<Response<RevokeGrantResponse>, Status> {
        // To take away needs one person, whoever it is: that is the safe direction.
        let person = persons::person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.withdraw_grant(&request.id, person).await }).await
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<ApproveResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move {
            match request.id.split_once('-') {
                Some(("h", _)) => desk.approve_hold(&request.id, person).await,
                Some(("e" | "n", _)) => desk.approve_erasure(&request.id, person).await,
                Some(("p", _)) => desk.approve_pruning(&request.id, person).await,
                _ => desk.approve_change(&request.id, person).await,
            }
        })
        .await
    }

    async fn change_group(
        &self,
        request: Request<ChangeGroupRequest>,
    ) -> Result<Response<ChangeGroupResponse>, Status> {
        let asked = request.get_ref();
        let person = match asked.add.is_empty() {
            true => persons::person(&request, &asked.operator)?,
            false => self.policy.person(&request, &asked.operator)?,
        };
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.change_group(request, person).await }).await
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        Ok(Response::new(self.groups()))
    }

    type ListChangesStream = ReceiverStream<Result<ListChangesResponse, Status>>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<Self::ListChangesStream>, Status> {
        let reader = who(&request, &request.get_ref().reader)?;
        let changes = self.changes(request.into_inner(), reader).await?;
        Ok(Response::new(ReceiverStream::new(changes)))
    }

    async fn explain_grant(
        &self,
        request: Request<ExplainGrantRequest>,
    ) -> Result<Response<ExplainGrantResponse>, Status> {
        self.explained(request.get_ref()).map(Response::new)
    }

    async fn list_grants(
        &self,
        _: Request<ListGrantsRequest>,
    ) -> Result<Response<ListGrantsResponse>, Status> {
        let access = &self.exchanges.access;
        let mut grants: Vec<_> = access.list().iter().map(|grant| listed(grant, false)).collect();
        grants.extend(access.waiting().iter().filter_map(|waits| match waits {
            Waiting::Grant(grant) => Some(listed(grant, true)),
            Waiting::Group(_) => None,
        }));
        Ok(Response::new(ListGrantsResponse { grants }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (exchanges, log) = (&self.exchanges, self.exchanges.recorder.log());
        let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
        let (checkpoint, sealed) = (log.latest_checkpoint(), self.upkeep.sealed());
        let (witnessed, now) = (self.upkeep.witnessed(), exchanges.clock.now());
        let by = witnessed.as_ref().map(|it| it.by(configuration.witnesses(), now)).unwrap_or_default();
        let (unstamped, unwitnessed) = (self.upkeep.unstamped(), self.upkeep.unwitnessed());
        let since = |lapse: Option<Lapse>| lapse.map_or(0, |lapse| lapse.since.as_millis());
        let left = |lapse: Option<Lapse>| lapse.and_then(|lapse| lapse.left(now)).map(millis);
        Ok(Response::new(StatusResponse {
            server: exchanges.own.server.to_string(),
            release: env!("CARGO_PKG_VERSION").into(),
            configuration_number: configuration.number(),
            configuration_valid_until_ms: configuration.valid_until().as_millis(),
            registry_seen_ms: self.upkeep.registry_seen().map_or(0, |at| at.as_millis()),
            log_size: log.size(),
            checkpoint_size: checkpoint.map_or(0, |checkpoint| checkpoint.checkpoint.size),
            checkpoint_ms: self.upkeep.checkpointed().map_or(0, |at| at.as_millis()),
            timestamp_ms: sealed.map_or(0, |sealed| sealed.at.as_millis()),
            exchanges_in_flight: exchanges.gauge.count() as u64,
            warnings: self.upkeep.concerns(),
            log_origin: exchanges.own.log_origin.clone(),
            witnessed_size: witnessed.map_or(0, |it| it.checkpoint.checkpoint.size),
            witnessed_ms: by.iter().map(|(_, at)| at.as_millis()).max().unwrap_or(0),
            witnessed_by: by
                .iter()
                .map(|(witness, _)| format!("{} ({})", witness.verifier.name(), witness.class))
                .collect(),
            has_witnesses: !configuration.witnesses().is_empty(),
            unstamped_since_ms: since(unstamped),
            unstamped_left_ms: left(unstamped),
            unwitnessed_since_ms: since(unwitnessed),
            unwitnessed_left_ms: left(unwitnessed),
            peers: exchanges.peers.standings().into_iter().map(Into::into).collect(),
            backends: exchanges.offers.load().services.backends(),
            reconciled: self.upkeep.reconciled().into_iter().map(reconciling::told).collect(),
        }))
    }

    type ListLogStream = ReceiverStream<Result<ListLogResponse, Status>>;

    async fn list_log(
        &self,
        request: Request<ListLogRequest>,
    ) -> Result<Response<Self::ListLogStream>, Status> {
        let reader = who(&request, &request.get_ref().reader)?;
        let request = request.into_inner();
        let reason = words("the reason for reading the log", &request.reason)?;
        let query = Query::read(&request).map_err(Status::invalid_argument)?;
        let (log, begun, asked) =
            (self.exchanges.recorder.log().clone(), self.upkeep.begun(), query.to_string());
        let generations = self.generations();
        let found = reading(move || {
            let mut found = Vec::new();
            // The latest first, until there are enough; told the earliest first.
            let earlier = generations.all().iter().rev().map(|one| (one.log().clone(), u64::MAX));
            for (log, begun) in [(log, begun)].into_iter().chain(earlier) {
                let query = query.up_to(found.len());
                let here = journal::find(&log, &query, begun)?.into_iter();
                found.splice(0..0, here.map(|one| (log.clone(), one, begun)));
            }
            Ok(found)
        });
        let found = found.await?;
        self.log_read(LogRead { reader, reason, query: asked, results: found.len() as u64 }).await?;
        let (sender, entries) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            for (log, one, begun) in found {
                let entry = journal::entry(&log, one, begun).map_err(|error| log_failed(&error));
                let Some(entry) = entry.transpose() else { continue };
                // A reader who has gone needs no more.
                if sender.blocking_send(entry).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(entries)))
    }

    type ProveStream = ReceiverStream<Result<ProveResponse, Status>>;

    async fn prove(&self, request: Request<ProveRequest>) -> Result<Response<Self::ProveStream>, Status> {
        let reader = who(&request, &request.get_ref().reader)?;
        let request = request.into_inner();
        let reason = words("the reason for exporting a proof", &request.reason)?;
        let id = exchange_id(&request.exchange_id)?;
        let log = self.exchanges.recorder.log().clone();
        let records = reading(move || log.places(id)).await?;
        let what = match request.format() {
            ProofFormat::Unspecified => "proof",
            ProofFormat::Asice => "container",
        };
        let without = if request.without_content { " without contents" } else { "" };
        let (query, results) = (format!("{what}{without} of {id}"), records.len() as u64);
        self.log_read(LogRead { reader, reason, query, results }).await?;
        // One at a time: a proof is put together in memory.
        let _turn = self.exports.lock().await;
        let contents = Contents::all_if(!request.without_content);
        let (exchanges, upkeep) = (&self.exchanges, &self.upkeep);
        let file = match request.format() {
            ProofFormat::Unspecified => proof::export(exchanges, upkeep, id, contents).await,
            ProofFormat::Asice => proof::export_container(exchanges, upkeep, id, contents).await,
        };
        let expired = upkeep.retaining.expired(id, self.exchanges.clock.now());
        let file = file.map_err(|error| export_failed(&error.or_expired(id, expired)))?;
        let (sender, pieces) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut rest = file;
            while !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(PIECE));
                if sender.send(Ok(ProveResponse { chunk })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.erase_exchange(request, person).await }).await
    }

    async fn erase_person(
        &self,
        request: Request<ErasePersonRequest>,
    ) -> Result<Response<ErasePersonResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.erase_all_of(request, person).await }).await
    }

    async fn list_erasures(
        &self,
        _: Request<ListErasuresRequest>,
    ) -> Result<Response<ListErasuresResponse>, Status> {
        Ok(Response::new(self.erasures()))
    }

    async fn drop_erasure(
        &self,
        request: Request<DropErasureRequest>,
    ) -> Result<Response<DropErasureResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.drop_erasure(request, person).await }).await
    }

    async fn set_hold(&self, request: Request<SetHoldRequest>) -> Result<Response<SetHoldResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.set_hold(request, person).await }).await
    }

    async fn lift_hold(
        &self,
        request: Request<LiftHoldRequest>,
    ) -> Result<Response<LiftHoldResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.lift_hold(request, person).await }).await
    }

    async fn list_holds(&self, _: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        Ok(Response::new(self.holds()))
    }

    async fn disk_report(
        &self,
        _: Request<DiskReportRequest>,
    ) -> Result<Response<DiskReportResponse>, Status> {
        self.disk().await.map(Response::new)
    }

    async fn check_log(&self, _: Request<CheckLogRequest>) -> Result<Response<CheckLogResponse>, Status> {
        let log = self.exchanges.recorder.log().clone();
        let report = reading(move || Ok(log.check())).await?;
        Ok(Response::new(CheckLogResponse {
            records: report.records,
            contents: report.contents,
            erased: report.erased,
            problems: report.problems,
            pruned: report.pruned,
            expired: report.expired,
        }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.prune_log(request, person).await }).await
    }

    async fn list_prunings(
        &self,
        _: Request<ListPruningsRequest>,
    ) -> Result<Response<ListPruningsResponse>, Status> {
        self.prunings().await.map(Response::new)
    }

    async fn drop_pruning(
        &self,
        request: Request<DropPruningRequest>,
    ) -> Result<Response<DropPruningResponse>, Status> {
        // To keep what is here needs one person, whoever it is: that is the safe direction.
        let person = persons::person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { Desk::drop_pruning(&desk, request, person).await }).await
    }

    type ReconcileStream = ReceiverStream<Result<ReconcileResponse, Status>>;

    async fn reconcile(
        &self,
        request: Request<ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let found = self.compare(request.get_ref())?;
        Ok(Response::new(ReceiverStream::new(found)))
    }

    async fn list_alarms(
        &self,
        _: Request<ListAlarmsRequest>,
    ) -> Result<Response<ListAlarmsResponse>, Status> {
        Ok(Response::new(self.alarms()))
    }

    async fn acknowledge_alarm(
        &self,
        request: Request<AcknowledgeAlarmRequest>,
    ) -> Result<Response<AcknowledgeAlarmResponse>, Status> {
        let person = self.policy.person(&request, &request.get_ref().operator)?;
        let (desk, request) = (self.clone(), request.into_inner());
        self.whole(async move { desk.acknowledge_alarm(request, person).await }).await
    }

    type ListReconciliationsStream = ReceiverStream<Result<ListReconciliationsResponse, Status>>;

    async fn list_reconciliations(
        &self,
        request: Request<ListReconciliationsRequest>,
    ) -> Result<Response<Self::ListReconciliationsStream>, Status> {
        let reader = who(&request, &request.get_ref().reader)?;
        let found = self.compared(request.into_inner(), reader).await?;
        Ok(Response::new(ReceiverStream::new(found)))
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
