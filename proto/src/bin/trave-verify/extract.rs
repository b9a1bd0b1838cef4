//! Takes a proof apart into files, byte for byte, with a script that checks them with OpenSSL alone: whoever does not
//! believe this program need not.

mod messages;
mod pem;
mod script;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use trave_proto::container;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;
use trave_proto::proof::Proof;
use trave_proto::tree;

use script::Script;

/// Writes everything into the new directory `directory`.
pub(crate) fn write(directory: &Path, proof: &Proof, anchor: &Anchor) -> anyhow::Result<()> {
    let mut folder = Folder::create(directory)?;
    let mut script = Script::new();
    folder.write("proof.trave", &proof.encode())?;
    let trusted = trust::write(&mut folder, &mut script, proof, anchor)?;
    trust::write_checkpoint(&mut folder, &mut script, proof, &trusted)?;
    for record in &proof.raw().records {
        inclusion(&mut folder, &mut script, proof, record)?;
        messages::write(&mut folder, &mut script, proof, record, &trusted)?;
    }
    folder.write("check.sh", script.finish().as_bytes())
}

/// Writes the container's own files into `container` beside the rest: the list, the seal, what its timestamp is over, the
/// timestamp, and of each archive timestamp the list and the token.
pub(crate) fn write_container(directory: &Path, file: &Bytes) -> anyhow::Result<()> {
    let mut folder = Folder { root: directory.to_owned() };
    let pieces = container::seal_of(file).context("the seal cannot be read")?;
    folder.write("container/manifest.xml", &pieces.manifest)?;
    folder.write("container/seal.p7s", &pieces.seal)?;
    folder.write("container/signature.bin", &pieces.signature)?;
    folder.write("container/timestamp.der", &pieces.token)?;
    for (at, (list, token)) in pieces.archived.iter().enumerate() {
        let number = at + 1;
        folder.write(&format!("container/archive-{number}.xml"), list)?;
        folder.write(&format!("container/archive-{number}.der"), token)?;
    }
    folder.write("container/ocsp.der", &pieces.ocsp)
}

/// The record's leaf, and its path to the checkpoint's root.
fn inclusion(
    folder: &mut Folder,
    script: &mut Script,
    proof: &Proof,
    record: &trave_proto::schema::proof::Record,
) -> anyhow::Result<()> {
    let name = format!("records/{}", record.index);
    folder.write(&format!("{name}/leaf.bin"), &record.leaf)?;
    let note = proof.raw().checkpoint.as_ref().map(|checkpoint| checkpoint.note.clone()).unwrap_or_default();
    let size = trust::size_of(&note).context("the checkpoint cannot be read")?;
    let path: Option<Vec<_>> = record.path.iter().map(|hash| Digest::from_slice(hash)).collect();
    let path = path.context("a path's hash has not 32 bytes")?;
    let steps = write_path(folder, &name, &path, record.index, size)?;
    script.merkle(
        &format!("record {} stands in the log under the checkpoint", record.index),
        &format!("{name}/leaf.bin"),
        "checkpoint/root.bin",
        &steps,
    );
    Ok(())
}

/// Writes the hashes of a path, and says on which side each stands.
fn write_path(
    folder: &mut Folder,
    name: &str,
    path: &[Digest],
    index: u64,
    size: u64,
) -> anyhow::Result<Vec<(char, String)>> {
    let sides = tree::sides(index, size).context("a record lies outside the tree")?;
    anyhow::ensure!(sides.len() == path.len(), "a path has not the length of its place in the tree");
    let mut steps = Vec::with_capacity(path.len());
    for (at, (hash, is_left)) in path.iter().zip(sides).enumerate() {
        let file = format!("{name}/path-{at:02}.bin");
        folder.write(&file, hash.as_bytes())?;
        steps.push((if is_left { 'L' } else { 'R' }, file));
    }
    Ok(steps)
}

/// A new folder; what is written there has names that this program makes, never the proof.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn create(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir(root)
            .with_context(|| format!("cannot make {}: it must be a new directory", root.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}
