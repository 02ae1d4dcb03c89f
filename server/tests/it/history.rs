//! History over HTTP: what was stored comes back, in pages, in steps, and by its arrival.

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use crate::server::Server;

const COMPACTED: &str = "closed hours are compacted";

/// Stores readings of metric `t` as a backlog: each a time and a value.
async fn store(server: &Server, device: &str, readings: impl IntoIterator<Item = (String, Json)>) {
    let token = server.token("site", Some("uplink"), None).await;
    let reading =
        |(timestamp, value)| json!({"metric": "t", "timestamp": timestamp, "value": value});
    let readings: Vec<Json> = readings.into_iter().map(reading).collect();
    let body = json!({"device": device, "historical": true, "readings": readings}).to_string();
    assert_eq!(server.http("POST", "/api/v1/telemetry", &token, &body).await.0, 202);
}

/// A moment of some day that has passed.
fn at(second: u32) -> String {
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", day())
}

/// A day within what is kept, the same for all tests: the one before yesterday, in UTC.
fn day() -> &'static str {
    static DAY: LazyLock<String> = LazyLock::new(|| {
        let date =
            std::process::Command::new("date").args(["-u", "-d", "2 days ago", "+%F"]).output();
        String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
    });
    &DAY
}

async fn get(server: &Server, token: &str, query: &str) -> (u16, Json) {
    let path = format!("/api/v1/devices/1/telemetry?{query}");
    let (status, body) = server.http("GET", &path, token, "").await;
    (status, serde_json::from_str(&body).unwrap())
}

