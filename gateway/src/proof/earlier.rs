//! Proving from an earlier generation of the log: under the last checkpoint of it that was witnessed, or stamped, as no other is
//! signed any more.

use trave_message_log::Log;
use trave_proto::identifier::ExchangeId;

use super::{Contents, ExportError, ExportedContent, Kind, Piece, chosen, gather};
use crate::generations::Generation;
use crate::upkeep::{Witnessed, recall};

/// What a proof of an exchange in it is made of.
pub(super) fn gathered(
    generation: &Generation,
    id: ExchangeId,
    contents: Contents,
) -> Result<(Log, Vec<Piece>, Witnessed), ExportError> {
    let log = generation.log();
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
    let stamped = log.last_stamped().map_err(ExportError::Log)?;
    let stamped = stamped.map(|checkpoint| Witnessed { checkpoint, lines: String::new() });
    let seals = [recall(&generation.witnessed, log.verifier()), stamped];
    // One of more than is left of the log proves nothing that could be shown.
    let proves = |seal: &Witnessed| {
        let size = seal.checkpoint.checkpoint.size;
        seal.checkpoint.timestamp.is_some()
            && size > last
            && size <= log.size()
            && log.root(size).is_ok_and(|root| root == seal.checkpoint.checkpoint.root)
    };
    let seal = seals.into_iter().flatten().find(proves);
    let seal = seal.ok_or(ExportError::NeverSealed(id, generation.number))?;
    Ok((log.clone(), pieces, seal))
}
