//! How erasures stand, as the log's records tell it.

use std::collections::{BTreeMap, BTreeSet};

use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ErasureNotice, ErasureStage, Leaf, PseudonymPlace};

/// An erasure that is not over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notice {
    pub(crate) id: String,
    pub(crate) exchanges: Vec<ExchangeId>,
    /// Where the pseudonyms of the person stand whom it is about.
    pub(crate) persons: Vec<PseudonymPlace>,
    pub(crate) reason: String,
    pub(crate) operator: String,
    pub(crate) operator_user: Option<u32>,
    /// The other server, if it told or is to be told.
    pub(crate) peer: String,
    /// The id there of what it told.
    pub(crate) told: String,
    /// When it was logged first, and at which place.
    pub(crate) since: Time,
    pub(crate) at: u64,
}

impl Notice {
    /// A record about it, without exchanges and persons.
    pub(super) fn record(&self, stage: ErasureStage) -> ErasureNotice {
        ErasureNotice {
            id: self.id.clone(),
            stage: stage.into(),
            reason: self.reason.clone(),
            operator: self.operator.clone(),
            operator_user: self.operator_user,
            peer: self.peer.clone(),
            told: self.told.clone(),
            ..ErasureNotice::default()
        }
    }

    /// Who asked for it, for the erasures' records.
    pub(super) fn by(&self) -> String {
        if self.peer.is_empty() { self.operator.clone() } else { format!("security server {}", self.peer) }
    }

    /// Why, for the erasures' records.
    pub(super) fn why(&self) -> String {
        match self.peer.is_empty() {
            true => self.reason.clone(),
            false => format!("erased there, told here ({})", self.id),
        }
    }

    fn add(&mut self, notice: &ErasureNotice) {
        let known: BTreeSet<_> = self.exchanges.iter().copied().collect();
        let ids = notice.exchange_ids.iter().filter_map(|id| ExchangeId::from_slice(id).ok());
        self.exchanges.extend(ids.filter(|id| !known.contains(id)));
        self.persons.extend(notice.persons.iter().copied());
    }
}

/// All that are not over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    /// Applied for here, or told by another server, and not decided.
    waiting: BTreeMap<String, Notice>,
    /// Approved, with the place of the approval; until all is erased.
    approved: BTreeMap<String, (Notice, u64)>,
    /// To be told, by id and other server, once it is approved.
    telling: BTreeMap<(String, String), Notice>,
    /// Ids of what was approved, also when all is erased.
    decided: BTreeSet<String>,
    /// What other servers told ever, by its id here.
    heard: BTreeMap<String, BTreeSet<ExchangeId>>,
}

impl Notices {
    /// Takes over one record of the log, in the log's order. What is not about erasures changes nothing.
    pub(super) fn take(&mut self, index: u64, leaf: &Leaf) {
        let Some(Entry::ErasureNotice(notice)) = &leaf.entry else { return };
        let key = (notice.id.clone(), notice.peer.clone());
        let new = || Notice {
            id: notice.id.clone(),
            reason: notice.reason.clone(),
            operator: notice.operator.clone(),
            operator_user: notice.operator_user,
            peer: notice.peer.clone(),
            told: notice.told.clone(),
            since: Time::from_millis(leaf.logged_ms),
            at: index,
            ..Notice::default()
        };
        match notice.stage() {
            ErasureStage::Applied => {
                let waiting = self.waiting.entry(key.0).or_insert_with(new);
                waiting.add(notice);
                // The first of the two who decide on what another server told.
                waiting.operator.clone_from(&notice.operator);
                waiting.operator_user = notice.operator_user;
            }
            ErasureStage::Received => {
                let waiting = self.waiting.entry(key.0.clone()).or_insert_with(new);
                waiting.add(notice);
                self.heard.entry(key.0).or_default().extend(waiting.exchanges.iter().copied());
            }
            ErasureStage::ToTell => self.telling.entry(key).or_insert_with(new).add(notice),
            ErasureStage::Told => drop(self.telling.remove(&key)),
            ErasureStage::Approved => {
                if let Some(waiting) = self.waiting.remove(&key.0) {
                    self.approved.insert(key.0.clone(), (waiting, index));
                }
                self.decided.insert(key.0);
            }
            ErasureStage::Dropped => match self.telling.remove(&key) {
                Some(_) => {}
                None => {
                    self.waiting.remove(&key.0);
                    self.telling.retain(|(id, _), _| *id != key.0);
                }
            },
            ErasureStage::Unspecified => {}
        }
    }

    /// What waits under this id for a decision.
    pub(crate) fn waiting(&self, id: &str) -> Option<&Notice> {
        self.waiting.get(id)
    }

    /// All that waits for a decision.
    pub(crate) fn all_waiting(&self) -> impl Iterator<Item = &Notice> {
        self.waiting.values()
    }

    /// What other servers are to be told.
    pub(crate) fn to_tell(&self) -> Vec<Notice> {
        self.telling.values().filter(|notice| self.decided.contains(&notice.id)).cloned().collect()
    }

    /// What was approved and is not known to be erased, with the place of the approval.
    pub(super) fn approved(&self) -> Vec<(Notice, u64)> {
        self.approved.values().cloned().collect()
    }

