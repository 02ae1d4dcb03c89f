use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn hear(preset: &str, topic: &str, payload: &str) -> Heard {
    let mut preset = Preset::named(preset).unwrap();
    assert!(preset.has(topic), "{topic}");
    preset.hear(topic, payload.as_bytes(), NOW).unwrap()
}

fn check(preset: &str, topic: &str, payload: &str, expected: &[&str]) {
    let heard = hear(preset, topic, payload);
    let shown = heard.samples.iter().map(|sample| {
        let device = sample.device.as_deref().unwrap_or("-");
        let unit = sample.unit.as_deref().unwrap_or("-");
        format!("{device} {} {} {unit}", sample.metric, sample.value)
    });
    assert_eq!(shown.collect::<Vec<_>>(), expected, "{topic}");
}

#[track_caller]
fn check_presence(preset: &str, topic: &str, payload: &str, expected: Option<(&str, bool)>) {
    let heard = hear(preset, topic, payload);
    let found = heard.presences.first().map(|presence| (&*presence.device, presence.is_there));
    assert_eq!((found, heard.samples.len()), (expected, 0), "{topic}");
}

#[test]
fn every_preset_is_there() {
    for name in NAMES {
        assert!(!Preset::named(name).unwrap().filters().is_empty(), "{name}");
    }
    assert!(Preset::named("plant").is_none());
}

#[test]
fn tasmota() {
    let sensor = r#"{"Time":"2024-01-01T00:00:00","DHT11":{"Temperature":70.1,"Humidity":40},
        "ENERGY":{"TotalStartTime":"2023","Total":1.5,"Voltage":[230,231],"Factor":0.9},
        "SDS0X1":{"PM2.5":3},"TempUnit":"F"}"#;
    let expected = [
        "bal DHT11.Temperature 70.1 F",
        "bal DHT11.Humidity 40 %",
        "bal ENERGY.Total 1.5 kWh",
        "bal ENERGY.Voltage.0 230 V",
        "bal ENERGY.Voltage.1 231 V",
        "bal ENERGY.Factor 0.9 -",
        "bal SDS0X1.PM2.5 3 µg/m³",
    ];
    check("tasmota", "tele/bal/SENSOR", sensor, &expected);
    let state =
        r#"{"Uptime":"0T01:00:00","POWER":"ON","Wifi":{"SSId":"x","RSSI":60,"Signal":-70}}"#;
    let expected = ["bal POWER ON -", "bal Wifi.RSSI 60 %", "bal Wifi.Signal -70 dBm"];
    check("tasmota", "tele/bal/STATE", state, &expected);
    check_presence("tasmota", "tele/bal/LWT", "Offline", Some(("bal", false)));
    check_presence("tasmota", "tele/bal/LWT", "Online", Some(("bal", true)));
    check_presence("tasmota", "tele/bal/LWT", "", None);
}

#[test]
fn shelly() {
    check("shelly", "shellies/em-1/emeter/0/power", "41.25", &["em-1 emeter.0.power 41.25 W"]);
    check("shelly", "shellies/em-1/emeter/0/total", "13372.4", &["em-1 emeter.0.total 13372.4 Wh"]);
    check("shelly", "shellies/p/relay/0/energy", "60", &["p relay.0.energy 60 W·min"]);
    check("shelly", "shellies/p/relay/0/command", "on", &[]);
    check("shelly", "shellies/p/temperature", "24.75", &["p temperature 24.75 °C"]);
    check("shelly", "shellies/p/temperature_f", "76", &[]);
    check("shelly", "shellies/ht/sensor/battery", "100", &["ht sensor.battery 100 %"]);
    check("shelly", "shellies/p/info", r#"{"temperature":5}"#, &[]);
    check("shelly", "shellies/announce", r#"{"id":"p","fw_ver":"1.0"}"#, &[]);
    let status = r#"{"id":0,"apower":8.9,"aenergy":{"total":11.6,"by_minute":[1,2]},
        "temperature":{"tC":30.3,"tF":86.6},"output":true}"#;
    let expected = [
        "p1 switch:0.apower 8.9 W",
        "p1 switch:0.aenergy.total 11.6 Wh",
        "p1 switch:0.temperature.tC 30.3 °C",
        "p1 switch:0.output true -",
    ];
    check("shelly", "p1/status/switch:0", status, &expected);
    let rpc = format!(
        r#"{{"src":"shellyplus-1","dst":"p1/events","method":"NotifyStatus",
            "params":{{"ts":1767225600.25,"switch:0":{status}}}}}"#
    );
    check("shelly", "p1/events/rpc", &rpc, &expected);
    let at = hear("shelly", "p1/events/rpc", &rpc).samples[0].at;
    assert_eq!(at, Some(UnixMillis(1_767_225_600_250)));
    check_presence("shelly", "p1/online", "false", Some(("p1", false)));
    check_presence("shelly", "shellies/p/online", "true", Some(("p", true)));
}

#[test]
fn esphome() {
    check("esphome", "porch/sensor/temp/state", "21.5", &["porch temp 21.5 -"]);
    check("esphome", "porch/binary_sensor/door/state", "ON", &["porch door ON -"]);
    check_presence("esphome", "porch/status", "offline", Some(("porch", false)));
}

#[test]
fn the_things_network() {
    let topic = "v3/app1@ttn/devices/dev1/up";
    let uplink = r#"{"end_device_ids":{"device_id":"dev1"},"received_at":"2026-01-01T00:00:01Z",
        "uplink_message":{"f_port":1,"decoded_payload":{"temperature_0":22.5,"level":3},
        "rx_metadata":[{"rssi":-35}],"received_at":"2026-01-01T00:00:00.123456789Z"}}"#;
    check("ttn", topic, uplink, &["dev1 temperature_0 22.5 °C", "dev1 level 3 -"]);
    let at = hear("ttn", topic, uplink).samples[0].at;
    assert_eq!(at, Some(UnixMillis(1_767_225_600_123)));
    check("ttn", topic, r#"{"join_accept":{"session_key_id":"x"}}"#, &[]);
    assert_eq!(hear("ttn", topic, "{").failed, Some("a payload that is no JSON"));
}

#[test]
fn openmqttgateway() {
    let document =
        r#"{"id":"A4:C1:38:00","name":"LYWSD","rssi":-70,"tempc":21.5,"tempf":70.7,"batt":90}"#;
    let expected = ["A4C13800 rssi -70 dBm", "A4C13800 tempc 21.5 °C", "A4C13800 batt 90 %"];
    check("openmqttgateway", "home/OMG/BTtoMQTT/A4C13800", document, &expected);
    check(
        "openmqttgateway",
        "home/OMG/SYStoMQTT",
        r#"{"uptime":5,"SSID":"x"}"#,
        &["OMG uptime 5 s"],
    );
    check_presence("openmqttgateway", "home/OMG/LWT", "offline", Some(("OMG", false)));
}
