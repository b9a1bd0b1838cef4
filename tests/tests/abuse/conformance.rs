//! What RFC 9113 asks of a server that is spoken to wrongly, in the manner of h2spec: each row is what is said after the
//! preface and the settings, and how the connection or the stream must end.

use super::frames::{
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, End, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
    PADDED, PING, PREFACE, PRIORITIZED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS,
    STREAM_CLOSED, WINDOW_UPDATE, setting,
};
use super::{
    DOORS, Door, END_HEADERS, END_STREAM, Frame, GRPC, HEADERS, Plan, REQUEST, World, asking, fields, frame,
    opening, request,
};

/// A row of the table.
struct Row {
    /// Of RFC 9113.
    section: &'static str,
    what: &'static str,
    said: Vec<Frame>,
    /// What the section asks for. Of a stream error a connection error may be made (section 5.4.2).
    asked: End,
    /// What is done instead, where the library does so.
    done: Option<End>,
}

fn row(section: &'static str, what: &'static str, said: Vec<Frame>, asked: End) -> Row {
    Row { section, what, said, asked, done: None }
}

impl Row {
    /// The library is stricter here, or ends the connection with another code.
    fn but(self, done: End) -> Self {
        Self { done: Some(done), ..self }
    }
}

const PROTOCOL: End = End::Connection(PROTOCOL_ERROR);
const SIZE: End = End::Connection(FRAME_SIZE_ERROR);
const MALFORMED: End = End::Stream(1, PROTOCOL_ERROR);
const SERVED: End = End::Answered(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_wrongly_is_told_so_as_the_standard_says() {
    let world = World::start(Plan::default()).await;
    let mut wrong = Vec::new();
    for door in DOORS {
        for row in rows() {
            let name = format!("{door:?}: {} {}", row.section, row.what);
            let done = play(&world, door, &row).await;
            if done != row.done.unwrap_or(row.asked) {
                wrong.push(format!("{name}: {done:?}, not {:?}", row.done.unwrap_or(row.asked)));
            }
        }
        world.serves(&format!("{door:?}, after all of it")).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stop().await;
}

async fn play(world: &World, door: Door, row: &Row) -> End {
    let mut line = world.greeted(door).await;
    // At once: the other side has read all of it before it answers any.
    line.say(&row.said.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await;
    let end = line.end().await;
    match end {
        End::Connection(_) | End::Closed => {
            assert!(matches!(line.closed().await, End::Connection(_) | End::Closed));
        }
        // The connection goes on.
        End::Stream(..) | End::Answered(_) => {
            assert!(line.send(request(101)).await, "{}", row.what);
            let after = line.end().await;
            assert_eq!(after, End::Answered(101), "{door:?}: after {}", row.what);
        }
    }
    end
}

fn rows() -> Vec<Row> {
    [frames(), streams(), settings(), control(), messages()].into_iter().flatten().collect()
}

/// Sections 4 and 6.1 to 6.3: frames as such, header blocks, data.
fn frames() -> Vec<Row> {
    let data = |stream, flags, payload: &[u8]| frame(DATA, flags, stream, payload);
    vec![
        row("4.1", "an unknown frame is ignored", vec![frame(0xf7, 0xff, 0, *b"?"), request(1)], SERVED),
        row("4.1", "unknown flags are ignored", vec![frame(PING, 0xf6, 0, [0; 8]), request(1)], SERVED),
        row("4.1", "the reserved bit is ignored", vec![frame(PING, 0, 1 << 31, [0; 8]), request(1)], SERVED),
        row("4.2", "a frame longer than was allowed", vec![opening(1), data(1, 0, &[0; 16_385])], SIZE),
        row("4.2", "a head longer than a frame", vec![frame(HEADERS, END_HEADERS, 1, vec![0; 16_385])], SIZE),
        row(
            "4.3",
            "a header block that is none",
            vec![frame(HEADERS, END_HEADERS, 1, [0xff; 40])],
            End::Connection(COMPRESSION_ERROR),
        )
        .but(PROTOCOL),
        row(
            "4.3",
            "a field that is not in the table",
            vec![frame(HEADERS, END_HEADERS, 1, [0x80 | 70])],
            End::Connection(COMPRESSION_ERROR),
        )
        .but(PROTOCOL),
        row(
            "4.3",
            "another frame within a header block",
            vec![frame(HEADERS, 0, 1, fields(&REQUEST)), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])],
            PROTOCOL,
        ),
        row(
            "4.3",
            "another stream within a header block",
            vec![frame(HEADERS, 0, 1, fields(&REQUEST)), request(3)],
            PROTOCOL,
        ),
        row("6.1", "data on stream 0", vec![data(0, 0, b"x")], PROTOCOL),
        row("6.1", "data on a stream that was never opened", vec![data(1, 0, b"x")], PROTOCOL),
        row("6.1", "data padded beyond its length", vec![opening(1), data(1, PADDED, &[9, 1])], PROTOCOL),
        row(
            "6.1",
            "data after the end",
            vec![opening(1), data(1, END_STREAM, b"x"), data(1, 0, b"x")],
            End::Stream(1, STREAM_CLOSED),
        )
        .but(PROTOCOL),
        row("6.2", "a head on stream 0", vec![request(0)], PROTOCOL),
        row(
            "6.2",
            "a head padded beyond its length",
            vec![frame(HEADERS, END_HEADERS | PADDED, 1, [9, 0x82])],
            PROTOCOL,
        ),
        row(
            "6.2",
            "a head in two frames",
            vec![
                frame(HEADERS, END_STREAM, 1, fields(&REQUEST)),
                frame(CONTINUATION, END_HEADERS, 1, fields(&[GRPC])),
            ],
            SERVED,
        ),
        row(
            "6.10",
            "a continuation of nothing",
            vec![frame(CONTINUATION, END_HEADERS, 1, fields(&[GRPC]))],
            PROTOCOL,
        ),
        row(
            "6.10",
            "a continuation after the end of a head",
            vec![opening(1), frame(CONTINUATION, END_HEADERS, 1, fields(&[GRPC]))],
            PROTOCOL,
        ),
        row(
            "6.10",
            "a continuation on stream 0",
            vec![
                frame(HEADERS, 0, 1, fields(&REQUEST)),
                frame(CONTINUATION, END_HEADERS, 0, fields(&[GRPC])),
            ],
            PROTOCOL,
        ),
        row("6.3", "a priority on stream 0", vec![frame(PRIORITY, 0, 0, [0, 0, 0, 3, 1])], PROTOCOL),
        row(
            "6.3",
            "a priority of another length",
            vec![opening(1), frame(PRIORITY, 0, 1, [0; 4])],
            End::Stream(1, FRAME_SIZE_ERROR),
        )
        .but(PROTOCOL),
    ]
}

/// Section 5: the life of streams.
fn streams() -> Vec<Row> {
    let reset = |stream| frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes());
    vec![
        row("5.1", "a reset of a stream that was never opened", vec![reset(1)], PROTOCOL),
        row(
            "5.1",
            "a window for a stream that was never opened",
            vec![frame(WINDOW_UPDATE, 0, 1, 100_u32.to_be_bytes())],
            PROTOCOL,
        ),
        row(
            "5.1",
            "a priority of a stream that was never opened",
            vec![frame(PRIORITY, 0, 3, [0, 0, 0, 0, 1]), request(1)],
            SERVED,
        ),
        row("5.1.1", "a stream that only the server may open", vec![request(2)], PROTOCOL),
        row("5.1.1", "a stream's number goes backwards", vec![opening(5), request(3)], PROTOCOL),
        row(
            "5.3.1",
            "a stream that depends on itself",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITIZED,
                1,
                [&[0, 0, 0, 1, 7][..], &fields(&REQUEST)].concat(),
            )],
            MALFORMED,
        ),
        row("6.4", "a reset on stream 0", vec![reset(0)], PROTOCOL),
        row("6.4", "a reset of another length", vec![opening(1), frame(RST_STREAM, 0, 1, [0; 3])], SIZE)
            .but(PROTOCOL),
        row(
            "6.6",
            "a promise from a client",
            vec![
                opening(1),
                frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &fields(&REQUEST)].concat()),
            ],
            PROTOCOL,
        ),
    ]
}

