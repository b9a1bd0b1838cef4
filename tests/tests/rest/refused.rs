//! What is refused at the door: what could be read in two ways, and how a refusal reads.

use super::*;

/// Sends bytes as they are, and reads until the connection is closed or an answer has come.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.instance.sh.door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection stays open after {request:?}");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_programs_could_read_in_two_ways_is_refused() {
    let world = World::start(echo).await;
    let path = format!("/r1/{REST_SERVICE}");
    let long = "x".repeat(70_000);
    let fields: String = (0..300).map(|at| format!("a{at}: b\r\n")).collect();
    for (what, line, head, code) in [
        (
            "two framings",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "client.invalid_message",
        ),
        (
            "the other order",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "client.invalid_message",
        ),
        (
            "two lengths",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ncontent-length: 4\r\n",
            "client.invalid_message",
        ),
        (
            "the same length twice",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "client.invalid_message",
        ),
        (
            "a length that is none",
            "POST PATH/a HTTP/1.1",
            "content-length: 0x3\r\n",
            "client.invalid_message",
        ),
        (
            "another coding",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: gzip, chunked\r\n",
            "client.invalid_message",
        ),
        (
            "a coding disguised",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: xchunked\r\n",
            "client.invalid_message",
        ),
        ("two hosts", "GET PATH/a HTTP/1.1", "host: y\r\n", "client.invalid_message"),
        ("a folded field", "GET PATH/a HTTP/1.1", "a: b\r\n c\r\n", "client.invalid_message"),
        (
            "a space before the colon",
            "GET PATH/a HTTP/1.1",
            "content-length : 3\r\n",
            "client.invalid_message",
        ),
        ("a bare line feed", "GET PATH/a HTTP/1.1", "a: b\nc: d\r\n", "client.invalid_message"),
        ("an oversize head", "GET PATH/a HTTP/1.1", &format!("a: {long}\r\n"), "client.too_large"),
        ("too many fields", "GET PATH/a HTTP/1.1", &fields, "client.too_large"),
        ("a tunnel", "CONNECT PATH/a HTTP/1.1", "", "client.invalid_message"),
        ("a tunnel to a host", "CONNECT register:443 HTTP/1.1", "", "client.invalid_message"),
        ("no path", "OPTIONS * HTTP/1.1", "", "client.invalid_message"),
        ("another path", "GET PATH/../b HTTP/1.1", "", "client.invalid_message"),
        ("another path, encoded", "GET PATH/%2e%2E/b HTTP/1.1", "", "client.invalid_message"),
        ("a path in disguise", "GET PATH/..;/b HTTP/1.1", "", "client.invalid_message"),
        ("an encoded slash", "GET PATH/a%2Fb HTTP/1.1", "", "client.invalid_message"),
        ("a backslash", "GET PATH/a\\b HTTP/1.1", "", "client.invalid_message"),
        ("an encoded backslash", "GET PATH/a%5cb HTTP/1.1", "", "client.invalid_message"),
        ("two slashes", "GET PATH//a HTTP/1.1", "", "client.invalid_message"),
        ("an encoding of nothing", "GET PATH/%zz HTTP/1.1", "", "client.invalid_message"),
        ("bytes that are no UTF-8", "GET PATH/%ff HTTP/1.1", "", "client.invalid_message"),
        ("an overlong encoding", "GET PATH/%c0%ae%c0%ae/b HTTP/1.1", "", "client.invalid_message"),
        ("a zero byte", "GET PATH/a%00 HTTP/1.1", "", "client.invalid_message"),
        (
            "a slash in an identifier",
            "GET /r1/NORD%2FMV/gewerberegister/register/akten/a/b HTTP/1.1",
            "",
            "client.unknown_service",
        ),
    ] {
        let line = line.replace("PATH", &path);
        let request = format!(
            "{line}\r\nhost: x\r\nconnection: close\r\ntrave-purpose: {PURPOSE}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n{head}\r\n0\r\n\r\n"
        );
        let answer = raw(&world, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        assert!(answer.contains(&format!("x-road-error: {code}\r\n")), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
    assert_eq!(world.register.seen().len(), 0, "the register saw nothing of it");
    // What is refused does not take an answer that came before it.
    let good = format!(
        "POST {path}/a HTTP/1.1\r\nhost: x\r\ntrave-purpose: {PURPOSE}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n\
         expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let answer = raw(&world, &format!("{good}GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n{good}")).await;
    let statuses = answer.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]);
    let statuses: Vec<&str> = statuses.filter(|status| *status != "100").collect();
    assert_eq!(statuses, ["200", "400"], "{answer}");
    assert!(world.register.last().all("expect").is_empty());
    // A body that is expected to be refused is not even asked for; one that is wanted is.
    let waiting = |purpose: &str| {
        format!(
            "POST {path}/a HTTP/1.1\r\nhost: x\r\ntrave-purpose: {purpose}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n\
             expect: 100-continue\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
        )
    };
    assert!(raw(&world, &waiting("neugier")).await.starts_with("HTTP/1.1 500"));
    let answer = raw(&world, &format!("{}abc", waiting(PURPOSE))).await;
    assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("abc"), "{answer}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_in_json_and_in_xml() {
    let world = World::start(echo).await;
    let without = |name: &str| {
        let mut request = asking("GET", "/a").body(nothing()).unwrap();
        request.headers_mut().remove(name);
        request
    };
    let to = |path: &str| {
        let mut request = asking("GET", "").body(nothing()).unwrap();
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    let with = |name: &str, value: &str| asking("GET", "/a").header(name, value).body(nothing()).unwrap();
    let forged = "NORD/SH/luebeck/bauamt";
    for (request, status, code) in [
        (without("trave-purpose"), 400, "client.unknown_purpose"),
        (without("trave-legal-basis"), 400, "client.unknown_legal_basis"),
        (with("trave-purpose", OTHER_PURPOSE), 400, "client.invalid_message"),
        (with("x-road-client", forged), 400, "client.invalid_message"),
        (with("x-road-security-server", "NORD/SH/kiel/s1"), 400, "client.invalid_security_server"),
        (with("x-road-service", "NORD/MV/gewerberegister/register/archiv"), 400, "client.unknown_service"),
        (to("/"), 400, "client.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister"), 400, "client.unknown_service"),
        (to("/r2/NORD/MV/gewerberegister/register/akten/a"), 400, "client.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister/register/nichts/a"), 500, "server.clientproxy.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister/register/auskunft/a"), 500, "server.clientproxy.unknown_method"),
        (to(&format!("/r1/{REST_SERVICE}/a/../b")), 400, "client.invalid_message"),
        (to(&format!("/r1/{REST_SERVICE}/a%2fb")), 400, "client.invalid_message"),
    ] {
        let uri = request.uri().clone();
        let answer = world.ask(request).await;
        let error = answer.error();
        assert_eq!((answer.status.as_u16(), error["type"].as_str().unwrap()), (status, code), "{uri}");
        assert_eq!(error["register_reached"], "no", "{uri}");
        let refused = world.instance.sh.tells(answer.exchange());
        assert!(refused.len() == 1 && refused[0].starts_with("refused"), "{uri}: {refused:?}");
    }
    let mut request = without("trave-purpose");
    request.headers_mut().insert("accept", "application/xml".parse().unwrap());
    let answer = world.ask(request).await;
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(body.contains("<error><type>client.unknown_purpose</type><message>"), "{body}");
    assert_eq!(world.register.seen().len(), 0, "the register saw nothing of it");
    world.stop().await;
}
