//! What is down, expired or broken: registers, servers, configurations, disks.

use super::*;

/// A row of something that is down, expired or broken.
fn when_broken(
    refused: &'static str,
    act: for<'a> fn(&'a mut Instance) -> Doing<'a>,
    caller: (i32, &'static str, &'static str, &'static str),
    (sh, register, mv): (&'static [&'static str], usize, &'static [&'static str]),
) -> Row {
    Row { refused, stage: Stage::Broken, act: Act::Do(act), caller, register, sh, mv }
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        when_broken(
            "the register's security server is down",
            |instance| {
                Box::pin(async {
                    instance.mv.stop().await;
                    ask(instance).await
                })
            },
            (14, "network_error", "client_server", "no"),
            (&["refused network_error by client_server"], 0, &[]),
        ),
        when_broken(
            "the register is down",
            |instance| {
                Box::pin(async {
                    instance.register.stop().await;
                    ask(instance).await
                })
            },
            (14, "service_failed", "register", "no"),
            (
                &["sent request end", "ended failed service_failed by register, register no"],
                0,
                &["received request end", "ended failed service_failed by register, register no"],
            ),
        ),
        when_broken(
            "the register breaks the call off",
            |instance| {
                Box::pin(async {
                    instance.register.script(Script::Abort);
                    ask(instance).await
                })
            },
            (14, "service_failed", "register", "unknown"),
            (
                &["sent request end", "ended unknown service_failed by register, register unknown"],
                1,
                &["received request end", "ended unknown service_failed by register, register unknown"],
            ),
        ),
        when_broken(
            "the register breaks its answer off",
            |instance| Box::pin(broken_off_in_the_middle(instance)),
            (14, "service_failed", "register", "yes"),
            (
                &[
                    "sent request end",
                    "received response continue",
                    "ended aborted service_failed by register, register yes",
                ],
                1,
                &[
                    "received request end",
                    "sent response continue",
                    "ended aborted service_failed by register, register yes",
                ],
            ),
        ),
        when_broken(
            "more calls than the agency's server admits",
            |instance| Box::pin(one_too_many(instance, true)),
            (8, "overloaded", "client_server", "no"),
            (
                &[
                    "sent request end",
                    "refused overloaded by client_server",
                    "ended aborted aborted by client, register unknown",
                ],
                1,
                &["received request end", "ended aborted aborted by client_server, register unknown"],
            ),
        ),
        when_broken(
            "more calls than the register's server admits",
            |instance| Box::pin(one_too_many(instance, false)),
            (8, "overloaded", "provider_server", "no"),
            (
                &[
                    "sent request end",
                    "sent request end",
                    "ended failed overloaded by provider_server, register no",
                    "ended aborted aborted by client, register unknown",
                ],
                1,
                &[
                    "received request end",
                    "refused overloaded by provider_server",
                    "ended aborted aborted by client_server, register unknown",
                ],
            ),
        ),
        when_broken(
            "a global configuration that has ended",
            |instance| {
                Box::pin(async {
                    instance.advance(25 * 60 * MINUTE);
                    ask(instance).await
                })
            },
            (14, "global_conf_outdated", "client_server", "no"),
            (&["refused global_conf_outdated by client_server"], 0, &[]),
        ),
        when_broken(
            "a stale configuration: the sender's has ended, and there is a newer one",
            |instance| Box::pin(stale(instance)),
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "configuration 2 from peer",
                    "refused global_conf_outdated by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a configuration below the threshold",
            |instance| {
                let next = instance.next_configuration(|_| {});
                Box::pin(under(instance, Instance::unsigned(&next), 1))
            },
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "refused invalid_signature_value by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a forked configuration: a second one of the same number",
            |instance| {
                let mut fork = Instance::unsigned(&instance.configuration);
                fork.members[0].name = "Unterschoben".into();
                Box::pin(under(instance, fork, 2))
            },
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "refused global_conf_outdated by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a TLS key of the agency's server that the configuration does not list",
            |instance| {
                Box::pin(async {
                    instance.sh.exchange_authentication_key(&instance.authorities).await;
                    ask(instance).await
                })
            },
            (14, "network_error", "client_server", "no"),
            (&["refused network_error by client_server"], 0, &[]),
        ),
        when_broken(
            "a full disk of the agency's server",
            |instance| {
                Box::pin(async {
                    instance
                        .sh
                        .reconfigure(|text| text.replace("reserve_mib = 1", "reserve_mib = 1000000000"))
                        .await;
                    ask(instance).await
                })
            },
            (8, "disk_full", "client_server", "no"),
            (&["refused disk_full by client_server"], 0, &[]),
        ),
        when_broken(
            "a full disk of the register's server",
            |instance| {
                Box::pin(async {
                    instance
                        .mv
                        .reconfigure(|text| text.replace("reserve_mib = 1", "reserve_mib = 1000000000"))
                        .await;
                    ask(instance).await
                })
            },
            (8, "disk_full", "provider_server", "no"),
            (
                &["sent request end", "ended failed disk_full by provider_server, register no"],
                0,
                &["refused disk_full by provider_server"],
            ),
        ),
        when_broken(
            "a disk of the register's server that fails before the call",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: false, again: false }))
            },
            (14, "logging_failed", "provider_server", "no"),
            (&["sent request end", "ended failed logging_failed by provider_server, register no"], 0, &[]),
        ),
        when_broken(
            "a disk of the register's server that fails in flight: the answer is withheld",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: true, again: false }))
            },
            (14, "logging_failed", "provider_server", "yes"),
            (
                &["sent request end", "ended unknown logging_failed by provider_server, register yes"],
                1,
                &["received request end"],
            ),
        ),
        when_broken(
            "a disk of the register's server that has failed already",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: true, again: true }))
            },
            (14, "logging_failed", "provider_server", "no"),
            (&["sent request end", "ended failed logging_failed by provider_server, register no"], 0, &[]),
        ),
        when_broken(
            "a disk of the agency's server that fails in flight: the answer is withheld",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: true, while_answering: true, again: false }))
            },
            (14, "logging_failed", "client_server", "yes"),
            (&["sent request end"], 1, &["received request end", "sent response end"]),
        ),
        when_broken(
            "a disk of the agency's server that has failed already",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: true, while_answering: true, again: true }))
            },
            (14, "logging_failed", "client_server", "no"),
            (&[], 0, &[]),
        ),
    ]
}

