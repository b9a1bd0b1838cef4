//! Finding what concerns a person, and what a caller calls so; and the tables that make it quick.

use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;

use trave_proto::clock::Time;

use crate::disk::Disk;
use crate::error::LogError;
use crate::index::file::IndexHead;
use crate::index::file::persons::{self, PersonsFile, Table};
use crate::index::{Index as _, PersonRow};
use crate::person::Person;
use crate::pseudonyms::{HASH, Period};
use crate::reference::Reference;
use crate::scan;
use crate::segment::SegmentHeader;
use crate::shared::{Closed, Shared};

/// Most segments that are looked into at once.
pub(crate) const AT_ONCE: usize = 32;
/// Threads that look into them.
const LOOKING: usize = 8;

/// The first leaves from `from` on that concern a person, ascending; at least `enough` of them, if there are so many, and
/// all of the segment in which the last of them stands.
pub(crate) fn of_person(
    shared: &Shared,
    person: &Person,
    from: u64,
    enough: usize,
) -> Result<Vec<PersonRow>, LogError> {
    of_pseudonyms(shared, &shared.period_keys.all_of(person), from, enough)
}

/// The same of what a caller calls so.
pub(crate) fn called(
    shared: &Shared,
    reference: &Reference,
    from: u64,
    enough: usize,
) -> Result<Vec<PersonRow>, LogError> {
    of_pseudonyms(shared, &shared.period_keys.all_of_reference(reference), from, enough)
}

fn of_pseudonyms(
    shared: &Shared,
    named: &[(Period, [u8; HASH])],
    from: u64,
    enough: usize,
) -> Result<Vec<PersonRow>, LogError> {
    let within = |times| within(named, times);
    // At one moment, so that no segment is closed between the two.
    let (closed, open) = {
        let catalogue = shared.catalogue();
        let first = catalogue.closed.partition_point(|segment| segment.first + segment.count <= from);
        let hashes = within(catalogue.open.times());
        let rows = catalogue.open.persons.iter().filter(|row| row.leaf >= from && hashes.contains(&row.hash));
        (catalogue.closed[first..].to_vec(), rows.copied().collect::<Vec<_>>())
    };
    let mut found = Vec::new();
    // Ever more of them while little is found: what occurs often is found in the first.
    let (mut rest, mut ahead) = (&closed[..], 1);
    while !rest.is_empty() {
        let (segments, after) = rest.split_at(ahead.min(rest.len()));
        (rest, ahead) = (after, (2 * ahead).min(AT_ONCE));
        for rows in at_once(segments, |segment| find(shared, segment, &within(segment.times))) {
            let mut rows = rows?;
            rows.retain(|row| row.leaf >= from);
            rows.sort_unstable_by_key(|row| (row.leaf, row.offset));
            found.append(&mut rows);
            if found.len() >= enough {
                return Ok(found);
            }
        }
    }
    found.extend(open);
    Ok(found)
}

/// Looks into several segments at once: a look-up waits for the disk, and need not wait for the others.
pub(crate) fn at_once<T: Send>(segments: &[Arc<Closed>], look: impl Fn(&Closed) -> T + Sync) -> Vec<T> {
    let look = |some: &[Arc<Closed>]| some.iter().map(|segment| look(segment)).collect::<Vec<T>>();
    if segments.len() <= 1 {
        return look(segments);
    }
    let look = &look;
    std::thread::scope(|scope| {
        let shares = segments.chunks(segments.len().div_ceil(LOOKING));
        let begun = shares.map(|some| {
            let begun = Builder::new().name("log-look".into()).spawn_scoped(scope, move || look(some));
            // Where the system gives no thread, they wait for each other.
            begun.map_err(|_| some)
        });
        let looked = begun.collect::<Vec<_>>().into_iter().map(|begun| match begun {
            Ok(looking) => looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(some) => look(some),
        });
        looked.flatten().collect()
    })
}

/// The pseudonyms of the periods in which these times lie.
fn within(named: &[(Period, [u8; HASH])], times: Option<(i64, i64)>) -> Vec<[u8; HASH]> {
    let of = |at| Period::of(Time::from_millis(at));
    let Some(range) = times.map(|(earliest, latest)| of(earliest)..=of(latest)) else { return Vec::new() };
    named.iter().filter(|(period, _)| range.contains(period)).map(|(_, hash)| *hash).collect()
}

