//! What services and clients there are, as X-Road tells it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_clients_are_listed_as_x_road_lists_them() {
    let mut world = World::with(false, echo, &[("r1", "GET /v1/**")]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("akten.json");
    let document =
        r#"{"openapi":"3.1.0","servers":[{"url":"http://10.0.0.1"}],"paths":{"/v1/{nr}":{"get":{}}}}"#;
    std::fs::write(&file, document).unwrap();
    let with = format!("http2 = false\nopenapi = \"{}\"", file.display());
    world.instance.mv.reconfigure(|text| text.replace("http2 = false", &with)).await;
    let get = async |path: &str, client: &str| {
        let request = Request::get(path).header("x-road-client", client).body(nothing()).unwrap();
        let answer = world.ask(request).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), body)
    };
    let (status, listed) = get("/listClients?xRoadInstance=NORD", CLIENT).await;
    let clients = listed["member"].as_array().unwrap();
    assert_eq!((status, clients.len()), (200, 7));
    let amt = clients.iter().find(|member| member["id"]["subsystem_code"] == "gewerbeamt").unwrap();
    assert_eq!(amt["id"]["object_type"], "SUBSYSTEM");
    assert_eq!(get("/listClients?xRoadInstance=SUED", CLIENT).await.0, 400);

    let subsystem = "/r1/NORD/MV/gewerberegister/register";
    let codes = |listed: &serde_json::Value| -> Vec<String> {
        let services = listed["service"].as_array().unwrap();
        services
            .iter()
            .map(|service| format!("{} {}", service["service_code"], service["endpoint_list"]))
            .collect()
    };
    let (status, listed) = get(&format!("{subsystem}/listMethods"), CLIENT).await;
    assert_eq!(status, 200);
    assert_eq!(codes(&listed), [r#""akten" [{"method":"GET","path":"/v1/*"}]"#, r#""auskunft" []"#]);
    assert_eq!(listed["service"][0]["service_type"], "OPENAPI");
    let (_, listed) = get(&format!("{subsystem}/allowedMethods"), CLIENT).await;
    assert_eq!(codes(&listed)[0], r#""akten" [{"method":"GET","path":"/v1/**"}]"#);
    let (status, described) = get(&format!("{subsystem}/getOpenAPI?serviceCode=akten"), CLIENT).await;
    assert_eq!(
        (status, described["servers"][0]["url"].as_str()),
        (200, Some("http://example.org/xroad-example"))
    );
    assert!(described["paths"]["/v1/{nr}"].is_object());
    // Nobody asks in another's name, of a service without description, or of a subsystem that nobody offers.
    for (path, client, code) in [
        ("listMethods", "NORD/SH/luebeck/bauamt", "client.invalid_client_identifier"),
        ("getOpenAPI", CLIENT, "client.invalid_message"),
        ("getOpenAPI?serviceCode=auskunft", CLIENT, "server.serverproxy.unknown_service"),
        ("/r1/NORD/MV/niemand/nirgends/listMethods", CLIENT, "client.unknown_member"),
    ] {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{subsystem}/{path}") };
        assert_eq!(get(&path, client).await.1["type"], code, "{path}");
    }
    world.stop().await;
}
