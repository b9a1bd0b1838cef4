//! The segment that is written to, and how a new one begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::digest::Digest;

use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::error::LogError;
use crate::segment::{self, DATA, SegmentHeader};

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) end: u64,
    pub(crate) capacity: u64,
    pub(crate) chain: Digest,
}

/// Makes the segment file of `header`, of `capacity` bytes: whole and durable, with its directory entry, before anything
/// in it is acknowledged.
pub(crate) fn begin(
    disk: &dyn Disk,
    dir: &Path,
    header: SegmentHeader,
    capacity: u64,
    spare: Option<PathBuf>,
) -> Result<OpenSegment, LogError> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| LogError::Refused("the system gives no random numbers"))?;
    let header = SegmentHeader { id, ..header };
    let temporary = spare.clone().unwrap_or_else(|| dir.join("segment.tmp"));
    let path = dir.join(segment::file_name(header.first));
    let write = || {
        let file = if spare.is_some() { disk.open(&temporary)? } else { disk.create(&temporary)? };
        if spare.is_none() {
            fill_zeros(&*file, 0, capacity)?;
        }
        file.write_all_at(&header.to_bytes(), 0)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)?;
        Ok((file.len()?, file))
    };
    let (capacity, file) = write().map_err(LogError::disk("begin the segment", &path))?;
    Ok(OpenSegment { file, path, header, end: DATA, capacity, chain: header.chain })
}
