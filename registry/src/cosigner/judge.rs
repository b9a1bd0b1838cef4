//! What a cosigner signs: the configuration that it derives itself, byte for byte, from the one it signed before and from
//! acts that two administrators signed. It believes nothing that the registry says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::encoding::{EncodingError, decode_canonical};
use trave_proto::global_configuration::{Anchor, Configuration, ConfigurationError};
use trave_proto::management::{Act, ActId, FollowError, Validity, check_genesis, follow};
use trave_proto::schema::configuration::{GlobalConfiguration, KeySignature, SignedConfiguration};
use trave_proto::schema::management::{CosignRequest, SignedAct};

/// How far a proposal's time may lie ahead of the cosigner's clock.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// How old a proposal may be. An older one is answered with "stale", so that the registry makes a new one.
const AGE: Duration = Duration::from_secs(10 * 60);
/// Longest validity that is signed.
const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a cosigner does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not the one encoding of a configuration.
    #[error("the proposed configuration cannot be read")]
    Encoding {
        /// Why.
        source: EncodingError,
    },
    /// The first configuration is another than the one made at the ceremony.
    #[error("the first configuration has the digest {found}, not the one agreed on at the ceremony")]
    Genesis {
        /// What was proposed.
        found: Digest,
    },
    /// Another configuration of a number that was signed already, or an older one.
    #[error(
        "ALARM: number {last} was signed already, and a different configuration of number {proposed} is proposed"
    )]
    SignedAlready {
        /// Last number signed.
        last: u64,
        /// Number proposed.
        proposed: u64,
    },
    /// Configurations in between are missing.
    #[error("number {proposed} is proposed, but the last one known here is {last}")]
    Behind {
        /// Last number signed or followed; 0 if none.
        last: u64,
        /// Number proposed.
        proposed: u64,
    },
    /// Too old to be signed now. Nothing of this number was signed here.
    #[error("the proposal of {issued} is too old to be signed now; propose anew")]
    Stale {
        /// When it says it was issued.
        issued: Time,
    },
    /// Its times cannot be right.
    #[error("the proposal says it is issued at {issued} and valid until {until}, here it is {now}")]
    Times {
        /// When it says it is issued.
        issued: Time,
        /// Until when it would be valid.
        until: Time,
        /// The cosigner's time.
        now: Time,
    },
    /// An act that came into force before.
    #[error("the act {id} came into force already and cannot again")]
    UsedAct {
        /// The act.
        id: ActId,
    },
    /// Nothing valid follows from the acts.
    #[error("the acts do not lead to a configuration")]
    Follow {
        /// Why.
        source: FollowError,
    },
    /// What follows from the acts is not what was proposed.
    #[error("ALARM: the proposal is not what follows from the configuration before and the signed acts")]
    Differs,
    /// A configuration that was missed is not signed as the anchor demands.
    #[error("a configuration that was missed here does not hold")]
    Missed {
        /// Why.
        source: ConfigurationError,
    },
}

/// What a cosigner goes by, fixed by its own administrator.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) anchor: Anchor,
    pub(super) key_name: String,
    pub(super) genesis: Digest,
}

/// What a cosigner remembers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Memory {
    pub(super) last: Option<SignedConfiguration>,
    pub(super) used: BTreeMap<ActId, Time>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// This very configuration was signed before: the same answer again.
    Again(KeySignature),
    /// Remember this, durably, with the own signature beside the last configuration; then answer.
    Sign(Memory),
}

/// Decides on a request.
pub(super) fn judge(
    memory: &Memory,
    rules: &Rules,
    request: &CosignRequest,
    now: Time,
) -> Result<Verdict, Refusal> {
    let proposed = request.proposed.clone().unwrap_or_default();
    if let Some(signature) = own_signature(memory, rules, &proposed.configuration) {
        return Ok(Verdict::Again(signature));
    }
    let mut memory = memory.clone();
    for missed in &request.missed {
        catch_up(&mut memory, rules, missed)?;
    }
    let configuration = decode(&proposed.configuration)?;
    // Number and chain first: "stale" says that nothing of this number was signed here.
    advance(&mut memory, rules, &configuration, request)?;
    check_times(&configuration, &proposed, rules, now)?;
    memory.last = Some(SignedConfiguration { configuration: proposed.configuration, signatures: Vec::new() });
    Ok(Verdict::Sign(memory))
}

