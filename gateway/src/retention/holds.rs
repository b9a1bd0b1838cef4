//! Legal holds: records that no schedule touches, and why. The log is the truth, this is its view.

use std::collections::BTreeMap;
use std::time::Duration;

use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{self, Leaf, leaf::Entry};

use super::About;

/// For how long a hold holds that was applied for and nobody approved.
const PROVISIONAL: Duration = Duration::from_secs(14 * 86_400);

/// Why a change of a hold cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// There is no such hold.
    #[error("there is no hold {0}\nhint: `hold list` shows those there are")]
    Unknown(String),
    /// Nothing was applied for.
    #[error("nothing about hold {0} waits for approval")]
    NothingWaits(String),
}

/// A hold as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hold {
    /// As it was applied for, or approved.
    pub(crate) set: log::Hold,
    /// When it was logged first.
    pub(crate) since: Time,
    /// What was applied for, to end it.
    pub(crate) lifting: Option<log::Hold>,
}

impl Hold {
    /// Whether it holds now.
    pub(crate) fn holds(&self, now: Time) -> bool {
        !self.set.applied || now < self.since.plus(PROVISIONAL)
    }

    fn names(&self, exchange: ExchangeId) -> bool {
        self.set.exchange_ids.iter().any(|id| *id == exchange.as_bytes()[..])
    }

    fn fits(&self, about: &About) -> bool {
        let set = &self.set;
        if !set.exchange_ids.is_empty() {
            return about.exchange.is_some_and(|exchange| self.names(exchange));
        }
        let member =
            |client: &str| about.client.strip_prefix(client).is_some_and(|rest| rest.starts_with('/'));
        let client = set.client.is_empty() || about.client == set.client || member(&set.client);
        let begun = about.begun.as_millis();
        client
            && (set.service.is_empty() || about.service == set.service)
            && set.from_ms.is_none_or(|from| begun >= from)
            && set.to_ms.is_none_or(|to| begun < to)
    }
}

/// All holds that have not ended, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(BTreeMap<String, Hold>);

impl Holds {
    /// Takes over one record of the log, in the log's order. What is not about holds changes nothing.
    pub(crate) fn take(&mut self, leaf: &Leaf) {
        let Some(Entry::Hold(hold)) = &leaf.entry else { return };
        let known = self.0.get_mut(&hold.id);
        match (hold.lifted, hold.applied, known) {
            (true, true, Some(known)) => known.lifting = Some(hold.clone()),
            (true, true, None) => {}
            (true, false, _) => drop(self.0.remove(&hold.id)),
            (false, _, Some(known)) => (known.set, known.lifting) = (hold.clone(), None),
            (false, _, None) => {
                let since = Time::from_millis(leaf.logged_ms);
                self.0.insert(hold.id.clone(), Hold { set: hold.clone(), since, lifting: None });
            }
        }
    }

    /// The hold that keeps this now, if there is one.
    pub(crate) fn holding(&self, about: &About, now: Time) -> Option<&Hold> {
        self.0.values().find(|hold| hold.holds(now) && hold.fits(about))
    }

    /// Whether a hold names this exchange.
    pub(crate) fn names(&self, exchange: ExchangeId, now: Time) -> bool {
        self.0.values().any(|hold| hold.holds(now) && hold.names(exchange))
    }

    /// Whether anything is held.
    pub(crate) fn any(&self, now: Time) -> bool {
        self.0.values().any(|hold| hold.holds(now))
    }

    /// The hold of this id.
    pub(crate) fn get(&self, id: &str) -> Result<&Hold, HoldError> {
        self.0.get(id).ok_or_else(|| HoldError::Unknown(id.to_owned()))
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Hold> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_795_288_440_000);

    fn leaf(hold: log::Hold) -> Leaf {
        Leaf::of(NOW.as_millis(), Entry::Hold(hold))
    }

    fn about(id: u8, client: &str, begun: Time) -> About {
        About {
            exchange: Some(ExchangeId::new(NOW, &[id; 10])),
            client: client.into(),
            service: "NORD/MV/amt/register/auskunft".into(),
            purpose: "oots".into(),
            begun,
        }
    }

    #[test]
    fn a_hold_keeps_what_it_names_and_nothing_else() {
        let mut holds = Holds::default();
        let held = about(1, "NORD/SH/kiel/amt", NOW);
        let other = about(2, "NORD/SH/luebeck/amt", NOW);
        let id = bytes::Bytes::copy_from_slice(held.exchange.unwrap().as_bytes());
        holds.take(&leaf(log::Hold { id: "h-1".into(), exchange_ids: vec![id], ..Default::default() }));
        assert!(holds.holding(&held, NOW).is_some() && holds.holding(&other, NOW).is_none());
        assert!(holds.names(held.exchange.unwrap(), NOW));
        let (from, to) = (Some(NOW.as_millis()), Some(NOW.as_millis() + 10));
        let member = log::Hold {
            id: "h-2".into(),
            client: "NORD/SH/luebeck".into(),
            from_ms: from,
            to_ms: to,
            ..Default::default()
        };
        holds.take(&leaf(member));
        assert_eq!(holds.holding(&other, NOW).unwrap().set.id, "h-2");
        for outside in [
            about(2, "NORD/SH/luebeckX/amt", NOW),
            about(2, "NORD/SH/luebeck/amt", NOW.plus(Duration::from_millis(10))),
            about(2, "NORD/SH/luebeck/amt", NOW.minus(Duration::from_millis(1))),
        ] {
            assert!(holds.holding(&outside, NOW).is_none(), "{outside:?}");
        }
        holds.take(&leaf(log::Hold { id: "h-2".into(), lifted: true, applied: true, ..Default::default() }));
        assert!(holds.holding(&other, NOW).is_some(), "it was applied for that it end");
        holds.take(&leaf(log::Hold { id: "h-2".into(), lifted: true, ..Default::default() }));
        assert!(holds.holding(&other, NOW).is_none() && holds.get("h-2").is_err());
    }

    #[test]
    fn what_nobody_approves_holds_for_two_weeks() {
        let mut holds = Holds::default();
        let held = about(1, "NORD/SH/kiel/amt", NOW);
        let hold = log::Hold { id: "h-1".into(), client: "NORD/SH/kiel".into(), ..Default::default() };
        holds.take(&leaf(log::Hold { applied: true, ..hold.clone() }));
        let (before, after) = (NOW.plus(PROVISIONAL - Duration::from_millis(1)), NOW.plus(PROVISIONAL));
        assert!(holds.holding(&held, before).is_some() && holds.holding(&held, after).is_none());
        holds.take(&leaf(log::Hold { approver: "somebody".into(), ..hold }));
        assert!(holds.holding(&held, after).is_some());
    }
}
