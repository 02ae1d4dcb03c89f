use super::*;

fn check(channel: Channel, request: &str, expected: Result<&str, &str>) {
    let request = serde_json::from_str(request).unwrap();
    let found = parse(channel, &request)
        .map(|(filters, _)| serde_json::to_string(&filters).unwrap())
        .map_err(|InvalidFilter(why)| why);
    match (&found, expected) {
        (Ok(filters), Ok(expected)) => assert_eq!(filters, expected, "{request:?}"),
        (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
        _ => panic!("{request:?}: {found:?}"),
    }
}

#[test]
fn keys_stand_on_top_below_or_both() {
    let telemetry = Channel::Telemetry;
    check(telemetry, r#"{"device_id":1}"#, Ok(r#"{"device_id":[1]}"#));
    check(telemetry, r#"{"filters":{"device_id":[2,1,2]}}"#, Ok(r#"{"device_id":[2,1]}"#));
    check(telemetry, r#"{"device_id":"x","filters":{"device_id":2}}"#, Ok(r#"{"device_id":[2]}"#));
    check(
        telemetry,
        r#"{"id":1,"device_id":1,"filters":{"metrics":["a","b.*"],"frequency":"30s"}}"#,
        Ok(r#"{"device_id":[1],"metrics":["a","b.*"],"frequency":"30s"}"#),
    );
    check(telemetry, r#"{"metrics":"*"}"#, Ok("{}"));
    check(Channel::Alerts, r#"{"severity":["critical","info","warning","info"]}"#, Ok("{}"));
    check(Channel::Devices, r#"{"status_types":["online","warning","offline"]}"#, Ok("{}"));
    check(
        Channel::Devices,
        r#"{"status_types":["online","offline","online"]}"#,
        Ok(r#"{"status_types":["online","offline"]}"#),
    );
    check(
        Channel::Alerts,
        r#"{"severity":["critical","warning"],"alert_type":"threshold"}"#,
        Ok(r#"{"severity":["critical","warning"],"alert_type":["threshold"]}"#),
    );
}

#[test]
fn refuses_what_it_does_not_understand() {
    let telemetry = Channel::Telemetry;
    for (channel, request, part) in [
        (telemetry, r#"{"device_id":1.0}"#, "integer"),
        (telemetry, r#"{"device_id":"1"}"#, "integer"),
        (telemetry, r#"{"device_id":-1}"#, "integer"),
        (telemetry, r#"{"device_id":null}"#, "integer"),
        (telemetry, r#"{"device_id":[]}"#, "leave the key out"),
        (telemetry, r#"{"severity":"critical"}"#, "no key of telemetry"),
        (telemetry, r#"{"metric":"a"}"#, "no key of telemetry"),
        (telemetry, r#"{"filters":[]}"#, "object"),
        (telemetry, r#"{"filters":{"filters":{}}}"#, "no key"),
        (telemetry, r#"{"frequency":"99ms"}"#, "100ms"),
        (telemetry, r#"{"frequency":30}"#, "period"),
        (telemetry, r#"{"frequency":"25h"}"#, "24h"),
        (telemetry, r#"{"since":1}"#, "no key"),
        (Channel::System, r#"{"frequency":"500ms"}"#, "1s"),
        (Channel::System, r#"{"metrics":["swap"]}"#, "cpu_usage"),
        (Channel::Alerts, r#"{"severity":"fatal"}"#, "info, warning, critical"),
        (Channel::Devices, r#"{"status_types":["gone"]}"#, "online, offline, warning"),
        (Channel::Devices, r#"{"since":-1}"#, "since"),
        (Channel::Devices, r#"{"snapshot":"no"}"#, "true or false"),
    ] {
        check(channel, request, Err(part));
    }
}

#[test]
fn a_trailing_star_is_a_wildcard() {
    for (pattern, metric, expected) in [
        ("battery.*", "battery.level", true),
        ("battery.*", "battery", false),
        ("a*b", "a*b", true),
        ("a*b", "axb", false),
        ("a\\*", "a*", true),
        ("a\\*", "ab", false),
        ("temperature", "temperature", true),
    ] {
        assert_eq!(MetricPattern::new(pattern).matches(metric), expected, "{pattern} {metric}");
    }
}
