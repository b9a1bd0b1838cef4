//! Every harm to the bytes at every stage of unary calls and of streams. TLS lets none of it through: what remains is a
//! connection that breaks, or one on which nothing comes any more.

use std::time::Duration;

use trave_tests::network::{
    Answer, Caller, Harm, Instance, Open, Plan, Question, Script, Server, Way, frame, summary,
};

use super::until;

/// Where in an exchange harm is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To the first bytes of the connection, from the side that connects.
    Hello,
    /// To the first bytes from the side that is called.
    Welcome,
    /// To the message of a unary call.
    UnaryRequest,
    /// To its answer.
    UnaryResponse,
    /// To the first message of a stream.
    FirstRequest,
    /// To the first message of a stream's answer.
    FirstResponse,
    /// To a message of the request, when others were answered.
    NextRequest,
    /// To the end of the request.
    LastRequest,
    /// To a message of the answer, when others were taken.
    NextResponse,
    /// To the end of the answer.
    LastResponse,
}

/// What everybody sees.
struct Row {
    stage: Stage,
    harms: &'static [Harm],
    /// What the caller is told: status; reason, side, register reached.
    caller: (i32, &'static str, &'static str, &'static str),
    /// Calls that the register saw.
    register: usize,
    sh: &'static [&'static str],
    mv: &'static [&'static str],
}

/// The connection ends.
const BROKEN: &[Harm] = &[Harm::Flip, Harm::Twice, Harm::Truncate, Harm::Close, Harm::Reset];
/// The connection stays, and nothing comes on it.
const LOST: &[Harm] = &[Harm::Silence];
/// How long the caller waits at most, as it says and as it is.
const PATIENCE: &str = "1500m";
const TIME: Duration = Duration::from_millis(1_500);

const BROKE: &str = "ended unknown network_error by client_server, register unknown";
const BROKE_LATER: &str = "ended aborted network_error by client_server, register yes";
const LATE: &str = "ended unknown deadline_exceeded by client_server, register unknown";
const LATER: &str = "ended aborted deadline_exceeded by client_server, register yes";
const PEER_GONE: &str = "ended aborted aborted by client_server, register unknown";
const REGISTER_LATE: &str = "ended aborted deadline_exceeded by register, register unknown";

