//! What an agency sends is what the register gets, and what the register answers is what the agency gets: through two
//! security servers, each of which holds both messages in its log.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use trave_tests::network::Instance;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_through_two_security_servers_and_back() {
    let mut instance = Instance::start().await;
    let answer = instance.ask(b"wer ist der Tischler?").await;
    assert_eq!(answer.only().as_ref(), b"wer ist der Tischler?");
    assert_eq!(instance.register.count(), 1);
    instance.stop().await;
}
