//! What this log has lost, by a crash or with a disk that was put back, comes back from the other side of its exchanges as far
//! as this server signed it, and is logged as recovered.

use std::collections::BTreeSet;
use std::sync::Arc;

use trave_host::config::with_causes;
use trave_message_log::{Log, LogError};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::fault::Side;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::{Direction, Ending, Manifest};
use trave_proto::schema::log::ExchangeEnded;
use trave_proto::schema::log::leaf::Entry;

use super::Upkeep;
use super::left_open::end;
use super::reconciling::{ReconcileError, blocking};
use crate::reconciliation::{Fetched, Line, Lost, justified, named_by_own};

/// Messages that are fetched back at a time; the others when the hour is compared again.
const RECOVERED: usize = 2_048;

impl Upkeep {
    /// Gets back from another server what this log has lost; how many records that made. What does not verify, or rests on
    /// the other server's signature alone, stays missing.
    pub(super) async fn recover(
        &self,
        peer: &ServerId,
        (mut line, key): (Line, NoteVerifier),
        mut lost: Vec<Lost>,
    ) -> Result<usize, ReconcileError> {
        lost.truncate(RECOVERED);
        let exchanges: BTreeSet<_> = lost.iter().filter_map(|lost| lost.name.exchange().ok()).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = lost.into_iter().partition(|lost| lost.theirs);
        let fetched = self.fetched(peer, (&mut line, &key), ours).await;
        let hours = Arc::clone(self.desk().hours());
        let (mut fetched, theirs) = blocking(move || {
            let named = named_by_own(&hours, &fetched, &theirs).map_err(ReconcileError::Recovery);
            Ok((fetched, named?))
        })
        .await?;
        fetched.extend(self.fetched(peer, (&mut line, &key), theirs).await);
        let hours = Arc::clone(self.desk().hours());
        let justified = blocking(move || justified(&hours, fetched).map_err(ReconcileError::Recovery));
        let (taken, refused) = justified.await?;
        if refused > 0 {
            tracing::warn!(%peer, messages = refused, "messages that nothing signed by this server names do not come back");
        }
        let count = taken.len();
        for one in taken {
            let (own, now) = (&self.exchanges.own.server, self.exchanges.clock.now());
            let configuration = self.exchanges.trust.snapshot().configuration.digest();
            let entry = one.entry(own, peer, configuration, now);
            self.exchanges.recorder.recovered(entry).await.map_err(ReconcileError::Log)?;
        }
        if count > 0 {
            tracing::warn!(%peer, messages = count, "messages that this log had lost came back from the other side");
        }
        Ok(count + self.end_recovered(exchanges).await?)
    }

    /// What the other server gives of these, as far as it verifies.
    async fn fetched(
        &self,
        peer: &ServerId,
        (line, key): (&mut Line, &NoteVerifier),
        lost: Vec<Lost>,
    ) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        for Lost { name, digest, .. } in lost {
            let answer = line.fetch((name, digest)).await.map_err(ReconcileError::Compare);
            let verified = match answer {
                Ok(answer) => {
                    let trust = Arc::clone(&self.exchanges.trust);
                    let (own, of, key) = (self.exchanges.own.server.clone(), peer.clone(), key.clone());
                    let verify = move || Fetched::verify(answer, (name, digest), (&own, &of, &key), &trust);
                    blocking(move || verify().map_err(ReconcileError::Recovery)).await
                }
                Err(error) => Err(error),
            };
            match verified {
                Ok(message) => fetched.push(message),
                Err(error) => {
                    tracing::warn!(%peer, error = with_causes(&error), "a lost message does not come back");
                }
            }
        }
        fetched
    }

    /// Of exchanges of which only a part came back, nobody here knows how they ended, and the log says so.
    async fn end_recovered(&self, exchanges: BTreeSet<ExchangeId>) -> Result<usize, ReconcileError> {
        let log = self.exchanges.recorder.log().clone();
        let ends = blocking(move || {
            let ends = exchanges.into_iter().filter_map(|exchange| left_open(&log, exchange).transpose());
            ends.collect::<Result<Vec<_>, _>>().map_err(ReconcileError::Log)
        });
        let ends = ends.await?;
        let count = ends.len();
        for end in ends {
            let logged = self.exchanges.recorder.event(Entry::Ended(end), Vec::new()).await;
            logged.map_err(ReconcileError::Log)?;
        }
        Ok(count)
    }
}

/// The end that the log is to say of an exchange of which something came back: none if nothing did, or it has an end. Reads
/// the disk.
fn left_open(log: &Log, exchange: ExchangeId) -> Result<Option<ExchangeEnded>, LogError> {
    let mut side = None;
    for at in log.places(exchange)? {
        let (message, recovered) = match log.leaf(at)?.entry {
            Some(Entry::Recovered(recovered)) => (recovered.message.unwrap_or_default(), true),
            Some(Entry::Message(message)) => (message, false),
            Some(Entry::Ended(_)) => return Ok(None),
            _ => continue,
        };
        let Ok(manifest) = Manifest::parse(message.manifest) else { continue };
        let response = manifest.direction == Direction::Response;
        if response && manifest.ending != Ending::Continue {
            return Ok(None);
        }
        if recovered {
            side = Some(if message.sent == response { Side::ProviderServer } else { Side::ClientServer });
        }
    }
    let id = bytes::Bytes::copy_from_slice(exchange.as_bytes());
    side.map(|side| end(log, id, side)).transpose()
}
