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
[[modbus]]
port = "/dev/ttyUSB2"
baud = 19200
parity = "even"
stop_bits = 1
timeout = "500ms"
gap = "50ms"
every = "5s"
[[modbus.devices]]
unit = 1
name = "main"
profile = "sdm630"
[[modbus.devices]]
unit = 7
name = "chiller"
every = "1m"
registers = ["supply_temp °C input 30 i16 /10", "energy kWh holding 0x100 u32 cdab /100"]
units = { energy = "MWh" }
[[modbus]]
port = "tcp://10.0.0.9:502"
devices = [{ unit = 0, name = "inverter", registers = ["power W 40084 i16"] }]
[[sparkplug]]
url = "mqtt://scada:1883"
groups = ["Plant 1"]
rebirth = false
host_id = "scada"
deadband = 0.5
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
            "[[sparkplug]]\nurl = \"mqtt://x\"\ngroups = [\"a/b\"]",
            "gw.toml:3: sparkplug.groups: expected a name without /, + and #, such as \"Plant 1\"",
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

#[test]
fn a_mistake_of_a_modbus_device_names_its_line() {
    for (keys, expected) in [
        ("", "1: modbus: expected at least one [[modbus.devices]], with `unit` and `name`"),
        ("parity = \"mark\"", "3: modbus.parity: unknown variant `mark`"),
        ("stop_bits = 3", "3: modbus.stop_bits: expected 1 or 2"),
        ("timeout = \"0s\"", "3: modbus.timeout: expected 10 ms to 60 s"),
        ("gap = \"1m\"", "3: modbus.gap: expected at most 10 s"),
        ("[[modbus.devices]]\nunit = 1\nname = \"a\"", "3: modbus.devices: expected `profile`"),
        ("[[modbus.devices]]\nname = \"a\"", "3: modbus.devices: missing key `unit`"),
        (
            "[[modbus.devices]]\nunit = 256\nname = \"a\"",
            "4: modbus.devices.unit: invalid value: integer `256`, expected u8",
        ),
        (
            "[[modbus.devices]]\nunit = 0\nname = \"a\"\nprofile = \"sdm120\"",
            "4: modbus.devices.unit: 0 asks all units of a line, and none answers",
        ),
        (
            "[[modbus.devices]]\nunit = 1\nname = \"a\"\nprofile = \"sdm9\"",
            "6: modbus.devices.profile: expected one of sdm120, sdm220, ",
        ),
        (
            "[[modbus.devices]]\nunit = 1\nname = \"a\"\nregisters = [\n\"b holding 1\"]",
            "7: modbus.devices.registers: the type is missing; expected \"name unit? table address",
        ),
        (
            "[[modbus.devices]]\nunit = 1\nname = \"a\"\nprofile = \"sdm120\"\n\
             registers = [\"power W holding 1 u16\"]",
            "7: modbus.devices.registers: the device has another register `power`",
        ),
        (
            "devices = [\n{ unit = 1, name = \"a\", profile = \"sdm120\" },\n\
             { unit = 2, name = \"a\", profile = \"sdm120\" }]",
            "5: modbus.devices.name: another device here has this name",
        ),
        (
            "[[modbus.devices]]\nunit = 1\nname = \"a\"\nprofiel = \"sdm120\"",
            "6: modbus.devices.profiel: unknown key `profiel`; did you mean `profile`?",
        ),
        (
            "[[modbus.devices]]\nunit = 1\nname = \"a\"\nprofile = \"sdm120\"\nscale = \"x\"",
            "7: modbus.devices.scale: expected a number, or { metric = number }",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gw.toml");
        std::fs::write(&path, format!("[[modbus]]\nport = \"/dev/x\"\n{keys}")).unwrap();
        let shown = Config::load(&path).unwrap_err().to_string();
        let shown = shown.replace(&format!("{}/gw.toml:", dir.path().display()), "");
        assert!(shown.starts_with(expected), "{keys}\n{shown}\n{expected}");
    }
    for (port, is_good) in [
        ("tcp://meter.local:502", true),
        ("rtu+tcp://[::1]:8899", true),
        ("tcp://meter.local", false),
        ("udp://x:502", false),
        ("", false),
    ] {
        let devices = "devices = [{ unit = 1, name = \"a\", profile = \"sdm120\" }]";
        let text = format!("[[modbus]]\nport = \"{port}\"\n{devices}\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gw.toml");
        std::fs::write(&path, text).unwrap();
        assert_eq!(Config::load(&path).is_ok(), is_good, "{port}");
    }
}
