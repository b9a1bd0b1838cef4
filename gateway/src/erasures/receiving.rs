//! Taking what another security server tells: its exchanges with this one that should be erased here, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::schema::log::ErasureStage;
use trave_proto::schema::transport::TellErasureRequest;

use super::{AT_A_TIME, Erasing, ErasureError, Notice, Notices, reading};
use crate::turns::Turn;

/// What one other server told and nobody has decided; more is refused until somebody does.
const MOST_OPEN: usize = 100;

impl Erasing {
    /// The turn of a server that tells something: without it nothing is begun, so that nothing piles up.
    pub(crate) fn turn(&self, peer: &ServerId) -> Result<Turn, ErasureError> {
        self.telling.take(peer).ok_or(ErasureError::Busy)
    }

    /// Takes what another server told: which of its exchanges with this one should be erased here, too. It is durable when
    /// this returns. Says how many of them are known here.
    pub(crate) async fn receive(&self, turn: Turn, request: TellErasureRequest) -> Result<u64, ErasureError> {
        let named = !request.id.is_empty() && request.id.len() <= 64;
        if !named || !request.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(ErasureError::Malformed("its id is none"));
        }
        if request.exchange_ids.is_empty() || request.exchange_ids.len() > AT_A_TIME {
            return Err(ErasureError::Malformed("it names no exchange, or too many"));
        }
        let exchanges: BTreeSet<_> =
            request.exchange_ids.iter().filter_map(|id| ExchangeId::from_slice(id).ok()).collect();
        if exchanges.len() != request.exchange_ids.len() {
            return Err(ErasureError::Malformed("an exchange is none, or named twice"));
        }
        let _turn = self.receiving.lock().await;
        let peer = turn.server();
        let mut known = self.others(exchanges.into_iter().collect()).await?;
        let known = known.remove(peer).unwrap_or_default();
        let (count, peer) = (known.len() as u64, peer.to_string());
        let id = id_of(&peer, &request.id, &known);
        // What waits already, or is erased already, is nothing to be decided or done again, under whatever name.
        let open = |notices: &Notices| -> Vec<_> {
            let told = |it: &ExchangeId| notices.was_told(&id, *it) || notices.is_open(&peer, *it);
            known.into_iter().filter(|it| !told(it)).collect()
        };
        let exchanges = self.not_erased(self.look(open)).await?;
        if exchanges.is_empty() {
            return Ok(count);
        }
        if self.look(|notices| notices.open_of(&peer)) >= MOST_OPEN {
            return Err(ErasureError::TooMany);
        }
        tracing::info!(id, peer, exchanges = exchanges.len(), "told of an erasure");
        let notice = Notice { id, exchanges, peer, told: request.id, ..Notice::default() };
        self.say(&notice, ErasureStage::Received).await?;
        self.news.notify_one();
        Ok(count)
    }

    /// Those of these exchanges of which something may be left to be erased.
    async fn not_erased(&self, exchanges: Vec<ExchangeId>) -> Result<Vec<ExchangeId>, ErasureError> {
        let (log, generations) = (self.recorder.log().clone(), Arc::clone(&self.generations));
        reading(move || {
            let mut left = Vec::new();
            for exchange in exchanges {
                let here = !log.is_erased(exchange)? && !log.places(exchange)?.is_empty();
                if here || generations.are_left(exchange)? {
                    left.push(exchange);
                }
            }
            Ok(left)
        })
        .await
    }
}

/// The id of what another server told. It stands for exactly these exchanges: nothing is added to what somebody looks at and
/// decides upon.
fn id_of(peer: &str, told: &str, exchanges: &[ExchangeId]) -> String {
    let mut named = format!("{peer} {told}").into_bytes();
    exchanges.iter().for_each(|exchange| named.extend_from_slice(exchange.as_bytes()));
    format!("n-{}", &Digest::of(&named).to_string()[..12])
}

#[cfg(test)]
mod tests {
    use trave_proto::clock::Time;

    use super::*;

    #[test]
    fn what_is_told_later_is_another_matter() {
        let exchange = |number| ExchangeId::new(Time::from_millis(1_795_288_440_000), &[number; 10]);
        let first = id_of("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1)]);
        assert_eq!(first, id_of("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1)]));
        for (peer, told, exchanges) in [
            ("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1), exchange(2)][..]),
            ("NORD/MV/gewerberegister/s1", "e-2", &[exchange(1)]),
            ("NORD/MV/gewerberegister/s2", "e-1", &[exchange(1)]),
        ] {
            assert_ne!(first, id_of(peer, told, exchanges));
        }
    }
}
