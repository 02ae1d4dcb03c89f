use super::*;

fn check(text: &str, expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    std::fs::write(dir.path().join("log"), "t=1").unwrap();
    let path = dir.path().join("gw.toml");
    std::fs::write(&path, text).unwrap();
    let shown = match Config::load(&path) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string(),
    };
    let folder = format!("{}/", dir.path().display());
    let shown = shown.replace(&folder, "");
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn a_good_configuration_is_taken() {
    check(
        r#"
name = "gw-01"
data_dir = "data"
[uplink]
url = "ws://127.0.0.1:8000/uplink"
token_file = "token"
flush = "1s"
[queue]
max_bytes = "1MiB"
[[serial]]
port = "/dev/ttyUSB0"
baud = 9600
name = "greenhouse"
units = { temp = "°C" }
skip = ["fw"]
every = "10s"
offline_after = "5m"
[[serial]]
port = "tcp://10.0.0.7:23"
pattern = "Humidity: {hum:%}"
[[mqtt]]
url = "mqtt://user@10.0.0.2"
read = ["plant/{site}/{device}/{metric}", { topic = "farm/{device}/data", time = "ts" }]
[[replay]]
file = "log"
speed = 2.0
[host]
every = "30s"
"#,
        &[],
    );
}

#[test]
fn a_mistake_names_file_line_and_key() {
    for (text, expected) in [
        ("nmae = \"x\"", "gw.toml:1: nmae: unknown key `nmae`; did you mean `name`?"),
        (
            "[[serial]]\nport = \"/dev/x\"\nbaud = \"fast\"",
            "gw.toml:3: serial.baud: invalid type: string \"fast\", expected u32",
        ),
        (
            "[[serial]]\nport = \"/dev/x\"\nbaud = 9",
            "gw.toml:3: serial.baud: expected a baud rate of 50 to 4000000",
        ),
        (
            "[[serial]]\nprot = \"/dev/x\"",
            "gw.toml:2: serial.prot: unknown key `prot`; did you mean `port`?",
        ),
        ("[[serial]]\nbaud = 9600", "gw.toml:1: serial: missing key `port`"),
        (
            "[[serial]]\nport = \"/dev/x\"\npattern = \"{a\"",
            "gw.toml:3: serial.pattern: at letter 1: a { without its }",
        ),
        (
            "[[serial]]\nport = \"/dev/x\"\nformat = \"sml\"",
            "gw.toml:3: serial.format: expected one of json, csv, kv, pattern, nmea, vedirect, dsmr",
        ),
        (
            "[uplink]\nurl = \"http://x\"\ntoken_file = \"token\"",
            "gw.toml:2: uplink.url: `http://x` does not begin with ws:// or wss://; expected a URL \
             such as \"wss://server:8000/uplink\"",
        ),
        (
            "[[modbus]]\nport = \"/dev/x\"",
            "gw.toml:1: modbus: [[modbus]] is not supported by this version",
        ),
        (
            "[[mqtt]]\nurl = \"mqtt://x\"\nread = [\"meshtastic\"]",
            "gw.toml:3: mqtt.read: the preset \"meshtastic\" is not supported by this version",
        ),
        (
            "[[mqtt]]\nurl = \"mqtt://x\"\nread = [\"a/#/b\"]",
            "gw.toml:3: mqtt.read: # stands at the end only",
        ),
        (
            "[[mqtt]]\nurl = \"mqtt://x\"\ndiscovery = false",
            "gw.toml:1: mqtt: missing key `read`, the topics to read",
        ),
        (
            "[[mqtt]]\nurl = \"mqtt://x\"\ndiscovery = \"home/#\"",
            "gw.toml:1: mqtt: `discovery` is no prefix of topics such as \"homeassistant\"",
        ),
        (
            "[[mqtt]]\nurl = \"mqtt://x\"\ndiscovery = 5",
            "gw.toml:3: mqtt.discovery: expected true, false, or a prefix such as \"homeassistant\"",
        ),
        ("a = ", "gw.toml:1: "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "t").unwrap();
        let path = dir.path().join("gw.toml");
        std::fs::write(&path, text).unwrap();
        let shown = Config::load(&path).unwrap_err().to_string();
        let shown = shown.replace(&format!("{}/", dir.path().display()), "");
        assert!(shown.starts_with(expected), "{text}\n{shown}\n{expected}");
    }
}

#[test]
fn a_deadband_says_how_long_a_device_may_keep_still() {
    let source = "[[serial]]\nport = \"/dev/x\"\n";
    for (keys, minutes) in [
        ("", None),
        ("deadband = 0.5", Some(15)),
        ("deadband = 0.5\nevery = \"10m\"", Some(30)),
        ("deadband = 0.5\noffline_after = \"2m\"", Some(2)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gw.toml");
        std::fs::write(dir.path().join("token"), "t").unwrap();
        std::fs::write(&path, format!("{source}{keys}")).unwrap();
        let expected = minutes.map(|minutes| std::time::Duration::from_secs(60 * minutes));
        let config = Config::load(&path).unwrap();
        assert_eq!(config.sources[0].offline_after, expected, "{keys}");
    }
}
