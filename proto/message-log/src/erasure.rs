//! Erasing the contents of an exchange: first the act is durable in the log, then the key is overwritten, then the bytes.
//! A restart does again what a crash interrupted.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::entry::kind;
use crate::error::LogError;
use crate::reading;
use crate::record::{CONTENT_PREFIX, HEADER};
use crate::shared::{Recovered, Shared};

/// Makes unreadable the contents of `exchange` in the leaves before index `before`, where the erasure is logged. Returns
/// how many there are. Done twice, it changes nothing more. A record that cannot be read does not keep the others from
/// being erased; the error is told afterwards.
pub(crate) fn overwrite(shared: &Shared, exchange: &[u8; 16], before: u64) -> Result<u64, LogError> {
    let (mut contents, mut unreadable) = (Vec::new(), None);
    for index in reading::of_exchange(shared, exchange)?.into_iter().take_while(|index| *index < before) {
        let read = reading::locate(shared, index).and_then(|located| Ok((located.read()?, located)));
        match read {
            Ok((raw, located)) => contents.extend(raw.attachment.content.map(|content| (located, content))),
            Err(error) => unreadable = Some(error),
        }
    }
    shared.keys.erase(contents.iter().map(|(_, content)| content.key_slot))?;
    let mut written: HashMap<PathBuf, Arc<dyn DiskFile>> = HashMap::new();
    for (located, content) in &contents {
        let Some(ciphertext) = (content.length as usize).checked_sub(CONTENT_PREFIX) else { continue };
        let from = content.offset.saturating_add((HEADER + CONTENT_PREFIX) as u64);
        // The attachment says where the content is; it must be where contents are, before its own leaf.
        if from.saturating_add(ciphertext as u64) > located.entry.offset {
            unreadable =
                Some(LogError::damaged(&located.path, located.entry.offset, "its content lies elsewhere"));
            continue;
        }
        let zeros = vec![0; ciphertext];
        located.file.write_all_at(&zeros, from).map_err(LogError::disk("overwrite", &located.path))?;
        written.insert(located.path.clone(), located.file.clone());
    }
    for (path, file) in &written {
        file.sync().map_err(LogError::disk("sync", path))?;
    }
    unreadable.map_or(Ok(contents.len() as u64), Err)
}

/// Does again the erasures of the last run, that is, since the log was last opened: a crash may have come between the act
/// and its effect.
pub(crate) fn redo(shared: &Arc<Shared>, recovered: &mut Recovered) -> Result<(), LogError> {
    let size = shared.catalogue().open.next();
    for entry in reading::Entries::new(shared.clone(), 0..size).rev() {
        let (index, entry) = entry?;
        match entry.kind {
            kind::STARTED => break,
            kind::ERASURE => {
                recovered.erasures_redone += 1;
                match overwrite(shared, &entry.exchange, index) {
                    Err(error) if error.is_failed_write() => return Err(error),
                    Err(error) => recovered.warnings.push(error.in_full()),
                    Ok(_) => {}
                }
            }
            _ => {}
        }
    }
    Ok(())
}
