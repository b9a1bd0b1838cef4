//! Floods: what is allowed once, and sent without end. Each ends its own connection or stands still; somebody else is served
//! all the while, and the security server is as large afterwards as before.

use super::frames::{
    ACK, CANCEL, CONTINUATION, DATA, ENHANCE_YOUR_CALM, End, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, setting,
};
use super::{
    DOORS, Door, END_HEADERS, END_STREAM, Frame, GRPC, HEADERS, Line, METHOD, Plan, REQUEST, World, asking,
    fields, frame, opening, request,
};

/// How often each flood comes.
const ROUNDS: usize = 4;
/// By how much a security server may have grown after all floods, in MiB: allocators give back what they like.
const GROWTH: f64 = 48.0;
/// 431 (RFC 6585, section 5) in the code of RFC 7541, appendix B.
const TOO_LARGE: [u8; 3] = [0x69, 0x90, 0xff];
/// More frames than any connection may say nothing with.
const MANY: u32 = 60_000;

/// What is sent without end.
struct Flood {
    what: &'static str,
    /// The settings of the connection.
    settings: fn() -> Vec<u8>,
    /// Said once.
    begin: fn() -> Vec<Frame>,
    /// Said again and again, each time with the next number.
    again: fn(u32) -> Vec<Frame>,
    /// How it must end.
    ends: fn(End) -> bool,
}

fn calmed(end: End) -> bool {
    end == End::Connection(ENHANCE_YOUR_CALM)
}

fn over(end: End) -> bool {
    matches!(end, End::Connection(_) | End::Closed)
}

/// A stream of the client's.
const fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn floods() -> Vec<Flood> {
    let flood = |what, begin, again, ends| Flood { what, settings: Vec::new, begin, again, ends };
    let nothing: fn() -> Vec<Frame> = Vec::new;
    vec![
        flood(
            "requests that are reset at once (CVE-2023-44487)",
            nothing,
            |n| vec![opening(stream(n)), frame(RST_STREAM, 0, stream(n), CANCEL.to_be_bytes())],
            over,
        ),
        flood(
            "requests that the other side must reset (CVE-2025-8671)",
            nothing,
            |n| vec![opening(stream(n)), opening(stream(n)), frame(PRIORITY, 0, stream(n), [0; 5])],
            over,
        ),
        flood(
            "a head without end",
            || vec![frame(HEADERS, 0, 1, fields(&REQUEST))],
            |_| vec![frame(CONTINUATION, 0, 1, fields(&[("x", &"y".repeat(1000))]))],
            over,
        ),
        flood(
            "a head without end, of empty pieces (CVE-2024-27316)",
            || vec![frame(HEADERS, 0, 1, fields(&REQUEST))],
            |_| vec![frame(CONTINUATION, 0, 1, [])],
            calmed,
        ),
        flood("settings (CVE-2019-9515)", nothing, |n| vec![frame(SETTINGS, 0, 0, setting(4, n))], over),
        flood(
            "settings that change the table (HPACK)",
            nothing,
            |n| vec![frame(SETTINGS, 0, 0, setting(1, n))],
            over,
        ),
        flood(
            "pings (CVE-2019-9512)",
            nothing,
            |n| vec![frame(PING, 0, 0, [n.to_be_bytes(), [0; 4]].concat())],
            over,
        ),
        flood("answers to no ping", nothing, |_| vec![frame(PING, ACK, 0, [0; 8])], over),
        flood(
            "priorities (CVE-2019-9513)",
            nothing,
            |n| vec![frame(PRIORITY, 0, stream(n), [0, 0, 0, 0, 1])],
            over,
        ),
        flood(
            "windows that grow byte by byte",
            nothing,
            |_| vec![frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())],
            over,
        ),
        flood("data of nothing (CVE-2019-9518)", || vec![opening(1)], |_| vec![frame(DATA, 0, 1, [])], over),
        flood("unknown frames", nothing, |_| vec![frame(0xfe, 0, 0, [])], over),
        flood(
            "fields that one byte names, 4,000 bytes each (HPACK bomb)",
            || vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb(&[]))],
            |n| vec![frame(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), bomb(&[0x80 | 62; 12_000]))],
            calmed,
        ),
        flood(
            "fields without names (CVE-2019-9516)",
            nothing,
            |n| vec![asking(stream(n), &[("", ""); 4000])],
            over,
        ),
    ]
}

