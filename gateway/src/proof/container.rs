//! Exporting a proof for other people's programs: an ASiC-E container under this security server's seal.
//!
//! The seal is made with the signing key and stamped by a timestamping authority of the configuration, and once more over
//! everything (the archive timestamp), with what is needed to believe that authority later. Nothing is written to disk: what a crash leaves is the record that somebody read.

use std::sync::Arc;

use bytes::Bytes;
use trave_proto::container::{ContainerError, Unsealed};
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::Proof;
use trave_proto::signature::Signer as _;

use super::{Contents, ExportError, blocking, export};
use crate::exchange::Exchanges;
use crate::timestamping;
use crate::upkeep::Upkeep;

/// The container of an exchange. It is verified before it is given out, and a mismatch in it is an error.
pub(crate) async fn export_container(
    exchanges: &Arc<Exchanges>,
    upkeep: &Upkeep,
    id: ExchangeId,
    contents: Contents,
) -> Result<Bytes, ExportError> {
    let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
    let file = export(exchanges, upkeep, id, contents).await?;
    let signed = {
        let (exchanges, configuration) = (Arc::clone(exchanges), Arc::clone(&configuration));
        blocking(move || {
            let (anchor, now) = (exchanges.trust.anchor(), exchanges.clock.now());
            let signer = exchanges.own.signer.load_full();
            let proof = Proof::parse(file).map_err(|error| ExportError::DoesNotHold(error.to_string()))?;
            let container = Unsealed::new(&proof, (anchor, &configuration), (**signer).clone(), now);
            let container = container.map_err(ExportError::Container)?;
            let signature = container.to_sign().map_err(ExportError::Container)?;
            let signature = exchanges.sealing.sign(&signature).map_err(ExportError::Key)?;
            container.signed(signature).map_err(ExportError::Container)
        })
        .await?
    };
    let token = timestamping::stamp_to_keep(&signed.digest(), &configuration).await;
    let token = token.map_err(ExportError::Stamp)?;
    let sealed = {
        let (exchanges, configuration) = (Arc::clone(exchanges), Arc::clone(&configuration));
        blocking(move || {
            let trusted = (exchanges.trust.anchor(), &*configuration);
            signed.stamped(token, trusted).map_err(ExportError::Container)
        })
        .await?
    };
    let token = timestamping::stamp_to_keep(&sealed.digest(), &configuration).await;
    let token = token.map_err(ExportError::Stamp)?;
    let exchanges = Arc::clone(exchanges);
    blocking(move || {
        let (anchor, now) = (exchanges.trust.anchor(), exchanges.clock.now());
        sealed.archived(token, anchor, now).map(|(file, _)| file).map_err(ExportError::Container)
    })
    .await
}

/// Whether an error says that what is in the log is not what was logged.
pub(crate) fn is_mismatch(error: &ContainerError) -> bool {
    matches!(error, ContainerError::Proof(_) | ContainerError::DoesNotHold(_))
}
