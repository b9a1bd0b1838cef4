//! Whom the verifier trusts: from the anchor in the verifier's hands to the configurations under which the messages were
//! sent.

use std::collections::BTreeMap;

use super::limits;
use super::reading::Reading;
use super::report::{Failure, Found};
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration, ConfigurationError};
use crate::schema::configuration::{SignedAnchor, SignedConfiguration};
use crate::schema::proof::Proof;

/// Field of `GlobalConfiguration` with its version.
const VERSION_FIELD: u64 = 1;
/// Field of `GlobalConfiguration` with its instance.
const INSTANCE_FIELD: u64 = 2;

/// The anchors that the verifier has reason to trust, its own first, and those before it, which it has none to.
#[derive(Debug)]
pub(super) struct Anchors {
    trusted: Vec<Anchor>,
    earlier: Vec<Anchor>,
}

impl Anchors {
    /// Follows the chain of anchors in the file from the verifier's own.
    pub(super) fn follow(chain: &[SignedAnchor], own: &Anchor) -> Found<Self> {
        let refused = |error| Failure::because("the chain of anchors", &error);
        let at = chain.iter().position(|signed| signed.anchor == own.bytes());
        let (before, after) = chain.split_at(at.map_or(0, |at| at + 1));
        if let (None, Some(first)) = (at, after.first()) {
            check_first(first, own)?;
        }
        let mut trusted = vec![own.clone()];
        for signed in after {
            let next = trusted[trusted.len() - 1].verify_successor(signed).map_err(refused)?;
            trusted.push(next);
        }
        // The last one before is the verifier's own: the links up to it must hold too, or the file was tampered with.
        let mut earlier: Vec<Anchor> = Vec::new();
        for signed in before {
            let next = match earlier.last() {
                None => Anchor::parse(&signed.anchor),
                Some(last) => last.verify_successor(signed),
            };
            earlier.push(next.map_err(refused)?);
        }
        earlier.pop();
        let last = &trusted[trusted.len() - 1];
        let detail = format!("instance {}, anchor {} to {}", own.instance(), own.number(), last.number());
        Ok((Self { trusted, earlier }, detail))
    }
}

/// Whether `first` can follow the verifier's own anchor at all; if not, this verifier cannot tell.
fn check_first(first: &SignedAnchor, own: &Anchor) -> Result<(), Failure> {
    let first = Anchor::parse(&first.anchor).map_err(|error| Failure::because("an anchor", &error))?;
    if first.instance() != own.instance() {
        return Err(other_instance(first.instance(), own));
    }
    if first.number() == own.number() {
        let why = "the file holds another anchor of the same number: ask the instance which one is false";
        return Err(Failure::fails(format!("{why}; yours has the digest {}", own.digest())));
    }
    if first.number() != own.number().saturating_add(1) {
        let (first, own) = (first.number(), own.number());
        let why =
            format!("the file's anchors begin with number {first} and do not lead from yours, number {own}");
        return Err(Failure::CannotTell(why));
    }
    Ok(())
}

fn other_instance(found: &str, own: &Anchor) -> Failure {
    let (found, own) = (found.chars().take(64).collect::<String>(), own.instance());
    Failure::CannotTell(format!(
        "the file is of the instance {found:?}, your anchor of {own:?}: use that instance's anchor"
    ))
}

/// The configurations of the file, each signed as an anchor demands.
#[derive(Debug)]
pub(super) struct Trust(BTreeMap<Digest, Configuration>);

impl Trust {
    /// Verifies each configuration under the anchors.
    pub(super) fn verify(proof: &Proof, reading: &Reading<'_>, anchors: &Anchors) -> Found<Self> {
        let verified = proof.configurations.iter().map(|signed| verify_one(signed, anchors));
        let verified = verified.collect::<Result<Vec<_>, _>>()?;
        for pair in verified.windows(2) {
            check_pair(&pair[0], &pair[1])?;
        }
        let trust = Self(verified.into_iter().map(|one| (one.digest(), one)).collect());
        for message in &reading.messages {
            let named = trust.get(&message.manifest.configuration_digest)?.number();
            if named != message.manifest.configuration_number {
                let (label, number) = (message.label(), message.manifest.configuration_number);
                let why = format!("{label} names configuration {number} by the digest of number {named}");
                return Err(Failure::Fails(why));
            }
        }
        let numbers: Vec<_> = trust.numbers().iter().map(|(number, _)| number.to_string()).collect();
        Ok((trust, format!("number {}", numbers.join(", "))))
    }

    /// The configuration of that digest.
    pub(super) fn get(&self, digest: &Digest) -> Result<&Configuration, Failure> {
        self.0.get(digest).ok_or_else(|| Failure::fails(format!("the configuration {digest} is missing")))
    }

    /// Number and digest of each, ascending by number.
    pub(super) fn numbers(&self) -> Vec<(u64, Digest)> {
        let mut all: Vec<_> = self.0.values().map(|one| (one.number(), one.digest())).collect();
        all.sort_unstable();
        all
    }
}

fn verify_one(signed: &SignedConfiguration, anchors: &Anchors) -> Result<Configuration, Failure> {
    let mut refused = None;
    for anchor in &anchors.trusted {
        match Configuration::verify(signed, anchor) {
            Ok(verified) => return Ok(verified),
            Err(error @ ConfigurationError::Signatures { .. }) => {
                refused.get_or_insert(error);
            }
            // Enough keys of this anchor have signed it.
            Err(error) => return Err(unreadable(signed, &error)),
        }
    }
    if let Some(anchor) = anchors.earlier.iter().find(|anchor| Configuration::verify(signed, anchor).is_ok())
    {
        let number = anchor.number();
        let why = format!(
            "a configuration was signed under anchor {number}, which came before yours: use that one"
        );
        return Err(Failure::CannotTell(why));
    }
    let own = &anchors.trusted[0];
    let instance = limits::find(&signed.configuration, INSTANCE_FIELD);
    match instance.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        Some(instance) if instance != own.instance() => Err(other_instance(instance, own)),
        _ => Err(refused.map_or_else(
            || Failure::fails("a configuration is not signed"),
            |error| Failure::because("a configuration", &error),
        )),
    }
}

/// Signed, and not readable here: of a newer version, or published by mistake.
fn unreadable(signed: &SignedConfiguration, error: &ConfigurationError) -> Failure {
    match limits::find(&signed.configuration, VERSION_FIELD) {
        Some([version]) if *version > 1 => Failure::CannotTell(format!(
            "configurations of version {version} are not known here: use a newer trave-verify"
        )),
        _ => Failure::because("a configuration", error),
    }
}

/// Neighbours ascend by number; two of one number, or a successor that was not built upon the one before, is an alarm.
fn check_pair(one: &Configuration, next: &Configuration) -> Result<(), Failure> {
    if next.number() < one.number() {
        return Err(Failure::fails("the configurations are not in the order of their numbers"));
    }
    if next.number() == one.number() {
        let number = one.number();
        let why =
            format!("ALARM: two signed configurations have the number {number}; tell the administrators");
        return Err(Failure::Fails(why));
    }
    if next.number() == one.number() + 1 {
        next.follows(one).map_err(|error| Failure::because("the configurations", &error))?;
    }
    Ok(())
}
