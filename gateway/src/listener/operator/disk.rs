//! What lies on the disk of this security server: where, how much, readable by whom, until when.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tonic::Status;
use trave_message_log::SegmentSpan;
use trave_proto::clock::Time;
use trave_proto::schema::operator::{DiskEntry, DiskReportResponse};

use super::Desk;
use crate::config::Retention;

/// What is below a path of the data directory: the first that fits counts. With whom it is protected from.
const KINDS: &[(&str, &str, &str, &str)] = &[
    (
        "log/segments",
        ".log",
        "records and contents",
        "contents are encrypted, each exchange under a key of its own",
    ),
    (
        "log/segments",
        "",
        "indexes of the records",
        "no contents; pseudonyms of persons under the keys of their months",
    ),
    (
        "log/keys/persons-",
        "",
        "keys of pseudonyms",
        "in the clear: leave them out of archives and ordinary backups",
    ),
    ("log/keys", "", "keys of contents", "in the clear: leave them out of archives and ordinary backups"),
    ("log/tree", "", "hashes of the records", "nothing but hashes"),
    ("log", "", "last checkpoint, lists of what is under way", "no record of an exchange"),
    (
        "generations",
        "",
        "earlier generations of the log",
        "as of the log itself, with their keys: leave them out of archives and ordinary backups",
    ),
    ("keys", "", "private keys", "encrypted under the passphrase"),
    ("certificates", "", "certificates and their status", "public"),
    ("configurations", "", "global configurations", "public within the instance"),
    ("state", "", "how often auditors asked", "digests of their names, and times"),
    ("witnessed", "", "cosignatures of witnesses", "public within the instance"),
    ("", "", "other files of this server", "see the mode"),
];

/// Most files that are looked at.
const MOST: usize = 1_000_000;

#[derive(Debug, Default)]
struct Sum {
    files: u64,
    bytes: u64,
    mode: u32,
    /// Who else than the owner reads one of them: bits of a mode.
    others: u32,
    owners: Vec<u32>,
}

impl Desk {
    /// Looks at every file of the data directory, and reads none.
    pub(super) async fn disk(&self) -> Result<DiskReportResponse, Status> {
        let (data, log) = (self.upkeep.data().to_owned(), self.exchanges.recorder.log().clone());
        let policy = self.upkeep.retaining.policy().clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut sums = BTreeMap::new();
            add(&data, (Path::new(""), 0o044), &mut sums, &mut 0)?;
            Ok::<_, io::Error>((data, sums, log.segments()))
        });
        let looked = looked.await.map_err(|_| Status::internal("looking at the disk failed"))?;
        let (data, sums, segments) = looked
            .map_err(|error| Status::internal(format!("the data directory cannot be read: {error}")))?;
        let entries = sums.into_iter().map(|(at, sum)| entry(&data, KINDS[at], sum, (&policy, &segments)));
        Ok(DiskReportResponse { entries: entries.collect(), held: self.holds().holds })
    }
}

/// Looks below a folder into which these others than its owner come.
fn add(
    data: &Path,
    (below, others): (&Path, u32),
    sums: &mut BTreeMap<usize, Sum>,
    seen: &mut usize,
) -> io::Result<()> {
    // Whoever may not pass through a folder reads nothing in it.
    let others = others & (fs::metadata(data.join(below))?.mode() << 2);
    for entry in fs::read_dir(data.join(below))? {
        let entry = entry?;
        let (path, metadata) = (below.join(entry.file_name()), fs::symlink_metadata(entry.path()));
        // What is gone meanwhile is on no disk.
        let Ok(metadata) = metadata else { continue };
        *seen += 1;
        if *seen > MOST {
            return Err(io::Error::other("there are more than 1,000,000 files in it"));
        }
        if metadata.is_dir() {
            add(data, (&path, others), sums, seen)?;
            continue;
        }
        if !metadata.is_file() {
            continue;
        }
        let text = path.to_string_lossy();
        let fits =
            |(folder, end, ..): &(&str, &str, &str, &str)| text.starts_with(folder) && text.ends_with(end);
        let Some(kind) = KINDS.iter().position(fits) else { continue };
        let sum = sums.entry(kind).or_default();
        sum.files += 1;
        // What it takes of the disk: a segment is made of zeros before anything is in it.
        sum.bytes += metadata.blocks() * 512;
        sum.mode |= metadata.mode() & 0o777;
        sum.others |= metadata.mode() & others;
        if !sum.owners.contains(&metadata.uid()) {
            sum.owners.push(metadata.uid());
        }
    }
    Ok(())
}

fn entry(
    data: &Path,
    (folder, end, what, protection): (&str, &str, &str, &str),
    sum: Sum,
    (policy, segments): (&Retention, &[SegmentSpan]),
) -> DiskEntry {
    let owners = sum.owners.iter().map(|owner| format!("user {owner}")).collect::<Vec<_>>().join(", ");
    let others = match (sum.others & 0o040, sum.others & 0o004) {
        (0, 0) => "",
        (_, 0) => ", its group",
        _ => ", everybody on this machine",
    };
    DiskEntry {
        what: what.into(),
        path: data.join(folder).display().to_string(),
        files: sum.files,
        bytes: sum.bytes,
        mode: sum.mode,
        readable_by: format!("{owners}, root{others}; {protection}"),
        until: until(what, end, policy, segments),
    }
}

fn until(what: &str, end: &str, policy: &Retention, segments: &[SegmentSpan]) -> String {
    let kept = || {
        let Retention { records_months, contents_days, rule, .. } = policy;
        let contents = contents_days.map_or("as long as their records".into(), |days| format!("{days} days"));
        let rules =
            if rule.is_empty() { String::new() } else { format!(", {} rules say otherwise", rule.len()) };
        format!("records {records_months} months, contents {contents}{rules}")
    };
    match what {
        "records and contents" => {
            let earliest =
                segments.iter().filter_map(|segment| segment.times).map(|(earliest, _)| earliest).min();
            let since = earliest.map_or(String::new(), |at: Time| format!("; the earliest is of {at}"));
            format!("{}{since}", kept())
        }
        "indexes of the records" if end.is_empty() => "as long as the records that they name".into(),
        "keys of contents" => "as long as the contents".into(),
        "earlier generations of the log" => "as long as what is in them, as in the log".into(),
        "hashes of the records" => "as long as the log: they name nobody".into(),
        "how often auditors asked" => "an hour, and until an auditor asks again".into(),
        "keys of pseudonyms" => "as long as persons can ask about their month".into(),
        _ => "as long as this server needs them".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn others_read_only_what_they_come_to() {
        let data = tempfile::tempdir().unwrap();
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (folder, mode) in [("state", 0o700), ("witnessed", 0o755), ("certificates", 0o750)] {
            fs::DirBuilder::new().mode(mode).create(data.path().join(folder)).unwrap();
            let file = data.path().join(folder).join("file");
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let looked = || {
            let mut sums = BTreeMap::new();
            add(data.path(), (Path::new(""), 0o044), &mut sums, &mut 0).unwrap();
            sums.into_iter().map(|(at, sum)| (KINDS[at].0, sum.mode, sum.others)).collect::<Vec<_>>()
        };
        let closed = [("certificates", 0o644, 0o040), ("state", 0o644, 0), ("witnessed", 0o644, 0o044)];
        let mut found = looked();
        found.sort_unstable();
        assert_eq!(found, closed);
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(looked().iter().all(|(_, _, others)| *others == 0));
    }
}
