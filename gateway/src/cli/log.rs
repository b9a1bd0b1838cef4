//! Verbs about the message log: list, prove, erase, check.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use trave_host::files;
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::operator::{
    CheckLogRequest, EraseRequest, ListLogRequest, ListLogResponse, ProofFormat, ProveRequest,
};

use super::erasures;
use super::operate::{Door, said, user};
use super::restored::Restored;
use super::{List, Proof, ProofCommand, renewal};
use crate::proof::Contents;

pub(super) fn list(door: &Door<'_>, list: List) -> anyhow::Result<()> {
    let limit = list.limit;
    let request = ListLogRequest {
        from_ms: list.from.map_or(0, |from| from.0.as_millis()),
        to_ms: list.to.map_or(0, |to| to.0.as_millis()),
        client: list.client.map(|client| client.to_string()),
        service: list.service.map(|service| service.to_string()),
        purpose: list.purpose.map(|purpose| purpose.to_string()),
        outcome: list.outcome,
        reader: user(),
        reason: list.reason,
        limit,
    };
    if let Some(dir) = &list.from_archive.restored {
        let restored = Restored::open(door.config, dir, list.from_archive.log_key.as_ref())?;
        let mut out = std::io::stdout().lock();
        for entry in restored.list(&request)? {
            writeln!(out, "{}", line(&entry)).context("cannot write")?;
        }
        return Ok(());
    }
    let count = door.with(async |client| {
        let mut entries = client.list_log(request).await.map_err(said)?.into_inner();
        let (mut out, mut count) = (std::io::stdout().lock(), 0_u32);
        while let Some(entry) = entries.message().await.map_err(said)? {
            writeln!(out, "{}", line(&entry)).context("cannot write")?;
            count += 1;
        }
        Ok(count)
    })?;
    if limit != 0 && count == limit {
        eprintln!("these are the latest {count}\nhint: --limit 0 shows all, --from and --to a part");
    }
    Ok(())
}

fn line(entry: &ListLogResponse) -> String {
    let exchange =
        ExchangeId::from_slice(&entry.exchange_id).map_or_else(|_| "-".into(), |id| id.to_string());
    let time = Time::from_millis(entry.time_ms).to_string();
    let messages = format!("{}/{}", entry.requests, entry.responses);
    let from = bridged("bridged from X-Road", &entry.bridged_from);
    let to = bridged("bridged to X-Road", &entry.bridged_to);
    let columns = [
        &time,
        &exchange,
        &entry.outcome,
        &entry.side,
        &entry.client,
        &entry.service,
        &entry.method,
        &entry.purpose,
        &entry.legal_basis,
        &messages,
        &entry.reason,
    ];
    let line = columns.map(|column| if column.is_empty() { "-" } else { column.as_str() }).join("\t");
    // At the end: whoever counts columns finds all others where they are.
    let back = match entry.recovered {
        0 => String::new(),
        count => format!("\trecovered from peer: {count}"),
    };
    format!("{line}{from}{to}{back}")
}

fn bridged(what: &str, id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("\t{what}: {id}") }
}

pub(super) fn proof(door: &Door<'_>, proof: Proof) -> anyhow::Result<()> {
    let Proof { command, exchange, out, without_content, asice, reason, from_archive } = proof;
    let (exchange, out, reason) = match (command, exchange, out, reason) {
        (Some(ProofCommand::Renew { file, out }), ..) => return renewal::run(door.config, &file, &out),
        (None, Some(exchange), Some(out), Some(reason)) => (exchange, out, reason),
        _ => bail!("the exchange, --out and --reason say what is to be proved"),
    };
    let file = match &from_archive.restored {
        Some(dir) => {
            let restored = Restored::open(door.config, dir, from_archive.log_key.as_ref())?;
            restored.prove(exchange, Contents::all_if(!without_content))?
        }
        None => {
            let request = ProveRequest {
                exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
                without_content,
                reader: user(),
                reason,
                format: if asice { ProofFormat::Asice } else { ProofFormat::Unspecified }.into(),
            };
            asked(door, request)?.into()
        }
    };
    if out == Path::new("-") {
        return std::io::stdout().write_all(&file).context("cannot write the proof");
    }
    files::create(&out, &file).context("the proof cannot be stored")?;
    let path = out.display();
    let what = if asice { "container" } else { "proof" };
    eprintln!("wrote the {what} to {path}, {} bytes", file.len());
    if !without_content {
        eprintln!("it holds the contents that are kept: give it only to whoever may read them");
    }
    eprintln!("hint: trave-verify {path} --anchor data/anchor");
    Ok(())
}

/// The file as the running server makes it.
fn asked(door: &Door<'_>, request: ProveRequest) -> anyhow::Result<Vec<u8>> {
    door.with(async |client| {
        let mut pieces = client.prove(request).await.map_err(said)?.into_inner();
        let mut file = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(said)? {
            file.extend_from_slice(&piece.chunk);
        }
        Ok(file)
    })
}

pub(super) fn erase(door: &Door<'_>, exchange: ExchangeId, reason: String) -> anyhow::Result<()> {
    let exchange_id = Bytes::copy_from_slice(exchange.as_bytes());
    let request = EraseRequest { exchange_id, operator: user(), reason };
    let erased = door.with(async |client| client.erase(request).await.map_err(said))?.into_inner();
    if !erased.waiting {
        println!(
            "{} contents of exchange {exchange} are erased; that it took place stays provable",
            erased.contents
        );
    }
    erasures::outlook(&erased.id, erased.waiting, &erased.telling);
    Ok(())
}

pub(super) fn check(door: &Door<'_>) -> anyhow::Result<ExitCode> {
    let report = door.with(async |client| client.check_log(CheckLogRequest {}).await.map_err(said))?;
    let report = report.into_inner();
    println!(
        "{} records read, {} contents decrypted, {} contents erased, {} problems",
        report.records,
        report.contents,
        report.erased,
        report.problems.len()
    );
    if report.expired > 0 {
        println!("{} records have expired, as the log says; their hashes are here", report.expired);
    }
    if report.pruned > 0 {
        println!(
            "{} records were pruned, as a statement in the log says: `--archive` reads them too",
            report.pruned
        );
    }
    report.problems.iter().for_each(|problem| println!("problem: {problem}"));
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