fn rows() -> Vec<Row> {
    use Stage::*;
    let row = |stage, harms, caller, (sh, register, mv)| Row { stage, harms, caller, register, sh, mv };
    let broke = (14, "network_error", "client_server", "unknown");
    let broke_later = (14, "network_error", "client_server", "yes");
    let late = (4, "deadline_exceeded", "client_server", "unknown");
    let later = (4, "deadline_exceeded", "client_server", "yes");
    let tls = (14, "ssl_authentication_failed", "client_server", "no");
    let network = (14, "network_error", "client_server", "no");
    vec![
        row(
            Hello,
            &[Harm::Flip, Harm::Twice],
            tls,
            (&["refused ssl_authentication_failed by client_server"], 0, &[]),
        ),
        row(
            Hello,
            &[Harm::Truncate, Harm::Close, Harm::Reset, Harm::Silence],
            network,
            (&["refused network_error by client_server"], 0, &[]),
        ),
        row(
            Welcome,
            &[Harm::Flip, Harm::Twice],
            tls,
            (&["refused ssl_authentication_failed by client_server"], 0, &[]),
        ),
        row(
            Welcome,
            &[Harm::Truncate, Harm::Close, Harm::Reset, Harm::Silence],
            network,
            (&["refused network_error by client_server"], 0, &[]),
        ),
        row(UnaryRequest, BROKEN, broke, (&["sent request end", BROKE], 0, &[])),
        row(UnaryRequest, LOST, late, (&["sent request end", LATE], 0, &[])),
        row(
            UnaryResponse,
            BROKEN,
            broke,
            (&["sent request end", BROKE], 1, &["received request end", "sent response end"]),
        ),
        row(
            UnaryResponse,
            LOST,
            late,
            (&["sent request end", LATE], 1, &["received request end", "sent response end"]),
        ),
        row(FirstRequest, BROKEN, broke, (&["sent request continue", BROKE], 0, &[])),
        row(FirstRequest, LOST, late, (&["sent request continue", LATE], 0, &[])),
        row(
            FirstResponse,
            BROKEN,
            broke,
            (
                &["sent request continue", BROKE],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            FirstResponse,
            LOST,
            late,
            (
                &["sent request continue", LATE],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            NextRequest,
            BROKEN,
            broke_later,
            (
                &["received response continue", "sent request continue", BROKE_LATER],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            NextRequest,
            LOST,
            later,
            (
                &["received response continue", "sent request continue", LATER],
                1,
                &["received request continue", "sent response continue", REGISTER_LATE],
            ),
        ),
        row(
            LastRequest,
            BROKEN,
            broke_later,
            (
                &["received response continue", "sent request end", BROKE_LATER],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            LastRequest,
            LOST,
            later,
            (
                &["received response continue", "sent request end", LATER],
                1,
                &["received request continue", "sent response continue", REGISTER_LATE],
            ),
        ),
        row(
            NextResponse,
            BROKEN,
            broke_later,
            (
                &["received response continue", "sent request continue", BROKE_LATER],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            NextResponse,
            LOST,
            later,
            (
                &["received response continue", "sent request continue", LATER],
                1,
                &["received request continue", "sent response continue", PEER_GONE],
            ),
        ),
        row(
            LastResponse,
            BROKEN,
            broke_later,
            (
                &["received response continue", "sent request end", BROKE_LATER],
                1,
                &["received request end", "sent response end"],
            ),
        ),
        row(
            LastResponse,
            LOST,
            later,
            (
                &["received response continue", "sent request end", LATER],
                1,
                &["received request end", "sent response end"],
            ),
        ),
    ]
}

struct Scene {
    instance: Instance,
    caller: Caller,
}

async fn quiet() {
    tokio::time::sleep(Duration::from_millis(80)).await;
}

impl Scene {
    async fn start() -> Self {
        let operations = "[operations]\nlisten = \"127.0.0.1:0\"\n".to_owned();
        let plan = Plan {
            at_client: operations.clone(),
            at_provider: operations,
            saboteur: true,
            ..Plan::default()
        };
        let instance = Instance::planned(plan).await;
        let caller = instance.caller().await;
        Self { instance, caller }
    }

    /// Does harm to the bytes of an exchange at a stage; what its caller is answered.
    async fn harmed(&self, stage: Stage, harm: Harm) -> Answer {
        let (register, saboteur) = (&self.instance.register, self.instance.saboteur());
        register.script(match stage {
            Stage::UnaryResponse => Script::TrailersOnly(vec![("grpc-status", "0".to_owned())]),
            Stage::FirstResponse => Script::MuteUntilTold,
            _ => Script::Echo,
        });
        let calls = register.count();
        match stage {
            Stage::Hello => saboteur.harm(Way::Asking, 0, harm),
            Stage::Welcome => saboteur.harm(Way::Answering, 0, harm),
            // Opening and message come in one record, or in two: silence takes both, so that it makes no difference.
            Stage::UnaryRequest | Stage::FirstRequest => saboteur.harm(Way::Asking, 0, harm),
            _ => {}
        }
        let question = Question::new().header("grpc-timeout", PATIENCE);
        if matches!(stage, Stage::Hello | Stage::Welcome | Stage::UnaryRequest) {
            return self.caller.ask(question.message(b"eins")).await;
        }
        let mut open = self.caller.open(question).await;
        open.send(b"eins").await;
        match stage {
            Stage::FirstRequest => {}
            Stage::UnaryResponse => {
                register.called(calls + 1).await;
                quiet().await;
                saboteur.harm(Way::Answering, 0, harm);
                open.end();
            }
            Stage::FirstResponse => {
                register.called(calls + 1).await;
                quiet().await;
                saboteur.harm(Way::Answering, 0, harm);
                register.tell();
            }
            _ => self.in_the_middle(stage, harm, &mut open).await,
        }
        open.finish().await
    }

    async fn in_the_middle(&self, stage: Stage, harm: Harm, open: &mut Open) {
        open.head().await;
        assert_eq!(open.next().await.unwrap(), frame(b"eins"));
        quiet().await;
        let way = match stage {
            Stage::NextRequest | Stage::LastRequest => Way::Asking,
            _ => Way::Answering,
        };
        self.instance.saboteur().harm(way, 0, harm);
        match stage {
            Stage::NextRequest | Stage::NextResponse => open.send(b"zwei").await,
            _ => open.end(),
        }
    }

    /// Goes through one row; what differs from it.
    async fn differs(&self, row: &Row, harm: Harm) -> Option<String> {
        let Instance { sh, mv, register, .. } = &self.instance;
        let (calls, done) = (register.count(), self.instance.saboteur().harmed());
        let answer = self.harmed(row.stage, harm);
        let answer = tokio::time::timeout(TIME * 2, answer).await.expect("nothing hangs");
        let exchange = answer.exchange();
        assert_eq!(self.instance.saboteur().harmed(), done + 1, "{:?} {harm:?}: harm was done", row.stage);
        let (ours, theirs) = (row.sh.len(), row.mv.len());
        sh.until(|told| told.len() >= ours, exchange).await;
        mv.until(|told| told.len() >= theirs, exchange).await;
        quiet().await;
        let (ours, theirs) = (summary(&sh.records(0), exchange), summary(&mv.records(0), exchange));
        let told = told(&answer);
        let calls = register.count() - calls;
        let as_said = told.0 == row.caller.0
            && (told.1.as_str(), told.2.as_str(), told.3.as_str())
                == (row.caller.1, row.caller.2, row.caller.3)
            && calls == row.register
            && ours == row.sh
            && (theirs == row.mv
                || is_cut_short(&theirs, row.mv)
                || (matches!(harm, Harm::Silence) && has_run_out_there(&theirs, row.mv)));
        (!as_said).then(|| {
            let expected = (row.caller, row.register, row.sh, row.mv);
            format!(
                "{:?} {harm:?}:\n  expected {expected:?}\n  seen     {:?}",
                row.stage,
                (told, calls, ours, theirs)
            )
        })
    }
}

/// Whether a log tells beside the expected that the answer, of several messages then, was broken off between two of them.
fn is_cut_short(seen: &[String], expected: &[&str]) -> bool {
    let Some((last, before)) = seen.split_last() else { return false };
    before == expected
        && before.last().is_some_and(|line| line == "sent response end")
        && last.starts_with("ended aborted aborted by client_server")
}

/// Whether a log tells that the time, which is the same on both sides, ran out there a moment before the client's server broke
/// the exchange off for it.
fn has_run_out_there(seen: &[String], expected: &[&str]) -> bool {
    let (Some((last, before)), Some((broken, rest))) = (seen.split_last(), expected.split_last()) else {
        return false;
    };
    before == rest
        && broken.starts_with("ended aborted aborted by client_server")
        && last.starts_with("ended aborted deadline_exceeded by register")
}

fn told(answer: &Answer) -> (i32, String, String, String) {
    let (reason, side, reached) = answer.told().unwrap_or_default();
    (answer.status(), reason, side, reached)
}

/// Exchanges that a server counts as under way.
async fn in_flight(server: &Server) -> String {
    let address = server.running().operations.unwrap().to_string();
    let (_, figures) = trave_tests::agency::get(&address, "/metrics").await.unwrap();
    let figures = String::from_utf8(figures.to_vec()).unwrap();
    let line = figures.lines().find(|line| line.starts_with("trave_exchanges_in_flight "));
    line.expect("the figure is there").split(' ').next_back().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harm_to_the_bytes_is_seen_told_logged_and_over() {
    let mut scene = Scene::start().await;
    let mut wrong = Vec::new();
    for row in rows() {
        for harm in row.harms {
            let saboteur = scene.instance.saboteur();
            if matches!(row.stage, Stage::Hello | Stage::Welcome) {
                // The harmed connection is a new one.
                saboteur.cut();
                quiet().await;
            } else {
                scene.caller.ask(Question::new()).await.only();
                quiet().await;
            }
            wrong.extend(scene.differs(&row, *harm).await);
            // What is silent would be found dead by its keep-alive.
            scene.instance.saboteur().cut();
            quiet().await;
            scene.instance.register.script(Script::Echo);
            let next = scene.caller.ask(Question::new().message(b"weiter")).await;
            assert_eq!(next.only().as_ref(), b"weiter", "{:?} {harm:?}", row.stage);
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    for server in [&scene.instance.sh, &scene.instance.mv] {
        let mut left = String::new();
        for _ in 0..200 {
            left = in_flight(server).await;
            if left == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(left, "0", "{}: a place is lost", server.id);
    }
    scene.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_is_as_good() {
    let scene = Scene::start().await;
    for stage in [Stage::Hello, Stage::Welcome, Stage::UnaryRequest, Stage::UnaryResponse] {
        if matches!(stage, Stage::Hello | Stage::Welcome) {
            scene.instance.saboteur().cut();
            quiet().await;
        } else {
            scene.caller.ask(Question::new()).await.only();
            quiet().await;
        }
        let answer = scene.harmed(stage, Harm::Delay(Duration::from_millis(400))).await;
        assert_eq!(answer.status(), 0, "{stage:?}");
    }
    until(|| scene.instance.saboteur().harmed() == 4, "each was late").await;
}