fn own_signature(memory: &Memory, rules: &Rules, proposed: &Bytes) -> Option<KeySignature> {
    let last = memory.last.as_ref().filter(|last| last.configuration == *proposed)?;
    last.signatures.iter().find(|signature| signature.key == rules.key_name).cloned()
}

/// Follows a configuration that others signed while this cosigner was away: with as many signatures as the anchor
/// demands, and derived here once more all the same.
fn catch_up(memory: &mut Memory, rules: &Rules, missed: &CosignRequest) -> Result<(), Refusal> {
    let signed = missed.proposed.clone().unwrap_or_default();
    let known = Configuration::verify(&signed, &rules.anchor).map_err(|source| Refusal::Missed { source })?;
    if last_configuration(memory)?.is_some_and(|last| last.number >= known.number()) {
        return Ok(());
    }
    advance(memory, rules, &decode(&signed.configuration)?, missed)?;
    memory.last = Some(signed);
    Ok(())
}

/// Derives the configuration from the last one and the acts, and requires that it is the proposed one.
fn advance(
    memory: &mut Memory,
    rules: &Rules,
    proposed: &GlobalConfiguration,
    request: &CosignRequest,
) -> Result<(), Refusal> {
    let Some(last) = last_configuration(memory)? else {
        return check_first(rules, proposed);
    };
    if proposed.number <= last.number {
        return Err(Refusal::SignedAlready { last: last.number, proposed: proposed.number });
    }
    if proposed.number != last.number + 1 {
        return Err(Refusal::Behind { last: last.number, proposed: proposed.number });
    }
    let validity = Validity {
        issued: Time::from_millis(proposed.issued_ms),
        until: Time::from_millis(proposed.valid_until_ms),
    };
    let derived = follow(&last, &request.acts, validity).map_err(|source| Refusal::Follow { source })?;
    if derived != *proposed {
        return Err(Refusal::Differs);
    }
    remember(memory, &request.acts, validity.issued)
}

/// No act comes into force twice. What has expired need not be remembered: it cannot come into force any more.
fn remember(memory: &mut Memory, acts: &[SignedAct], issued: Time) -> Result<(), Refusal> {
    memory.used.retain(|_, expires| *expires >= issued);
    for signed in acts {
        let act = Act::parse(&signed.act)
            .map_err(|source| Refusal::Follow { source: FollowError::Act { position: 0, source } })?;
        if memory.used.insert(act.id(), act.expires()).is_some() {
            return Err(Refusal::UsedAct { id: act.id() });
        }
    }
    Ok(())
}

fn check_first(rules: &Rules, proposed: &GlobalConfiguration) -> Result<(), Refusal> {
    if proposed.number != 1 {
        return Err(Refusal::Behind { last: 0, proposed: proposed.number });
    }
    let found = Digest::of(&proposed.encode_to_vec());
    if found != rules.genesis {
        return Err(Refusal::Genesis { found });
    }
    check_genesis(proposed).map_err(|source| Refusal::Follow { source })
}

/// A new configuration is issued now, and not for ever. The first one was fixed at the ceremony. One that bears a second
/// signature already was seen in time by another cosigner: a chain with a gap would help nobody.
fn check_times(
    proposed: &GlobalConfiguration,
    signed: &SignedConfiguration,
    rules: &Rules,
    now: Time,
) -> Result<(), Refusal> {
    let (issued, until) = (Time::from_millis(proposed.issued_ms), Time::from_millis(proposed.valid_until_ms));
    if issued > now.plus(AHEAD) || until.since(issued) > VALIDITY {
        return Err(Refusal::Times { issued, until, now });
    }
    let seen_in_time = proposed.number == 1 || rules.anchor.count_valid(signed) >= 2;
    if now.since(issued) > AGE && !seen_in_time {
        return Err(Refusal::Stale { issued });
    }
    Ok(())
}

fn last_configuration(memory: &Memory) -> Result<Option<GlobalConfiguration>, Refusal> {
    memory.last.as_ref().map(|last| decode(&last.configuration)).transpose()
}

fn decode(bytes: &[u8]) -> Result<GlobalConfiguration, Refusal> {
    decode_canonical("global configuration", bytes).map_err(|source| Refusal::Encoding { source })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
