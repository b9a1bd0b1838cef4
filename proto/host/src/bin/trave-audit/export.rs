//! Exporting proofs, each into a file of its own.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;
use trave_host::files;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::audit::{ExportRequest, export_response::Part};

use crate::Export;
use crate::connection::{Connection, printable, said};

/// Exchanges of one request.
const AT_A_TIME: usize = 1_000;
/// Largest proof that is taken, in bytes.
const MAX_PROOF: usize = 256 << 20;

/// Exports; false if there is no proof of any of them.
pub(crate) fn run(connection: &mut Connection, export: &Export) -> anyhow::Result<bool> {
    let mut ids: BTreeSet<_> = export.exchanges.iter().copied().collect();
    if let Some(path) = &export.found {
        ids.extend(found(path)?);
    }
    if ids.is_empty() {
        bail!("no exchange is named\nhint: name them, or give a search's JSON with --found");
    }
    std::fs::create_dir_all(&export.out).with_context(|| format!("cannot make {}", export.out.display()))?;
    let ids: Vec<_> = ids.into_iter().collect();
    let (mut written, mut missing) = (0, 0);
    for some in ids.chunks(AT_A_TIME) {
        let request = ExportRequest {
            exchange_ids: some.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
            with_content: export.with_content,
            reason: export.reason.clone(),
        };
        receive(connection, request, |id, proof| {
            match proof {
                Ok(file) => {
                    let path = export.out.join(format!("{id}.proof"));
                    files::create(&path, &file).context("a proof cannot be stored")?;
                    written += 1;
                }
                Err(why) => {
                    eprintln!("no proof of {id}: {}", printable(&why));
                    missing += 1;
                }
            }
            if (written + missing) % 100 == 0 {
                eprintln!("{} of {}", written + missing, ids.len());
            }
            Ok(())
        })?;
    }
    eprintln!("wrote {written} proofs to {}; of {missing} exchanges there is none", export.out.display());
    eprintln!("hint: trave-verify {}/EXCHANGE.proof --anchor anchor", export.out.display());
    Ok(missing == 0 && written == ids.len())
}

fn receive(
    connection: &mut Connection,
    request: ExportRequest,
    mut take: impl FnMut(ExchangeId, Result<Vec<u8>, String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut asked: BTreeSet<_> = request.exchange_ids.iter().cloned().collect();
    let Connection { runtime, client, .. } = connection;
    runtime.block_on(async {
        let mut parts = client.export(request).await.map_err(said)?.into_inner();
        let mut current: Option<(ExchangeId, Vec<u8>)> = None;
        while let Some(part) = parts.message().await.map_err(said)? {
            let mut known = |id: &Bytes| match asked.remove(id) {
                true => ExchangeId::from_slice(id).context("the server names no exchange"),
                false => bail!("the server sent a proof that was not asked for"),
            };
            match (part.part, &mut current) {
                (Some(Part::Begin(begin)), None) => current = Some((known(&begin.exchange_id)?, Vec::new())),
                (Some(Part::Chunk(chunk)), Some((_, file))) if file.len() + chunk.len() <= MAX_PROOF => {
                    file.extend_from_slice(&chunk);
                }
                (Some(Part::End(end)), Some((_, file))) if file.len() as u64 == end.bytes => {
                    if let Some((id, file)) = current.take() {
                        take(id, Ok(file))?;
                    }
                }
                (Some(Part::None(none)), None) => take(known(&none.exchange_id)?, Err(none.why))?,
                _ => {
                    bail!("the server's answer is not in order, or a proof is larger than {MAX_PROOF} bytes")
                }
            }
        }
        if current.is_some() || !asked.is_empty() {
            bail!("the answer was broken off: {} exchanges are still to come", asked.len());
        }
        Ok(())
    })
}

/// The exchanges in the JSON of a search.
fn found(path: &Path) -> anyhow::Result<Vec<ExchangeId>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut ids = Vec::new();
    for line in text.lines() {
        let line: Value =
            serde_json::from_str(line).with_context(|| format!("{} is no search's JSON", path.display()))?;
        let id = line.get("entry").and_then(|entry| entry.get("exchange")).and_then(Value::as_str);
        ids.extend(id.and_then(|id| id.parse::<ExchangeId>().ok()));
    }
    Ok(ids)
}
