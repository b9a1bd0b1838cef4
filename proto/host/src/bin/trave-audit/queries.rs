//! Searches, counts, readings: asked and printed.

use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::{Value, json};
use trave_host::moment::Moment;
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::audit::{
    CountRequest, Entry, Filter, Generation, ListReadsRequest, PageEnd, SearchRequest, WhoAmIRequest,
    search_response::Part,
};

use crate::Search;
use crate::connection::{Connection, printable, said};

/// Entries of one page.
const PAGE: u32 = 500;

pub(crate) fn who_am_i(connection: &mut Connection) -> anyhow::Result<()> {
    let Connection { runtime, client, .. } = connection;
    let told = runtime.block_on(client.who_am_i(WhoAmIRequest {})).map_err(said)?.into_inner();
    let scope: Vec<_> = told.classes.iter().chain(&told.members).map(|it| printable(it)).collect();
    let contents = if told.contents { "may be exported" } else { "are not shown" };
    for (name, value) in [
        ("auditor", printable(&told.name)),
        ("role", printable(&told.role)),
        ("scope", scope.join(", ")),
        ("contents", contents.to_owned()),
        ("server", printable(&told.server)),
        ("log", format!("{}, {} records", printable(&told.log_origin), told.log_size)),
    ] {
        println!("{name:<12}{value}");
    }
    generations(&told.generations);
    Ok(())
}

/// Tells of the generations of the log, where there are several; and of one that the server does not tell of.
fn generations(told: &[Generation]) {
    let last = told.iter().map(|generation| generation.number).max().unwrap_or(0);
    for number in 1..=last {
        let line = match told.iter().find(|generation| generation.number == number) {
            _ if last == 1 => continue,
            None => "NOT THERE: its records are not searched, counted or scanned".to_owned(),
            Some(it) if it.unreadable => {
                "CANNOT BE READ: its records are not searched, counted or scanned".to_owned()
            }
            Some(it) => format!("{}, {} records", printable(&it.log_origin), it.log_size),
        };
        println!("{:<12}{line}", format!("log, {number}"));
    }
}

/// Says of which generations a search or a count knows nothing.
pub(crate) fn warn_unreadable(numbers: &[u64]) {
    for number in numbers {
        eprintln!("warning: generation {number} of the log cannot be read: nothing was looked for in it");
    }
}

pub(crate) fn search(connection: &mut Connection, search: &Search) -> anyhow::Result<()> {
    let filter = search.filter.to_schema()?;
    let mut out = std::io::stdout().lock();
    if search.json {
        let asked = json!({"search": told(&filter), "exchange": search.exchange.map(|id| id.to_string())});
        writeln!(out, "{asked}").context("cannot write")?;
    }
    let mut cursor: Bytes = match &search.cursor {
        Some(hex) => hex::decode(hex).context("--cursor is not hexadecimal")?.into(),
        None => Bytes::new(),
    };
    let mut shown = 0;
    let mut unreadable;
    loop {
        let left = if search.limit == 0 { PAGE } else { (search.limit - shown).min(PAGE) };
        let request = SearchRequest {
            filter: search.exchange.is_none().then(|| filter.clone()),
            exchange_id: search.exchange.map(|id| Bytes::copy_from_slice(id.as_bytes())),
            oldest_first: search.oldest_first,
            page_size: if search.exchange.is_some() { 0 } else { left },
            cursor: cursor.clone(),
            reason: search.reason.clone(),
        };
        let end = page(connection, request, |entry| {
            let line = if search.json { as_json(entry).to_string() } else { line(entry) };
            writeln!(out, "{line}").context("cannot write")
        })?;
        shown += end.entries;
        (cursor, unreadable) = (end.cursor, end.unreadable_generations);
        if cursor.is_empty() || (search.limit != 0 && shown >= search.limit) {
            break;
        }
    }
    if search.json {
        let cursor = (!cursor.is_empty()).then(|| hex::encode(&cursor));
        let end = json!({"end": {"entries": shown, "cursor": cursor, "unreadable_generations": unreadable}});
        writeln!(out, "{end}").context("cannot write")?;
    } else if !cursor.is_empty() {
        eprintln!("there are more\nhint: --cursor {} goes on, --limit 0 shows all", hex::encode(&cursor));
    }
    warn_unreadable(&unreadable);
    Ok(())
}

