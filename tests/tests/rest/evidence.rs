//! Evidence of the client's own calls, as X-Road's clients fetch it: `/asic` and `/verificationconf`.

use trave_proto::container;
use trave_proto::global_configuration::Anchor;
use trave_proto::proof::Conclusion;
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry;

use super::*;

const OWN: &str = "xRoadInstance=NORD&memberClass=SH&memberCode=luebeck&subsystemCode=gewerbeamt";

async fn get(world: &World, path: &str) -> Answer {
    world.ask(Request::get(path).body(nothing()).unwrap()).await
}

async fn post(world: &World, id: &str, body: &'static str) -> ExchangeId {
    let request = asking("POST", "/v1/akten").header("x-road-id", id).body(full(body)).unwrap();
    let answer = world.ask(request).await;
    assert_eq!(answer.status.as_u16(), 200);
    answer.exchange()
}

/// The files of an archive of stored entries.
fn unpacked(archive: &[u8]) -> Vec<(String, Bytes)> {
    let number = |at: usize, length: usize| {
        archive[at..at + length].iter().rev().fold(0, |sum, digit| sum << 8 | usize::from(*digit))
    };
    let (mut files, mut at) = (Vec::new(), 0);
    while archive[at..].starts_with(b"PK\x03\x04") {
        let (size, name) = (number(at + 22, 4), number(at + 26, 2));
        let data = at + 30 + name;
        let name = String::from_utf8(archive[at + 30..data].to_vec()).unwrap();
        files.push((name, Bytes::copy_from_slice(&archive[data..data + size])));
        at = data + size;
    }
    files
}

/// The exchange of a container that holds.
fn judged(world: &World, file: &Bytes) -> ExchangeId {
    let report = container::verify(file, &world.instance.keys.anchor(), Some(world.instance.clock.now()));
    let report = report.unwrap();
    assert_eq!(report.conclusion, Conclusion::Holds, "{report:?}");
    ExchangeId::from_slice(&report.proof.unwrap().0.raw().exchange_id).unwrap()
}

