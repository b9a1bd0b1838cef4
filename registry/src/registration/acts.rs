//! Acts: applied for by one administrator, approved by another, or rejected.

use std::time::Duration;

use prost::Message;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::management::{Act, ActId, Authority, rehearse};
use trave_proto::schema::management::{
    ActEntry, ActRejected, ActSignature, SignedAct, registry_event::Event,
};

use super::{Registration, RegistrationError};
use crate::state::{ActRecord, Published, Stage, State};

/// Most acts that may be pending, and their size in bytes: of all administrators, and of one, who must not be able to
/// stop the others.
const MAX_PENDING: (usize, usize) = (500, 16 * 1024 * 1024);
const MAX_PENDING_OF_ONE: (usize, usize) = (100, 2 * 1024 * 1024);
/// Most acts in one answer, and their size in bytes: an administrator's program reads 32 MiB.
const MAX_LIST: usize = 5_000;
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
const MAX_REASON: usize = 1_000;
/// How far an act's creation may lie ahead of the registry's clock.
const AHEAD: Duration = Duration::from_secs(5 * 60);

impl Registration {
    /// Takes in an act that the administrator with the key `who` signed as its applicant.
    pub(crate) async fn apply(&self, who: &Digest, signed: SignedAct) -> Result<ActId, RegistrationError> {
        let mut state = self.store.lock().await;
        let latest = self.latest()?;
        let now = self.clock.now();
        let act = Act::parse(&signed.act).map_err(RegistrationError::Act)?;
        let applicant = self.authority(&latest)?;
        let applicant = applicant
            .verify_application(&act, signed.applicant.as_ref(), now)
            .map_err(RegistrationError::Act)?;
        if applicant.key != *who {
            return Err(RegistrationError::OtherKey);
        }
        if act.created() > now.plus(AHEAD) {
            return Err(RegistrationError::Future);
        }
        // An enrolment was drafted by the registry and is applied for as it stands.
        let known = state.act(&act.id());
        let drafted =
            |record: &ActRecord| record.stage == Stage::Requested && record.signed.act == signed.act;
        if !known.is_none_or(drafted) {
            return Err(RegistrationError::Known(act.id()));
        }
        check_quota(&state, now, who, &signed)?;
        let open: Vec<&Act> = pending(&state, now, &[Stage::Approved, Stage::Applied], &act.id());
        rehearse_with(&latest, open, &act)?;
        let applied = SignedAct { approver: None, ..signed };
        self.store.record(&mut state, Event::Applied(applied)).await.map_err(RegistrationError::Journal)?;
        tracing::info!(act = %act.id(), "act applied for");
        Ok(act.id())
    }

    /// Takes in the approval of the administrator with the key `who`.
    pub(crate) async fn approve(
        &self,
        who: &Digest,
        id: &[u8],
        approver: Option<ActSignature>,
    ) -> Result<ActId, RegistrationError> {
        let mut state = self.store.lock().await;
        let latest = self.latest()?;
        let now = self.clock.now();
        let record = find(&state, id)?;
        require_stage(record, &[Stage::Applied], "approved")?;
        let signed = SignedAct { approver, ..record.signed.clone() };
        let authority = self.authority(&latest)?;
        let (act, _, approver) = authority.verify(&signed, now).map_err(RegistrationError::Act)?;
        if approver.key != *who {
            return Err(RegistrationError::OtherKey);
        }
        rehearse_with(&latest, pending(&state, now, &[Stage::Approved], &act.id()), &act)?;
        self.store.record(&mut state, Event::Approved(signed)).await.map_err(RegistrationError::Journal)?;
        tracing::info!(act = %act.id(), "act approved");
        Ok(act.id())
    }

    /// Rejects a pending act in the name of the administrator with the key `who`. Any one may: nothing changes by it.
    /// An approved one can be withdrawn so until the cosigners are asked to sign it.
    pub(crate) async fn reject(
        &self,
        who: &Digest,
        id: &[u8],
        reason: &str,
    ) -> Result<(), RegistrationError> {
        let mut state = self.store.lock().await;
        let administrator = Self::administrator(&*self.latest()?, who)?;
        let record = find(&state, id)?;
        require_stage(record, &[Stage::Requested, Stage::Applied, Stage::Approved], "rejected")?;
        if state.is_proposed(&record.act) {
            return Err(RegistrationError::Proposed(record.act.id()));
        }
        if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(RegistrationError::Malformed(
                "the reason is longer than 1000 bytes, or not plain text",
            ));
        }
        let (id, reason) = (record.act.id().to_bytes(), reason.to_owned());
        let rejected = ActRejected { id, reason, administrator: administrator.name };
        self.store.record(&mut state, Event::Rejected(rejected)).await.map_err(RegistrationError::Journal)
    }

    /// All acts, or those that are pending, or the one with an `id` that is not empty. Oldest first; where there are too
    /// many for one answer, the youngest.
    pub(crate) async fn acts(
        &self,
        pending_only: bool,
        id: &[u8],
    ) -> Result<Vec<ActEntry>, RegistrationError> {
        let state = self.store.lock().await;
        let latest = self.latest()?;
        let now = self.clock.now();
        let one = (!id.is_empty()).then(|| ActId::from_slice(id).and_then(|id| state.act(&id)));
        let shown: Vec<_> = match one {
            Some(one) => one.into_iter().filter(|record| !pending_only || record.is_pending(now)).collect(),
            None => listed(&state, |record| !pending_only || record.is_pending(now)),
        };
        let entry = |record: &ActRecord| ActEntry {
            act: Some(record.signed.clone()),
            state: stage_name(record, record.is_pending(now)).into(),
            applicant: name_of(&latest, record.signed.applicant.as_ref()),
            approver: name_of(&latest, record.signed.approver.as_ref()),
            configuration_number: match record.stage {
                Stage::InForce(number) => number,
                _ => 0,
            },
        };
        Ok(shown.into_iter().map(entry).collect())
    }

    fn authority(&self, latest: &Published) -> Result<Authority, RegistrationError> {
        let refused =
            |source| RegistrationError::Follow(trave_proto::management::FollowError::Result { source });
        Authority::of(&latest.decoded).map_err(refused)
    }
}