/// The leaves of the segment that begins with leaf `first` that a caller calls so, counted over the whole log.
pub(crate) fn of_reference(shared: &Shared, reference: &Reference, first: u64) -> Result<Vec<u64>, LogError> {
    let named = shared.period_keys.all_of_reference(reference);
    let exchange = reference.exchange();
    let closed = {
        let catalogue = shared.catalogue();
        if catalogue.open.first == first {
            let hashes = within(&named, catalogue.open.times());
            let rows = catalogue.open.persons.iter().filter(|row| hashes.contains(&row.hash));
            let mut leaves: Vec<_> = rows.map(|row| row.leaf).collect();
            if let Some(exchange) = exchange {
                leaves.extend(catalogue.open.of_exchange(exchange.as_bytes())?);
            }
            return Ok(leaves);
        }
        catalogue.closed.iter().find(|segment| segment.first == first).cloned()
    };
    let Some(segment) = closed else { return Ok(Vec::new()) };
    let rows = find(shared, &segment, &within(&named, segment.times))?;
    let mut leaves: Vec<_> = rows.into_iter().map(|row| row.leaf).collect();
    if let Some(exchange) = exchange {
        leaves.extend(segment.index().of_exchange(exchange.as_bytes())?);
    }
    Ok(leaves)
}

/// Where the pseudonyms of references, or else of persons, stand beside these leaves, which ascend: each leaf, and where the
/// record begins or, in a pruned segment, began.
pub(crate) fn beside(shared: &Shared, leaves: &[u64], references: bool) -> Result<Vec<(u64, u64)>, LogError> {
    let beside = |row: &&PersonRow| row.reference == references && leaves.binary_search(&row.leaf).is_ok();
    let (closed, mut found) = {
        let catalogue = shared.catalogue();
        let open = catalogue.open.persons.iter().filter(beside).map(|row| (row.leaf, row.offset));
        (catalogue.closed.clone(), open.collect::<Vec<_>>())
    };
    for segment in closed {
        let from = leaves.partition_point(|leaf| *leaf < segment.first);
        if leaves.get(from).is_some_and(|leaf| *leaf < segment.first + segment.count) {
            let rows = all(shared, &segment)?;
            found.extend(rows.iter().filter(beside).map(|row| (row.leaf, row.offset)));
        }
    }
    Ok(found)
}

/// The table of a segment as a start finds it, whose index says that it should have so many rows.
pub(crate) fn at_start(disk: &Arc<dyn Disk>, path: &Path, head: &IndexHead) -> Table {
    if head.persons == Some(0) {
        return Table::Memory(Vec::new());
    }
    let path = persons::path_of(path);
    let opened = PersonsFile::open(disk, &path, head.first);
    // A crash may have come between the old table of a pruned segment and the new one.
    let opened = opened.or_else(|_| PersonsFile::open(disk, &persons::next_of(&path), head.first));
    opened.map_or(Table::Unknown, Table::File)
}

fn find(shared: &Shared, segment: &Closed, hashes: &[[u8; HASH]]) -> Result<Vec<PersonRow>, LogError> {
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let mut table = segment.persons();
    if let Table::File(file) = &*table {
        let found: Result<Vec<_>, _> = hashes.iter().map(|hash| file.find(hash)).collect();
        match found {
            Ok(found) => return Ok(found.concat()),
            Err(error) => damaged(segment, &error),
        }
        *table = Table::Unknown;
    }
    let rows = in_memory(shared, segment, &mut table)?;
    Ok(rows.iter().filter(|row| hashes.contains(&row.hash)).copied().collect())
}

/// All rows of a segment, in order.
pub(crate) fn all(shared: &Shared, segment: &Closed) -> Result<Vec<PersonRow>, LogError> {
    let mut table = segment.persons();
    let mut read = None;
    if let Table::File(file) = &*table {
        match file.all() {
            Ok(rows) => read = Some(rows),
            Err(error) => {
                damaged(segment, &error);
                *table = Table::Unknown;
            }
        }
    }
    let mut rows = match read {
        Some(rows) => rows,
        None => in_memory(shared, segment, &mut table)?.clone(),
    };
    rows.sort_unstable();
    Ok(rows)
}

/// Reads the segment, if it is not known what stands in it.
fn in_memory<'a>(
    shared: &Shared,
    segment: &Closed,
    table: &'a mut Table,
) -> Result<&'a mut Vec<PersonRow>, LogError> {
    if !matches!(table, Table::Memory(_)) {
        if segment.is_pruned() {
            let what = "it cannot be read, and the segment from which it could be made again was pruned";
            return Err(LogError::damaged(&persons::path_of(&segment.path), 0, what));
        }
        let disk = &*shared.disk;
        let file = disk.open(&segment.path).map_err(LogError::disk("open", &segment.path))?;
        let header = SegmentHeader::read(&*file, &segment.path)?;
        let (read, _) = scan::read_closed(disk, &segment.path, header, &shared.keys)?;
        *table = Table::Memory(read.persons);
    }
    match table {
        Table::Memory(rows) => Ok(rows),
        Table::Unknown | Table::File(_) => Err(LogError::Refused("a table of persons that is not in memory")),
    }
}

