//! What a saboteur between the two security servers can do, and what everybody sees of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod bytes;
mod line;
mod messages;

use std::time::Duration;

/// Waits for what happens without being announced.
async fn until(what: impl Fn() -> bool, why: &str) {
    let happens = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), happens).await.expect(why);
}