/// The youngest acts that are `wanted`, as many as one answer holds, oldest first.
fn listed(state: &State, wanted: impl Fn(&ActRecord) -> bool) -> Vec<&ActRecord> {
    let mut bytes = 0;
    let fits = |record: &&ActRecord| {
        bytes += record.signed.encoded_len();
        bytes <= MAX_LIST_BYTES
    };
    let mut shown: Vec<_> =
        state.acts().rev().filter(|record| wanted(record)).take(MAX_LIST).take_while(fits).collect();
    shown.reverse();
    shown
}

/// Where an act stands, in the words of the schema.
pub(super) fn stage_name(record: &ActRecord, is_pending: bool) -> &'static str {
    match record.stage {
        Stage::InForce(_) => "in_force",
        Stage::Rejected => "rejected",
        Stage::Failed => "failed",
        _ if !is_pending => "expired",
        Stage::Requested => "requested",
        Stage::Applied => "applied",
        Stage::Approved => "approved",
    }
}

/// Requires that one more act of this applicant finds room.
fn check_quota(state: &State, now: Time, who: &Digest, signed: &SignedAct) -> Result<(), RegistrationError> {
    let applied = |record: &&ActRecord| record.is_pending(now) && record.signed.applicant.is_some();
    let own = |record: &ActRecord| {
        let key = record.signed.applicant.as_ref().and_then(|it| Digest::from_slice(&it.key));
        key.as_ref() == Some(who)
    };
    let begin = (1, signed.encoded_len());
    let (mut all, mut of_one) = (begin, begin);
    for record in state.acts().filter(applied) {
        let bytes = record.signed.encoded_len();
        all = (all.0 + 1, all.1 + bytes);
        if own(record) {
            of_one = (of_one.0 + 1, of_one.1 + bytes);
        }
    }
    if of_one.0 > MAX_PENDING_OF_ONE.0 || of_one.1 > MAX_PENDING_OF_ONE.1 {
        return Err(RegistrationError::TooMany("acts of yours"));
    }
    if all.0 > MAX_PENDING.0 || all.1 > MAX_PENDING.1 {
        return Err(RegistrationError::TooMany("acts"));
    }
    Ok(())
}

/// Acts at one of `stages` that can still come into force, without the one with `id`.
fn pending<'s>(state: &'s State, now: Time, stages: &[Stage], id: &ActId) -> Vec<&'s Act> {
    let counts = |record: &&ActRecord| {
        record.is_pending(now) && stages.contains(&record.stage) && record.act.id() != *id
    };
    state.acts().filter(counts).map(|record| &record.act).collect()
}

/// Tells an administrator at once what could not be carried out: after the `open` acts as far as they hold together.
fn rehearse_with(latest: &Published, open: Vec<&Act>, act: &Act) -> Result<(), RegistrationError> {
    let mut acts: Vec<&Act> = Vec::with_capacity(open.len() + 1);
    acts.extend(open);
    acts.push(act);
    if rehearse(&latest.decoded, &acts).is_ok() {
        return Ok(());
    }
    // Perhaps another act is in the way, not this one: then this one must hold by itself.
    rehearse(&latest.decoded, &[act]).map_err(RegistrationError::Follow)
}

fn find<'s>(state: &'s State, id: &[u8]) -> Result<&'s ActRecord, RegistrationError> {
    let found = ActId::from_slice(id).and_then(|id| state.act(&id));
    let printed = &id[..id.len().min(16)];
    found.ok_or_else(|| RegistrationError::Unknown(hex::encode(printed)))
}

fn require_stage(
    record: &ActRecord,
    stages: &[Stage],
    wanted: &'static str,
) -> Result<(), RegistrationError> {
    if stages.contains(&record.stage) {
        return Ok(());
    }
    Err(RegistrationError::Stage { id: record.act.id(), stage: stage_name(record, true), wanted })
}

fn name_of(latest: &Published, signature: Option<&ActSignature>) -> String {
    let Some(signature) = signature else { return String::new() };
    let key = Digest::from_slice(&signature.key);
    let listed = key.and_then(|key| latest.configuration.administrator(&key));
    listed.map_or_else(|| "(no longer an administrator)".into(), |person| person.name.clone())
}