async fn ask(instance: &Instance) -> Told {
    of_answer(&instance.ask(b"wer?").await)
}

/// The caller has the first message when the register breaks off: the error follows as trailers.
async fn broken_off_in_the_middle(instance: &Instance) -> Told {
    instance.register.script(Script::AbortWhenTold);
    let mut open = instance.caller().await.open(Question::new()).await;
    open.send(b"wer?").await;
    open.end();
    let headers = open.head().await;
    assert_eq!(open.next().await.unwrap(), trave_tests::network::frame(b"halb"));
    instance.register.tell();
    let trailers = open.next().await.unwrap_err();
    of_answer(&Answer { headers, messages: Vec::new(), trailers, trailers_only: false })
}

/// One call is under way where one is admitted; the row is about the next.
async fn one_too_many(instance: &mut Instance, ours: bool) -> Told {
    let server = if ours { &mut instance.sh } else { &mut instance.mv };
    server.reconfigure(|text| format!("{text}\n[limits]\nexchanges = 1\n")).await;
    instance.register.script(Script::Hold);
    let mut first = instance.caller().await.open(Question::new()).await;
    first.send(b"wer?").await;
    first.end();
    instance.register.called(1).await;
    let refused = ask(instance).await;
    first.cancel();
    // That the first is over is told by both sides, whenever they learn of it: the rows have it.
    let over =
        |server: &Server| happened(&server.records(0)).iter().any(|line| line.starts_with("ended aborted"));
    while !(over(&instance.sh) && over(&instance.mv)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refused
}

/// The configuration that a hostile server goes on using has ended; the register's server has a newer one.
async fn stale(instance: &mut Instance) -> Told {
    let old = instance.configuration.clone();
    instance.advance(23 * 60 * MINUTE);
    let next = instance.next_configuration(|_| {});
    let mut client = HostileClient::connect(instance, kiel(instance)).await.unwrap();
    assert_eq!(client.offer(&next).await.unwrap(), 2);
    assert_eq!(client.offer(&old).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    instance.advance(2 * 60 * MINUTE);
    forged(instance, honest(instance)).await
}

/// A hostile server offers a configuration that may not be adopted, and goes on to use it.
async fn under(
    instance: &mut Instance,
    configuration: trave_proto::schema::configuration::GlobalConfiguration,
    signatures: usize,
) -> Told {
    let configuration = instance.keys.sign_by(&configuration, signatures);
    let credentials = Credentials { configuration: configuration.clone(), ..honest(instance) };
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    assert_eq!(client.offer(&configuration).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    told(client.send(vec![client.sign(client.question())]).await)
}

async fn forged(instance: &Instance, credentials: Credentials) -> Told {
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    told(client.send(vec![client.sign(client.question())]).await)
}

/// Whose disk fails, and when.
#[derive(Clone, Copy)]
struct Failing {
    ours: bool,
    while_answering: bool,
    again: bool,
}

/// The segment that is written to is nearly full, and no other can begin: the one record that is too large fails.
async fn disk_fails(instance: &mut Instance, failing: Failing) -> Told {
    let server = if failing.ours { &instance.sh } else { &instance.mv };
    let caller = instance.caller().await;
    let some = "x".repeat(15 << 10);
    while server.left_in_segment() > 45 << 10 {
        assert_eq!(caller.ask(Question::new().header("fuellung", &some)).await.status(), 0);
    }
    server.break_disk();
    let large = "x".repeat(48 << 10);
    let question = if failing.while_answering {
        let status = ("grpc-status", "0".to_owned());
        instance.register.script(Script::TrailersOnly(vec![status, ("fuellung", large)]));
        Question::new()
    } else {
        Question::new().header("fuellung", &large)
    };
    let mut answer = caller.ask(question).await;
    if failing.again {
        assert_eq!(answer.told().unwrap().0, "logging_failed");
        answer = caller.ask(Question::new()).await;
    }
    server.mend_disk();
    Told { exchange: Some(answer.exchange()), ..of_answer(&answer) }
}
