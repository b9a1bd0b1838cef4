//! Logs that differ in every way, and servers that do not want to be done with.

use super::*;

fn name(n: u32) -> Name {
    let mut bytes = [0; Name::LEN];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes[16] = 1;
    Name::from_slice(&bytes).unwrap()
}

fn record(n: u32) -> (Name, Digest) {
    (name(n), Digest::of(&n.to_be_bytes()))
}

fn wrong(there: Summary, own: &Records) -> Option<Wrong> {
    let here = own.summary(&Bounds::default());
    (there != here).then_some(Wrong { there, here })
}

/// Compares as a server does, whatever is answered first.
async fn compared(other: &mut impl Other, own: &Records) -> Result<Compared, CompareError> {
    match challenge(other, own).await? {
        Ok(agreed) => Ok(agreed),
        Err(_) => compare(other, own).await,
    }
}

/// Another server with these records, that counts what it is asked.
#[derive(Default)]
struct Honest {
    records: Records,
    asked: u32,
    listed: usize,
}

impl Honest {
    fn of(records: impl IntoIterator<Item = (Name, Digest)>) -> Self {
        Self { records: Records::of(records), ..Self::default() }
    }
}

impl Other for Honest {
    async fn challenge(&mut self, own: &Records) -> Result<Option<Wrong>, CompareError> {
        self.asked += 1;
        Ok(wrong(self.records.summary(&Bounds::default()), own))
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        _: Option<&Records>,
    ) -> Result<Vec<Summary>, CompareError> {
        assert!(ranges.len() <= RANGES);
        self.asked += 1;
        Ok(ranges.iter().map(|range| self.records.summary(range)).collect())
    }

    async fn list(&mut self, range: &Bounds) -> Result<Page, CompareError> {
        self.asked += 1;
        let mut records: Vec<_> =
            self.records.within(range).map(|(record, held)| (*record, held.sent)).collect();
        let more = records.len() > 100;
        records.truncate(100);
        self.listed += records.len();
        Ok(Page { records, more })
    }
}

/// One that never comes to an end.
struct Endless {
    asked: u32,
    records: bool,
}

impl Other for Endless {
    async fn challenge(&mut self, own: &Records) -> Result<Option<Wrong>, CompareError> {
        self.asked += 1;
        Ok(wrong(Summary { count: 0, digest: Digest::of(b"garbage") }, own))
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        _: Option<&Records>,
    ) -> Result<Vec<Summary>, CompareError> {
        self.asked += 1;
        Ok(vec![Summary { count: u64::MAX, digest: Digest::of(b"else") }; ranges.len()])
    }

    async fn list(&mut self, range: &Bounds) -> Result<Page, CompareError> {
        self.asked += 1;
        let first = range.from.unwrap_or(name(0)).successor().unwrap();
        let names = std::iter::successors(Some(first), Name::successor);
        let count = if self.records { 512 } else { 0 };
        let records = names.take(count).map(|name| ((name, Digest::of(b"made up")), true)).collect();
        Ok(Page { records, more: true })
    }
}

#[tokio::test]
async fn equal_logs_cost_one_question() {
    let mut other = Honest::of((0..5_000).map(record));
    let own = Records::of((0..5_000).map(record));
    let found = compared(&mut other, &own).await.unwrap();
    assert!(found.whole && found.agree && found.differences.is_empty());
    assert_eq!((found.here, other.asked, other.listed), (found.there, 1, 0));
}

#[tokio::test]
async fn one_difference_in_many_is_found_in_few_questions() {
    let own: Vec<_> = (0..20_000).map(record).collect();
    for (theirs, here, there) in [
        // Missing there, missing here, another one in its place.
        ((0..20_000).filter(|n| *n != 7_777).map(record).collect::<Vec<_>>(), true, false),
        (
            own.iter()
                .copied()
                .chain([{
                    let mut name = *name(7_777).as_bytes();
                    name[24] = 9;
                    (Name::from_slice(&name).unwrap(), Digest::of(b"more"))
                }])
                .collect(),
            false,
            true,
        ),
        (
            (0..20_000)
                .map(|n| if n == 7_777 { (name(n), Digest::of(b"other")) } else { record(n) })
                .collect(),
            true,
            true,
        ),
    ] {
        let mut other = Honest::of(theirs);
        let found = compared(&mut other, &Records::of(own.clone())).await.unwrap();
        assert!(found.whole && !found.agree && found.here != found.there);
        let [one] = found.differences[..] else { panic!("{:?}", found.differences) };
        assert_eq!((one.here.is_some(), one.there.is_some()), (here, there));
        assert_eq!(one.name.as_bytes()[..4], 7_777_u32.to_be_bytes());
        assert!(other.asked <= 10, "{} questions", other.asked);
        assert!(other.listed <= 300, "{} listed", other.listed);
    }
}

