//! Whoever is slow: heads, handshakes and bodies that come byte by byte, answers that nobody takes. Each is given up after
//! its time; somebody else is served all the while, and nothing is kept of those who do not come back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trave_tests::network::{LEGAL_BASIS, PURPOSE, SERVICE, frame as message};

use super::frames::{CANCEL, DATA, End, PREFACE, WINDOW_UPDATE, setting};
use super::{
    DOORS, Door, END_HEADERS, END_STREAM, GRPC, HEADERS, LONG, Line, METHOD, Plan, REQUEST, World, fields,
    frame,
};

/// Times so short that a test can wait for their end.
const IMPATIENT: &str = "[limits]\nhead_seconds = 2\nslow_seconds = 2\n";
/// Streams that are not read, on each of so many connections.
const STREAMS: u32 = 100;
const CONNECTIONS: usize = 4;
/// By how much a security server may have grown afterwards, in MiB.
const GROWTH: f64 = 48.0;

fn impatient() -> Plan {
    Plan { at_client: IMPATIENT.into(), at_provider: IMPATIENT.into(), ..Plan::default() }
}

/// The head of a call that each door begins to answer.
fn call(door: Door, stream: u32) -> Vec<u8> {
    let path = match door {
        Door::Agency => METHOD,
        Door::Peer => "/trave.transport.v1.PeerService/GetConfiguration",
    };
    let declared =
        [("x-road-service", SERVICE), ("trave-purpose", PURPOSE), ("trave-legal-basis", LEGAL_BASIS)];
    let all = [&REQUEST[..3], &[(":path", path), GRPC], &declared[..]].concat();
    frame(HEADERS, END_HEADERS, stream, fields(&all)).bytes()
}

/// A whole call, whose answer is of some size.
fn whole(door: Door, stream: u32) -> Vec<u8> {
    let body = match door {
        Door::Agency => message(&[0x5a; 12 << 10]),
        // What is asked for is what is in use.
        Door::Peer => message(b""),
    };
    [call(door, stream), frame(DATA, END_STREAM, stream, body.to_vec()).bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_come_to_speak_is_sent_away() {
    let world = World::start(impatient()).await;
    for (what, address, said) in [
        (
            "a head that comes byte by byte",
            world.instance.sh.door,
            &b"GET /r1/ HTTP/1.1\r\nhost: x\r\nx: "[..],
        ),
        ("half a preface", world.instance.sh.door, &PREFACE[..12]),
        ("nothing at all", world.instance.sh.door, b""),
        ("half a handshake", world.instance.mv.peer, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("nothing of a handshake", world.instance.mv.peer, b""),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let mut rest = Vec::new();
        let dripping = async {
            while writing.write_all(b"y").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = async {
            let _ = reading.read_to_end(&mut rest).await;
        };
        let drips = what == "a head that comes byte by byte";
        let ended = tokio::time::timeout(LONG, async {
            tokio::select! {
                () = ended => {}
                () = dripping, if drips => {}
            }
        });
        ended.await.unwrap_or_else(|_| panic!("{what}: nobody ends it"));
        world.serves(what).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_byte_by_byte_is_given_up() {
    let world = World::start(impatient()).await;
    for door in DOORS {
        let mut line = world.greeted(door).await;
        line.say(&call(door, 1)).await;
        // A message of which each byte comes, and no end of it.
        line.send(frame(DATA, 0, 1, message(&[0x5a; 4096])[..5].to_vec())).await;
        let mut drips = 0;
        let end = loop {
            match tokio::time::timeout(Duration::from_millis(300), line.end()).await {
                Ok(end) => break end,
                Err(_) => line.send(frame(DATA, 0, 1, *b"x")).await,
            };
            drips += 1;
            assert!(drips < 200, "{door:?}: nobody ends it");
        };
        assert!(matches!(end, End::Answered(1) | End::Stream(1, _)), "{door:?}: {end:?}");
        world.serves("after a slow body").await;
    }
    let said = world.said(Door::Agency);
    let told = said.lines().find(|line| line.contains("exchange failed")).expect("the failure is told");
    assert!(told.contains("deadline_exceeded") && told.contains("\"side\":\"client\""), "{told}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_given_up() {
    let world = World::start(impatient()).await;
    let mut before = None;
    for round in 0..3 {
        for door in DOORS {
            let mut lines = Vec::new();
            for _ in 0..CONNECTIONS {
                lines.push(tokio::spawn(untaken(world.connect(door).await, door)));
            }
            world.serves("while nobody takes answers").await;
            for line in lines {
                line.await.unwrap();
            }
        }
        world.serves(&format!("after round {round}")).await;
        let now = DOORS.map(|door| world.process(door).resident());
        let before = *before.get_or_insert(now);
        println!("round {round}: {now:.1?} MiB");
        assert!(
            now[0] < before[0] + GROWTH && now[1] < before[1] + GROWTH,
            "from {before:.1?} to {now:.1?} MiB"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_nothing_makes_room() {
    const PLACES: usize = 8;
    let few = format!("[limits]\nconnections = {PLACES}\n");
    let world = World::start(Plan { at_client: few.clone(), at_provider: few, ..Plan::default() }).await;
    for door in DOORS {
        let mut idle = Vec::new();
        for _ in 0..3 * PLACES {
            let mut line = world.greeted(door).await;
            assert!(line.heard().await, "{door:?}: each newcomer is listened to");
            idle.push(line);
        }
        world.serves("while a door is full of those who ask nothing").await;
        // The first have left for the last.
        for line in idle.iter_mut().take(PLACES) {
            assert!(matches!(line.closed().await, End::Closed | End::Connection(_)), "{door:?}");
        }
    }
    world.stop().await;
}

/// Asks for much, lets nothing come (a window of nothing), and sees each stream reset.
async fn untaken(mut line: Line, door: Door) {
    line.greet(setting(4, 0)).await;
    // The other side has said how much it takes.
    assert!(line.heard().await, "{door:?}");
    for number in 0..STREAMS {
        line.say(&whole(door, 2 * number + 1)).await;
    }
    for _ in 0..STREAMS {
        match line.end().await {
            End::Stream(_, CANCEL) => {}
            other => panic!("{door:?}: {other:?}"),
        }
    }
    // The connection goes on.
    assert!(line.heard().await, "{door:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_no_byte_is_ended() {
    let world = World::start(impatient()).await;
    for door in DOORS {
        let mut line = world.connect(door).await;
        line.greet(setting(4, 0x7fff_ffff)).await;
        line.send(frame(WINDOW_UPDATE, 0, 0, 0x7fff_0000_u32.to_be_bytes())).await;
        // More than all buffers in between hold, and nothing is read. Once they are full, the other side reads no more
        // either, and in the end closes.
        let mut number = 0;
        let ended = tokio::time::timeout(3 * LONG, async {
            while line.say(&whole(door, 2 * number + 1)).await {
                number += 1;
                if number % 200 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        ended.await.unwrap_or_else(|_| panic!("{door:?}: {number} calls, and nobody ends it"));
        world.serves("after it").await;
    }
    world.stop().await;
}
