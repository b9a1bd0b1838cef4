//! The log's tree as C2SP tlog-tiles: an auditor reads the witnessed checkpoint and every hash under it, strictly by the paths
//! of the specification, that it is read is on record, and nobody else gets anything.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use trave_host::client::{Channel, Connections};
use trave_host::tls::{self, Http};
use trave_message_log::Entry as Record;
use trave_proto::checkpoint::{Checkpoint, Note};
use trave_proto::digest::Digest;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{Leaf, LogRead};
use trave_proto::tree;
use trave_tests::network::{Instance, START, Server, Witness, witnessed};

/// What came back.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    kind: String,
    kept: String,
    body: Bytes,
}

async fn ask(door: SocketAddr, tls: Option<&tls::Client>, method: Method, path: &str) -> Option<Got> {
    let connections = Connections::<Full<Bytes>>::new(door.to_string(), tls.cloned());
    let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
    let answer = connections.connection().await.ok()?.try_send(request).await.ok()?;
    let header = |name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let (status, kind, kept) = (answer.status(), header("content-type"), header("cache-control"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Some(Got { status, kind, kept, body })
}

/// An instance with witnesses, whose agency's server has two auditors and more than a full tile of records.
async fn with_tiles() -> (Instance, Witness, Witness) {
    let (mut instance, sh, mv) = witnessed(|_| {}).await;
    for name in ["auditor", "zweite", "fremd"] {
        instance.sh.make_auditor(name);
    }
    instance.sh.stop().await;
    let log = instance.sh.open_log();
    for number in 0..700_u64 {
        let entry = LeafEntry::Read(LogRead { results: number, ..LogRead::default() });
        let pending = log.append(Record::new(Leaf::of(START.as_millis(), entry)), ()).unwrap();
        pending.await.unwrap();
    }
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    let auditors = ["auditor", "zweite"].map(|name| instance.sh.auditor(name, &["NORD/HH"], &[]));
    instance.open_for_auditors(auditors.into(), |config| config).await;
    (instance, sh, mv)
}

struct Reader<'a> {
    server: &'a Server,
    tls: tls::Client,
}

impl<'a> Reader<'a> {
    fn new(server: &'a Server, name: &str) -> Self {
        Self { server, tls: server.auditors_tls(name, Http::One) }
    }

    async fn get(&self, path: &str) -> Got {
        let door = self.server.running().auditors.unwrap();
        ask(door, Some(&self.tls), Method::GET, path).await.unwrap()
    }

    async fn hashes(&self, path: &str) -> Vec<Digest> {
        let got = self.get(path).await;
        assert_eq!((got.status, got.kind.as_str()), (StatusCode::OK, "application/octet-stream"), "{path}");
        assert_eq!(got.kept, "private, max-age=31536000, immutable");
        got.body.chunks_exact(Digest::LEN).map(|hash| Digest::from_slice(hash).unwrap()).collect()
    }

    /// The checkpoint that is published once the witnesses have cosigned one of at least `size`.
    async fn checkpoint(&self, instance: &Instance, size: u64) -> (Checkpoint, Note) {
        let key = trave_tests::network::Identities::get().of(self.server.id).log.verifier();
        for _ in 0..200 {
            let got = self.get("/checkpoint").await;
            if got.status == StatusCode::OK {
                assert_eq!((got.kind.as_str(), got.kept.as_str()), ("text/plain; charset=utf-8", "no-store"));
                let checkpoint = Checkpoint::verify(&got.body, std::slice::from_ref(&key)).unwrap();
                if checkpoint.size >= size {
                    return (checkpoint, Note::parse(&got.body).unwrap());
                }
            }
            instance.advance(Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no checkpoint of {size} records in 10 s");
    }
}

fn reads(server: &Server) -> Vec<String> {
    let entries = server.records(0).into_iter().filter_map(|record| record.leaf.entry);
    let of_tiles = |entry| match entry {
        LeafEntry::Read(LogRead { reader, query, .. }) if query == "tlog-tiles" => Some(reader),
        _ => None,
    };
    entries.filter_map(of_tiles).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_reads_the_witnessed_checkpoint_and_every_hash_under_it() {
    let (mut instance, sh, mv) = with_tiles().await;
    let reader = Reader::new(&instance.sh, "auditor");
    let (checkpoint, note) = reader.checkpoint(&instance, 700).await;
    let keys = [sh.verifier.clone(), mv.verifier.clone()];
    assert_eq!(note.cosignatures(&keys).unwrap().len(), 2, "both witnesses have cosigned it");
    let (full, rest) = (checkpoint.size / 256, checkpoint.size % 256);
    assert!(full >= 2 && rest > 0, "{}", checkpoint.size);
    let mut leaves = Vec::new();
    for number in 0..full {
        leaves.extend(reader.hashes(&format!("/tile/0/{number:03}")).await);
    }
    leaves.extend(reader.hashes(&format!("/tile/0/{full:03}.p/{rest}")).await);
    assert_eq!(leaves.len() as u64, checkpoint.size);
    assert_eq!(tree::root(&leaves), checkpoint.root, "the tiles are those of the checkpoint");
    let above: Vec<_> = leaves.chunks_exact(256).map(tree::root).collect();
    assert_eq!(reader.hashes(&format!("/tile/1/000.p/{full}")).await, above);
    for (record, hash) in instance.sh.records(0).iter().zip(&leaves) {
        assert_eq!(tree::leaf_hash(&record.leaf_bytes), *hash, "record {}", record.index);
    }
    // An older partial tile is the beginning of the one that followed.
    assert_eq!(reader.hashes("/tile/0/000.p/7").await, leaves[..7]);
    // What no checkpoint covers, or no specification names, is not there.
    let beyond = format!("/tile/0/{full:03}.p/{}", rest + 1);
    let whole = format!("/tile/0/{full:03}");
    for path in [
        beyond.as_str(),
        whole.as_str(),
        "/tile/1/000",
        "/tile/2/000.p/1",
        "/tile/8/000",
        "/tile/63/000.p/1",
        "/tile/0/x999/x999/x999/x999/x999/x999/999",
        "/tile/0/0",
        "/tile/0/000?",
        "/tile/0/000?a=b",
        "/tile/0/%30%30%30",
        "/tile/0/../0/000",
        "/tile/0//000",
        "/tile/0/000.p/256",
        "/tile/entries/000",
        "/tile/entries/000.p/1",
        "/checkpoint?a",
    ] {
        let got = reader.get(path).await;
        assert_eq!((got.status, got.kept.as_str()), (StatusCode::NOT_FOUND, "no-store"), "{path}: {got:?}");
    }
    let door = instance.sh.running().auditors.unwrap();
    for path in ["/checkpoint", "/tile/0/000"] {
        let got = ask(door, Some(&reader.tls), Method::POST, path).await.unwrap();
        assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED);
        let got = ask(door, Some(&reader.tls), Method::HEAD, path).await.unwrap();
        assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_the_tree_is_read_is_on_record_and_nobody_else_gets_it() {
    let (mut instance, _sh, _mv) = with_tiles().await;
    let door = instance.sh.running().auditors.unwrap();
    // Whoever has no certificate that is pinned here, and whoever stands at another door.
    let strange = instance.sh.auditors_tls("fremd", Http::One);
    for path in ["/checkpoint", "/tile/0/000"] {
        assert!(ask(door, Some(&strange), Method::GET, path).await.is_none());
        assert!(ask(door, None, Method::GET, path).await.is_none());
        let at_agency = ask(instance.sh.door, None, Method::GET, path).await;
        assert!(at_agency.is_none_or(|got| !got.status.is_success()), "the agency's door gives no tiles");
    }
    assert_eq!(reads(&instance.sh), Vec::<String>::new());

    let reader = Reader::new(&instance.sh, "auditor");
    // Many at once, on one connection of HTTP/2: each is answered, and one record says that they were asked.
    let tls = instance.sh.auditors_tls("auditor", Http::Two);
    let channel = Channel::<Full<Bytes>>::tls(&door.to_string(), &tls).await.unwrap();
    let (size, before) = (instance.sh.size(), reader.get("/checkpoint").await.status);
    assert!(size >= 700 && (before == StatusCode::OK || before == StatusCode::NOT_FOUND));
    reader.checkpoint(&instance, 700).await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..64 {
        let mut channel = channel.clone();
        all.spawn(async move {
            let path = format!("/tile/0/00{}", number % 2);
            let uri = format!("https://{door}{path}");
            let answer = channel.send(Request::get(uri).body(Full::default()).unwrap()).await.unwrap();
            (answer.status(), answer.into_body().collect().await.unwrap().to_bytes().len())
        });
    }
    while let Some(answer) = all.join_next().await {
        assert_eq!(answer.unwrap(), (StatusCode::OK, 256 * Digest::LEN));
    }
    let first = reads(&instance.sh);
    assert!(!first.is_empty() && first.iter().all(|it| it == "auditor (auditor)"), "{first:?}");
    // Another auditor, and the same one later, are on record by themselves.
    Reader::new(&instance.sh, "zweite").get("/tile/0/000").await;
    instance.advance(Duration::from_secs(3601));
    reader.get("/tile/0/001").await;
    reader.get("/tile/0/000").await;
    let then = reads(&instance.sh);
    assert_eq!(then[first.len()..], ["zweite (auditor)", "auditor (auditor)"]);
    instance.stop().await;
}
