//! Verbs about a person. The identifier comes from a file or standard input, never from the command line: what stands there,
//! everybody on this machine can see.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use trave_host::stubs::citizen::citizen_service_client::CitizenServiceClient;
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::citizen::{WhoAskedRequest, WhoAskedResponse};
use trave_proto::schema::operator::ErasePersonRequest;
use zeroize::Zeroizing;

use super::erasures;
use super::operate::{Door, said, user};

/// Longest file with an identifier, in bytes.
const MAX_FILE: u64 = 4_096;

/// What a file holds, `scheme:identifier`; `-` is standard input.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text),
        false => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            file.take(MAX_FILE + 1).read_to_string(&mut text)
        }
    };
    read.context("the file with the person's identifier cannot be read")?;
    ensure!(text.len() as u64 <= MAX_FILE, "the file is longer than an identifier");
    let line = Zeroizing::new(text.trim().to_owned());
    ensure!(
        !line.is_empty() && line.lines().count() == 1,
        "the file does not hold one line\nhint: steuer-id:12345678901"
    );
    Ok(line)
}

pub(super) fn erase(door: &Door<'_>, path: &Path, reason: String) -> anyhow::Result<()> {
    let person = read(path)?.to_string();
    let request = ErasePersonRequest { person, operator: user(), reason };
    let erased = door.with(async |client| client.erase_person(request).await.map_err(said))?.into_inner();
    if !erased.waiting {
        println!(
            "erased of the person: exchanges {}, contents {}, pseudonyms {}; that the exchanges took place stays provable",
            erased.exchanges, erased.contents, erased.pseudonyms
        );
    }
    erasures::outlook(&erased.id, erased.waiting, &erased.telling);
    eprintln!(
        "hint: other security servers are told of exchanges, and never of a person: who is to be found there no more is erased there by identifier"
    );
    Ok(())
}

pub(super) fn who_asked(door: &Door<'_>, path: &Path, reason: String) -> anyhow::Result<()> {
    let person = read(path)?.to_string();
    door.with_channel(async |channel| {
        let mut client = CitizenServiceClient::new(channel);
        let mut after = None;
        loop {
            let (person, reason) = (person.clone(), reason.clone());
            let request = WhoAskedRequest { person, reason, after };
            let mut entries = client.who_asked(request).await.map_err(said)?.into_inner();
            let before = after;
            while let Some(entry) = entries.message().await.map_err(said)? {
                writeln!(std::io::stdout().lock(), "{}", line(&entry)).context("cannot write")?;
                after = Some(entry.place);
            }
            if after == before {
                return Ok(());
            }
        }
    })
}

fn line(entry: &WhoAskedResponse) -> String {
    let exchange =
        ExchangeId::from_slice(&entry.exchange_id).map_or_else(|_| "-".into(), |id| id.to_string());
    let time = Time::from_millis(entry.time_ms).to_string();
    let columns = [
        &time,
        &exchange,
        &entry.asking,
        &entry.asking_name,
        &entry.providing,
        &entry.providing_name,
        &entry.service,
        &entry.kind_of_data,
        &entry.purpose,
        &entry.purpose_text,
        &entry.legal_basis,
        &entry.legal_basis_text,
        &entry.citation,
        &entry.outcome,
    ];
    let plain = |text: &&String| text.replace(['\t', '\n'], " ");
    let columns = columns.map(|column| if column.is_empty() { "-".into() } else { plain(&column) });
    columns.join("\t")
}
