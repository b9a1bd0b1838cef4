//! X-Road's hash of the request: for the services that a door names, to the caller alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA512, digest};

use super::*;

/// Answers with what it was asked as soon as all of it is there.
fn whole(request: Request<Incoming>) -> Answering {
    Box::pin(async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body))
    })
}

async fn world(at_door: &str) -> World {
    let register = HttpRegister::start(false, whole).await;
    let at_provider = format!(
        "[[service]]\nid = \"{REST_SERVICE}\"\nurl = \"http://{}\"\nkeep_content = \"all\"\ntime_out_seconds = 5\n",
        register.address
    );
    let granted = vec![grant(), rest_grant("r1", "/*")];
    let plan = Plan { at_provider, at_client: at_door.to_owned(), grants: granted, ..Plan::default() };
    World { instance: Instance::planned(plan).await, register }
}

/// Sends requests one right after the other, the last of which ends the connection, and gives back the answers' fields.
async fn ask(world: &World, requests: &str) -> Vec<Vec<(String, String)>> {
    let mut stream = TcpStream::connect(world.instance.sh.door).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answers)).await;
    read.unwrap().unwrap();
    let text = String::from_utf8(answers).unwrap();
    let heads = text.split("HTTP/1.1 200 OK\r\n").skip(1);
    let fields = |head: &str| {
        let lines = head.lines().take_while(|line| !line.is_empty());
        lines
            .filter_map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            })
            .collect()
    };
    heads.map(fields).collect()
}

fn field<'a>(answer: &'a [(String, String)], name: &str) -> Option<&'a str> {
    answer.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn hash(head: &str, body: &str) -> String {
    let head = digest(&SHA512, head.as_bytes());
    if body.is_empty() {
        return STANDARD.encode(head);
    }
    let body = digest(&SHA512, body.as_bytes());
    STANDARD.encode(digest(&SHA512, &[head.as_ref(), body.as_ref()].concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_gets_the_hash_of_what_it_wrote_and_nobody_keeps_it() {
    let mut world = world(&format!("request_hash = [\"{REST_SERVICE}\"]\n")).await;
    let path = format!("/r1/{REST_SERVICE}/v1/Betriebe?felder=a%2Fb");
    let named =
        format!("X-Road-Client:{CLIENT}\r\nTRAVE-purpose:{PURPOSE}\r\ntrave-Legal-Basis:{LEGAL_BASIS}\r\n");
    let spaced = named.replace(':', ": ");
    let requests = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\n{spaced}Accept: */*\r\n\r\n\
         POST {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n{spaced}X-Road-ID: mine\r\nContent-Type: text/plain\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n\
         PUT {path} HTTP/1.1\r\nHost: x\r\n{spaced}Content-Length: 6\r\nConnection: close\r\n\r\nuvwxyz"
    );
    let answers = ask(&world, &requests).await;
    let expected = answers.iter().zip([
        ("GET", "Accept:*/*\r\n", ""),
        ("POST", "X-Road-ID:mine\r\nContent-Type:text/plain\r\n", "abcdef"),
        ("PUT", "", "uvwxyz"),
    ]);
    let mut hashes = Vec::new();
    for (answer, (method, more, body)) in expected {
        let id = field(answer, "x-road-request-id").unwrap();
        let made = if more.contains("X-Road-ID") { String::new() } else { format!("x-road-id:{id}\r\n") };
        let head = format!("{method}\r\n{path}\r\n{named}{more}x-road-request-id:{id}\r\n{made}");
        assert_eq!(
            field(answer, "x-road-request-hash"),
            Some(hash(&head, body).as_str()),
            "{method}: {answer:?}"
        );
        hashes.push(hash(&head, body));
    }
    assert_eq!(hashes.len(), 3);

    // An error of a security server's has none.
    let refused = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{spaced}Trave-Purpose: {PURPOSE}\r\n\r\n");
    let mut stream = TcpStream::connect(world.instance.sh.door).await.unwrap();
    stream.write_all(refused.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("x-road-error") && !answer.contains("x-road-request-hash"), "{answer}");

    world.instance.stop().await;
    for server in [&world.instance.sh, &world.instance.mv] {
        let files = files_in(&server.data());
        assert!(files.len() > 5, "{files:?}");
        for file in files {
            let mut bytes = std::fs::read(&file).unwrap();
            // Segments are prepared with zeros.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            for hash in &hashes {
                let raw = STANDARD.decode(hash).unwrap();
                let holds = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
                assert!(!holds(&raw) && !holds(hash.as_bytes()), "{} keeps it", file.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_names_no_service_gives_none() {
    let world = world("").await;
    let path = format!("/r1/{REST_SERVICE}/v1");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Road-Client: {CLIENT}\r\ntrave-purpose: {PURPOSE}\r\n\
         trave-legal-basis: {LEGAL_BASIS}\r\nConnection: close\r\n\r\n"
    );
    let answers = ask(&world, &request).await;
    assert!(field(&answers[0], "x-road-request-id").is_some());
    assert_eq!(field(&answers[0], "x-road-request-hash"), None);
    world.stop().await;
}

fn files_in(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(files_in(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}
