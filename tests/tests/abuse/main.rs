//! Whoever abuses HTTP/2, and whoever is slow, at both doors: no crash, no growth, others are served.
//!
//! The frames are written by hand, over a plain connection to the agency's door and, with the identity of a listed security
//! server, over mutual TLS to the peers' door. The security servers are processes of their own, whose memory is measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod conformance;
mod floods;
mod frames;
mod slow;

use std::process::Command;
use std::sync::Arc;

use frames::{END_HEADERS, END_STREAM, Frame, HEADERS, LONG, Line, fields, frame};
use tokio::net::TcpStream;
use trave_host::clock::SystemClock;
use trave_tests::network::hostile::Credentials;
use trave_tests::network::{Instance, KIEL, METHOD, Plan, Process, Question, Script, serve_if_told};

/// Not a test by itself: with `TRAVE_SERVE` set, this program is a security server.
#[test]
fn serve() {
    serve_if_told();
}

/// At which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The agency's, cleartext on loopback.
    Agency,
    /// The peers', over mutual TLS.
    Peer,
}

const DOORS: [Door; 2] = [Door::Agency, Door::Peer];

/// Two security servers, each a process of its own.
struct World {
    instance: Instance,
    sh: Process,
    mv: Process,
}

impl World {
    async fn start(plan: Plan) -> Self {
        let plan = Plan { keep_at_client: "none", keep_at_provider: "none", segment_mib: 16, ..plan };
        let instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
        instance.register.script(Script::Echo);
        let start = |server| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["serve", "--exact", "--nocapture"]);
            Process::start(command, server)
        };
        let (mut sh, mut mv) = (start(&instance.sh), start(&instance.mv));
        sh.serving().await;
        mv.serving().await;
        Self { instance, sh, mv }
    }

    /// Connects; nothing is said yet.
    async fn connect(&self, door: Door) -> Line {
        match door {
            Door::Agency => {
                let stream = TcpStream::connect(self.instance.sh.door).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Line::over(stream)
            }
            Door::Peer => {
                let kiel = Credentials::of(KIEL, &self.instance.authorities, &self.instance.configuration);
                let stream = TcpStream::connect(self.instance.mv.peer).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Line::over(kiel.tls(&self.instance.clock).connect("127.0.0.1", stream).await.unwrap())
            }
        }
    }

    /// Connects, and says the preface and empty settings.
    async fn greeted(&self, door: Door) -> Line {
        let mut line = self.connect(door).await;
        line.greet(Vec::new()).await;
        line
    }

    /// The security server behind a door.
    fn process(&self, door: Door) -> &Process {
        match door {
            Door::Agency => &self.sh,
            Door::Peer => &self.mv,
        }
    }

    /// What the security server behind a door has said so far.
    fn said(&self, door: Door) -> String {
        let server = match door {
            Door::Agency => &self.instance.sh,
            Door::Peer => &self.instance.mv,
        };
        std::fs::read_to_string(server.configuration_file().with_extension("told")).unwrap()
    }

    /// Someone else is served: a whole exchange, through both doors.
    async fn serves(&self, during: &str) {
        let asked = async {
            let caller = self.instance.caller().await;
            caller.ask(Question::new().message(b"und ich?")).await
        };
        let answer = tokio::time::timeout(LONG, asked)
            .await
            .unwrap_or_else(|_| panic!("nobody else is served: {during}"));
        assert_eq!(answer.only().as_ref(), b"und ich?", "{during}");
    }

    async fn stop(mut self) {
        self.sh.kill();
        self.mv.kill();
        self.instance.stop().await;
    }
}

/// The pseudo-header fields of a request that each door answers by itself, with an error of gRPC's.
const REQUEST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", METHOD)];
const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A request without a body.
fn request(stream: u32) -> Frame {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(&[&REQUEST[..], &[GRPC]].concat()))
}

/// The head of a request whose body is still to come.
fn opening(stream: u32) -> Frame {
    frame(HEADERS, END_HEADERS, stream, fields(&[&REQUEST[..], &[GRPC]].concat()))
}

/// A request of these fields alone.
fn asking(stream: u32, all: &[(&str, &str)]) -> Frame {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(all))
}
