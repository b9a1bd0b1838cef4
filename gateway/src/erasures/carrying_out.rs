//! Carrying out what was approved, also when a crash cut it off or it failed before.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use trave_host::config::with_causes;
use trave_message_log::{Concerned, ErasedPerson};
use trave_proto::identifier::ExchangeId;

use super::{Erasing, ErasureError, Notice, Notices, reading};

/// How often an erasure that fails is tried in one run of the server; each time after twice as long.
const MOST_TRIES: u32 = 10;

impl Erasing {
    /// Does what a crash cut off: erases where an approval stands in the log and no erasure. One that fails holds up no
    /// other; it is tried again ever more rarely, and after [`MOST_TRIES`] only when the server is started again, because
    /// each attempt may stand in the log.
    pub(crate) async fn redo(&self) -> Result<(), ErasureError> {
        let _turn = self.turn.lock().await;
        let mut failed = Ok(());
        for (notice, at) in self.look(Notices::approved) {
            if self.is_left_alone(&notice.id) {
                continue;
            }
            if let Err(error) = self.carry_out(&notice, at).await {
                self.failed(&notice.id);
                failed = failed.and(Err(error));
            }
        }
        failed
    }

    /// Whether an erasure that failed is left alone for this turn.
    fn is_left_alone(&self, id: &str) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((tries, turns)) = failing.get_mut(id) else { return false };
        let wait = *turns > 0 || *tries >= MOST_TRIES;
        *turns = turns.saturating_sub(1);
        wait
    }

    fn failed(&self, id: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (tries, turns) = failing.entry(id.to_owned()).or_default();
        *tries += 1;
        *turns = 1 << (*tries).min(MOST_TRIES);
    }

    /// Erases what no erasure stands in the log for behind the approval.
    pub(super) async fn carry_out(
        &self,
        notice: &Notice,
        approved: u64,
    ) -> Result<ErasedPerson, ErasureError> {
        let log = self.recorder.log().clone();
        let all = self.concerned(notice).await?;
        let (looking, exchanges) = (log.clone(), notice.exchanges.clone());
        let (concerned, others) = reading(move || {
            let left = |exchange: ExchangeId| looking.is_erased_since(exchange, approved).map(|done| !done);
            // A crash may have come between the erasing of an exchange and the forgetting of the person. A table that cannot
            // be read keeps nothing from being erased.
            let named = looking.still_named(&all);
            let named = named
                .inspect_err(|error| tracing::warn!(error = with_causes(error), "whom the log still names"));
            let named = named.unwrap_or_else(|_| all.clone());
            let mut concerned = Vec::new();
            for one in all {
                if named.contains(&one) || left(one.exchange)? {
                    concerned.push(one);
                }
            }
            let with_person: BTreeSet<_> = concerned.iter().map(|one| one.exchange).collect();
            let mut others = Vec::new();
            for exchange in exchanges.into_iter().filter(|exchange| !with_person.contains(exchange)) {
                if left(exchange)? && !looking.places(exchange)?.is_empty() {
                    others.push(exchange);
                }
            }
            Ok((concerned, others))
        })
        .await?;
        let (by, reason) = (notice.by(), notice.why());
        let of_person = log.erase_person(&concerned, &by, &reason).await;
        // What fails of one exchange keeps no other.
        let (mut of_others, mut failed) = (ErasedPerson::default(), Ok(()));
        for exchange in others {
            match log.erase(exchange, &by, &reason).await {
                Ok(contents) => of_others.contents += contents,
                Err(error) => failed = failed.and(Err(error)),
            }
            of_others.exchanges += 1;
        }
        // The contents first: as long as a pseudonym is there, a person whose erasing failed is found again.
        for exchange in &notice.exchanges {
            match self.generations.erase(*exchange, &by, &reason).await {
                Ok(earlier) => {
                    of_others.exchanges += u64::from(earlier.is_some());
                    of_others.contents += earlier.unwrap_or(0);
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        let mut erased = of_person.and_then(|it| failed.map(|()| it)).map_err(ErasureError::Log)?;
        erased.contents += of_others.contents;
        erased.exchanges += of_others.exchanges;
        let forgotten = self.generations.forget(&notice.persons, &by, &reason).await;
        erased.pseudonyms += forgotten.map_err(ErasureError::Log)?;
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).done(&notice.id);
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&notice.id);
        Ok(erased)
    }

    /// Where the person stands that a notice is about; an error if that cannot be said any more.
    pub(super) async fn concerned(&self, notice: &Notice) -> Result<Vec<Concerned>, ErasureError> {
        let (log, size) = (self.recorder.log().clone(), notice.at + 1);
        let here = notice.persons.iter().filter(|place| place.generation == 0);
        let persons: Vec<_> = here.copied().collect();
        reading(move || log.concerned_at(&persons, size)).await?.ok_or(ErasureError::Moved)
    }
}
