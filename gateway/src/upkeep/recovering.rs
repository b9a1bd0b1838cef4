//! What this log has lost, by a crash or with a disk that was put back, comes back from the other side of its exchanges as far
//! as this server signed it, and is logged as recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trave_host::config::with_causes;
use trave_message_log::{Log, LogError};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::fault::{Side, plain};
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::{Direction, Ending, Manifest};
use trave_proto::schema::log::ExchangeEnded;
use trave_proto::schema::log::leaf::Entry;

use super::Upkeep;
use super::left_open::end;
use super::reconciling::{ReconcileError, blocking};
use crate::reconciliation::{Fetched, Line, Lost, justified, named_by_own};

/// Messages that are fetched back of one hour; the others when it is compared again.
const RECOVERED: usize = 2_048;
/// Messages that are held in memory at a time, unless one exchange has more: each is two or three kilobytes, beside chains and
/// OCSP answers, of which each is held once.
const AT_A_TIME: usize = 128;

/// What did not come back, told once.
#[derive(Debug, Default)]
struct Missed {
    count: usize,
    /// Why the first did not.
    why: Option<String>,
    /// Nothing more is asked for.
    given_up: bool,
}

impl Missed {
    fn note(&mut self, error: &ReconcileError) {
        self.count += 1;
        self.given_up |= error.is_silence_of_all();
        self.why.get_or_insert_with(|| plain(&with_causes(error)));
    }
}

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
        let (mut missed, mut count) = (Missed::default(), 0);
        for some in batches(lost) {
            let left = some.len();
            match missed.given_up {
                true => missed.count += left,
                false => count += self.recover_some(peer, (&mut line, &key), some, &mut missed).await?,
            }
        }
        if let Missed { count, why: Some(why), .. } = missed {
            tracing::warn!(%peer, messages = count, why, "lost messages do not come back");
        }
        if count > 0 {
            tracing::warn!(%peer, records = count, "what this log had lost came back from the other side");
        }
        Ok(count)
    }

    /// The same for all messages of some exchanges.
    async fn recover_some(
        &self,
        peer: &ServerId,
        (line, key): (&mut Line, &NoteVerifier),
        lost: Vec<Lost>,
        missed: &mut Missed,
    ) -> Result<usize, ReconcileError> {
        let exchanges: BTreeSet<_> = lost.iter().filter_map(|lost| lost.name.exchange().ok()).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = lost.into_iter().partition(|lost| lost.theirs);
        let mut fetched = self.fetched(peer, (&mut *line, key), ours, missed).await;
        let hours = Arc::clone(self.desk().hours());
        let named = blocking(move || {
            let named = named_by_own(&hours, &fetched, &theirs).map_err(ReconcileError::Recovery);
            Ok((fetched, named?))
        });
        let theirs;
        (fetched, theirs) = named.await?;
        fetched.extend(self.fetched(peer, (line, key), theirs, missed).await);
        let hours = Arc::clone(self.desk().hours());
        let justified = blocking(move || justified(&hours, fetched).map_err(ReconcileError::Recovery));
        let (taken, refused) = justified.await?;
        if refused > 0 {
            missed.count += refused;
            missed.why.get_or_insert_with(|| "nothing signed by this server names them".into());
        }
        let count = taken.len();
        for one in taken {
            let (own, now, begun) = (&self.exchanges.own.server, self.exchanges.clock.now(), one.begun());
            let configuration = self.exchanges.trust.snapshot().configuration.digest();
            let entry = one.entry(own, peer, configuration, now);
            let logged = self.exchanges.recorder.recovered(entry).await;
            self.retaining.came_back(logged.map_err(ReconcileError::Log)?, begun);
        }
        Ok(count + self.end_recovered(exchanges).await?)
    }

    /// What the other server gives of these, as far as it verifies.
    async fn fetched(
        &self,
        peer: &ServerId,
        (line, key): (&mut Line, &NoteVerifier),
        lost: Vec<Lost>,
        missed: &mut Missed,
    ) -> Vec<Fetched> {
        let (mut fetched, mut held) = (Vec::new(), BTreeMap::new());
        for Lost { name, digest, .. } in lost {
            if missed.given_up {
                missed.count += 1;
                continue;
            }
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
                Ok(mut message) => {
                    message.share(&mut held);
                    fetched.push(message);
                }
                Err(error) => missed.note(&error),
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

/// All messages of an exchange together, and so many exchanges as make some messages.
fn batches(lost: Vec<Lost>) -> Vec<Vec<Lost>> {
    let mut exchanges = BTreeMap::<_, Vec<_>>::new();
    for one in lost {
        exchanges.entry(one.name.exchange().ok()).or_default().push(one);
    }
    let mut batches: Vec<Vec<Lost>> = Vec::new();
    for some in exchanges.into_values() {
        match batches.last_mut() {
            Some(last) if last.len() + some.len() <= AT_A_TIME => last.extend(some),
            _ => batches.push(some),
        }
    }
    batches
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

#[cfg(test)]
mod tests {
    use trave_proto::clock::Time;
    use trave_proto::digest::Digest;
    use trave_proto::reconciliation::Name;

    use super::*;

    fn lost(exchange: u8, index: u8) -> Lost {
        let mut name = [0; Name::LEN];
        let id = ExchangeId::new(Time::from_millis(1_795_255_200_000), &[exchange; 10]);
        name[..16].copy_from_slice(id.as_bytes());
        (name[16], name[24]) = (1, index);
        let name = Name::from_slice(&name).unwrap();
        Lost { name, digest: Digest::of(&[exchange, index]), theirs: index.is_multiple_of(2) }
    }

    #[test]
    fn an_exchange_comes_back_in_one_piece_and_few_of_them_at_a_time() {
        let all: Vec<_> = (0..100).flat_map(|exchange| [lost(exchange, 0), lost(exchange, 1)]).collect();
        let long: Vec<_> = (0..200).map(|index| lost(200, index)).collect();
        let batches = batches([all, long].concat());
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 400);
        // The long one by itself, and the others as many together as there may be.
        assert!(batches.len() <= 4 && batches.iter().any(|some| some.len() == 200));
        assert!(batches.iter().all(|some| some.len() <= AT_A_TIME || some.len() == 200));
        for pair in batches.windows(2) {
            let exchanges =
                |some: &[Lost]| some.iter().map(|one| one.name.exchange().unwrap()).collect::<BTreeSet<_>>();
            assert!(exchanges(&pair[0]).is_disjoint(&exchanges(&pair[1])));
        }
    }
}
