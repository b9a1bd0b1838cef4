//! Figures of this server in Prometheus' format. Nothing in them names a person, a case or a key.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// On which side of an exchange this server was, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// "client" or "provider".
    role: &'static str,
    /// "answered", or the reason of the fault.
    outcome: &'static str,
}

/// The figures that exchanges count.
#[derive(Debug, Clone)]
pub struct Metrics {
    exchanges: Family<Labels, Counter>,
    seconds: Arc<Histogram>,
}

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let exchanges = Family::default();
        let seconds = Arc::new(Histogram::new(exponential_buckets(0.000_5, 2.0, 16)));
        registry.register("trave_exchanges", "Exchanges that ended, by role and outcome", exchanges.clone());
        registry.register(
            "trave_exchange_seconds",
            "Time from the first byte of a call to its end, in seconds",
            Histogram::clone(&seconds),
        );
        Self { exchanges, seconds }
    }

    /// Counts the end of an exchange.
    pub(crate) fn ended(&self, role: &'static str, outcome: &'static str, took: Duration) {
        self.exchanges.get_or_create(&Labels { role, outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
