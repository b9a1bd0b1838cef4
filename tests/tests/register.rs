//! The demonstration's register and client speak gRPC with each other before any security server stands between them.

use tokio::net::TcpListener;
use trave_tests::agency::{Connection, error_info, get, origin};
use trave_tests::gewerbe::erlaubnis_client::ErlaubnisClient;
use trave_tests::gewerbe::register_client::RegisterClient;
use trave_tests::gewerbe::{AuskunftRequest, IstGueltigRequest};
use trave_tests::register::{self, Calls, ERLAUBNIS, FIRMA, ORT};

#[tokio::test]
async fn it_answers_what_is_asked_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(register::serve(listener));
    let connection = Connection::open(&address).await.unwrap();

    let mut client = RegisterClient::with_origin(connection.clone(), origin(&address).unwrap());
    let record =
        client.auskunft(AuskunftRequest { firma: FIRMA.into(), ort: ORT.into() }).await.unwrap().into_inner();
    assert_eq!(record.firma, FIRMA);
    let unknown =
        client.auskunft(AuskunftRequest { firma: "Niemand".into(), ort: ORT.into() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    assert_eq!(error_info(&unknown), None);

    let mut client = ErlaubnisClient::with_origin(connection, origin(&address).unwrap());
    let question = IstGueltigRequest { firma: FIRMA.into(), ort: ORT.into(), erlaubnis: ERLAUBNIS.into() };
    assert!(client.ist_gueltig(question).await.unwrap().into_inner().gueltig);

    let (status, record) =
        get(&address, "/akten/v1/betriebe/Wismar/Tischlerei%20Wellenschlag").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&record).unwrap()["firma"], FIRMA);

    let (status, calls) = get(&address, "/calls").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_slice::<Calls>(&calls).unwrap(),
        Calls { auskunft: 2, ist_gueltig: 1, akten: 1 }
    );
    server.abort();
}