fn damaged(segment: &Closed, error: &LogError) {
    tracing::warn!(segment = segment.first, error = %error.in_full(), "the table of persons is made again from the segment");
}

/// Whether the table of a segment is still to be written to its file.
pub(crate) fn is_unsettled(segment: &Closed) -> bool {
    match &*segment.persons() {
        Table::Memory(rows) => !rows.is_empty(),
        Table::Unknown => true,
        Table::File(_) => false,
    }
}

/// Writes the table of a closed segment, read from the segment if need be, and gives the memory back.
pub(crate) fn settle(shared: &Shared, segment: &Closed) -> Result<(), LogError> {
    let mut table = segment.persons();
    if let Table::File(_) = &*table {
        return Ok(());
    }
    let rows = in_memory(shared, segment, &mut table)?;
    let file = persons::write(&shared.disk, &persons::path_of(&segment.path), segment.first, rows)?;
    wipe_rows(rows, |_| true);
    *table = Table::File(file);
    Ok(())
}

/// Takes pseudonyms out of the table of a closed segment. Their records are overwritten already: whatever of the table is
/// lost is made again without them.
pub(crate) fn remove(shared: &Shared, segment: &Closed, gone: &[(u64, u64)]) -> Result<(), LogError> {
    let mut table = segment.persons();
    let path = persons::path_of(&segment.path);
    if segment.is_pruned() {
        return remove_for_good(shared, segment, &mut table, gone);
    }
    if let Table::File(file) = &*table {
        match file.all() {
            Ok(rows) => *table = Table::Memory(rows),
            Err(error) => {
                damaged(segment, &error);
                *table = Table::Unknown;
            }
        }
        persons::wipe(&*shared.disk, &path)?;
        if let Table::Memory(rows) = &mut *table {
            wipe_rows(rows, |row| gone.contains(&(row.leaf, row.offset)));
            let file = persons::write(&shared.disk, &path, segment.first, rows)?;
            *table = Table::File(file);
        }
        return Ok(());
    }
    // A file may be there that could not be read.
    persons::wipe(&*shared.disk, &path)?;
    if let Table::Memory(rows) = &mut *table {
        wipe_rows(rows, |row| gone.contains(&(row.leaf, row.offset)));
    }
    Ok(())
}

/// The same of a pruned segment, from which a lost table is not made again: the new one is there before the old one goes.
fn remove_for_good(
    shared: &Shared,
    segment: &Closed,
    table: &mut Table,
    gone: &[(u64, u64)],
) -> Result<(), LogError> {
    let path = persons::path_of(&segment.path);
    let next = persons::next_of(&path);
    let disk = &*shared.disk;
    let put = |from: &Path| {
        disk.rename(from, &path).map_err(LogError::disk("rename", from))?;
        let dir = path.parent().unwrap_or(&shared.dir);
        disk.sync_dir(dir).map_err(LogError::disk("sync", dir))
    };
    if PersonsFile::open(&shared.disk, &path, segment.first).is_err()
        && PersonsFile::open(&shared.disk, &next, segment.first).is_ok()
    {
        put(&next)?;
        *table = Table::Unknown;
    }
    if let Table::Unknown = table {
        *table = Table::File(PersonsFile::open(&shared.disk, &path, segment.first)?);
    }
    let mut rows = match table {
        Table::File(file) => file.all()?,
        Table::Memory(rows) => std::mem::take(rows),
        Table::Unknown => Vec::new(),
    };
    wipe_rows(&mut rows, |row| gone.contains(&(row.leaf, row.offset)));
    persons::write(&shared.disk, &next, segment.first, &rows)?;
    wipe_rows(&mut rows, |_| true);
    persons::wipe(disk, &path)?;
    put(&next)?;
    *table = Table::File(PersonsFile::open(&shared.disk, &path, segment.first)?);
    Ok(())
}

/// Overwrites rows in memory, and takes them out.
pub(crate) fn wipe_rows(rows: &mut Vec<PersonRow>, gone: impl Fn(&PersonRow) -> bool) {
    for row in rows.iter_mut().filter(|row| gone(row)) {
        zeroize::Zeroize::zeroize(&mut row.hash);
        row.offset = 0;
    }
    // No record stands at 0.
    rows.sort_by_key(|row| row.offset == 0);
    rows.retain(|row| row.offset != 0);
}