/// Section 6.5: settings.
fn settings() -> Vec<Row> {
    let settings = |id, value| vec![frame(SETTINGS, 0, 0, setting(id, value)), request(1)];
    vec![
        row(
            "6.5",
            "an acknowledgement with something in it",
            vec![frame(SETTINGS, ACK, 0, setting(1, 1))],
            SIZE,
        )
        .but(PROTOCOL),
        row("6.5", "settings of a stream", vec![frame(SETTINGS, 0, 1, setting(1, 1))], PROTOCOL),
        row("6.5", "settings of another length", vec![frame(SETTINGS, 0, 0, [0; 5])], SIZE).but(PROTOCOL),
        row("6.5.2", "a push setting that is neither 0 nor 1", settings(2, 2), PROTOCOL),
        row("6.5.2", "a window larger than any", settings(4, 1 << 31), End::Connection(FLOW_CONTROL_ERROR))
            .but(PROTOCOL),
        row("6.5.2", "frames smaller than all must take", settings(5, 16_383), PROTOCOL),
        row("6.5.2", "frames larger than any", settings(5, 1 << 24), PROTOCOL),
        row("6.5.2", "an unknown setting is ignored", settings(0xfafa, 7), SERVED),
    ]
}

/// Sections 6.7 to 6.9: pings, the end, windows.
fn control() -> Vec<Row> {
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    vec![
        row("6.7", "a ping of a stream", vec![frame(PING, 0, 1, [0; 8])], PROTOCOL),
        row("6.7", "a ping of another length", vec![frame(PING, 0, 0, [0; 6])], SIZE).but(PROTOCOL),
        row("6.7", "an answer to no ping", vec![frame(PING, ACK, 0, [0; 8]), request(1)], SERVED),
        row("6.8", "an end of a stream that is for all", vec![frame(GOAWAY, 0, 1, [0; 8])], PROTOCOL),
        row("6.9", "a window that grows by nothing", vec![window(0, 0)], PROTOCOL),
        row("6.9", "a stream's window that grows by nothing", vec![opening(1), window(1, 0)], MALFORMED)
            .but(PROTOCOL),
        row("6.9", "a window of another length", vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])], SIZE)
            .but(PROTOCOL),
        row(
            "6.9.1",
            "a window larger than any",
            vec![window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)],
            End::Connection(FLOW_CONTROL_ERROR),
        ),
        row(
            "6.9.1",
            "a stream's window larger than any",
            vec![opening(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)],
            End::Stream(1, FLOW_CONTROL_ERROR),
        ),
    ]
}

