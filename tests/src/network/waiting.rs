//! Waiting for what servers do by themselves.

use std::time::Duration;

/// Waits until `holds`, for a minute at most.
pub async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not in a minute: {what}");
}