/// Returns the points of every page.
async fn points(server: &Server, token: &str, query: &str) -> Vec<Json> {
    let (mut points, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(server, token, &format!("{query}{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        points.extend(page["points"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return points,
        }
    }
}

fn values(points: &[Json]) -> Vec<&Json> {
    points.iter().map(|point| &point["value"]).collect()
}

#[tokio::test]
async fn readings_come_back_as_they_were() {
    let server = Server::start().await;
    let values_of = json!([1, 1.0, -0.5, true, "open", u64::MAX]);
    let sent: Vec<Json> = values_of.as_array().unwrap().clone();
    store(&server, "boiler", sent.iter().map(|value| (at(60), value.clone()))).await;
    store(&server, "boiler", [(at(59), json!(7)), (at(61), json!(8))]).await;
    let token = server.token("ops", Some("telemetry:read"), None).await;
    let range = format!("metric=t&from={}&to={}", at(60), at(61));
    let (status, page) = get(&server, &token, &range).await;
    assert_eq!(status, 200);
    let points: Vec<Json> =
        sent.iter().map(|value| json!({"timestamp": at(60), "value": value})).collect();
    assert_eq!(page["points"], json!(points));
    for (key, expected) in [
        ("device_id", json!(1)),
        ("metric", json!("t")),
        ("unit", json!(null)),
        ("gaps", json!([])),
        ("next", json!(null)),
    ] {
        assert_eq!(page[key], expected, "{key}");
    }
    // One moment may be cut in pages.
    let paged = self::points(&server, &token, &format!("{range}&limit=4")).await;
    assert_eq!(paged, points);
    let (_, page) = get(&server, &token, &format!("{range}&limit=4")).await;
    assert_eq!(page["points"].as_array().unwrap().len(), 4);
    let (_, page) = get(&server, &token, "metric=t").await;
    assert_eq!(page["points"], json!([]), "the last hour");
    assert_eq!(self::points(&server, &token, "metric=t&from=-96h").await.len(), 8);
    assert_eq!(self::points(&server, &token, "metric=t&from=-96h&to=-1ms").await.len(), 8);
}

#[tokio::test]
async fn steps_say_the_same_before_and_after_compaction() {
    let mut server = Server::start().await;
    let token = server.token("ops", Some("telemetry:read"), None).await;
    let sent = (0..7200).step_by(10).map(|second| (at(second), json!(f64::from(second) / 10.0)));
    store(&server, "boiler", sent).await;
    let texts = [(at(7200), json!("open")), (at(7230), json!("shut"))];
    store(&server, "boiler", texts).await;
    store(&server, "boiler", [(at(10_000), json!(1))]).await;
    let query = format!("metric=t&from={}&to={}", at(0), at(9000));
    let minutes = format!("{query}&step=30m&limit=3");
    let odd = format!("{query}&step=3500s");
    let before = (
        points(&server, &token, &query).await,
        points(&server, &token, &minutes).await,
        points(&server, &token, &odd).await,
    );
    let expected = json!([
        {"timestamp": at(0), "min": 0.0, "max": 179.0, "mean": 89.5, "last": 179.0, "count": 180},
        {"timestamp": at(7200), "last": "shut", "count": 2},
    ]);
    assert_eq!(json!([before.1[0], before.1[4]]), expected);
    assert_eq!((before.0.len(), before.1.len()), (722, 5));
    server.restart().await;
    server.has_said(COMPACTED, 1).await;
    let after = (
        points(&server, &token, &query).await,
        points(&server, &token, &minutes).await,
        points(&server, &token, &odd).await,
    );
    assert_eq!(after, before);
    server.crash_and_restart().await;
    assert_eq!(points(&server, &token, &query).await, before.0);
}

#[tokio::test]
async fn who_was_away_gets_exactly_what_he_missed() {
    let mut server = Server::start().await;
    let token = server.token("ops", Some("telemetry:read"), None).await;
    store(&server, "boiler", [(at(0), json!(0))]).await;
    let (_, first) = get(&server, &token, "metric=t&from=-96h").await;
    let mut got: Vec<i64> = values(first["points"].as_array().unwrap())
        .into_iter()
        .map(|value| value.as_i64().unwrap())
        .collect();
    let mut as_of = first["as_of"].as_str().unwrap().to_owned();
    for round in 0..2_i64 {
        // Late, out of order, and while it is read.
        let sending = async {
            for n in 1..=30 {
                let n = round * 30 + n;
                let second = u32::try_from(n * 7919 % 9000).unwrap();
                store(&server, "boiler", [(at(second), json!(n))]).await;
            }
        };
        let reading = async {
            while got.len() < 1 + usize::try_from(round + 1).unwrap() * 30 {
                let (mut cursor, mut next_as_of) = (String::new(), None);
                loop {
                    let query = format!("metric=t&arrived_from={as_of}&limit=3{cursor}");
                    let (status, page) = get(&server, &token, &query).await;
                    assert_eq!(status, 200, "{page}");
                    let points = page["points"].as_array().unwrap();
                    got.extend(values(points).into_iter().map(|value| value.as_i64().unwrap()));
                    let said = page["as_of"].as_str().unwrap().to_owned();
                    assert_eq!(*next_as_of.get_or_insert(said.clone()), said);
                    match page["next"].as_str() {
                        Some(next) => cursor = format!("&cursor={next}"),
                        None => break,
                    }
                }
                as_of = next_as_of.unwrap();
            }
        };
        let both = async { tokio::join!(sending, reading) };
        tokio::time::timeout(crate::server::DEADLINE, both).await.expect("everything is read");
        got.sort_unstable();
        assert_eq!(got, (0..=(round + 1) * 30).collect::<Vec<_>>());
        if round == 0 {
            server.restart().await;
            server.has_said(COMPACTED, 1).await;
        }
    }
}

#[tokio::test]
async fn a_token_sees_its_devices_and_mistakes_are_named() {
    let server = Server::start().await;
    store(&server, "boiler", [(at(0), json!(0))]).await;
    let ops = server.token("ops", Some("telemetry:read"), None).await;
    let other = server.token("ops", Some("telemetry:read"), Some("pump*")).await;
    let own = server.token("ops", Some("telemetry:read"), Some("boil*")).await;
    let devices = server.token("ops", Some("devices:read"), None).await;
    let future = "from=2999-01-01T00:00:00Z&to=2999-01-02T00:00:00Z";
    for (token, query, status, named) in [
        ("", "metric=t", 401, "Bearer"),
        (&*devices, "metric=t", 403, "telemetry:read"),
        (&other, "metric=t", 404, "device"),
        (&own, "metric=t", 200, ""),
        (&ops, "metric=u", 404, "metric"),
        (&ops, "", 400, "metric"),
        (&ops, "metric=t&from=yesterday", 422, "from"),
        (&ops, "metric=t&to=24h", 422, "to"),
        (&ops, "metric=t&arrived_from=x", 422, "arrived_from"),
        (&ops, "metric=t&step=0s", 422, "step"),
        (&ops, "metric=t&limit=x", 400, "limit"),
        (&ops, "metric=t&cursor=1.2", 400, "cursor"),
        (&ops, "metric=t&colour=red", 400, "colour"),
        (&ops, "metric=t&limit=0", 400, "limit"),
        (&ops, "metric=t&limit=100001", 400, "limit"),
        (&ops, "metric=t&from=-1h&to=-2h", 422, "to"),
        (&ops, "metric=t&from=-30d&step=1s", 422, "step"),
        (&ops, "metric=t&step=3601s", 422, "step"),
        (&ops, "metric=t&from=-24h&step=1s", 200, ""),
        (&ops, &format!("metric=t&{future}&step=1ms"), 200, ""),
    ] {
        let (found, problem) = get(&server, token, query).await;
        assert_eq!(found, status, "{query}: {problem}");
        if status != 200 {
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(named), "{query}: {detail}");
        }
    }
    let path = "/api/v1/devices/7/telemetry?metric=t";
    assert_eq!(server.http("GET", path, &ops, "").await.0, 404);
    assert_eq!(server.http("POST", path, &ops, "").await.0, 405);
}
