//! What the story shows of a proof file. Whether it holds is for `trave-verify` alone to say.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use prost::Message;
use trave_proto::digest::Digest;
use trave_proto::schema::log::v1::{Leaf, MessageEntry, leaf::Entry};
use trave_proto::schema::message::v1::{Direction, Manifest};
use trave_proto::schema::proof::v1;

use crate::instance::PURPOSE;

/// The first line of the file.
const FIRST_LINE: &[u8] = b"trave proof v1\n";

/// A proof file and what it holds.
pub(crate) struct Proof {
    pub(crate) path: PathBuf,
    pub(crate) bytes: usize,
    messages: Vec<Logged>,
    contents: usize,
}

struct Logged {
    logged_ms: i64,
    encoded: bytes::Bytes,
    manifest: Manifest,
}

impl Proof {
    pub(crate) fn read(path: PathBuf) -> anyhow::Result<Self> {
        let file = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let encoded = file.strip_prefix(FIRST_LINE).context("this is no proof file")?;
        let proof = v1::Proof::decode(encoded).context("the proof file is damaged")?;
        let contents = proof.records.iter().filter(|record| record.content.is_some()).count();
        let messages: Vec<Logged> = proof
            .records
            .iter()
            .filter_map(|record| message(&record.leaf).transpose())
            .collect::<Result<_, _>>()?;
        Ok(Self { path, bytes: file.len(), messages, contents })
    }

    /// When the request (or the response) was signed, in milliseconds since 1970.
    pub(crate) fn created(&self, request: bool) -> anyhow::Result<i64> {
        Ok(self.of(request)?.manifest.created_ms)
    }

    /// When this log took it in.
    pub(crate) fn logged(&self, request: bool) -> anyhow::Result<i64> {
        Ok(self.of(request)?.logged_ms)
    }

    /// SHA-256 of each signed manifest, the request's first.
    pub(crate) fn manifests(&self) -> anyhow::Result<Vec<String>> {
        [true, false]
            .map(|request| Ok(Digest::of(&self.of(request)?.encoded).to_string()))
            .into_iter()
            .collect()
    }

    /// How many messages come with their contents.
    pub(crate) const fn contents(&self) -> usize {
        self.contents
    }

    /// Where in the file the purpose stands in the signed request.
    pub(crate) fn offset_of_the_purpose(&self) -> anyhow::Result<usize> {
        let file = fs::read(&self.path)?;
        let manifest = &self.of(true)?.encoded;
        let begins =
            find(&file, manifest).context("the manifest does not stand in the file as it was signed")?;
        Ok(begins + find(manifest, PURPOSE.as_bytes()).context("the manifest names no purpose")?)
    }

    fn of(&self, request: bool) -> anyhow::Result<&Logged> {
        let direction = if request { Direction::Request } else { Direction::Response };
        let mut found = self.messages.iter().filter(|message| message.manifest.direction() == direction);
        let first = found.next().context("the proof lacks a message")?;
        ensure!(found.next().is_none(), "the proof holds more than one message each way");
        Ok(first)
    }
}

/// The message that a leaf holds, if it holds one.
fn message(leaf: &[u8]) -> anyhow::Result<Option<Logged>> {
    let leaf = Leaf::decode(leaf).context("a leaf is damaged")?;
    let Some(Entry::Message(MessageEntry { manifest: encoded, .. })) = leaf.entry else { return Ok(None) };
    let manifest = Manifest::decode(encoded.clone()).context("a manifest is damaged")?;
    Ok(Some(Logged { logged_ms: leaf.logged_ms, encoded, manifest }))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
