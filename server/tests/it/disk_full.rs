//! A full disk: live data goes on, nothing is acknowledged that is not stored, and when there is
//! room it goes on by itself.

use std::{io::Write as _, path::Path, time::Duration};

use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use crate::server::{DEADLINE, Server};

/// Takes all the room that there is.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for piece in [64 * 1024, 512] {
        while file.write_all(&vec![b'x'; piece]).is_ok() {}
    }
}

async fn ready(server: &Server) -> (u16, String) {
    server.raw("GET", "/readyz", "", "").await
}

/// Waits until `/readyz` answers like this.
async fn until_ready_is(server: &Server, status: u16, says: &str) {
    let asking = async {
        loop {
            let (answered, body) = ready(server).await;
            if answered == status && body.contains(says) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{status} {says}"));
}

fn readings(seq: u64, noise: usize) -> Json {
    // Texts that no packing makes much smaller.
    let text = |n: usize| {
        let mixed =
            |m: usize| (n * 7919 + m * 104_729 + seq as usize).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..60).map(|m| format!("{:016x}", mixed(m))).collect::<String>()
    };
    let mut readings = vec![json!({"metric": "t", "value": seq})];
    readings.extend((0..noise).map(|n| json!({"metric": "noise", "value": text(n)})));
    json!({"type": "readings", "seq": seq, "device": "d", "readings": readings})
}

#[tokio::test]
async fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let Some(mut server) = Server::on_a_small_disk(48).await else {
        eprintln!("skipped: no disk can be mounted here");
        return;
    };
    let ballast = server.inner_path("ballast");
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 8 * 1024 * 1024);
    assert_eq!(ready(&server).await.0, 200);
    let mut agent = server.agent("site", Some("q")).await;
    agent.send(readings(1, 0)).await;
    assert_eq!(agent.next().await["seq"], 1);
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    client.subscribe("devices").await;

    // Another program fills the disk. What is kept for this carries events and more.
    let filler = server.inner_path("filler");
    fill(&filler);
    let mut seq = 1;
    while ballast.exists() {
        seq += 1;
        agent.send(readings(seq, 100)).await;
        assert_eq!(agent.next().await["seq"], seq);
        assert!(seq < 1000, "the disk is never full");
    }
    until_ready_is(&server, 503, "the disk is full").await;
    let status = json!({"type": "status", "seq": seq + 1, "device": "d", "status": "warning"});
    agent.send(status).await;
    assert_eq!(client.next_of("device_status_update").await["new_status"], "warning");
    assert_eq!(agent.next().await["seq"], seq + 1);

    // Then that is full, too.
    fill(&server.inner_path("more"));
    let mut acked = seq + 1;
    seq += 1;
    while !ready(&server).await.1.contains("nothing is acknowledged") {
        seq += 1;
        assert!(seq < 1000, "the disk is never full");
        agent.send(readings(seq, 100)).await;
        if let Ok(ack) = timeout(Duration::from_millis(500), agent.next()).await {
            acked = ack["seq"].as_u64().unwrap();
        }
    }
    seq += 1;
    agent.send(readings(seq, 0)).await;
    // Subscribers get what is not stored.
    loop {
        let update = client.next_of("telemetry_update").await;
        if update["telemetry"]["t"]["value"] == seq {
            break;
        }
    }
    let (status, body) = ready(&server).await;
    assert!(status == 503 && body.contains("\"status\":503"), "{status} {body}");
    let early = async {
        while acked < seq {
            acked = agent.next().await["seq"].as_u64().unwrap();
        }
    };
    let early = timeout(Duration::from_secs(3), early).await;
    assert!(early.is_err(), "acknowledged without room");

    // There is room again: all of it is acknowledged, without anybody's help.
    std::fs::remove_file(&filler).unwrap();
    while acked < seq {
        acked = agent.next_of("ack").await["seq"].as_u64().unwrap();
    }
    until_ready_is(&server, 200, "ok").await;
    assert!(ballast.exists(), "the room is kept again");
    let said = server.has_said("the store can write again", 1).await;
    assert_eq!(said.matches("the disk is full").count(), 2, "{said}");

    // Nothing that was acknowledged is missing.
    let token = server.token("ops", Some("system:read"), None).await;
    let (_, body) = server.http("GET", "/api/v1/agents", &token, "").await;
    let list: Json = serde_json::from_str(&body).unwrap();
    let counters = &list["agents"][0]["counters"];
    assert_eq!((&counters["stored"], &counters["pending"]), (&counters["received"], &json!(0)));
}
