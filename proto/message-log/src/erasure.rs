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
use crate::shared::Shared;

/// Makes unreadable the contents of `exchange` in the leaves before index `before`, where the erasure is logged. Returns
/// how many there are. Done twice, it changes nothing more.
pub(crate) fn overwrite(shared: &Shared, exchange: &[u8; 16], before: u64) -> Result<u64, LogError> {
    let mut contents = Vec::new();
    for index in reading::of_exchange(shared, exchange)?.into_iter().take_while(|index| *index < before) {
        let located = reading::locate(shared, index)?;
        let raw = located.read()?;
        if let Some(content) = raw.attachment.content {
            contents.push((located, content));
        }
    }
    let slots: Vec<_> = contents.iter().map(|(_, content)| content.key_slot).collect();
    shared.keys.erase(&slots)?;
    let mut written: HashMap<PathBuf, Arc<dyn DiskFile>> = HashMap::new();
    for (located, content) in &contents {
        let Some(ciphertext) = (content.length as usize).checked_sub(CONTENT_PREFIX) else { continue };
        let from = content.offset.saturating_add((HEADER + CONTENT_PREFIX) as u64);
        // The attachment says where the content is; it must be where contents are, before its own leaf.
        if from.saturating_add(ciphertext as u64) > located.entry.offset {
            return Err(LogError::damaged(&located.path, located.entry.offset, "its content lies elsewhere"));
        }
        let zeros = vec![0; ciphertext];
        located.file.write_all_at(&zeros, from).map_err(LogError::disk("overwrite", &located.path))?;
        written.insert(located.path.clone(), located.file.clone());
    }
    for (path, file) in &written {
        file.sync().map_err(LogError::disk("sync", path))?;
    }
    Ok(contents.len() as u64)
}

/// Does again the erasures of the last run, that is, since the log was last opened: a crash may have come between the act
/// and its effect.
pub(crate) fn redo(shared: &Arc<Shared>) -> Result<u64, LogError> {
    let mut redone = 0;
    let size = shared.catalogue().open.next();
    for entry in reading::Entries::new(shared.clone(), 0..size).rev() {
        let (index, entry) = entry?;
        match entry.kind {
            kind::STARTED => break,
            kind::ERASURE => {
                overwrite(shared, &entry.exchange, index)?;
                redone += 1;
            }
            _ => {}
        }
    }
    Ok(redone)
}
