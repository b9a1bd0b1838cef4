//! Two-sided reconciliation: this server and each other one compare, hour by hour, which signed messages of their
//! exchanges both logs hold, and tell apart what it means where they differ. No content and no manifest is shown: names
//! and digests alone.
//!
//! `following` keeps each server to the checkpoints that it gave away. `desk` answers what another server asks; `compare` asks it, and narrows differing logs down to single messages; `judge`
//! says what each difference means; `recovery` gets back what this log has lost. What goes on when, and what people are told, is `upkeep`'s.

mod desk;
mod commitments;
mod wire;
mod judge;
mod recovery;
mod compare;
mod following;
mod standing;
mod records;

pub(crate) use compare::{CompareError, Wrong, challenge, compare};
pub(crate) use desk::{AnswerError, Desk, too_old};
pub(crate) use following::{Seen, Shown, shown};
pub(crate) use judge::{Judged, Known, Lost, exchanges, judge, record};
pub(crate) use records::RecordsError;
pub(crate) use recovery::{Fetched, RecoveryError, justified, named_by_own};
pub(crate) use wire::Line;
