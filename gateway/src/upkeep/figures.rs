//! Figures about what goes on beside exchanges, for whoever watches many servers: what runs out when, and what is wrong.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{PeerStanding, Upkeep};
use crate::transport::Standing;

/// Read when somebody asks.
#[derive(Debug)]
pub(super) struct Figures(pub(super) Arc<Upkeep>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let upkeep = &self.0;
        let configuration = &upkeep.exchanges.trust.snapshot().configuration;
        let status_until = upkeep.exchanges.own.signer.load().status_until();
        let seconds = |time: Option<trave_proto::clock::Time>| time.map_or(0, |time| time.as_secs());
        for (name, help, value) in [
            (
                "trave_configuration_number",
                "Number of the global configuration in use",
                i64::try_from(configuration.number()).unwrap_or(i64::MAX),
            ),
            (
                "trave_configuration_valid_until_seconds",
                "End of its validity, seconds since 1970",
                configuration.valid_until().as_secs(),
            ),
            (
                "trave_signing_status_valid_until_seconds",
                "Until when the answer about the own signing certificate counts, seconds since 1970",
                status_until.as_secs(),
            ),
            (
                "trave_registry_seen_seconds",
                "When the registry last answered, seconds since 1970; 0 for not since start",
                seconds(upkeep.registry_seen()),
            ),
            (
                "trave_timestamp_seconds",
                "Time of the last timestamp over the message log, seconds since 1970; 0 for none",
                seconds(upkeep.sealed().map(|sealed| sealed.at)),
            ),
            (
                "trave_witnessed_records",
                "Records of the message log that are witnessed",
                upkeep
                    .witnessed()
                    .map_or(0, |it| i64::try_from(it.checkpoint.checkpoint.size).unwrap_or(i64::MAX)),
            ),
            (
                "trave_unstamped_since_seconds",
                "When the oldest record without a timestamp was logged, seconds since 1970; 0 where all have one",
                seconds(upkeep.unstamped().map(|lapse| lapse.since)),
            ),
            (
                "trave_unwitnessed_since_seconds",
                "The same for the witnesses that the policy asks for; 0 where none is missing",
                seconds(upkeep.unwitnessed().map(|lapse| lapse.since)),
            ),
            (
                "trave_warnings",
                "What an operator should look at: /healthz tells it in words",
                i64::try_from(upkeep.concerns().len()).unwrap_or(i64::MAX),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        self.peers(&mut encoder)?;
        self.reconciled(&mut encoder)?;
        self.backends(&mut encoder)
    }
}

/// A figure of a register's server.
type BackendFigure = fn(&crate::services::Standing) -> i64;

/// A figure of a comparison with another server's log.
type ComparedFigure = fn(&PeerStanding) -> u64;

/// A figure of a standing.
type Figure = fn(&Standing) -> i64;

impl Figures {
    /// How the security servers stand that were asked since start.
    fn peers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let standings = self.0.exchanges.peers.standings();
        let figures: [(_, _, Figure); 3] = [
            ("trave_peer_under_way", "Exchanges that a security server is asked now", |standing| {
                i64::try_from(standing.under_way).unwrap_or(i64::MAX)
            }),
            ("trave_peer_failures", "How often it failed since it last answered", |standing| {
                standing.failures.into()
            }),
            ("trave_peer_ejected", "1 where it is left alone, because it failed", |standing| {
                i64::from(!standing.ejected_for.is_zero())
            }),
        ];
        for (name, help, value) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for standing in &standings {
                let gauge = ConstGauge::new(value(standing));
                gauge.encode(family.encode_family(&[("server", standing.server.as_str())])?)?;
            }
        }
        Ok(())
    }

    /// What comparisons with other servers' logs found.
    fn reconciled(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let standings = self.0.reconciled();
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let figures: [(_, _, ComparedFigure); 5] = [
            (
                "trave_reconciled_until_seconds",
                "End of the last hour that was compared with its log, seconds since 1970",
                |standing| u64::try_from(standing.until.as_secs()).unwrap_or(0),
            ),
            ("trave_messages_missing_here", "Messages that its log holds and this one lacks", |standing| {
                standing.missing_here
            }),
            ("trave_messages_missing_there", "Messages that this log holds and its log lacks", |standing| {
                standing.missing_there
            }),
            ("trave_messages_differing", "Messages of which the two logs hold different ones", |standing| {
                standing.differing
            }),
            (
                "trave_hours_unexplained",
                "Hours in which the logs differ, and nothing explains it",
                |standing| standing.unexplained,
            ),
        ];
        for (name, help, value) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for standing in &standings {
                let gauge = ConstGauge::new(count(value(standing)));
                gauge.encode(family.encode_family(&[("server", standing.peer.as_str())])?)?;
            }
        }
        Ok(())
    }

    /// How the servers of the registers stand.
    fn backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let standings = self.0.exchanges.offers.load().services.standings();
        let figures: [(_, _, BackendFigure); 3] = [
            (
                "trave_backend_under_way",
                "Calls that a register's server has not answered to the end",
                |standing| i64::try_from(standing.under_way).unwrap_or(i64::MAX),
            ),
            ("trave_backend_failures", "How often it failed since it last answered", |standing| {
                standing.failures.into()
            }),
            ("trave_backend_ejected", "1 where it is left alone, because it failed", |standing| {
                i64::from(!standing.ejected_for.is_zero())
            }),
        ];
        for (name, help, value) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (service, standing) in &standings {
                let labels = [("service", service.as_str()), ("backend", standing.address.as_str())];
                ConstGauge::new(value(standing)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
