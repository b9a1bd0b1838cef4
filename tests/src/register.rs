//! An invented trade register: what it knows of one business, and how often it was asked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::gewerbe::erlaubnis_server::{Erlaubnis, ErlaubnisServer};
use crate::gewerbe::register_server::{Register, RegisterServer};
use crate::gewerbe::{Anschrift, AuskunftRequest, AuskunftResponse, IstGueltigRequest, IstGueltigResponse};

/// The business that the story is about.
pub const FIRMA: &str = "Tischlerei Wellenschlag";
/// Where it comes from.
pub const ORT: &str = "Wismar";
/// The licence that it holds.
pub const ERLAUBNIS: &str = "Tischlerhandwerk";

/// How often each service was called since the register started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Calls of `Register/Auskunft`.
    pub auskunft: u64,
    /// Calls of `Erlaubnis/IstGueltig`.
    pub ist_gueltig: u64,
    /// Records asked for over HTTP.
    pub akten: u64,
}

/// Serves the register on `listener` until it fails: gRPC over cleartext HTTP/2, and its counters at `/calls`, and records as JSON below `/akten`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let register = TradeRegister::default();
    let (counters, records) = (Arc::clone(&register.counters), Arc::clone(&register.counters));
    let routes = tonic::service::Routes::new(RegisterServer::new(register.clone()))
        .add_service(ErlaubnisServer::new(register))
        .into_axum_router()
        .route("/akten/v1/betriebe/{ort}/{firma}", get(move |place| record(records, place)))
        .route("/calls", get(move || async move { Json(counters.read()) }));
    axum::serve(listener, routes).await
}

/// The record of a business as JSON.
async fn record(
    counters: Arc<Counters>,
    Path((ort, firma)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, (StatusCode, Json<serde_json::Value>)> {
    counters.akten.fetch_add(1, Ordering::SeqCst);
    is_known(&firma, &ort)
        .map_err(|status| (StatusCode::NOT_FOUND, Json(json!({ "grund": status.message() }))))?;
    Ok(Json(json!({
        "firma": FIRMA,
        "rechtsform": "Einzelunternehmen",
        "inhaberin": "Fenja Wellenschlag",
        "anschrift": { "strasse": "Beispielgasse 7", "plz": "23966", "ort": ORT },
        "angemeldet_am": "2019-03-01",
        "erlaubnisse": [ERLAUBNIS],
    })))
}

#[derive(Default)]
struct Counters {
    auskunft: AtomicU64,
    ist_gueltig: AtomicU64,
    akten: AtomicU64,
}

impl Counters {
    fn read(&self) -> Calls {
        Calls {
            auskunft: self.auskunft.load(Ordering::SeqCst),
            ist_gueltig: self.ist_gueltig.load(Ordering::SeqCst),
            akten: self.akten.load(Ordering::SeqCst),
        }
    }
}

#[derive(Clone, Default)]
struct TradeRegister {
    counters: Arc<Counters>,
}

fn is_known(firma: &str, ort: &str) -> Result<(), Status> {
    if firma == FIRMA && ort == ORT {
        Ok(())
    } else {
        Err(Status::not_found("kein Gewerbe dieses Namens in diesem Ort"))
    }
}

#[tonic::async_trait]
impl Register for TradeRegister {
    async fn auskunft(
        &self,
        request: Request<AuskunftRequest>,
    ) -> Result<Response<AuskunftResponse>, Status> {
        self.counters.auskunft.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        is_known(&request.firma, &request.ort)?;
        Ok(Response::new(AuskunftResponse {
            firma: FIRMA.into(),
            rechtsform: "Einzelunternehmen".into(),
            inhaberin: "Fenja Wellenschlag".into(),
            anschrift: Some(Anschrift {
                strasse: "Beispielgasse 7".into(),
                plz: "23966".into(),
                ort: ORT.into(),
            }),
            taetigkeit: "Bau- und Möbeltischlerei".into(),
            angemeldet_am: "2019-03-01".into(),
            erlaubnisse: vec![ERLAUBNIS.into()],
        }))
    }
}

#[tonic::async_trait]
impl Erlaubnis for TradeRegister {
    async fn ist_gueltig(
        &self,
        request: Request<IstGueltigRequest>,
    ) -> Result<Response<IstGueltigResponse>, Status> {
        self.counters.ist_gueltig.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        is_known(&request.firma, &request.ort)?;
        Ok(Response::new(IstGueltigResponse { gueltig: request.erlaubnis == ERLAUBNIS }))
    }
}
