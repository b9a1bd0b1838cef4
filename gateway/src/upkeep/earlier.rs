//! What is due in earlier generations of the log goes as in the log itself; that it goes is said in the log that goes on.

use std::sync::Arc;

use trave_message_log::{LogError, SegmentSpan, Survey};
use trave_proto::clock::Time;
use trave_proto::schema::log::earlier_act::Act;

use super::Upkeep;
use super::retention::Done;
use crate::generations::{Generation, blocking};
use crate::retention::Schedules;

impl Upkeep {
    /// The segments of earlier generations in which something may be due.
    pub(super) fn due_earlier(&self, now: Time) -> Vec<(Arc<Generation>, SegmentSpan)> {
        let generations = self.erasing().generations().all().iter();
        let due = generations.flat_map(|generation| {
            let segments = generation.log().segments().into_iter();
            let due = segments.filter(|it| self.retaining.is_due(generation.number, it, now));
            due.map(|segment| (Arc::clone(generation), segment)).collect::<Vec<_>>()
        });
        due.collect()
    }

    /// Overwrites what is due in one of them.
    pub(super) async fn segment_earlier(
        &self,
        generation: &Arc<Generation>,
        segment: SegmentSpan,
        now: Time,
    ) -> Result<Done, LogError> {
        let (policy, holds) = (self.retaining.policy().clone(), self.retaining.holds());
        let (reading, seen) = (Arc::clone(generation), Arc::clone(&holds));
        let survey = blocking(move || {
            let log = reading.log();
            let mut schedules = Schedules::read(log, &policy, &holds, now)?.closed(end(reading.log(), now));
            log.survey(segment.first, now, &mut schedules)
        });
        let survey = survey.await?;
        // As in the log itself: a hold that came before is looked at.
        let _step = self.retaining.step.lock().await;
        if !Arc::ptr_eq(&seen, &self.retaining.holds()) {
            return Ok(Done::default());
        }
        self.say(generation, &survey).await?;
        let (acting, due) = (Arc::clone(generation), survey.clone());
        let month = |millis| Time::from_millis(millis).start_of_month().as_millis();
        let (contents, records) = blocking(move || acting.earlier().expire(&due, &month)).await?;
        let later = self.retaining.policy().earliest(now);
        let next = survey.next().map_or(later, |next| next.min(later));
        let stuck = survey.stuck();
        if stuck == 0 {
            self.retaining.remember((generation.number, segment.first), next);
        }
        Ok(Done { segments: u64::from(contents + records > 0), contents, records, stuck })
    }

    /// Logs what will be overwritten, if that is not said yet.
    async fn say(&self, generation: &Arc<Generation>, survey: &Survey) -> Result<(), LogError> {
        for records in [false, true] {
            let (acting, due) = (Arc::clone(generation), survey.clone());
            let act = blocking(move || acting.earlier().act(&due, records)).await?;
            if let Some(expiry) = act {
                self.erasing().generations().act(generation, Act::Expiry(expiry)).await?;
            }
        }
        Ok(())
    }
}

/// When the last record of a log was logged: since then nothing of its administration is in force.
fn end(log: &trave_message_log::Log, now: Time) -> Time {
    log.segments().last().and_then(|last| last.times).map_or(now, |(_, latest)| latest)
}
