//! A message as lines for people, in columns: when, which device, what.

use serde_json::Value as Json;

/// Returns a text of a message.
pub(super) fn text(message: &Json, key: &str) -> String {
    message.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// Returns a message's type.
pub(super) fn kind(message: &Json) -> &str {
    message.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// Tells whether a response reports success.
pub(super) fn succeeded(message: &Json) -> bool {
    message.get("success").and_then(Json::as_bool).unwrap_or_default()
}

/// Writes a message of a device as lines; none for what only programs care about.
pub(super) fn readable(message: &Json, device: &str) -> Vec<String> {
    let text = |key| text(message, key);
    let at = text("timestamp");
    match kind(message) {
        "auth_response" => vec![format!("signed in as {}", text("user"))],
        "telemetry_update" => readings(message, device),
        "alert" | "alert_update" => {
            let (severity, status) = (text("severity"), text("status"));
            let (title, why) = (text("title"), text("message"));
            vec![line(&at, device, &format!("ALERT {severity} {status}: {title} ({why})"))]
        }
        "device_status_update" => {
            let (old, new, reason) = (text("old_status"), text("new_status"), text("reason"));
            let change = if old == new { new } else { format!("{old} -> {new}") };
            vec![line(&at, device, &format!("{change}: {reason}"))]
        }
        "system_status_update" => {
            let metrics = message.get("metrics").and_then(Json::as_object).into_iter().flatten();
            let metrics: Vec<String> =
                metrics.map(|(name, value)| format!("{name} {}", plain(value))).collect();
            vec![line(&at, "server", &metrics.join("  "))]
        }
        "lagged" => {
            let dropped = message.get("dropped").map(plain).unwrap_or_default();
            vec![format!("this reads too slowly: {dropped} messages were merged away")]
        }
        "subscribe_response" if !succeeded(message) => {
            vec![format!("not subscribed to {}: {}", text("channel"), text("message"))]
        }
        "error" => vec![format!("the server says {}: {}", text("error"), text("message"))],
        _ => Vec::new(),
    }
}

fn readings(update: &Json, device: &str) -> Vec<String> {
    let metrics = update.get("telemetry").and_then(Json::as_object).into_iter().flatten();
    let reading = |(name, metric): (&String, &Json)| {
        let value = metric.get("value").map(plain).unwrap_or_default();
        let reading = format!("{name:<20} {value:>12} {}", text(metric, "unit"));
        line(&text(metric, "timestamp"), device, reading.trim_end())
    };
    metrics.map(reading).collect()
}

fn line(at: &str, device: &str, what: &str) -> String {
    format!("{at:<24} {device:<16} {what}")
}

/// Writes a value without quotes.
fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_message_is_readable() {
        let at = "2024-01-01T12:00:00Z";
        let reading =
            |value: Json, unit: &str| json!({"value": value, "unit": unit, "timestamp": at});
        for (message, lines) in [
            (
                json!({"type": "telemetry_update", "telemetry": {
                    "temperature": reading(json!(23.0), "°C"), "door": reading(json!("open"), ""),
                }}),
                &[
                    "2024-01-01T12:00:00Z     boiler           door                         open",
                    "2024-01-01T12:00:00Z     boiler           temperature                  23.0 °C",
                ][..],
            ),
            (
                json!({"type": "alert", "severity": "critical", "status": "active", "title": "Hot",
                    "message": "31 is above 30", "timestamp": at}),
                &[
                    "2024-01-01T12:00:00Z     boiler           ALERT critical active: Hot (31 is above 30)",
                ],
            ),
            (
                json!({"type": "device_status_update", "old_status": "online", "timestamp": at,
                    "new_status": "offline", "reason": "Connection lost"}),
                &["2024-01-01T12:00:00Z     boiler           online -> offline: Connection lost"],
            ),
            (
                json!({"type": "subscribe_response", "success": false, "channel": "alerts",
                    "message": "no scope"}),
                &["not subscribed to alerts: no scope"],
            ),
            (json!({"type": "subscribe_response", "success": true}), &[]),
            (json!({"type": "something_new"}), &[]),
        ] {
            let mut found = readable(&message, "boiler");
            found.sort();
            assert_eq!(found, lines, "{message}");
        }
        let system =
            json!({"type": "system_status_update", "metrics": {"cpu_usage": 1.5}, "timestamp": at});
        let line = "2024-01-01T12:00:00Z     server           cpu_usage 1.5";
        assert_eq!(readable(&system, ""), [line]);
    }
}
