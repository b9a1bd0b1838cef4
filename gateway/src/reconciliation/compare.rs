//! Comparing one hour's messages with another server's: equal logs cost one question; where they differ, ranges are asked
//! for until single messages are left. The other server is not believed to end that: questions and answers are counted.

use std::collections::BTreeMap;

use trave_proto::digest::Digest;
use trave_proto::reconciliation::{Name, Summary};

use super::records::{Bounds, Held, Records};

/// Ranges in one question.
pub(super) const RANGES: usize = 64;
/// Into so many a range is divided.
const PARTS: usize = 16;
/// A range of no more messages than this is listed, not divided.
const SMALL: usize = 128;
/// Questions about one hour.
const QUESTIONS: u32 = 512;
/// Messages that the other server lists of one hour.
const LISTED: usize = 16_384;

/// Why logs were not compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("the security server does not answer")]
    Call(#[source] Box<tonic::Status>),
    #[error("its release does not compare logs")]
    Unknown,
    #[error("this server's system gives no random bytes")]
    NoRandom,
    #[error("its answer took too long")]
    TooLate,
    #[error("its answer is malformed: {0}")]
    Malformed(&'static str),
}

/// The other server, as far as it is asked.
pub(crate) trait Other {
    /// Has it say what it holds of the whole hour, before it is told anything: none if that is what `own` holds.
    fn challenge(
        &mut self,
        own: &Records,
    ) -> impl Future<Output = Result<Option<Wrong>, CompareError>> + Send;

    /// What it holds of each of these ranges; as many answers as ranges. `own` is what this log holds of the whole hour, where
    /// it is told, once after each challenge.
    fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<&Records>,
    ) -> impl Future<Output = Result<Vec<Summary>, CompareError>> + Send;

    /// The first of what it holds of a range, in order, and whether there is more.
    fn list(&mut self, range: &Bounds) -> impl Future<Output = Result<Page, CompareError>> + Send;
}

/// What another server lists: name and digest, and whether it says that it sent it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(super) records: Vec<((Name, Digest), bool)>,
    pub(super) more: bool,
}

/// What came of a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    pub(crate) here: Summary,
    pub(crate) there: Summary,
    /// Whether both hold the same, as the other server has said before it was told anything.
    pub(crate) agree: bool,
    /// Whether the other server said that it holds just what this log holds, but only when it could have been told.
    pub(crate) repeats: bool,
    pub(crate) differences: Vec<Difference>,
    /// Whether all was looked at.
    pub(crate) whole: bool,
}

/// A message that is not in both logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) name: Name,
    pub(crate) here: Option<(Digest, Held)>,
    /// With whether the other server says that it sent it.
    pub(crate) there: Option<(Digest, bool)>,
}

/// What another server answered to a challenge, and what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) there: Summary,
    pub(crate) here: Summary,
}

/// Has another server say what it holds; what was found where that is the same, and else what is to be on record before it
/// is [told more](compare).
///
/// # Errors
/// If the other server cannot be asked, or does not answer as one.
pub(crate) async fn challenge(
    other: &mut impl Other,
    own: &Records,
) -> Result<Result<Compared, Wrong>, CompareError> {
    let wrong = other.challenge(own).await?;
    let here = own.summary(&Bounds::default());
    let (agree, repeats, whole) = (true, false, true);
    let agreed = Compared { here, there: here, agree, repeats, differences: Vec::new(), whole };
    Ok(wrong.map_or(Ok(agreed), Err))
}

/// Compares with a server that answered a challenge wrongly.
///
/// # Errors
/// If the other server cannot be asked, or does not answer as one.
pub(crate) async fn compare(other: &mut impl Other, own: &Records) -> Result<Compared, CompareError> {
    let all = Bounds::default();
    let here = own.summary(&all);
    // It has committed itself. This log does the same: only then is it answered further, and the other looks, too.
    let there = one(other.summaries(&[all], Some(own)).await?)?;
    // That it holds the same after all is what it says once it could be told: no agreement, whatever it answers then. A log that
    // got its last message meanwhile agrees the next time.
    let repeats = here == there;
    let mut search = Search { other, own, asked: 2, listed: 0, differences: Vec::new() };
    let whole = search.narrow(all).await?;
    Ok(Compared { here, there, agree: false, repeats, differences: search.differences, whole })
}

struct Search<'a, O> {
    other: &'a mut O,
    own: &'a Records,
    asked: u32,
    listed: usize,
    differences: Vec<Difference>,
}

