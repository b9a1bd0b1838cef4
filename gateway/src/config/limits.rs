//! How much at once, how large, how slow: what is more is refused, and never queued without end.

use std::time::Duration;

use serde::Deserialize;
use trave_host::config::Problems;
use trave_host::listen;

use super::MOST;

/// How much at once, how large, how slow. What is more is refused at once, never queued without end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Exchanges under way, in each role.
    pub exchanges: usize,
    /// Exchanges under way of one client subsystem, in each role; half of all if absent.
    pub exchanges_per_client: Option<usize>,
    /// Exchanges under way that one security server asks for; half of all if absent.
    pub exchanges_per_peer: Option<usize>,
    /// Connections on each door.
    pub connections: usize,
    /// Of these, from one address (of IPv6: one network of 64 bits) other than this machine's own.
    pub connections_per_address: usize,
    /// Calls at a time on one HTTP/2 connection.
    pub streams: u32,
    /// HTTP/2 frames that carry nothing, such as pings, which one connection may send in a second.
    pub control_frames: u32,
    /// Size of a request's head, in KiB; at most 64.
    pub head_kib: u32,
    /// Size of one gRPC message, in MiB; at most the 4096 that its format can say.
    pub message_mib: u64,
    /// Size of a whole body, either way, in MiB; none if absent, as no more than two messages of it are held at a time.
    pub body_mib: Option<u64>,
    /// Messages of one security server whose signature does not verify, in a minute; beyond these none of its messages is
    /// looked at for a while.
    pub bad_signatures: u32,
    /// Exchange ids remembered against replay.
    pub replay_ids: usize,
    /// Seconds for a whole exchange, however long its streams; a deadline of the caller's may be nearer.
    pub exchange_seconds: u64,
    /// Seconds from one message of an exchange to the next, whichever way: a stream on which nothing is said for so long
    /// is ended.
    pub idle_seconds: u64,
    /// Seconds for the handshake of a connection, and for the head of a request.
    pub head_seconds: u64,
    /// Seconds in which whoever is slow must come on: take the next 16 KiB of an answer, bring the next 4 KiB of a message
    /// that has begun.
    pub slow_seconds: u64,
    /// Seconds in which exchanges under way may end when the server is told to stop.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            exchanges: 1024,
            exchanges_per_client: None,
            exchanges_per_peer: None,
            connections: 1024,
            connections_per_address: 64,
            streams: 256,
            control_frames: 1000,
            head_kib: MOST_HEAD_KIB,
            message_mib: MOST_MESSAGE_MIB,
            body_mib: None,
            bad_signatures: 60,
            replay_ids: 4_000_000,
            exchange_seconds: 3600,
            idle_seconds: 300,
            head_seconds: 10,
            slow_seconds: 60,
            drain_seconds: 30,
        }
    }
}

/// Heads are held whole, by two security servers and their message logs.
const MOST_HEAD_KIB: u32 = 64;
/// The prefix of a gRPC message has 32 bits for its length.
const MOST_MESSAGE_MIB: u64 = 4096;

impl Limits {
    /// For a door, beside what else holds there.
    pub(crate) fn at_door(&self, door: listen::Limits) -> listen::Limits {
        listen::Limits {
            connections: self.connections,
            per_address: self.connections_per_address,
            concurrent_streams: self.streams,
            control_frames: self.control_frames,
            header_list: self.head_kib << 10,
            handshake: Duration::from_secs(self.head_seconds),
            untaken: self.slow(),
            ..door
        }
    }

    /// What of `other` differs and holds from the next start on: what doors and memory were laid out with.
    pub(super) fn differs(&self, other: &Self) -> Vec<&'static str> {
        let at_start = |limits: &Self| {
            [
                ("limits.connections", limits.connections as u64),
                ("limits.connections_per_address", limits.connections_per_address as u64),
                ("limits.streams", limits.streams.into()),
                ("limits.control_frames", limits.control_frames.into()),
                ("limits.head_kib", limits.head_kib.into()),
                ("limits.head_seconds", limits.head_seconds),
                ("limits.slow_seconds", limits.slow_seconds),
                ("limits.replay_ids", limits.replay_ids as u64),
            ]
        };
        let pairs = at_start(self).into_iter().zip(at_start(other));
        pairs.filter(|(ours, theirs)| ours.1 != theirs.1).map(|((key, _), _)| key).collect()
    }

    /// The time in which exchanges under way may end.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The time in which whoever is slow must come on.
    pub(crate) fn slow(&self) -> Duration {
        Duration::from_secs(self.slow_seconds)
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        for (key, value, most) in [
            ("exchanges", self.exchanges as u64, MOST),
            ("exchanges_per_client", self.exchanges_per_client.unwrap_or(1) as u64, MOST),
            ("exchanges_per_peer", self.exchanges_per_peer.unwrap_or(1) as u64, MOST),
            ("connections", self.connections as u64, MOST),
            ("connections_per_address", self.connections_per_address as u64, MOST),
            ("streams", self.streams.into(), 65_536),
            ("control_frames", self.control_frames.into(), MOST),
            ("head_kib", self.head_kib.into(), MOST_HEAD_KIB.into()),
            ("message_mib", self.message_mib, MOST_MESSAGE_MIB),
            ("body_mib", self.body_mib.unwrap_or(1), MOST),
            ("bad_signatures", self.bad_signatures.into(), MOST),
            ("replay_ids", self.replay_ids as u64, MOST),
            ("exchange_seconds", self.exchange_seconds, MOST),
            ("idle_seconds", self.idle_seconds, MOST),
            ("head_seconds", self.head_seconds, MOST),
            ("slow_seconds", self.slow_seconds, MOST),
            ("drain_seconds", self.drain_seconds, MOST),
        ] {
            if value == 0 || value > most {
                let what = format!("is not between 1 and {most}");
                problems.add(format!("limits.{key}"), what).hint("leave the key out");
            }
        }
    }
}
