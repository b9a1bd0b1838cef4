//! What a server tells at its operator's door: a proof, which a stranger judges years later, its status, and who asked about a person.

use bytes::Bytes;
use tonic::Status;
use trave_gateway::config::Config;
use trave_host::client::Channel;
use trave_host::stubs::citizen::citizen_service_client::CitizenServiceClient;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, Proof, Report, Story, verify};
use trave_proto::schema::citizen::WhoAskedRequest;
use trave_proto::schema::operator::{ProofFormat, ProveRequest, StatusRequest, StatusResponse};

use super::START;
use super::instance::Instance;
use super::server::Server;

/// The verifier's clock: five years later.
const LATER: Time = Time::from_millis(START.as_millis() + 5 * 365 * 86_400_000);

/// The operator's own connection to a server.
pub async fn operator(server: &Server) -> OperatorServiceClient<Channel> {
    let socket = Config::read(&server.configuration_file()).unwrap().operator_socket();
    OperatorServiceClient::new(Channel::unix(&socket).await.unwrap())
}

/// How many exchanges about a person a server tells the person's representative.
pub async fn asked_about(server: &Server, person: &str) -> usize {
    let socket = Config::read(&server.configuration_file()).unwrap().operator_socket();
    let request = WhoAskedRequest { person: person.into(), reason: "Antrag 7".into(), after: None };
    let mut client = CitizenServiceClient::new(Channel::unix(&socket).await.unwrap());
    let mut entries = client.who_asked(request).await.unwrap().into_inner();
    let mut count = 0;
    while entries.message().await.unwrap().is_some() {
        count += 1;
    }
    count
}

/// The status as the operator reads it.
pub async fn status(server: &Server) -> StatusResponse {
    operator(server).await.status(StatusRequest {}).await.unwrap().into_inner()
}

/// The proof as the operator exports it.
pub async fn export(server: &Server, exchange: ExchangeId, without_content: bool) -> Bytes {
    try_export(server, exchange, without_content).await.unwrap()
}

/// The same, or what the server says where it exports none.
pub async fn try_export(
    server: &Server,
    exchange: ExchangeId,
    without_content: bool,
) -> Result<Bytes, String> {
    export_as(server, exchange, without_content, ProofFormat::Unspecified).await
}

/// The proof in one of its forms, or what the server says where it exports none.
pub async fn export_as(
    server: &Server,
    exchange: ExchangeId,
    without_content: bool,
    format: ProofFormat,
) -> Result<Bytes, String> {
    let request = ProveRequest {
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        without_content,
        reader: "Prüferin Muster".into(),
        reason: "Stichprobe".into(),
        format: format.into(),
    };
    let said = |status: Status| status.message().to_owned();
    let mut pieces = operator(server).await.prove(request).await.map_err(said)?.into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(said)? {
        file.extend_from_slice(&piece.chunk);
    }
    Ok(file.into())
}

/// What the verifier says of a proof.
pub fn judge(instance: &Instance, file: &Bytes) -> Report {
    verify(&Proof::parse(file.clone()).unwrap(), &instance.keys.anchor(), Some(LATER))
}

/// The story of a proof that holds.
///
/// # Panics
/// If it does not hold.
pub fn story(instance: &Instance, file: &Bytes) -> Story {
    let report = judge(instance, file);
    assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
    report.story.unwrap()
}
