//! Searches by person: asked for, released, made.

use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::json;
use trave_proto::clock::Time;
use trave_proto::schema::audit::{
    AskPersonSearchRequest, ReleasePersonSearchRequest, SearchPersonRequest, search_person_response::Part,
};

use crate::Person;
use crate::connection::{Connection, line_from_stdin, printable, said};
use crate::queries::{as_json, line, warn_unreadable};

/// Entries of one page.
const PAGE: u32 = 500;

pub(crate) fn run(connection: &mut Connection, person: Person) -> anyhow::Result<()> {
    match person {
        Person::Ask { reason } => ask(connection, reason),
        Person::Release { id, reason } => release(connection, &id, reason),
        Person::Search { id, reason, json } => search(connection, &id, &reason, json),
    }
}

fn named() -> anyhow::Result<String> {
    line_from_stdin("the person, scheme:value")
}

fn id_of(hex: &str) -> anyhow::Result<Bytes> {
    Ok(hex::decode(hex).context("the id is not hexadecimal\nhint: `person ask` printed it")?.into())
}

fn ask(connection: &mut Connection, reason: String) -> anyhow::Result<()> {
    let request = AskPersonSearchRequest { person: named()?, reason };
    let Connection { runtime, client, .. } = connection;
    let asked = runtime.block_on(client.ask_person_search(request)).map_err(said)?.into_inner();
    println!("{}", hex::encode(&asked.id));
    eprintln!("a data protection officer must release it, and it ends {}", Time::from_millis(asked.until_ms));
    eprintln!("hint: tell them the id and the person, not by the same way; then `person search ID`");
    Ok(())
}

fn release(connection: &mut Connection, id: &str, reason: String) -> anyhow::Result<()> {
    let request = ReleasePersonSearchRequest { id: id_of(id)?, person: named()?, reason };
    let Connection { runtime, client, .. } = connection;
    let released = runtime.block_on(client.release_person_search(request)).map_err(said)?.into_inner();
    eprintln!("released for {}", printable(&released.asked_by));
    Ok(())
}

fn search(connection: &mut Connection, id: &str, reason: &str, as_lines_of_json: bool) -> anyhow::Result<()> {
    let (id, mut cursor, mut shown) = (id_of(id)?, Bytes::new(), 0);
    let mut out = std::io::stdout().lock();
    let Connection { runtime, client, .. } = connection;
    loop {
        let request =
            SearchPersonRequest { id: id.clone(), page_size: PAGE, cursor, reason: reason.to_owned() };
        let end = runtime.block_on(async {
            let mut parts = client.search_person(request).await.map_err(said)?.into_inner();
            while let Some(part) = parts.message().await.map_err(said)? {
                match part.part {
                    Some(Part::Entry(entry)) => {
                        let line = if as_lines_of_json { as_json(&entry).to_string() } else { line(&entry) };
                        writeln!(out, "{line}").context("cannot write")?;
                    }
                    Some(Part::End(end)) => return Ok(end),
                    None => {
                        bail!("the server sent what this program does not know\nhint: is there a newer one?")
                    }
                }
            }
            bail!("the answer was broken off: it is not whole")
        })?;
        shown += end.entries;
        cursor = end.cursor;
        if cursor.is_empty() {
            warn_unreadable(&end.unreadable_generations);
            break;
        }
    }
    if as_lines_of_json {
        writeln!(out, "{}", json!({"end": {"entries": shown}})).context("cannot write")?;
    }
    Ok(())
}
