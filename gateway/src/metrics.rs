//! Figures of this server in Prometheus' format. Nothing in them names a person, a case or a key.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use trave_host::listen::Counts;
use trave_message_log::Log;
use trave_message_log::batching::Gauge;

use crate::signer::SigningCounters;

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
    made_again: Counter,
    persons: Family<PersonLabels, Counter>,
}

/// On which side a person concerned was looked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PersonLabels {
    /// "client" or "provider".
    role: &'static str,
    /// "header", "request", "unreadable" or "nobody".
    event: &'static str,
}

impl Metrics {
    /// Makes them known to `registry`, with what log and signer count themselves.
    pub(crate) fn register(
        registry: &mut Registry,
        log: &Log,
        signing: &Arc<SigningCounters>,
        gauge: &Gauge,
    ) -> Self {
        registry.register_collector(Box::new(Counted {
            log: log.clone(),
            signing: Arc::clone(signing),
            gauge: gauge.clone(),
        }));
        let exchanges = Family::default();
        let seconds = Arc::new(Histogram::new(exponential_buckets(0.000_5, 2.0, 16)));
        registry.register("trave_exchanges", "Exchanges that ended, by role and outcome", exchanges.clone());
        registry.register(
            "trave_exchange_seconds",
            "Time from the first byte of a call to its end, in seconds",
            Histogram::clone(&seconds),
        );
        let made_again = Counter::default();
        registry.register(
            "trave_calls_made_again",
            "Calls that a security server did not take up and that were made again, as other exchanges",
            made_again.clone(),
        );
        let persons = Family::default();
        registry.register(
            "trave_persons",
            "Requests in which a person concerned was looked for, by where one was named or why none was",
            persons.clone(),
        );
        Self { exchanges, seconds, made_again, persons }
    }

    /// Counts a call that was not taken up and is made again.
    pub(crate) fn made_again(&self) {
        self.made_again.inc();
    }

    /// Counts what came of looking for a person concerned.
    pub(crate) fn person(&self, role: &'static str, event: &'static str) {
        self.persons.get_or_create(&PersonLabels { role, event }).inc();
    }

    /// Counts the end of an exchange.
    pub(crate) fn ended(&self, role: &'static str, outcome: &'static str, took: Duration) {
        self.exchanges.get_or_create(&Labels { role, outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// Makes known what happens at the doors, each by its name.
pub(crate) fn register_doors(registry: &mut Registry, doors: Vec<(String, Arc<Counts>)>) {
    registry.register_collector(Box::new(Doors(doors)));
}

#[derive(Debug)]
struct Doors(Vec<(String, Arc<Counts>)>);

impl Collector for Doors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (name, help) = ("trave_connections", "Connections at each door, by what became of them");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (door, counts) in &self.0 {
            for (event, value) in [
                ("accepted", counts.accepted()),
                ("full", counts.full()),
                ("refused", counts.refused()),
                ("broken_off", counts.broken_off()),
            ] {
                let labels = [("door", door.as_str()), ("event", event)];
                ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// What other parts count, read when somebody asks.
#[derive(Debug)]
struct Counted {
    log: Log,
    signing: Arc<SigningCounters>,
    gauge: Gauge,
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (log, signing) = (self.log.counters(), &self.signing);
        for (name, help, value) in [
            ("trave_messages_signed", "Messages signed", signing.messages()),
            ("trave_signatures", "Signatures made for them", signing.signatures()),
            ("trave_log_records", "Records made durable", log.records()),
            ("trave_log_groups", "Groups of records written", log.groups()),
            ("trave_log_syncs", "Calls of fdatasync for them", log.syncs()),
            ("trave_log_bytes", "Bytes written to the log's segments", log.bytes()),
        ] {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let in_flight = ConstGauge::new(i64::try_from(self.gauge.count()).unwrap_or(i64::MAX));
        let name = "trave_exchanges_in_flight";
        let metric = encoder.encode_descriptor(name, "Exchanges under way", None, in_flight.metric_type())?;
        in_flight.encode(metric)
    }
}
