//! Which security server is asked, and when another one after it: only where it is certain that no register was called.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::global_configuration::SecurityServerEntry;
use trave_proto::identifier::ServerId;

use super::super::Exchanges;
use crate::pool::Taken;
use crate::transport::PeerConnection;

const SIDE: Side = Side::ClientServer;
/// How often one call is made in all.
const TRIES: usize = 5;
/// How long one security server has to take a connection up and to greet: one that does neither leaves time for the next.
const SHARE: Duration = Duration::from_secs(8);
/// Who says nothing for so long is not well.
const TELLING: Duration = Duration::from_secs(2);
/// How long a connection is sought where the caller sets no deadline.
const SEEKING: Duration = Duration::from_secs(20);

/// The security servers that may be asked.
pub(super) struct Candidates {
    /// The one that the caller names, if it does.
    only: Option<ServerId>,
    /// Those that were asked and did not take the call up.
    tried: Vec<ServerId>,
    /// Those of them that said so, and would say it again.
    refused: Vec<ServerId>,
}

impl Candidates {
    pub(super) fn new(only: Option<ServerId>) -> Self {
        Self { only, tried: Vec::new(), refused: Vec::new() }
    }

    /// A connection to a security server that offers the service.
    pub(super) async fn connection(
        &self,
        exchanges: &Exchanges,
        topic: &Topic,
        deadline: Option<Instant>,
    ) -> Result<Taken<Arc<PeerConnection>>, Fault> {
        let snapshot = exchanges.trust.valid(SIDE)?;
        if !snapshot.configuration.hosts(&exchanges.own.server, &topic.client) {
            let why = format!(
                "the global configuration does not register {} on this security server",
                topic.client
            );
            return Err(Fault::before_call(Reason::SignerNotAllowed, SIDE, why));
        }
        let until = deadline.unwrap_or_else(|| Instant::now() + SEEKING);
        let subsystem = topic.service.subsystem();
        let hosting = snapshot.configuration.servers_of(&subsystem);
        let mut last = None;
        let ranked = self.ranked(exchanges, hosting);
        for (at, server) in ranked.iter().enumerate() {
            // Whatever a caller's deadline leaves is for all of them: one that is silent does not take the others' time.
            let left = until.saturating_duration_since(Instant::now());
            let share = SHARE.min(left.div_f64((ranked.len() - at) as f64));
            // What it answers would not be looked at: then its register is not called for it.
            if let Err(suspected) = exchanges.suspicion.check(server.id(), SIDE) {
                last.get_or_insert(suspected);
                continue;
            }
            match tokio::time::timeout(share, exchanges.peers.connection(server)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = Some(error.fault(SIDE)),
                Err(_) => {
                    // What a caller's short deadline leaves says nothing of the server.
                    if share >= TELLING {
                        exchanges.peers.failed(server.id());
                    }
                    let why = format!("the security server {} did not answer in time", server.id());
                    last = Some(Fault::before_call(Reason::NetworkError, SIDE, why));
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody(topic)))
    }

    /// Whether the call may be made once more after `fault`, of another security server or over another connection. That
    /// no register was called is known where nothing of the call was taken up, and believed of the provider's server, which
    /// could as well call its own register twice. A refusal that would be the same elsewhere, or should be, stays: nobody
    /// goes from server to server to find one that permits.
    pub(super) fn leaves_another(&mut self, fault: &Fault, asked: &ServerId) -> bool {
        self.tried.push(asked.clone());
        if fault.reason != Reason::NetworkError {
            self.refused.push(asked.clone());
        }
        let of_the_provider = matches!(fault.side, Side::ProviderServer | Side::Register);
        let may_differ = !matches!(fault.reason, Reason::Aborted | Reason::RateLimited);
        fault.retry_safe() && of_the_provider && may_differ && self.tried.len() < TRIES
    }

    /// Those that were not asked yet; then those under whom the connection ended, once more: they may be back, or have
    /// closed that connection alone. Last whoever is under suspicion.
    fn ranked<'a>(
        &self,
        exchanges: &Exchanges,
        hosting: impl Iterator<Item = &'a SecurityServerEntry>,
    ) -> Vec<&'a SecurityServerEntry> {
        let times = |server: &SecurityServerEntry| self.tried.iter().filter(|id| *id == server.id()).count();
        let left = hosting.filter(|server| {
            self.is_wanted(server) && !self.refused.contains(server.id()) && times(server) < 2
        });
        let mut ranked = exchanges.peers.ranked(left);
        ranked.sort_by_cached_key(|server| {
            (exchanges.suspicion.check(server.id(), SIDE).is_err(), times(server))
        });
        ranked
    }

    /// Whether a call may go to this server: not if it is suspended, and if the caller names one, to that one alone.
    fn is_wanted(&self, server: &SecurityServerEntry) -> bool {
        !server.is_suspended() && self.only.as_ref().is_none_or(|only| server.id() == only)
    }

    fn nobody(&self, topic: &Topic) -> Fault {
        if let Some(only) = &self.only {
            let why = format!("the security server {only} does not offer {}", topic.service);
            return Fault::before_call(Reason::InvalidSecurityServer, Side::Client, why);
        }
        let why = format!("no security server offers {}", topic.service);
        Fault::before_call(Reason::UnknownMember, SIDE, why)
    }
}

/// What the end of an exchange says of the security server that was asked; `verified` is whether all that came from it did.
pub(super) fn judge(
    exchanges: &Exchanges,
    connection: &PeerConnection,
    ended: &Result<(), Fault>,
    verified: bool,
) {
    let server = connection.peer.server();
    let failed = match ended {
        Ok(()) => return exchanges.peers.did_well(server),
        // Whose answers are worth nothing does worse than who gives none: the register was called for them.
        Err(_) if !verified => true,
        Err(fault) => match fault.reason {
            // One exchange that breaks alone is no failure of the server.
            Reason::NetworkError => connection.channel.is_closed(),
            Reason::MaintenanceMode | Reason::LoggingFailed | Reason::DiskFull => {
                fault.side == Side::ProviderServer
            }
            _ => false,
        },
    };
    if failed {
        exchanges.peers.failed(server);
    }
}
