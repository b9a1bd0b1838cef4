//! What a security server tells of its own health over gRPC: the same as over HTTP, and at once to whoever watches.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use trave_host::client::Channel;
use trave_tests::agency::get;
use trave_tests::network::{Instance, Plan, reserve};

const PATIENCE: Duration = Duration::from_secs(15);

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_over_grpc_and_to_whoever_watches() {
    let (_port, address) = reserve();
    let operations = format!("[operations]\nlisten = \"{address}\"\n");
    let mut instance = Instance::planned(Plan { at_provider: operations, ..Plan::default() }).await;
    let channel = Channel::plain(&address.to_string()).await.unwrap();
    let mut client = HealthClient::new(channel);
    let told = client.check(of("")).await.unwrap().into_inner();
    assert_eq!(told.status(), ServingStatus::Serving);
    assert_eq!(client.check(of("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut nobody = client.watch(of("nobody")).await.unwrap().into_inner();
    assert_eq!(nobody.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    let mut watched = client.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // No configuration is valid any more: nothing can be exchanged.
    instance.advance(Duration::from_secs(25 * 60 * 60));
    let next = tokio::time::timeout(PATIENCE, watched.message()).await.expect("who watches is told");
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(client.check(of("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    assert_eq!(get(&address.to_string(), "/healthz").await.unwrap().0, 503, "both tell the same");

    // A watch does not keep the server from its end.
    let ended = async {
        while let Ok(Some(_)) = watched.message().await {}
        while let Ok(Some(_)) = nobody.message().await {}
    };
    let stopped = async { tokio::join!(instance.mv.stop(), ended) };
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops");
    instance.stop().await;
}