fn page(
    connection: &mut Connection,
    request: SearchRequest,
    mut show: impl FnMut(&Entry) -> anyhow::Result<()>,
) -> anyhow::Result<PageEnd> {
    let Connection { runtime, client, .. } = connection;
    runtime.block_on(async {
        let mut parts = client.search(request).await.map_err(said)?.into_inner();
        while let Some(part) = parts.message().await.map_err(said)? {
            match part.part {
                Some(Part::Entry(entry)) => show(&entry)?,
                Some(Part::End(end)) => return Ok(end),
                None => bail!("the server sent what this program does not know\nhint: is there a newer one?"),
            }
        }
        bail!("the answer was broken off: it is not whole")
    })
}

fn exchange(bytes: &[u8]) -> String {
    ExchangeId::from_slice(bytes).map_or_else(|_| "-".into(), |id| id.to_string())
}

pub(crate) fn line(entry: &Entry) -> String {
    let time = Time::from_millis(entry.time_ms).to_string();
    let (index, generation) = (entry.index.to_string(), entry.generation.to_string());
    let id = exchange(&entry.exchange_id);
    let Entry { outcome, side, client, service, purpose, legal_basis, reason, .. } = entry;
    let columns =
        [&time, &id, outcome, side, client, service, purpose, legal_basis, &index, reason, &generation];
    let columns = columns.map(|column| if column.is_empty() { "-".into() } else { printable(column) });
    columns.join("\t")
}

pub(crate) fn as_json(entry: &Entry) -> Value {
    json!({"entry": {
        "index": entry.index,
        "exchange": exchange(&entry.exchange_id),
        "time": Time::from_millis(entry.time_ms).to_string(),
        "outcome": entry.outcome,
        "side": entry.side,
        "client": entry.client,
        "service": entry.service,
        "method": entry.method,
        "purpose": entry.purpose,
        "legal_basis": entry.legal_basis,
        "reason": entry.reason,
        "requests": entry.requests,
        "responses": entry.responses,
        "records": entry.records,
        "generation": entry.generation,
    }})
}

/// A filter as the JSON of a search holds it.
fn told(filter: &Filter) -> Value {
    json!({
        "client": filter.client,
        "service": filter.service,
        "member": filter.member,
        "purpose": filter.purpose,
        "legal_basis": filter.legal_basis,
        "outcome": filter.outcome,
        "from_ms": filter.from_ms,
        "to_ms": filter.to_ms,
        // Which one is not written down: either may name a person.
        "by_reference": filter.message_id.is_some() || filter.case.is_some(),
    })
}

pub(crate) fn count(
    connection: &mut Connection,
    (by, filter, reason): (String, Filter, String),
    json: bool,
) -> anyhow::Result<()> {
    let Connection { runtime, client, .. } = connection;
    let request = CountRequest { filter: Some(filter), by, reason };
    let told = runtime.block_on(client.count(request)).map_err(said)?.into_inner();
    warn_unreadable(&told.unreadable_generations);
    let counts = told.counts;
    if json {
        let counts: serde_json::Map<_, _> =
            counts.into_iter().map(|counted| (counted.value, counted.exchanges.into())).collect();
        println!("{}", Value::Object(counts));
    } else {
        counts.iter().for_each(|counted| println!("{}\t{}", counted.exchanges, printable(&counted.value)));
    }
    Ok(())
}

pub(crate) fn reads(
    connection: &mut Connection,
    (from, to, limit, reason): (Option<Moment>, Option<Moment>, u32, String),
    json: bool,
) -> anyhow::Result<()> {
    let Connection { runtime, client, .. } = connection;
    let ms = |moment: Option<Moment>| moment.map(|moment| moment.0.as_millis());
    let request = ListReadsRequest { from_ms: ms(from), to_ms: ms(to), limit, reason };
    runtime.block_on(async {
        let mut reads = client.list_reads(request).await.map_err(said)?.into_inner();
        let mut out = std::io::stdout().lock();
        while let Some(read) = reads.message().await.map_err(said)? {
            let time = Time::from_millis(read.time_ms).to_string();
            let (reader, reason, query) = (printable(&read.reader), printable(&read.reason), printable(&read.query));
            let line = match json {
                true => json!({"index": read.index, "time": time, "reader": reader, "reason": reason, "query": query,
                               "results": read.results, "generation": read.generation})
                .to_string(),
                false => format!("{time}\t{reader}\t{query}\t{}\t{reason}\t{}\t{}", read.results, read.index, read.generation),
            };
            writeln!(out, "{line}").context("cannot write")?;
        }
        Ok(())
    })
}
