//! What an operator should know before it hurts: certificates that expire, a disk that fills, a configuration from the
//! future.

use std::sync::Arc;
use std::time::Duration;

use trave_proto::certificate::Certificate;
use trave_proto::clock::Time;

use super::Upkeep;
use super::conditions::Kind;

const EVERY: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Before the end of a certificate this long, or a third of its life if that is shorter, its operator is told.
const IN_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Free space is told of below this many times the reserve at which exchanges are refused.
const RESERVES: u64 = 4;

impl Upkeep {
    /// Looks every minute of civil time.
    pub(super) async fn watch(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let now = clock.now();
            self.conditions.set(Kind::CertificateExpiring, self.expiring(now)).await;
            self.conditions.set(Kind::DiskFilling, self.filling().await).await;
            self.judge_lapses().await;
            clock.sleep_until(now.plus(EVERY)).await;
        }
    }

    fn expiring(&self, now: Time) -> Option<String> {
        let signer = self.exchanges.own.signer.load();
        let signing = signer.chain().certificate();
        let authentication = self.identity.chain();
        let authentication = authentication.first().and_then(|der| Certificate::from_der(der).ok());
        let certificates = [("signing", Some(signing)), ("authentication", authentication.as_ref())];
        let soonest = certificates
            .into_iter()
            .filter_map(|(what, certificate)| Some((what, certificate?)))
            .filter(|(_, certificate)| expires_soon(certificate, now))
            .min_by_key(|(_, certificate)| certificate.not_after())?;
        let (what, certificate) = soonest;
        let (until, days) =
            (certificate.not_after(), certificate.not_after().since(now).as_secs() / DAY.as_secs());
        Some(format!("the {what} certificate ends at {until}, in {days} days; enrol anew before"))
    }

    async fn filling(&self) -> Option<String> {
        let data = self.data.clone();
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&data)).await.ok()?;
        let free = match asked {
            Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
            Err(error) => {
                return Some(format!("the free space of {} is not known: {error}", self.data.display()));
            }
        };
        (free < self.reserve.saturating_mul(RESERVES)).then(|| {
            let (free, reserve, place) = (free >> 20, self.reserve >> 20, self.data.display());
            format!("{free} MiB are free in {place}; below {reserve} MiB exchanges are refused: make space")
        })
    }
}

fn expires_soon(certificate: &Certificate, now: Time) -> bool {
    let (from, until) = (certificate.not_before(), certificate.not_after());
    until.since(now) < IN_TIME.min(until.since(from) / 3)
}
