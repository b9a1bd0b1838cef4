//! `proof renew`: one more archive timestamp for a container that was exported before, here or by another security server of
//! the instance. It needs the configurations that this server adopted and a timestamping authority, and no server.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use trave_host::clock::SystemClock;
use trave_host::files;
use trave_proto::clock::{Clock as _, Time};
use trave_proto::container::{ContainerReport, MAX_CONTAINER, Unarchived};
use trave_proto::global_configuration::Anchor;

use crate::config::Config;
use crate::custody::Layout;
use crate::timestamping;
use crate::trust::Trust;

/// Renews the container `path` into `out`, and tells until when it holds.
pub(super) fn run(config: &Path, path: &Path, out: &Path) -> anyhow::Result<()> {
    let layout = Layout::new(Config::read(config)?.data());
    let anchor = std::fs::read(layout.anchor()).context("the anchor cannot be read")?;
    let anchor = Anchor::parse(&anchor).context("the anchor is not valid")?;
    let clock = Arc::new(SystemClock);
    let trust = Trust::open(anchor.clone(), &layout.configurations(), clock.clone())?;
    let configuration = Arc::clone(&trust.snapshot().configuration);
    check_current(configuration.valid_until(), clock.now())?;
    let file = read(path)?;
    let renewed = Unarchived::renewed(&file, (&anchor, &configuration), clock.now())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the system gives no runtime")?;
    let token = runtime.block_on(timestamping::stamp_to_keep(&renewed.digest(), &configuration));
    let token =
        token.context("the container gets no timestamp (hint: it stays as it is; try again in time)")?;
    let (file, report) = renewed.archived(token, &anchor, clock.now())?;
    if out == Path::new("-") {
        std::io::stdout().write_all(&file).context("cannot write the container")?;
    } else {
        files::create(out, &file).context("the container cannot be stored")?;
    }
    tell(&report, out, file.len());
    Ok(())
}

/// An authority is asked because the configuration in force names it.
fn check_current(until: Time, now: Time) -> anyhow::Result<()> {
    ensure!(
        now <= until,
        "the global configuration that is known here ended at {until}: run this where the security server has reached the \
         registry since"
    );
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let cannot = || format!("cannot read {}", path.display());
    let most = u64::try_from(MAX_CONTAINER).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    // One byte more than is read shows that it is too large.
    File::open(path).with_context(cannot)?.take(most).read_to_end(&mut bytes).with_context(cannot)?;
    Ok(bytes.into())
}

fn tell(report: &ContainerReport, out: &Path, length: usize) {
    let Some(last) = report.archived.last() else { return };
    let (number, files, stamp) = (last.number, last.files, &last.stamp);
    eprintln!("wrote the container to {}, {length} bytes", out.display());
    eprintln!(
        "archive timestamp {number}: {}, by {}, over {files} files",
        stamp.not_later_than, stamp.authority
    );
    if number == 1 {
        eprintln!(
            "it is the first one: other validators count it only if the OCSP responder that vouched for the exporter had not ended"
        );
    }
    if stamp.status.is_none() {
        eprintln!(
            "no answer about that authority's certificate is in it: other validators ask for one themselves"
        );
    }
    eprintln!("it holds until {}, when that authority's certificate ends: renew it before", stamp.until);
}