#[tokio::test]
async fn one_log_that_holds_nothing_is_listed_whole_either_way() {
    let all: Vec<_> = (0..900).map(record).collect();
    for (own, theirs) in [(all.clone(), Vec::new()), (Vec::new(), all.clone())] {
        let (ours, others) = (own.len(), theirs.len());
        let found = compared(&mut Honest::of(theirs), &Records::of(own)).await.unwrap();
        assert!(found.whole);
        assert_eq!(found.differences.len(), 900);
        assert_eq!(found.differences.iter().filter(|one| one.here.is_some()).count(), ours);
        assert_eq!(found.differences.iter().filter(|one| one.there.is_some()).count(), others);
    }
}

#[tokio::test]
async fn who_never_ends_is_left() {
    for own in [0, 50_000] {
        let mut other = Endless { asked: 0, records: true };
        let found = compared(&mut other, &Records::of((0..own).map(record))).await.unwrap();
        assert!(!found.whole);
        assert!(other.asked <= QUESTIONS + 1, "{} questions", other.asked);
        assert!(found.differences.len() <= LISTED + 50_000);
    }
    let refused = compared(&mut Endless { asked: 0, records: false }, &Records::default()).await;
    assert!(matches!(refused, Err(CompareError::Malformed(_))));
}

#[tokio::test]
async fn a_second_message_under_one_name_is_another_story_also_beside_the_first() {
    let own = [record(1), record(2)];
    let forged = (name(2), Digest::of(b"forged"));
    for (ours, theirs) in
        [(own.to_vec(), [&own[..], &[forged]].concat()), ([&own[..], &[forged]].concat(), own.to_vec())]
    {
        let found = compared(&mut Honest::of(theirs), &Records::of(ours)).await.unwrap();
        let [one] = found.differences[..] else { panic!("{:?}", found.differences) };
        let digests = [one.here.unwrap().0, one.there.unwrap().0];
        assert!(digests.contains(&forged.1) && digests.contains(&record(2).1));
    }
}

/// One that does not hold what it should. As soon as it is told, it holds it: it asks at the other's own door meanwhile, and
/// answers whatever it is asked then.
struct Repeating {
    told: bool,
    all: Records,
    lists: Honest,
}

impl Other for Repeating {
    async fn challenge(&mut self, own: &Records) -> Result<Option<Wrong>, CompareError> {
        let known = if self.told { &self.all } else { &self.lists.records };
        Ok(wrong(known.summary(&Bounds::default()), own))
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<&Records>,
    ) -> Result<Vec<Summary>, CompareError> {
        self.told |= own.is_some();
        match own {
            Some(own) => Ok(vec![own.summary(&Bounds::default()); ranges.len()]),
            None => self.lists.summaries(ranges, None).await,
        }
    }

    async fn list(&mut self, range: &Bounds) -> Result<Page, CompareError> {
        self.lists.list(range).await
    }
}

#[tokio::test]
async fn who_repeats_what_it_was_told_does_not_agree_whatever_it_says_then() {
    let records: Vec<_> = (0..300).map(record).collect();
    for (lists, missing) in [(Honest::of(records[1..].to_vec()), 1), (Honest::default(), 300)] {
        let all = Records::of(records.clone());
        let mut other = Repeating { told: false, all: all.clone(), lists };
        let found = compared(&mut other, &all).await.unwrap();
        assert!(other.told && !found.agree && found.repeats, "it knew all in the end, and not before");
        assert_eq!(found.differences.len(), missing);
    }
}

/// One whose log gets its last message while it is asked.
struct JustInTime(Honest, Honest);

impl Other for JustInTime {
    async fn challenge(&mut self, own: &Records) -> Result<Option<Wrong>, CompareError> {
        self.0.challenge(own).await
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<&Records>,
    ) -> Result<Vec<Summary>, CompareError> {
        if own.is_some() {
            std::mem::swap(&mut self.0, &mut self.1);
        }
        self.0.summaries(ranges, own).await
    }

    async fn list(&mut self, range: &Bounds) -> Result<Page, CompareError> {
        self.0.list(range).await
    }
}

#[tokio::test]
async fn a_message_that_comes_between_two_questions_is_told_of_until_the_next_comparison() {
    let records: Vec<_> = (0..300).map(record).collect();
    let mut other = JustInTime(Honest::of(records[1..].to_vec()), Honest::of(records.clone()));
    let own = Records::of(records);
    let found = compared(&mut other, &own).await.unwrap();
    assert!(!found.agree && found.repeats && found.differences.is_empty(), "nobody can tell it from a lie");
    assert!(compared(&mut other, &own).await.unwrap().agree);
}
