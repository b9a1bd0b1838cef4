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
    async fn agrees(&mut self, own: &Records) -> Result<bool, CompareError> {
        self.asked += 1;
        let all = Bounds::default();
        Ok(self.records.summary(&all) == own.summary(&all))
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        _: Option<Summary>,
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
    async fn agrees(&mut self, _: &Records) -> Result<bool, CompareError> {
        self.asked += 1;
        Ok(false)
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        _: Option<Summary>,
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
    let found = compare(&mut other, &own).await.unwrap();
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
        let found = compare(&mut other, &Records::of(own.clone())).await.unwrap();
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
        let found = compare(&mut Honest::of(theirs), &Records::of(own)).await.unwrap();
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
        let found = compare(&mut other, &Records::of((0..own).map(record))).await.unwrap();
        assert!(!found.whole);
        assert!(other.asked <= QUESTIONS + 1, "{} questions", other.asked);
        assert!(found.differences.len() <= LISTED + 50_000);
    }
    let refused = compare(&mut Endless { asked: 0, records: false }, &Records::default()).await;
    assert!(matches!(refused, Err(CompareError::Malformed(_))));
}

#[tokio::test]
async fn a_second_message_under_one_name_is_another_story_also_beside_the_first() {
    let own = [record(1), record(2)];
    let forged = (name(2), Digest::of(b"forged"));
    for (ours, theirs) in
        [(own.to_vec(), [&own[..], &[forged]].concat()), ([&own[..], &[forged]].concat(), own.to_vec())]
    {
        let found = compare(&mut Honest::of(theirs), &Records::of(ours)).await.unwrap();
        let [one] = found.differences[..] else { panic!("{:?}", found.differences) };
        let digests = [one.here.unwrap().0, one.there.unwrap().0];
        assert!(digests.contains(&forged.1) && digests.contains(&record(2).1));
    }
}

/// One that does not hold what it should, and repeats what it is told.
struct Repeating {
    told: Option<Summary>,
    lists: Honest,
}

impl Other for Repeating {
    async fn agrees(&mut self, _: &Records) -> Result<bool, CompareError> {
        Ok(false)
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<Summary>,
    ) -> Result<Vec<Summary>, CompareError> {
        self.told = own.or(self.told);
        match own {
            Some(own) => Ok(vec![own; ranges.len()]),
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
    for lists in [Honest::of(records.clone()), Honest::default()] {
        let (mut other, differ) = (Repeating { told: None, lists }, 300);
        let missing = if other.lists.records.count(&Bounds::default()) == 0 { differ } else { 0 };
        let found = compare(&mut other, &Records::of(records.clone())).await.unwrap();
        assert!(!found.agree && found.repeats);
        assert_eq!(found.differences.len(), missing, "what nothing explains, and what is missing");
        assert_eq!(other.told, Some(found.here));
    }
}

/// One whose log gets its last message while it is asked.
struct JustInTime(Honest, Honest);

impl Other for JustInTime {
    async fn agrees(&mut self, own: &Records) -> Result<bool, CompareError> {
        self.0.agrees(own).await
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<Summary>,
    ) -> Result<Vec<Summary>, CompareError> {
        std::mem::swap(&mut self.0, &mut self.1);
        self.0.summaries(ranges, own).await
    }

    async fn list(&mut self, range: &Bounds) -> Result<Page, CompareError> {
        self.0.list(range).await
    }
}

#[tokio::test]
async fn a_message_that_comes_between_two_questions_is_no_difference() {
    let records: Vec<_> = (0..300).map(record).collect();
    let mut other = JustInTime(Honest::of(records[1..].to_vec()), Honest::of(records.clone()));
    let found = compare(&mut other, &Records::of(records)).await.unwrap();
    assert!(found.agree && !found.repeats && found.here == found.there);
}
