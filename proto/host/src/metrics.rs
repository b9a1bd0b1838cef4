//! What a monitoring system asks a server: is it well (`/healthz`), and its figures (`/metrics`, OpenMetrics text as
//! Prometheus reads it). Figures never name persons, contents or keys.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does its work; what an operator should look at stands in the list.
    Serving(Vec<String>),
    /// It cannot do its work, for these reasons.
    Failing(Vec<String>),
}

/// Serves `/healthz` (200 or 503, with one line for each warning or reason) and `/metrics`.
pub fn router(figures: Arc<Registry>, health: impl Fn() -> Health + Clone + Send + Sync + 'static) -> Router {
    let metrics = move || {
        let figures = Arc::clone(&figures);
        async move { exposition(&figures) }
    };
    let health = move || {
        let health = health();
        async move { verdict(health) }
    };
    Router::new().route("/healthz", get(health)).route("/metrics", get(metrics))
}

fn exposition(figures: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, figures) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n").into_response(),
    }
}

fn verdict(health: Health) -> Response {
    let (status, word, lines) = match health {
        Health::Serving(warnings) => (StatusCode::OK, "serving", warnings),
        Health::Failing(reasons) => (StatusCode::SERVICE_UNAVAILABLE, "failing", reasons),
    };
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    (status, format!("{word}\n{text}")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn figures_and_health_are_told() {
        let mut figures = Registry::default();
        let exchanges: Counter = Counter::default();
        figures.register("exchanges", "Exchanges answered", exchanges.clone());
        exchanges.inc_by(3);
        let figures = Arc::new(figures);
        let well = router(Arc::clone(&figures), || Health::Serving(vec!["disk 91 % full".to_owned()]));
        let (status, text) = ask(&well, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("exchanges_total 3\n") && text.ends_with("# EOF\n"), "{text}");
        assert_eq!(ask(&well, "/healthz").await, (StatusCode::OK, "serving\ndisk 91 % full\n".to_owned()));

        let ill = router(figures, || Health::Failing(vec!["no configuration in force".to_owned()]));
        let (status, text) = ask(&ill, "/healthz").await;
        assert_eq!((status.as_u16(), text.as_str()), (503, "failing\nno configuration in force\n"));
    }
}