impl<O: Other> Search<'_, O> {
    /// Finds what differs in a range; false if that is more than is looked at.
    async fn narrow(&mut self, range: Bounds) -> Result<bool, CompareError> {
        // Depth first: what waits is never more than the parts of the ranges that are being looked at.
        let mut open = vec![range];
        while let Some(range) = open.pop() {
            let parts = if self.own.count(&range) > SMALL { divided(self.own, &range) } else { Vec::new() };
            if parts.len() < 2 {
                if !self.list(&range).await? {
                    return Ok(false);
                }
                continue;
            }
            if !self.may_ask() {
                return Ok(false);
            }
            let summaries = self.other.summaries(&parts, None).await?;
            if summaries.len() != parts.len() {
                return Err(CompareError::Malformed("it answers other ranges than it was asked for"));
            }
            let differ = parts.iter().zip(summaries).filter(|(part, there)| self.own.summary(part) != *there);
            open.extend(differ.map(|(part, _)| *part).collect::<Vec<_>>().into_iter().rev());
        }
        Ok(true)
    }

    /// Holds what the other server lists of a range against what is here; false if that is more than is looked at.
    async fn list(&mut self, range: &Bounds) -> Result<bool, CompareError> {
        let mut rest = *range;
        let mut listed = BTreeMap::new();
        loop {
            if !self.may_ask() {
                return Ok(false);
            }
            let page = self.other.list(&rest).await?;
            self.listed += page.records.len();
            let last = page.records.last().map(|((name, _), _)| *name);
            listed.extend(page.records);
            if self.listed > LISTED {
                return Ok(false);
            }
            if !page.more {
                break;
            }
            let last = last.ok_or(CompareError::Malformed("a page of nothing, and more behind it"))?;
            match last.successor() {
                Some(next) => rest.from = Some(next),
                None => break,
            }
        }
        self.differences.extend(differences(self.own, range, &listed));
        Ok(true)
    }

    fn may_ask(&mut self) -> bool {
        self.asked += 1;
        self.asked <= QUESTIONS
    }
}

fn one(summaries: Vec<Summary>) -> Result<Summary, CompareError> {
    match summaries[..] {
        [one] => Ok(one),
        _ => Err(CompareError::Malformed("it answers other ranges than it was asked for")),
    }
}

/// A range in parts of about as many messages of this log. What the other log has beyond them falls into one of them.
fn divided(own: &Records, range: &Bounds) -> Vec<Bounds> {
    let step = own.count(range).div_ceil(PARTS).max(1);
    let mut edges: Vec<_> = own.within(range).step_by(step).skip(1).map(|((name, _), _)| *name).collect();
    edges.dedup();
    edges.retain(|edge| range.from.is_none_or(|from| *edge > from));
    let from = std::iter::once(range.from).chain(edges.iter().copied().map(Some));
    let to = edges.iter().copied().map(Some).chain(std::iter::once(range.to));
    from.zip(to).map(|(from, to)| Bounds { from, to }).collect()
}

/// What two logs hold under one name.
#[derive(Debug, Default)]
struct Both {
    common: Option<(Digest, Held)>,
    here: Vec<(Digest, Held)>,
    there: Vec<(Digest, bool)>,
}

/// What stands in one list alone. Where both have something under one name, they tell two stories of it.
fn differences(
    own: &Records,
    range: &Bounds,
    theirs: &BTreeMap<(Name, Digest), bool>,
) -> impl Iterator<Item = Difference> {
    let mut found = BTreeMap::<Name, Both>::new();
    for ((name, digest), held) in own.within(range) {
        let both = found.entry(*name).or_default();
        match theirs.contains_key(&(*name, *digest)) {
            true => both.common = Some((*digest, *held)),
            false => both.here.push((*digest, *held)),
        }
    }
    for ((name, digest), sent) in theirs.iter().filter(|(record, _)| !own.holds(record)) {
        found.entry(*name).or_default().there.push((*digest, *sent));
    }
    found.into_iter().flat_map(|(name, Both { common, here, there })| {
        let most = here.len().max(there.len());
        // What both hold under the name stands in where one has nothing else.
        (0..most).map(move |at| Difference {
            name,
            here: here.get(at).copied().or(common),
            there: there.get(at).copied().or(common.map(|(digest, held)| (digest, !held.sent))),
        })
    })
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
