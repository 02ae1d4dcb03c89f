//! Logging: to standard error, human on a terminal, one JSON object a line otherwise.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Libraries that print payloads, passwords or tokens when they are asked for more than this.
const PINNED: [&str; 4] =
    ["tungstenite=info", "tokio_tungstenite=info", "rumqttc=info", "rustls=info"];

/// Starts logging; `RUST_LOG` sets the level, `info` without it.
///
/// # Panics
/// When called twice.
pub fn start() {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let log = tracing_subscriber::fmt()
        // Who closes our standard error must not end us: complaining there would.
        .log_internal_errors(false)
        .with_env_filter(filter(&wanted))
        .with_writer(stderr);
    if stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.with_ansi(false).json().flatten_event(true).init();
    }
}

/// A directive is taken unless it asks a pinned library for more.
fn filter(wanted: &str) -> EnvFilter {
    let pinned_name = |directive: &str| {
        PINNED.iter().any(|pinned| {
            let library = pinned.split('=').next().unwrap_or_default();
            directive.trim().starts_with(library)
        })
    };
    let taken = wanted
        .split(',')
        .filter(|directive| !directive.trim().is_empty() && !pinned_name(directive));
    let taken: Vec<&str> = taken.collect();
    let base = if taken.is_empty() { "info" } else { &taken.join(",") };
    PINNED.iter().fold(EnvFilter::builder().parse_lossy(base), |filter, pinned| {
        match pinned.parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_libraries_stay_out_of_the_log() {
        let check = |wanted: &str, expected: &[&str]| {
            let filter = filter(wanted).to_string();
            for part in expected.iter().chain(&PINNED) {
                assert!(filter.split(',').any(|own| own == *part), "{wanted}: {filter}");
            }
            assert!(!filter.contains("rumqttc=trace"), "{wanted}: {filter}");
        };
        check("", &["info"]);
        check("trace", &["trace"]);
        check("debug,rumqttc=trace", &["debug"]);
        check("rumqttc::state=trace,valtronics_agent=debug", &["valtronics_agent=debug"]);
    }
}