fn reads(world: &World) -> Vec<LogRead> {
    let entries = world.instance.sh.records(0).into_iter().filter_map(|record| record.leaf.entry);
    entries.filter_map(|entry| if let Entry::Read(read) = entry { Some(read) } else { None }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_fetches_the_containers_of_its_own_calls() {
    let world = World::start(echo).await;
    let one = post(&world, "m/1", "eins").await;
    let two = post(&world, "m/1", "zwei").await;
    let other = post(&world, "m-2", "drei").await;
    let answer = get(&world, &format!("/asic?{OWN}&queryId=m%2F1")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/zip")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"m-1.zip\""));
    let files = unpacked(&answer.body);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [format!("{one}.asice"), format!("{two}.asice")]);
    for ((_, file), id) in files.iter().zip([one, two]) {
        assert_eq!(judged(&world, file), id);
        let body = ["eins", "zwei"][usize::from(id == two)];
        assert!(file.windows(4).any(|window| window == body.as_bytes()), "with the contents that are kept");
    }
    // One by its own id, and of it what was asked or answered alone.
    for (only, there, not) in
        [("requestOnly", "request/", "response/"), ("responseOnly", "response/", "request/")]
    {
        let answer = get(&world, &format!("/asic?{OWN}&queryId={other}&{only}&unique")).await;
        assert_eq!(answer.header("content-type"), Some(container::MEDIA_TYPE), "{}", answer.status);
        let name = answer.header("content-disposition").unwrap().to_owned();
        assert!(name.ends_with(&format!("-{}.asice\"", only.trim_end_matches("Only"))), "{name}");
        let files: Vec<_> = unpacked(&answer.body).into_iter().map(|(name, _)| name).collect();
        assert!(files.iter().any(|name| name.starts_with(there) && name.contains("body")), "{files:?}");
        assert!(!files.iter().any(|name| name.starts_with(not)), "{files:?}");
        assert_eq!(judged(&world, &answer.body), other);
    }
    let told: Vec<_> =
        reads(&world).into_iter().map(|read| (read.reader, read.query, read.results)).collect();
    let reader = format!("agency {CLIENT}");
    assert_eq!(
        told,
        [
            (reader.clone(), format!("container of {one} {two}"), 2),
            (reader.clone(), format!("container with requests alone of {other}"), 1),
            (reader, format!("container with responses alone of {other}"), 1),
        ]
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_finds_its_calls_however_old_and_many_and_says_where_they_are_too_many() {
    let world = World::start(echo).await;
    let first = post(&world, "m-1", "eins").await;
    for _ in 0..15 {
        post(&world, "m-1", "noch einmal").await;
    }
    let answer = get(&world, &format!("/asic?{OWN}&queryId=m-1")).await;
    let files = unpacked(&answer.body);
    assert_eq!((answer.status.as_u16(), files.len()), (200, 16));
    assert_eq!(files[0].0, format!("{first}.asice"), "the oldest first");
    post(&world, "m-1", "einer zu viel").await;
    let answer = get(&world, &format!("/asic?{OWN}&queryId=m-1")).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status.as_u16(), 400);
    assert!(body["message"].as_str().unwrap().contains("more than 16"), "{body}");
    // Where the caller gave none, the id that its server told it.
    let answered = world.ask(asking("POST", "/v1/akten").body(full("ohne")).unwrap()).await;
    let own = answered.header("x-road-id").unwrap().to_owned();
    let answer = get(&world, &format!("/asic?{OWN}&queryId={own}")).await;
    assert_eq!(unpacked(&answer.body)[0].0, format!("{}.asice", answered.exchange()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_subsystem_one_answer_is_made_at_a_time_and_none_keeps_the_room_it_had() {
    let world = World::start(echo).await;
    let id = post(&world, "m-1", "eins").await;
    let path = format!("/asic?{OWN}&queryId={id}");
    let both = tokio::join!(get(&world, &path), get(&world, &path));
    let statuses: std::collections::BTreeSet<_> = [&both.0, &both.1].map(|it| it.status.as_u16()).into();
    assert_eq!(statuses, [200, 500].into(), "one is told to wait");
    let refused = if both.0.status.as_u16() == 500 { both.0 } else { both.1 };
    assert!(String::from_utf8_lossy(&refused.body).contains("is being made"), "{:?}", refused.body);
    // Room and turn are given back each time: many more answers than there is room for at once.
    for _ in 0..4 {
        assert_eq!(get(&world, &path).await.status.as_u16(), 200);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_fetches_what_is_not_theirs() {
    let world = World::start(echo).await;
    let id = post(&world, "m-1", "eins").await;
    let size = world.instance.sh.size();
    for (query, status, code) in [
        // Another subsystem, though of the same member; another member; the provider's own.
        (OWN.replace("gewerbeamt", "bauamt") + "&queryId=m-1", 401, "client.invalid_client_identifier"),
        (OWN.replace("luebeck", "kiel") + "&queryId=m-1", 401, "client.invalid_client_identifier"),
        (format!("{OWN}&queryId=m-2"), 404, "client.invalid_message"),
        (format!("{OWN}&queryId={}", id.to_string().replace('7', "8")), 404, "client.invalid_message"),
        (format!("{OWN}&queryId=m-1&unique"), 400, "client.invalid_message"),
        (format!("{OWN}&queryId=m-1&requestOnly&responseOnly"), 400, "client.invalid_message"),
        (OWN.to_owned(), 400, "client.invalid_message"),
        ("queryId=m-1".to_owned(), 400, "client.invalid_message"),
    ] {
        let answer = get(&world, &format!("/asic?{query}")).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status.as_u16(), body["type"].as_str()), (status, Some(code)), "{query}");
        assert_eq!(answer.header("x-road-error"), Some(code));
    }
    assert_eq!(reads(&world), [], "nothing was read that was not given out");
    assert!(world.instance.sh.size() > size, "the refusals are on record");
    let words: Vec<_> =
        world.instance.sh.records(size).iter().map(|record| format!("{:?}", record.leaf)).collect();
    assert!(!words.iter().any(|leaf| leaf.contains("m-2")), "the caller's own words are in no record");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_verifies_a_container_is_handed_over() {
    let world = World::start(echo).await;
    let answer = get(&world, "/verificationconf").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/zip")));
    let files = unpacked(&answer.body);
    let file = |name: &str| files.iter().find(|(found, _)| found.ends_with(name)).unwrap().1.clone();
    let anchor = Anchor::parse(&file("/anchor")).unwrap();
    assert_eq!(anchor.bytes(), world.instance.keys.anchor().bytes());
    let id = post(&world, "m-1", "eins").await;
    let container = get(&world, &format!("/asic?{OWN}&queryId={id}&requestOnly&unique")).await.body;
    let report = container::verify(&container, &anchor, Some(world.instance.clock.now())).unwrap();
    assert_eq!(report.conclusion, Conclusion::Holds);
    world.stop().await;
}
