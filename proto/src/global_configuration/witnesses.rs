//! Who watches that no message log has two stories: the witnesses, and what happens while they or timestamps are missing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::servers::Servers;
use super::text::{FieldError, is_code, require, require_ascending, require_urls};
use crate::checkpoint::WitnessVerifier;
use crate::clock::Time;
use crate::identifier::ServerId;
use crate::schema::configuration as schema;

/// More could not stand under one note.
const MAX_WITNESSES: usize = 32;
const MAX_NAME: usize = 255;
const MAX_AFTER_MS: u64 = 30 * 24 * 3_600_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A witness of message logs (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessEntry {
    /// Its name and the key of its cosignatures.
    pub verifier: WitnessVerifier,
    /// Member class of the state in which it stands.
    pub class: String,
    /// Where checkpoints are submitted, without `/add-checkpoint`.
    pub url: String,
}

impl WitnessEntry {
    /// Whether it stands in another state than this security server.
    pub fn is_foreign_to(&self, server: &ServerId) -> bool {
        self.class != server.class()
    }
}

/// What happens while something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// After this time people are told.
    pub alarm_after: Duration,
    /// After this time exchanges are refused; none for never.
    pub refuse_after: Option<Duration>,
}

impl Deadlines {
    /// Whether people are to be told of what has been missing since then.
    pub fn alarms(&self, since: Time, now: Time) -> bool {
        now.since(since) > self.alarm_after
    }

    /// Whether exchanges are to be refused for what has been missing since then.
    pub fn refuses(&self, since: Time, now: Time) -> bool {
        self.refuse_after.is_some_and(|after| now.since(since) > after)
    }

    /// How long it is until exchanges are refused; none for never.
    pub fn left(&self, since: Time, now: Time) -> Option<Duration> {
        self.refuse_after.map(|after| after.saturating_sub(now.since(since)))
    }
}

/// Who must have cosigned a checkpoint, and what happens while they have not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessing {
    required: Vec<String>,
    /// None: one, if there is one.
    of_other_classes: Option<usize>,
    /// What happens while they have not.
    pub deadlines: Deadlines,
}

impl Witnessing {
    /// Who is missing under a checkpoint of a log of `server`, of these `witnesses`, where `cosigned` says who has
    /// cosigned; none if it counts as witnessed. In words.
    pub fn missing(
        &self,
        witnesses: &[WitnessEntry],
        server: &ServerId,
        cosigned: impl Fn(&WitnessVerifier) -> bool,
    ) -> Option<String> {
        let has = |name: &String| {
            witnesses.iter().any(|witness| witness.verifier.name() == name && cosigned(&witness.verifier))
        };
        let absent: Vec<_> = self.required.iter().filter(|name| !has(name)).map(String::as_str).collect();
        if !absent.is_empty() {
            return Some(format!("the cosignature of {}", absent.join(", ")));
        }
        let foreign = witnesses.iter().filter(|witness| witness.is_foreign_to(server));
        let (mut listed, mut signed) = (0, 0);
        for witness in foreign {
            listed += 1;
            signed += usize::from(cosigned(&witness.verifier));
        }
        let needed = self.of_other_classes.unwrap_or_else(|| listed.min(1));
        (signed < needed)
            .then(|| format!("the cosignatures of {} more witnesses of another state", needed - signed))
    }

    /// Whether anything is asked of a log of `server` at all.
    pub fn asks(&self, witnesses: &[WitnessEntry], server: &ServerId) -> bool {
        self.missing(witnesses, server, |_| false).is_some()
    }
}

