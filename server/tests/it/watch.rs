//! `watch`, the program's own subscriber.

use std::process::Stdio;

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::server::{DEADLINE, PROGRAM, Server};

struct Watch {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Watch {
    fn start(server: &Server, token: &str, more: &[&str]) -> Self {
        let url = format!("ws://{}/ws", server.address);
        let mut child = Command::new(PROGRAM)
            .args(["watch", "--url", &url, "--token", token])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, errors }
    }

    /// Waits for a line that holds all these words.
    async fn line(&mut self, words: &[&str]) -> String {
        let wanted = async {
            loop {
                let line = self.out.next_line().await.unwrap().expect("it goes on");
                if words.iter().all(|word| line.contains(word)) {
                    return line;
                }
            }
        };
        timeout(DEADLINE, wanted).await.unwrap_or_else(|_| panic!("no line has {words:?}"))
    }

    async fn exit(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap().code()
    }
}

#[tokio::test]
async fn watch_prints_names_values_and_units() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "roof", json!([{"metric": "t", "value": 2.5, "unit": "°C"}])).await;
    let token = server.token("ops", None, None).await;
    let mut watch = Watch::start(&server, &token, &[]);
    watch.line(&["signed in as ops"]).await;
    watch.line(&["roof", "t ", "2.5 °C"]).await;
    watch.line(&["server", "cpu_usage"]).await;
    // A device that comes while it watches.
    agent.readings(2, "boiler", json!([{"metric": "p", "value": 3, "unit": "bar"}])).await;
    watch.line(&["boiler", "p ", "3 bar"]).await;
}

#[tokio::test]
async fn watch_prints_ids_where_it_may_not_read_names() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "roof", json!([{"metric": "t", "value": 2.5}])).await;
    let token = server.token("ops", Some("telemetry:read"), None).await;
    let mut watch = Watch::start(&server, &token, &[]);
    watch.line(&["device 1", "2.5"]).await;
}

#[tokio::test]
async fn watch_prints_messages_as_they_come() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "roof", json!([{"metric": "t", "value": 2.5}])).await;
    let token = server.token("ops", None, None).await;
    let mut watch = Watch::start(&server, &token, &["--json"]);
    let line = watch.line(&["telemetry_update"]).await;
    let message: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(message["telemetry"]["t"]["value"], 2.5);
}

#[tokio::test]
async fn watch_ends_when_the_token_is_refused_or_nobody_reads() {
    let server = Server::start().await;
    let mut refused = Watch::start(&server, "no-token", &[]);
    assert_eq!(refused.exit().await, Some(1));
    let why = refused.errors.next_line().await.unwrap().unwrap();
    assert!(why.contains("the server refuses the token: "), "{why}");

    let token = server.token("ops", None, None).await;
    let mut unread = Watch::start(&server, &token, &[]);
    unread.line(&["signed in"]).await;
    let Watch { mut child, out, errors: _errors } = unread;
    drop(out);
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "roof", json!([{"metric": "t", "value": 2.5}])).await;
    let ended = timeout(DEADLINE, child.wait()).await.expect("it ends");
    assert_eq!(ended.unwrap().code(), Some(0));
}
