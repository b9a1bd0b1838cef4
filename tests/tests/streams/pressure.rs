//! Back-pressure, end to end: who does not read stops who sends, in bounded memory, and nobody else.

use super::*;

const PIECE: usize = 64 << 10;
/// What may be under way between a sender and a reader that does not read: the windows of three connections, the messages
/// in hand at two servers, what the kernel buffers.
const UNDER_WAY: u64 = 6 << 20;
/// Nothing moved for so long: it stands still.
const STILL: Duration = Duration::from_millis(700);

/// Waits until a count does not grow any more.
async fn standing_still(count: impl Fn() -> u64) -> u64 {
    let mut last = count();
    loop {
        tokio::time::sleep(STILL).await;
        let now = count();
        assert!(now < 64 << 20, "{now} bytes, and nobody reads");
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}

fn keeping_nothing() -> Plan {
    Plan { keep_at_client: "none", keep_at_provider: "none", ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_stops_the_register_and_nobody_else() {
    let mut instance = Instance::planned(keeping_nothing()).await;
    instance.register.script(Script::Flood(PIECE));
    let caller = instance.caller().await;
    let mut slow = caller.open(Question::new()).await;
    slow.send(b"alles").await;
    slow.end();
    slow.head().await;
    let call = instance.register.last();
    let held = standing_still(|| call.sent()).await;
    assert!(held < UNDER_WAY, "{held} bytes were taken from the register, and the caller reads none");

    // On the same connections, others are served.
    instance.register.script(Script::Echo);
    let answer = tokio::time::timeout(PROMPT, caller.ask(Question::new().message(b"und ich?"))).await;
    assert_eq!(answer.expect("nobody else waits").only().as_ref(), b"und ich?");

    // What it reads, it gets, and the register goes on.
    slow.read(16 << 20).await;
    assert!(call.sent() >= 16 << 20);
    let held = standing_still(|| call.sent()).await;
    assert!(held < (16 << 20) + UNDER_WAY, "{held}");
    slow.cancel();
    tokio::time::timeout(PROMPT, call.ended()).await.expect("the register hears of it");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_register_that_does_not_read_stops_the_caller_and_nobody_else() {
    let mut instance = Instance::planned(keeping_nothing()).await;
    instance.register.script(Script::DeafUntilTold);
    let caller = instance.caller().await;
    let mut open = caller.open(Question::new()).await;
    let piece = vec![0x5a; PIECE];
    let mut sent = 0_u64;
    while tokio::time::timeout(STILL, open.send(&piece)).await.is_ok() {
        sent += PIECE as u64 + 5;
        assert!(sent < UNDER_WAY, "{sent} bytes were taken from the caller, and the register reads none");
    }

    instance.register.script(Script::Echo);
    let answer = tokio::time::timeout(PROMPT, caller.ask(Question::new().message(b"und ich?"))).await;
    assert_eq!(answer.expect("nobody else waits").only().as_ref(), b"und ich?");

    let call = std::sync::Arc::clone(&instance.register.calls()[0]);
    assert!(call.body().is_empty());
    instance.register.tell();
    open.head().await;
    open.read(usize::try_from(sent).unwrap()).await;
    assert!(call.body().len() as u64 >= sent, "nothing was lost");
    open.cancel();
    instance.stop().await;
}
