//! A REST register on several servers: calls go on where one of them is gone, and the operator sees which.

use std::time::Duration;

use trave_proto::schema::operator::{BackendStanding, StatusRequest};
use trave_tests::agency::get as fetch;

use super::*;

fn answers(_: Request<Incoming>) -> Answering {
    Box::pin(async { Response::new(full("da")) })
}

/// How each server of the register stands.
async fn standings(instance: &Instance) -> Vec<BackendStanding> {
    let status = operator(&instance.mv).await.status(StatusRequest {}).await.unwrap().into_inner();
    status.backends.into_iter().filter(|backend| backend.service == REST_SERVICE).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_one_of_several_servers_is_gone_and_the_operator_sees_which() {
    for two in [false, true] {
        let [first, second] =
            [HttpRegister::start(two, answers).await, HttpRegister::start(two, answers).await];
        let (gone, stays) = (first.address.to_string(), second.address.to_string());
        let at_provider = format!(
            "[[service]]\nid = \"{REST_SERVICE}\"\nurl = [\"http://{gone}/base/\", \"http://{stays}/base/\"]\n\
             http2 = {two}\nkeep_content = \"none\"\ntime_out_seconds = 5\n\
             [operations]\nlisten = \"127.0.0.1:0\"\n"
        );
        let granted = vec![grant(), rest_grant("r1", "/*")];
        let plan = Plan { at_provider, grants: granted, ..Plan::default() };
        let mut world = World { instance: Instance::planned(plan).await, register: second };
        let ask = async || world.ask(asking("GET", "/1").body(nothing()).unwrap()).await.status;
        for _ in 0..10 {
            assert_eq!(ask().await, StatusCode::OK);
        }
        let seen = (first.seen().len(), world.register.seen().len());
        assert!(seen.0 > 0 && seen.1 > 0, "both take part: {seen:?}");
        assert!(
            standings(&world.instance)
                .await
                .iter()
                .all(|one| (one.failures, one.last_error.as_str()) == (0, ""))
        );

        drop(first);
        // One whose connection goes with it may still have had a call; after that nobody is asked there in vain.
        let noticed = async {
            loop {
                ask().await;
                let standings = standings(&world.instance).await;
                let of = |address: &str| standings.iter().find(|one| one.address == address).unwrap().clone();
                if of(&gone).failures > 0 {
                    return (of(&gone), of(&stays));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (gone_stands, stays_stands) =
            tokio::time::timeout(Duration::from_secs(60), noticed).await.expect("it is noticed");
        assert!(["unreachable", "broken_off"].contains(&gone_stands.last_error.as_str()), "{gone_stands:?}");
        assert_eq!((stays_stands.failures, stays_stands.ejected_for_ms), (0, 0));
        for _ in 0..10 {
            assert_eq!(ask().await, StatusCode::OK);
        }
        let operations = world.instance.mv.running().operations.unwrap().to_string();
        let (_, figures) = fetch(&operations, "/metrics").await.unwrap();
        let figures = String::from_utf8(figures.to_vec()).unwrap();
        let failures = |address: &str| {
            let of = format!("trave_backend_failures{{service=\"{REST_SERVICE}\",backend=\"{address}\"}} ");
            let line = figures.lines().find_map(|line| line.strip_prefix(&of));
            line.expect("the figure is there").parse::<u32>().unwrap()
        };
        assert!(failures(&gone) > 0 && failures(&stays) == 0);
        world.instance.stop().await;
    }
}
