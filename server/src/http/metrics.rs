//! `GET /metrics`: the server's figures as Prometheus reads them (text format, version 0.0.4).
//!
//! Labels hold words of ours only, never a user, a device or an address: their number is bounded.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::atomic::Ordering,
};

use axum::{
    extract::{Extension, State},
    http::{HeaderMap, header},
    response::IntoResponse,
};
use valtronics_protocol::filter::Channel;

use super::{Api, Peer, auth::Authenticated, error::ApiError};
use crate::{
    auth::Scope,
    monitor::{Count, Histogram, LATENCY_BOUNDS, Monitor, Sum, Sums},
};

/// What a proxy adds: behind one, loopback is not the other side.
const FORWARDED: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];

pub(super) async fn text(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    user: Result<Authenticated, ApiError>,
) -> Result<impl IntoResponse, ApiError> {
    let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
    if !api.metrics_open && (forwarded || !peer.0.is_loopback()) {
        user?.need(Scope::SystemRead)?;
    }
    let text = render(&api.gate.monitor, api.store.commits(), api.store.damaged());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

fn render(monitor: &Monitor, commits: u64, damaged: u64) -> String {
    let sums = monitor.sums();
    let (handshakes, auths) = monitor.refusals.counts();
    let mut text = Text::default();
    connections(&mut text, &sums);
    text.family("handshakes_refused_total", "counter", "Handshakes that were refused.");
    text.by_reason("handshakes_refused_total", &handshakes);
    text.family("auth_failures_total", "counter", "Tokens and users that were refused.");
    text.by_reason("auth_failures_total", &auths);
    traffic(&mut text, &sums, "messages", |count| count.messages.get());
    traffic(&mut text, &sums, "bytes", |count| count.bytes.get());
    let Sums { subscribers, uplinks, .. } = &sums;
    let help = "Bytes that wait for subscribers now.";
    text.single("outbox_bytes", "gauge", help, subscribers.depth.queued_bytes);
    let name = "messages_conflated_total";
    text.family(name, "counter", "Superseded messages that slow readers did not get.");
    text.sample(name, &[("channel", "telemetry")], subscribers.depth.merged_telemetry);
    text.sample(name, &[("channel", "system")], subscribers.depth.merged_system);
    for (name, help, counter) in [
        (
            "uplink_readings_total",
            "Readings that agents sent over /uplink.",
            &uplinks.figures.readings,
        ),
        ("uplink_refused_total", "Messages of agents that were refused.", &uplinks.figures.refused),
        ("uplink_duplicates_total", "What agents sent again.", &uplinks.figures.duplicates),
    ] {
        text.single(name, "counter", help, counter.get());
    }
    let name = "timestamps_replaced_total";
    text.family(name, "counter", "Timestamps that lay far ahead of the server's clock.");
    text.sample(name, &[("endpoint", "uplink")], uplinks.figures.replaced.get());
    let over_http = monitor.replaced_over_http.load(Ordering::Relaxed);
    text.sample(name, &[("endpoint", "http")], over_http);
    text.single("commits_total", "counter", "Commits that have succeeded.", commits);
    let help = "How often stored readings could not be read, because they are damaged.";
    text.single("store_damaged_total", "counter", help, damaged);
    let help = "From a frame's arrival to its readings' way into a subscriber's socket.";
    text.histogram("delivery_latency_seconds", help, &subscribers.figures.latency);
    text.family("build_info", "gauge", "The version of the server.");
    text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.0
}

/// Writes how many connections there are and were.
fn connections(text: &mut Text, sums: &Sums) {
    let mut by_endpoint = |name, kind, help, figure: fn(&Sum) -> u64| {
        text.family(name, kind, help);
        text.sample(name, &[("endpoint", "ws")], figure(&sums.subscribers));
        text.sample(name, &[("endpoint", "uplink")], figure(&sums.uplinks));
    };
    by_endpoint("connections_open", "gauge", "Connections that are open.", |sum| sum.open);
    let help = "Connections that are open and have authenticated.";
    by_endpoint("connections_authenticated", "gauge", help, |sum| sum.authenticated);
    let help = "Handshakes that succeeded.";
    by_endpoint("connections_accepted_total", "counter", help, |sum| sum.accepted);
    let name = "connections_closed_total";
    text.family(name, "counter", "Ended connections by close code; 1006 is without one.");
    for (code, count) in &sums.closed {
        let code = if *code == 0 { "other".to_owned() } else { code.to_string() };
        text.sample(name, &[("code", &code)], count);
    }
}

/// Writes messages or bytes, each way.
fn traffic(text: &mut Text, sums: &Sums, unit: &str, figure: fn(&Count) -> u64) {
    let endpoints = [("ws", &sums.subscribers.figures), ("uplink", &sums.uplinks.figures)];
    let name = format!("{unit}_received_total");
    text.family(&name, "counter", &format!("Received {unit} of WebSocket payload."));
    for (endpoint, figures) in endpoints {
        text.sample(&name, &[("endpoint", endpoint)], figure(&figures.received));
    }
    let name = format!("{unit}_sent_total");
    text.family(
        &name,
        "counter",
        &format!("Sent {unit} of WebSocket payload; answers and batches are of no channel."),
    );
    for (endpoint, figures) in endpoints {
        let channels = Channel::ALL.into_iter().map(Some).filter(|_| endpoint == "ws");
        for channel in channels.chain([None]) {
            let label = channel.map_or("none", Channel::as_str);
            let labels = [("endpoint", endpoint), ("channel", label)];
            text.sample(&name, &labels, figure(figures.sent(channel)));
        }
    }
}

/// The text, as it grows; names come without their prefix.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a family of samples.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ =
            writeln!(self.0, "# HELP valtronics_{name} {help}\n# TYPE valtronics_{name} {kind}");
    }

    /// Writes a sample; the words of labels need no escaping.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "valtronics_{name}");
        for (at, (label, word)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{word}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by_reason(&mut self, name: &str, counts: &BTreeMap<String, u64>) {
        for (reason, count) in counts {
            self.sample(name, &[("reason", reason)], count);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bounds = LATENCY_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let (mut count, bucket) = (0, format!("{name}_bucket"));
        for (bound, held) in bounds.zip(histogram.buckets()) {
            count += held;
            self.sample(&bucket, &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], histogram.sum_seconds());
        self.sample(&format!("{name}_count"), &[], count);
    }
}
