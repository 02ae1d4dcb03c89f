//! The commands: what they print, and how they end.

use std::process::Output;

use rustix::process::Signal;

use crate::{parts::Port, world::World};

/// Compares exit code, standard output and a part of standard error.
#[track_caller]
fn check(output: &Output, code: i32, printed: &str, said: &str) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (found, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(found, printed, "{error}");
    assert!(error.contains(said), "{error}\nlacks {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn decode_prints_readings_and_counts() {
    let world = World::new();
    let line = br#"{"t":21.50,"ts":1767225600,"none":null}"#;
    let printed = "{\"device\":\"stdin\",\"metric\":\"t\",\"value\":21.5,\
                   \"timestamp\":\"2026-01-01T00:00:00Z\",\"time_source\":\"device\"}\n";
    let output = world.ask(&["decode", "--format", "json"], line).await;
    check(&output, 0, printed, "1 good, 0 damaged, 0 foreign");
    let output = world.ask(&["decode", "--format", "json"], b"hello\n\xff\n{\"t\n").await;
    check(&output, 0, "", "0 good, 2 damaged, 1 foreign");
    world.write("boiler.txt", "Humidity: 40 at 21.5\n");
    let pattern = "Humidity: {hum:%} at {temp:C}";
    let arguments = ["decode", "--format", "pattern", "--pattern", pattern, "boiler.txt"];
    let output = world.ask(&arguments, b"").await;
    let printed = String::from_utf8(output.stdout).unwrap();
    let units: Vec<_> = printed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["unit"].clone())
        .collect();
    assert_eq!(units, ["%", "°C"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_mistake_and_opens_nothing() {
    let world = World::new();
    world.configure("127.0.0.1:1", "[[serial]]\nport = \"/dev/none\"\n");
    check(&world.ask(&["check", "--config", "gw.toml"], b"").await, 0, "", "");
    world.configure("127.0.0.1:1", "[[serial]]\nport = \"/dev/none\"\nbaud = \"fast\"\n");
    let said = "gw.toml:8: serial.baud: invalid type: string \"fast\", expected u32";
    for command in ["check", "run", "try"] {
        check(&world.ask(&[command, "--config", "gw.toml"], b"").await, 2, "", said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_ends_with_2() {
    let world = World::new();
    world.write("gw.toml", "[host]\n");
    for (arguments, said) in [
        (&["run", "--config", "gw.toml"][..], "[uplink] is missing"),
        (&["run", "--config", "none.toml"], "none.toml: No such file"),
        (&["try", "--config", "gw.toml", "nobody"], "nobody"),
        (&["decode", "--format", "morse"], "morse"),
        (&["fly"], "fly"),
        (&[], "--config"),
    ] {
        check(&world.ask(arguments, b"").await, 2, "", said);
    }
    assert_eq!(world.ask(&["--version"], b"").await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_a_device() {
    let world = World::new();
    world.write("gw.toml", "name = \"gw\"\n[host]\nevery = \"1s\"\n");
    let mut agent = world.try_sources();
    let reading = agent.until_metric("memory_usage").await;
    assert_eq!((&reading["device"], &reading["unit"]), (&"gw".into(), &"%".into()));
    let usage = reading["value"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&usage), "{usage}");
    agent.signal(Signal::INT);
    assert_eq!(agent.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_played_again() {
    let world = World::new();
    let mut port = Port::plug(&world).await;
    world.write("gw.toml", "[[serial]]\nport = \"tty\"\nname = \"a\"\nformat = \"kv\"\n");
    let mut agent = world.start(&["try", "--config", "gw.toml", "--capture", "recording"]);
    port.send("t=1\nt=").await;
    agent.until("t", 1).await;
    port.send(b"2\n\xff\n").await;
    agent.until("t", 2).await;
    assert_eq!(agent.stop().await, Some(0));

    world.write(
        "gw.toml",
        "[[replay]]\nfile = \"recording\"\nname = \"b\"\nformat = \"kv\"\nspeed = 100.0\n",
    );
    let played = world.ask(&["try", "--config", "gw.toml"], b"").await;
    let printed = String::from_utf8(played.stdout.clone()).unwrap();
    let readings: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> =
        readings.iter().map(|r| (r["device"].as_str(), r["value"].as_i64())).collect();
    let said = String::from_utf8_lossy(&played.stderr);
    assert_eq!(found, [(Some("b"), Some(1)), (Some("b"), Some(2))], "{said}");
    check(&played, 0, &printed, "b: 2 good, 1 damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_is_played_line_by_line() {
    let world = World::new();
    world.write("log.txt", "t=1\nt=2\n");
    world.write("gw.toml", "[[replay]]\nfile = \"log.txt\"\ninterval = \"10ms\"\nloop = true\n");
    let mut agent = world.try_sources();
    for value in [1, 2, 1, 2] {
        assert_eq!(agent.reading().await["value"], value);
    }
    assert_eq!(agent.stop().await, Some(0));
}
