//! Reading a range of the log whole, and holding a search against it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use trave_proto::checkpoint::generation_of;
use trave_proto::digest::Digest;
use trave_proto::scan::{Head, Range, Scanned};
use trave_proto::schema::audit::{Filter, ScanRequest, scan_response::Part, scanned_leaf::Shown};

use crate::Scan;
use crate::connection::{Connection, printable, said};

/// Scans; false if a search left something out, or a record cannot be read.
pub(crate) fn run(connection: &mut Connection, scan: &Scan) -> anyhow::Result<bool> {
    let expected = scan.expect.as_deref().map(Searched::read).transpose()?;
    let request = ScanRequest {
        from: scan.from,
        to: scan.to,
        reason: scan.reason.clone(),
        generation: scan.generation,
    };
    let scanned = read(connection, request)?;
    tell(&scanned);
    if let Some(path) = &scan.hidden {
        let places: String = scanned.hidden().iter().map(|place| format!("{place}\n")).collect();
        std::fs::write(path, places).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let held = expected.is_none_or(|searched| searched.hold(&scanned));
    Ok(held && scanned.is_whole())
}

fn read(connection: &mut Connection, request: ScanRequest) -> anyhow::Result<Scanned> {
    let anchor = connection.anchor()?;
    let (from, to, generation) = (request.from, request.to, request.generation);
    let Connection { runtime, client, .. } = connection;
    runtime.block_on(async {
        let mut parts = client.scan(request).await.map_err(said)?.into_inner();
        let head = match parts.message().await.map_err(said)?.and_then(|first| first.part) {
            Some(Part::Head(head)) => Head::verify(head, &anchor)?,
            _ => bail!("the server's answer does not begin with a checkpoint"),
        };
        let (begins, ends) = head.range();
        if begins != from || (to != 0 && ends != to) {
            bail!("the server answers for the range from {begins} to {ends}, which was not asked for");
        }
        let of = generation_of(&head.checkpoint.origin);
        if generation != 0 && of != generation {
            bail!("the server answers for generation {of} of its log, and {generation} was asked for");
        }
        let (mut range, mut count) = (Range::new(head), 0_u64);
        while let Some(part) = parts.message().await.map_err(said)? {
            match part.part {
                Some(Part::Leaf(leaf)) if count < ends - begins => match leaf.shown {
                    Some(Shown::Leaf(bytes)) => range.add_leaf(&bytes),
                    Some(Shown::Hash(hash)) => {
                        range.add_hash(Digest::from_slice(&hash).context("a hash is none")?)
                    }
                    Some(Shown::Damaged(leaf)) => range.add_damaged(hash_of(&leaf.hash)?, &leaf.what),
                    None => bail!("a leaf is empty"),
                },
                _ => bail!("the server sent more than the range"),
            }
            count += 1;
            if count.is_multiple_of(100_000) {
                eprintln!("{count} of {}", ends - begins);
            }
        }
        Ok(range.finish()?)
    })
}

/// The hash of a leaf that cannot be read, if the server knows at least that.
fn hash_of(bytes: &[u8]) -> anyhow::Result<Option<Digest>> {
    match bytes {
        [] => Ok(None),
        bytes => Digest::from_slice(bytes).map(Some).context("a hash is none"),
    }
}

fn tell(scanned: &Scanned) {
    let head = scanned.head();
    let (from, to) = head.range();
    let (last, origin) = (to - 1, &head.checkpoint.origin);
    match scanned.damaged().len() {
        0 => println!("the places {from} to {last} of the log {origin} are whole"),
        count => println!(
            "NOT WHOLE: {count} of the records at the places {from} to {last} of the log {origin} cannot be read; all others are \
             those of the log"
        ),
    }
    for leaf in scanned.damaged() {
        let hash = leaf.hash.map_or_else(|| "unknown".into(), |hash| hash.to_string());
        println!("DAMAGED: place {}: {}; its hash in the tree is {hash}", leaf.index, printable(&leaf.what));
    }
    println!("under its checkpoint of {} records, root {}", head.checkpoint.size, head.checkpoint.root);
    match head.stamped {
        Some(at) => println!("timestamped {at}"),
        None => println!("without a timestamp that holds"),
    }
    if head.witnesses.is_empty() {
        println!("cosigned by no witness: that the log has one story only is not shown");
    }
    for (name, class, at) in &head.witnesses {
        println!("cosigned by {name} ({class}) {at}");
    }
    println!("as configuration {} says, which your anchor confirms", head.configuration);
    if let Some(before) = scanned.follows() {
        let (origin, size) = (printable(&before.previous_origin), before.witnessed_size);
        println!(
            "this log took the place of {origin}, of which witnesses saw {size} records: scan that too (--generation {})",
            generation_of(&before.previous_origin)
        );
    }
    println!("{} exchanges and refusals begin there, as far as shown", scanned.begun());
    let hidden = scanned.hidden().len();
    if hidden > 0 {
        println!(
            "{hidden} records are shown as hashes alone: outside of your scope, the server says. An auditor with another \
             scope can compare them (--hidden)"
        );
    }
    if scanned.strays() > 0 {
        println!(
            "{} exchanges end there that began before; scan from earlier to know what they were about",
            scanned.strays()
        );
    }
}

/// What a search said that it found.
struct Searched {
    filter: Filter,
    /// By generation, where the search says it.
    places: BTreeSet<(Option<u64>, u64)>,
    /// It went on: only between the first and the last place was all shown.
    unfinished: bool,
}

#[derive(Deserialize)]
struct Line {
    search: Option<Asked>,
    exchange: Option<String>,
    entry: Option<Found>,
    end: Option<End>,
}

#[derive(Deserialize)]
struct Asked {
    client: Option<String>,
    service: Option<String>,
    member: Option<String>,
    purpose: Option<String>,
    legal_basis: Option<String>,
    outcome: Option<String>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    #[serde(default)]
    by_reference: bool,
}

impl From<Asked> for Filter {
    fn from(asked: Asked) -> Self {
        let Asked { client, service, member, purpose, legal_basis, outcome, from_ms, to_ms, .. } = asked;
        // Releases before wrote what was not asked for as an empty text.
        let [client, service, member, purpose, legal_basis, outcome] =
            [client, service, member, purpose, legal_basis, outcome]
                .map(|text| text.filter(|text| !text.is_empty()));
        Self { client, service, member, purpose, legal_basis, outcome, from_ms, to_ms, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct Found {
    index: u64,
    #[serde(default)]
    generation: Option<u64>,
}

#[derive(Deserialize)]
struct End {
    cursor: Option<String>,
}

impl Searched {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut filter, mut places, mut unfinished) = (None, BTreeSet::new(), true);
        for line in text.lines() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("{} is not what `search --json` printed", path.display()))?;
            if line.exchange.is_some() {
                bail!("{} is of one exchange, not of a filter", path.display());
            }
            if let Some(asked) = line.search {
                if asked.by_reference {
                    bail!(
                        "{} is of a message id or a case, which stand in no record of the tree\nhint: search without them, \
                         hold that against the log, and look at the proofs",
                        path.display()
                    );
                }
                filter = Some(asked.into());
            }
            places.extend(line.entry.map(|entry| (entry.generation, entry.index)));
            if let Some(end) = line.end {
                unfinished = end.cursor.is_some();
            }
        }
        let filter =
            filter.with_context(|| format!("{} does not say what was searched for", path.display()))?;
        Ok(Self { filter, places, unfinished })
    }

    /// Whether the search found all that stands in the range; what it left out is printed.
    fn hold(&self, scanned: &Scanned) -> bool {
        let generation = scanned.generation();
        let places: BTreeSet<_> =
            self.places.iter().map(|&(of, place)| (of.unwrap_or(generation), place)).collect();
        let within = |place: u64| {
            let bounds = places.first().zip(places.last());
            !self.unfinished
                || bounds.is_some_and(|(first, last)| (*first..=*last).contains(&(generation, place)))
        };
        // What a record said that cannot be read, nobody knows.
        let lost = |place: u64| scanned.damaged().iter().any(|leaf| leaf.index == place);
        let has = |place: u64| places.contains(&(generation, place));
        let expected: Vec<_> =
            scanned.expected(&self.filter).into_iter().filter(|(place, _)| within(*place)).collect();
        let omitted: Vec<_> = expected.iter().filter(|(place, _)| !has(*place)).collect();
        for (place, exchange) in &omitted {
            let exchange = exchange.map_or_else(|| "a refusal".to_owned(), |id| format!("exchange {id}"));
            println!(
                "OMITTED: {exchange}, at place {place} of the log, is in the log and was not in the search"
            );
        }
        let (from, to) = scanned.head().range();
        let shown: BTreeSet<_> = expected.iter().map(|(place, _)| *place).collect();
        let here = places.range((generation, from)..(generation, to)).map(|(_, place)| *place);
        let invented: Vec<_> =
            here.filter(|place| !shown.contains(place) && !lost(*place) && scanned.strays() == 0).collect();
        invented.iter().for_each(|place| {
            println!("NOT THERE: place {place} was in the search and is nothing of the kind")
        });
        if omitted.is_empty() && invented.is_empty() {
            let readable = if scanned.is_whole() { "" } else { " and can be read" };
            println!("the search found all {} that stand in this range{readable}", expected.len());
        }
        omitted.is_empty() && invented.is_empty()
    }
}