/// Each witness has a name and a key that nothing else has.
pub(super) fn check_witnesses(
    list: &[schema::Witness],
    servers: &Servers,
) -> Result<Vec<WitnessEntry>, FieldError> {
    require_ascending(list, MAX_WITNESSES, "witnesses", |witness| witness.name.as_str())?;
    let mut keys: HashSet<[u8; 32]> = servers.logs.values().map(|log| log.public_key).collect();
    let mut witnesses = Vec::with_capacity(list.len());
    for (i, witness) in list.iter().enumerate() {
        let at = |field: &str| format!("witnesses[{i}].{field}");
        let visible = witness.name.len() <= MAX_NAME && witness.name.bytes().all(|b| b.is_ascii_graphic());
        require(visible, || at("name"), "is not the name of a C2SP signed note's key")?;
        let key: [u8; 32] = witness
            .public_key
            .as_ref()
            .try_into()
            .map_err(|_| FieldError::new(at("public_key"), "is no Ed25519 public key of 32 bytes"))?;
        require(keys.insert(key), || at("public_key"), "is in use elsewhere")?;
        require(is_code(&witness.class), || at("class"), "is not a member class")?;
        require_urls(std::slice::from_ref(&witness.url), &at("url"))?;
        let verifier = WitnessVerifier::new(&witness.name, key)
            .map_err(|error| FieldError::new(at("name"), error.to_string()))?;
        witnesses.push(WitnessEntry { verifier, class: witness.class.clone(), url: witness.url.clone() });
    }
    Ok(witnesses)
}

pub(super) fn check_witnessing(policy: Option<&schema::Witnessing>) -> Result<Witnessing, FieldError> {
    let Some(policy) = policy else {
        let deadlines = Deadlines { alarm_after: HOUR, refuse_after: None };
        return Ok(Witnessing { required: Vec::new(), of_other_classes: None, deadlines });
    };
    let at = "policy.witnessing";
    require_ascending(&policy.required, MAX_WITNESSES, &format!("{at}.required"), String::as_str)?;
    Ok(Witnessing {
        required: policy.required.clone(),
        of_other_classes: Some(usize::try_from(policy.of_other_classes).unwrap_or(usize::MAX)),
        deadlines: check_deadlines(policy.deadlines.as_ref(), &format!("{at}.deadlines"))?,
    })
}

pub(super) fn check_timestamping(policy: Option<&schema::Deadlines>) -> Result<Deadlines, FieldError> {
    match policy {
        None => Ok(Deadlines { alarm_after: HOUR, refuse_after: Some(72 * HOUR) }),
        Some(_) => check_deadlines(policy, "policy.timestamping"),
    }
}

fn check_deadlines(deadlines: Option<&schema::Deadlines>, at: &str) -> Result<Deadlines, FieldError> {
    let deadlines = deadlines.ok_or_else(|| FieldError::new(at, "are absent"))?;
    let schema::Deadlines { alarm_after_ms: alarm, refuse_after_ms: refuse } = *deadlines;
    let holds = (1..=MAX_AFTER_MS).contains(&alarm);
    require(holds, || format!("{at}.alarm_after_ms"), "is not 1 millisecond to 30 days")?;
    let holds = refuse == 0 || (alarm..=MAX_AFTER_MS).contains(&refuse);
    require(holds, || format!("{at}.refuse_after_ms"), "is neither 0 nor from the alarm to 30 days")?;
    let refuse_after = (refuse != 0).then(|| Duration::from_millis(refuse));
    Ok(Deadlines { alarm_after: Duration::from_millis(alarm), refuse_after })
}

/// What the policy asks can be had: nobody may lock out a whole state by a witness that does not exist.
pub(super) fn check_enough(
    policy: &Witnessing,
    witnesses: &[WitnessEntry],
    servers: &Servers,
) -> Result<(), FieldError> {
    for (i, name) in policy.required.iter().enumerate() {
        let known = witnesses.iter().any(|witness| witness.verifier.name() == name);
        require(known, || format!("policy.witnessing.required[{i}]"), "is not a registered witness")?;
    }
    let mut by_class: BTreeMap<&str, usize> = BTreeMap::new();
    for witness in witnesses {
        *by_class.entry(&witness.class).or_default() += 1;
    }
    let classes: BTreeSet<&str> = servers.servers.keys().map(ServerId::class).collect();
    for class in classes {
        let foreign = witnesses.len() - by_class.get(class).unwrap_or(&0);
        let needed = policy.of_other_classes.unwrap_or(0);
        require(
            needed <= foreign,
            || "policy.witnessing.of_other_classes".into(),
            &format!("asks for more witnesses than there are for the security servers of {class}"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "witnesses_tests.rs"]
mod tests;