/// The head of a request that puts a field of 4,000 bytes into the table, and then these bytes.
fn bomb(more: &[u8]) -> Vec<u8> {
    let mut block = fields(&[&REQUEST[..], &[GRPC]].concat());
    if more.is_empty() {
        // A literal that is indexed (RFC 7541, section 6.2.1).
        let mut field = fields(&[("x", &"y".repeat(4000))]);
        field[0] = 0x40;
        block.extend(field);
    }
    block.extend_from_slice(more);
    block
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_and_cost_nobody_else_anything() {
    let world = World::start(Plan::default()).await;
    let mut before = [0.0; 2];
    for round in 0..=ROUNDS {
        for (at, door) in DOORS.into_iter().enumerate() {
            for flood in floods() {
                let name = format!("{door:?}, round {round}: {}", flood.what);
                let line = world.connect(door).await;
                let (end, ()) = tokio::join!(tokio::spawn(drown(line, flood)), world.serves(&name));
                let (end, expected) = end.unwrap();
                assert!(expected, "{name}: {end:?}");
            }
            // The first round brings everything up to its size.
            if round == 0 {
                before[at] = world.process(door).resident();
            }
        }
    }
    for (door, before) in DOORS.into_iter().zip(before) {
        let after = world.process(door).resident();
        println!("{door:?}: {before:.1} MiB after one round of floods, {after:.1} MiB after {ROUNDS} more");
        assert!(after < before + GROWTH, "{door:?}: from {before:.1} to {after:.1} MiB");
    }
    world.stop().await;
}

/// Says a flood until the connection is over, or everything was said; nothing is read meanwhile.
async fn drown(mut line: Line, flood: Flood) -> (End, bool) {
    line.greet((flood.settings)()).await;
    let mut said: Vec<u8> = (flood.begin)().iter().flat_map(Frame::bytes).collect();
    for number in 0..MANY {
        said.extend((flood.again)(number).iter().flat_map(Frame::bytes));
        if said.len() > 32 << 10 {
            if !line.say(&said).await {
                break;
            }
            said.clear();
        }
    }
    line.say(&said).await;
    let end = line.closed().await;
    (end, (flood.ends)(end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_long_is_refused_and_its_connection_goes_on() {
    let world = World::start(Plan::default()).await;
    for door in DOORS {
        for polite in [true, false] {
            let mut line = world.connect(door).await;
            if !polite {
                line.impolite();
            }
            line.greet(Vec::new()).await;
            let ys = "y".repeat(15_000);
            let long = [&REQUEST[..], &[GRPC, ("x", &ys)]].concat();
            let mut more = vec![frame(HEADERS, END_STREAM, 1, fields(&long))];
            more.extend((0..4).map(|_| frame(CONTINUATION, 0, 1, fields(&[("x", &ys)]))));
            more.push(frame(CONTINUATION, END_HEADERS, 1, []));
            line.say(&more.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await;
            let (end, head) = line.head().await;
            assert_eq!(end, End::Answered(1), "{door:?}");
            assert!(head.windows(3).any(|three| three == TOO_LARGE), "{door:?}: {head:x?}");
            line.send(request(3)).await;
            assert_eq!(line.end().await, End::Answered(3), "{door:?}");
        }
        world.serves("after a long head").await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_one_connection_may_have_are_refused() {
    const REFUSED_STREAM: u32 = 7;
    let world = World::start(Plan::default()).await;
    for door in DOORS {
        let mut line = world.greeted(door).await;
        // Requests that go on: their answers wait for them.
        let call = [&REQUEST[..3], &[(":path", path(door)), GRPC], &DECLARED[..]].concat();
        let calls = (0..300).map(|number| frame(HEADERS, END_HEADERS, stream(number), fields(&call)));
        line.say(&calls.flat_map(|call| call.bytes()).collect::<Vec<_>>()).await;
        // On a busy machine some have waited so long for what they ask that they are answered why.
        let (mut refused, mut given_up) = (0, 0);
        while refused + given_up < 300 - 256 {
            match line.end().await {
                End::Stream(_, REFUSED_STREAM) => refused += 1,
                End::Answered(_) => given_up += 1,
                other => panic!("{door:?}: {other:?} after {refused}"),
            }
        }
        assert!(refused > 0, "{door:?}: {given_up} were answered");
        world.serves("while streams stand open").await;
        assert!(line.heard().await, "{door:?}");
    }
    world.stop().await;
}

/// What makes a request a call of the usual service.
const DECLARED: [(&str, &str); 3] = [
    ("x-road-service", trave_tests::network::SERVICE),
    ("trave-purpose", trave_tests::network::PURPOSE),
    ("trave-legal-basis", trave_tests::network::LEGAL_BASIS),
];

/// Where a request waits for its body.
fn path(door: Door) -> &'static str {
    match door {
        Door::Agency => METHOD,
        Door::Peer => "/trave.transport.v1.PeerService/Exchange",
    }
}