/// Section 8: requests.
fn messages() -> Vec<Row> {
    let with = |more: &[(&str, &str)]| vec![asking(1, &[&REQUEST[..], &[GRPC], more].concat())];
    let without = |name: &str| {
        let left: Vec<_> = REQUEST.into_iter().filter(|(other, _)| *other != name).collect();
        vec![asking(1, &left)]
    };
    let long = |says: &str, body: &[u8]| {
        let head = [&REQUEST[..], &[GRPC, ("content-length", says)]].concat();
        vec![frame(HEADERS, END_HEADERS, 1, fields(&head)), frame(DATA, END_STREAM, 1, body)]
    };
    vec![
        row("8.2.1", "a field name in upper case", with(&[("X-Purpose", "x")]), MALFORMED).but(PROTOCOL),
        row("8.2.1", "a field name with a space", with(&[("x purpose", "x")]), MALFORMED).but(PROTOCOL),
        row("8.2.1", "a field value with a line end", with(&[("x-purpose", "a\r\nb")]), MALFORMED)
            .but(PROTOCOL),
        row("8.2.1", "a field value with a zero", with(&[("x-purpose", "a\0b")]), MALFORMED).but(PROTOCOL),
        row("8.2.2", "a field of connections of HTTP/1.1", with(&[("connection", "close")]), MALFORMED),
        row("8.2.2", "a transfer encoding", with(&[("transfer-encoding", "chunked")]), MALFORMED),
        row("8.2.2", "a te that is not trailers", with(&[("te", "gzip")]), MALFORMED),
        row("8.2.2", "a te of trailers", with(&[("te", "trailers")]), SERVED),
        row("8.3", "an unknown pseudo-header field", with(&[(":purpose", "x")]), MALFORMED).but(PROTOCOL),
        row("8.3", "a pseudo-header field of answers", with(&[(":status", "200")]), MALFORMED),
        row(
            "8.3",
            "a pseudo-header field after the others",
            vec![asking(1, &[&REQUEST[..3], &[GRPC], &REQUEST[3..]].concat())],
            MALFORMED,
        ),
        row("8.3.1", "no method", without(":method"), MALFORMED),
        row("8.3.1", "no scheme", without(":scheme"), MALFORMED),
        row("8.3.1", "no path", without(":path"), MALFORMED),
        row(
            "8.3.1",
            "an empty path",
            vec![asking(1, &[&REQUEST[..3], &[(":path", "")]].concat())],
            MALFORMED,
        ),
        row("8.3.1", "two paths", vec![asking(1, &[&REQUEST[..], &[(":path", "/x")]].concat())], MALFORMED),
        row(
            "8.3.1",
            "two methods",
            vec![asking(1, &[&[(":method", "GET")], &REQUEST[..]].concat())],
            MALFORMED,
        ),
        row("8.1.1", "more than the length that was said", long("1", b"xx"), MALFORMED),
        row("8.1.1", "less than the length that was said", long("3", b"xx"), MALFORMED),
        row("8.1.1", "a length that is no number", long("x", b"xx"), MALFORMED),
        row("8.1", "a second head that does not end the request", vec![opening(1), opening(1)], MALFORMED),
        row("8.5", "a tunnel", vec![asking(1, &[(":method", "CONNECT"), (":authority", "x:1")])], SERVED),
    ]
}

/// Section 3.4: whoever does not begin as all must is not listened to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_begin_as_all_must_is_not_listened_to() {
    let world = World::start(Plan::default()).await;
    for door in DOORS {
        for (what, said) in [
            ("half a preface, and nothing", PREFACE[..12].to_vec()),
            ("another preface", [&PREFACE[..23], b"!"].concat()),
            ("a preface and no settings", [PREFACE, &request(1).bytes()].concat()),
            ("noise", vec![0xa5; 4096]),
        ] {
            let mut line = world.connect(door).await;
            line.say(&said).await;
            let end = line.first_end().await;
            assert!(
                matches!(end, End::Closed | End::Connection(PROTOCOL_ERROR)),
                "{door:?}, {what}: {end:?}"
            );
        }
        world.serves("after them").await;
    }
    world.stop().await;
}
