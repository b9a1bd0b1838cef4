//! Proving from a log to which nothing is added any more, an earlier generation or what came out of an archive: under the last
//! checkpoint of it that was witnessed, or stamped, as no other is signed.

use bytes::Bytes;
use trave_message_log::{Log, LogError};
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;

use super::{Contents, ExportError, ExportedContent, Kind, Piece, chosen, gather, verified};
use crate::generations::Generation;
use crate::trust::Trust;
use crate::upkeep::{Witnessed, recall};

/// What a proof of an exchange in an earlier generation is made of.
pub(super) fn gathered(
    generation: &Generation,
    id: ExchangeId,
    contents: Contents,
) -> Result<(Log, Vec<Piece>, Witnessed), ExportError> {
    let log = generation.log();
    let witnessed = recall(&generation.witnessed, log.verifier());
    let (pieces, seal) = closed(log, witnessed, id, contents)?;
    Ok((log.clone(), pieces, seal))
}

/// The proof file of an exchange in a log that came out of an archive. Reads the disk.
pub(crate) fn export_restored(
    (log, trust, now): (&Log, &Trust, Time),
    id: ExchangeId,
    contents: Contents,
) -> Result<Bytes, ExportError> {
    let (pieces, seal) = closed(log, None, id, contents)?;
    verified((log, trust, now), id, pieces, seal)
}

fn closed(
    log: &Log,
    witnessed: Option<Witnessed>,
    id: ExchangeId,
    contents: Contents,
) -> Result<(Vec<Piece>, Witnessed), ExportError> {
    let mut pieces = chosen(gather(log, id, contents)?, id)?;
    // That it was erased after this log had ended stands in another one: here it is not kept any longer.
    if pieces.iter().all(|piece| piece.kind != Kind::Erasure) {
        for message in pieces.iter_mut().filter_map(|piece| piece.message.as_mut()) {
            if let ExportedContent::Erased = message.content {
                message.content = ExportedContent::NotKept;
            }
        }
    }
    let last = pieces.last().map_or(0, |piece| piece.index);
    let seals = seals(log, witnessed).map_err(ExportError::Log)?;
    let seal = seals.into_iter().find(|seal| seal.checkpoint.checkpoint.size > last);
    let seal = seal.ok_or_else(|| ExportError::NeverSealed(id, log.verifier().name().to_owned()))?;
    Ok((pieces, seal))
}

/// The checkpoint that covers most of an earlier generation, of those that prove something; none where none does. Reads the
/// disk.
pub(crate) fn seal_of(generation: &Generation) -> Result<Option<Witnessed>, LogError> {
    let log = generation.log();
    let seals = seals(log, recall(&generation.witnessed, log.verifier()))?;
    // Of two that cover as much, the witnessed one.
    Ok(seals.into_iter().rev().max_by_key(|seal| seal.checkpoint.checkpoint.size))
}

/// Checkpoints under which records of a log are proved to which nothing is added: the witnessed one first, then the stamped.
fn seals(log: &Log, witnessed: Option<Witnessed>) -> Result<Vec<Witnessed>, LogError> {
    let stamped = log.last_stamped()?.map(|checkpoint| Witnessed { checkpoint, lines: String::new() });
    // One of more than is left of the log proves nothing that could be shown.
    let proves = |seal: &Witnessed| {
        let size = seal.checkpoint.checkpoint.size;
        seal.checkpoint.timestamp.is_some()
            && size <= log.size()
            && log.root(size).is_ok_and(|root| root == seal.checkpoint.checkpoint.root)
    };
    Ok(witnessed.into_iter().chain(stamped).filter(proves).collect())
}