    /// Whether another server told this exchange under this id.
    pub(super) fn was_told(&self, id: &str, exchange: ExchangeId) -> bool {
        self.heard.get(id).is_some_and(|heard| heard.contains(&exchange))
    }

    /// Whether something that this server told of this exchange waits, or was approved and is not known to be erased.
    pub(super) fn is_open(&self, peer: &str, exchange: ExchangeId) -> bool {
        let approved = self.approved.values().map(|(notice, _)| notice);
        let mut open = self.waiting.values().chain(approved).filter(|notice| notice.peer == peer);
        open.any(|notice| notice.exchanges.contains(&exchange))
    }

    /// Whether a person's erasure was approved and is not known to be done.
    pub(crate) fn has_approved_person(&self) -> bool {
        self.approved.values().any(|(notice, _)| !notice.persons.is_empty())
    }

    /// How much of what this server told waits.
    pub(super) fn open_of(&self, peer: &str) -> usize {
        self.waiting.values().filter(|notice| notice.peer == peer).count()
    }

    /// All of it is erased.
    pub(super) fn done(&mut self, id: &str) {
        self.approved.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PEER: &str = "NORD/MV/gewerberegister/s1";

    fn exchange(number: u8) -> ExchangeId {
        ExchangeId::new(Time::from_millis(1_795_288_440_000), &[number; 10])
    }

    fn leaf(id: &str, stage: ErasureStage, peer: &str, exchanges: &[u8]) -> Leaf {
        let exchange_ids =
            exchanges.iter().map(|it| Bytes::copy_from_slice(exchange(*it).as_bytes())).collect();
        let notice = ErasureNotice {
            id: id.into(),
            stage: stage.into(),
            peer: peer.into(),
            exchange_ids,
            ..ErasureNotice::default()
        };
        Leaf::of(1_795_288_440_000, Entry::ErasureNotice(notice))
    }

    #[test]
    fn nobody_is_told_of_what_is_not_approved() {
        let mut notices = Notices::default();
        notices.take(1, &leaf("e-1", ErasureStage::Applied, "", &[1, 2]));
        notices.take(2, &leaf("e-1", ErasureStage::Applied, "", &[2, 3]));
        assert_eq!(notices.waiting("e-1").unwrap().exchanges, [exchange(1), exchange(2), exchange(3)]);
        notices.take(3, &leaf("e-1", ErasureStage::ToTell, PEER, &[1]));
        assert!(notices.to_tell().is_empty());
        notices.take(4, &leaf("e-1", ErasureStage::Approved, "", &[]));
        assert!(notices.waiting("e-1").is_none());
        assert_eq!(notices.approved()[0].1, 4);
        assert_eq!((notices.to_tell().len(), &*notices.to_tell()[0].peer), (1, PEER));
        notices.done("e-1");
        assert!(notices.approved().is_empty());
        notices.take(5, &leaf("e-1", ErasureStage::Told, PEER, &[]));
        assert!(notices.to_tell().is_empty());
        // What is withdrawn is told to nobody.
        notices.take(6, &leaf("e-2", ErasureStage::Applied, "", &[1]));
        notices.take(7, &leaf("e-2", ErasureStage::ToTell, PEER, &[1]));
        notices.take(8, &leaf("e-2", ErasureStage::Dropped, "", &[]));
        notices.take(9, &leaf("e-2", ErasureStage::Approved, "", &[]));
        assert!(notices.to_tell().is_empty() && notices.approved().is_empty());
    }

    #[test]
    fn what_was_told_once_is_known_after_it_was_decided() {
        let mut notices = Notices::default();
        notices.take(1, &leaf("n-1", ErasureStage::Received, PEER, &[1]));
        notices.take(2, &leaf("n-1", ErasureStage::Received, PEER, &[2]));
        assert_eq!((notices.open_of(PEER), notices.open_of("NORD/MV/kasse/s1")), (1, 0));
        notices.take(3, &leaf("n-1", ErasureStage::Dropped, PEER, &[]));
        assert_eq!(notices.open_of(PEER), 0);
        assert!(notices.was_told("n-1", exchange(2)) && !notices.was_told("n-1", exchange(3)));
    }

    #[test]
    fn what_waits_is_not_told_once_more_and_who_decided_first_is_known() {
        let mut notices = Notices::default();
        notices.take(1, &leaf("n-1", ErasureStage::Received, PEER, &[1]));
        assert!(notices.is_open(PEER, exchange(1)) && !notices.is_open(PEER, exchange(2)));
        assert!(!notices.is_open("NORD/MV/kasse/s1", exchange(1)), "each server for itself");
        let mut first = leaf("n-1", ErasureStage::Applied, PEER, &[]);
        if let Some(Entry::ErasureNotice(notice)) = &mut first.entry {
            (notice.operator, notice.operator_user) = ("Frauke".into(), Some(7));
        }
        notices.take(2, &first);
        let waits = notices.waiting("n-1").unwrap();
        assert_eq!((waits.operator_user, waits.at, &waits.exchanges[..]), (Some(7), 1, &[exchange(1)][..]));
        notices.take(3, &leaf("n-1", ErasureStage::Approved, PEER, &[]));
        assert!(notices.is_open(PEER, exchange(1)), "until it is erased");
        notices.done("n-1");
        assert!(!notices.is_open(PEER, exchange(1)));
    }
}
