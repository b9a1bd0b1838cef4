//! A permission in the course of an exchange: what was granted can be withdrawn, and ends in time.

use std::time::Duration;

use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Side};

use super::Exchanges;
use crate::access::{Circumstances, Lasts, Permitted};

const SIDE: Side = Side::ProviderServer;

/// Before each further message: some grant still allows the exchange.
pub(super) fn still(exchanges: &Exchanges, permitted: &Permitted, topic: &Topic) -> Result<(), Fault> {
    lasts(exchanges, permitted, topic).map(|_| ())
}

fn lasts(exchanges: &Exchanges, permitted: &Permitted, topic: &Topic) -> Result<Lasts, Fault> {
    let snapshot = exchanges.trust.valid(SIDE)?;
    let circumstances = Circumstances { configuration: &snapshot.configuration, now: exchanges.clock.now() };
    permitted.still(&exchanges.access, topic, circumstances)
}

/// Ends when no grant allows the exchange any more: something was changed here, or the time of the last that does is over.
/// So a stream on which nothing is said ends too.
pub(super) async fn withdrawn(exchanges: &Exchanges, permitted: &Permitted, topic: &Topic) -> Fault {
    let mut changes = exchanges.access.changes();
    loop {
        let lasts = match lasts(exchanges, permitted, topic) {
            Ok(lasts) => lasts,
            Err(fault) => return fault,
        };
        let over = async {
            match lasts {
                Lasts::Until(end) => exchanges.clock.sleep_until(end.plus(Duration::from_millis(1))).await,
                Lasts::Open => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = over => {}
        }
    }
}
