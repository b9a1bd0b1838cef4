//! What the exchanges of an erasure are about, and who else holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use trave_message_log::{Log, LogError, PrunedRecord};
use trave_proto::clock::Time;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::Manifest;
use trave_proto::schema::log::leaf::Entry;

use super::{Erasing, ErasureError, reading};
use crate::generations::Generations;
use crate::retention::{About, begun_of};

impl Erasing {
    /// What an exchange is about, and the other server of it, whichever generation of the log holds it.
    pub(crate) fn subject_of(
        (log, generations): (&Log, &Generations),
        own: &ServerId,
        exchange: ExchangeId,
    ) -> Result<Option<(About, ServerId)>, LogError> {
        if let Some(found) = Self::subject(log, own, exchange)? {
            return Ok(Some(found));
        }
        let earlier = generations.of(exchange)?;
        earlier.map_or(Ok(None), |earlier| Self::subject(earlier.log(), own, exchange))
    }

    /// What an exchange is about, and the other server of it; none if there is no message of it.
    fn subject(
        log: &Log,
        own: &ServerId,
        exchange: ExchangeId,
    ) -> Result<Option<(About, ServerId)>, LogError> {
        for place in log.places(exchange)? {
            let leaf = match log.leaf(place) {
                Err(LogError::Expired { .. }) => continue,
                Err(LogError::Pruned { .. }) => {
                    match log.pruned(place)?.as_ref().and_then(|it| pruned(it, own)) {
                        None => continue,
                        found => return Ok(found),
                    }
                }
                other => other?,
            };
            let logged = Time::from_millis(leaf.logged_ms);
            let begun = begun_of(&leaf);
            let message = match leaf.entry {
                Some(Entry::Message(message)) => Some(message),
                Some(Entry::Recovered(recovered)) => recovered.message,
                _ => None,
            };
            if let Some(Ok(manifest)) = message.map(|message| Manifest::parse(message.manifest)) {
                let other = if manifest.sender == *own { &manifest.receiver } else { &manifest.sender };
                let about = About::message(&manifest, begun.unwrap_or(logged));
                return Ok(Some((about, other.clone())));
            }
        }
        Ok(None)
    }

    /// The other servers of these exchanges, as far as something of them is known here.
    pub(super) async fn others(
        &self,
        exchanges: Vec<ExchangeId>,
    ) -> Result<BTreeMap<ServerId, Vec<ExchangeId>>, ErasureError> {
        let (log, own) = (self.recorder.log().clone(), self.own.clone());
        let generations = Arc::clone(&self.generations);
        reading(move || {
            let mut others = BTreeMap::<_, Vec<_>>::new();
            for exchange in exchanges {
                if let Some((_, other)) = Self::subject_of((&log, &generations), &own, exchange)?
                    && other != own
                {
                    others.entry(other).or_default().push(exchange);
                }
            }
            Ok(others)
        })
        .await
    }
}

/// What an exchange was about, and the other server of it, by what is known of a message that was pruned.
fn pruned(record: &PrunedRecord, own: &ServerId) -> Option<(About, ServerId)> {
    let subject = record.subject.as_ref()?;
    let (sender, receiver): (ServerId, ServerId) =
        (subject.sender.parse().ok()?, subject.receiver.parse().ok()?);
    Some((About::pruned(record)?, if sender == *own { receiver } else { sender }))
}
