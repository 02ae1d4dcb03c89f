//! Each format as a device sends it: through a port, to the server.

use valtronics_protocol::value::Value;

use crate::{parts::Port, server::Server, world::World};

/// One reading: metric, unit, value.
type Expected<'a> = (&'a str, Option<&'a str>, Value);

/// Sends `lines` through a port that is read as `keys` say.
async fn check(keys: &str, lines: &str, expected: &[Expected<'_>]) {
    let (world, server) = (World::new(), Server::start().await);
    world
        .configure(&server.address, &format!("[[serial]]\nport = \"tty\"\nname = \"a\"\n{keys}\n"));
    let mut port = Port::plug(&world).await;
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("opened").await;
    port.send(lines).await;
    let found = session.numbered(expected.len()).await;
    for (at, ((seq, reading), (metric, unit, value))) in found.iter().zip(expected).enumerate() {
        assert_eq!((*seq, &*reading.device), (at as u64 + 1, "a"), "{keys}");
        let told = (&*reading.metric, reading.unit.as_deref(), &reading.value);
        assert_eq!(told, (*metric, *unit, value), "{keys}");
    }
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines() {
    check(
        "format = \"json\"\nunits = { hum = \"%\" }",
        "{\"temp\":21.5,\"hum\":40,\"none\":null,\"ok\":true}\n{\"air\":{\"co2\":800}}\n",
        &[
            ("temp", None, Value::Float(21.5)),
            ("hum", Some("%"), Value::Int(40)),
            ("ok", None, Value::Bool(true)),
            ("air.co2", None, Value::Int(800)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_values() {
    check(
        "format = \"kv\"",
        "temp=21.5C;hum=40%;fan=on\r\npressure: 1013 hPa\r\n",
        &[
            ("temp", Some("°C"), Value::Float(21.5)),
            ("hum", Some("%"), Value::Int(40)),
            ("fan", None, Value::Text("on".into())),
            ("pressure", Some("hPa"), Value::Int(1013)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns() {
    check(
        "format = \"csv\"",
        "temp_C,hum\n21.5,40\n,41\n",
        &[
            ("temp", Some("°C"), Value::Float(21.5)),
            ("hum", None, Value::Int(40)),
            ("hum", None, Value::Int(41)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pattern() {
    check(
        "pattern = 'Humidity: {hum:%} *Temperature: {temp:°C}'",
        "hello\nHumidity: 40 %\tTemperature: 21.5 C\n",
        &[("hum", Some("%"), Value::Int(40)), ("temp", Some("°C"), Value::Float(21.5))],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessed() {
    let lines = "t=1\nt=2\nt=3\nt=4\nt=5\nt=6\nt=7\nt=8\nt=9\nt=10\n";
    check("", lines, &[1, 2, 3, 4, 5].map(|value| ("t", None, Value::Int(value)))).await;
}

/// Gives `input` to `decode`, and compares the readings and the counts.
async fn check_decode(format: &[&str], input: &[u8], expected: &[&str], counts: &str) {
    let arguments = [&["decode", "--format"], format].concat();
    let output = World::new().ask(&arguments, input).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.trim_end()), (Some(0), counts), "{format:?}");
    let told = |line: &str| {
        let reading: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&reading["device"], &reading["time_source"]),
            (&"stdin".into(), &"receive".into())
        );
        format!("{} {} {}", reading["metric"], reading["value"], reading["unit"])
    };
    let printed = String::from_utf8(output.stdout).unwrap();
    let found: Vec<String> = printed.lines().map(told).collect();
    assert_eq!(found, expected, "{format:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn decode_reads_each_format() {
    let json = b"{\"t\":1.5,\"u\":null}\nboot\n{\"t\":\n";
    check_decode(&["json"], json, &["\"t\" 1.5 null"], "1 good, 1 damaged, 1 foreign").await;
    let kv = b"t=21.5C\nboot\nt=\xff\n";
    check_decode(&["kv"], kv, &["\"t\" 21.5 \"°C\""], "1 good, 1 damaged, 1 foreign").await;
    let csv = b"t_C,h\n1.5,2\n3\n,4\n";
    let expected = ["\"t\" 1.5 \"°C\"", "\"h\" 2 null", "\"h\" 4 null"];
    check_decode(&["csv"], csv, &expected, "3 good, 1 damaged, 0 foreign").await;
    let pattern = ["pattern", "--pattern", "T {t:C}"];
    let expected = ["\"t\" 1.5 \"°C\""];
    check_decode(&pattern, b"boot\nT 1.5\n", &expected, "1 good, 0 damaged, 1 foreign").await;
    let expected = ["\"t\" 1 null", "\"t\" 2 null"];
    check_decode(&["guess"], b"t=1\nt=2", &expected, "2 good, 0 damaged, 0 foreign").await;
}
