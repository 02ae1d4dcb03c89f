//! The program's own logs: on standard error, for people on a terminal, one JSON object a line
//! otherwise. `RUST_LOG` sets the level.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::monitor::MESSAGES_TARGET;

/// Libraries whose more detailed levels print payloads, and so tokens.
const SECRETIVE: [&str; 4] = ["tungstenite", "tokio_tungstenite", "hyper", "h2"];

/// Starts logging.
pub fn init() {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    // What names a part of such a library would count before what we say about all of it.
    let secretive = |directive: &&str| SECRETIVE.iter().any(|name| directive.starts_with(name));
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).filter(|d| !secretive(d)).collect();
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let mut filter = builder.parse_lossy(wanted.join(","));
    for target in SECRETIVE {
        let directive = format!("{target}=info").parse().expect("this is a directive");
        filter = filter.add_directive(directive);
    }
    // What comes here was asked for, one connection at a time.
    let asked_for = format!("{MESSAGES_TARGET}=debug").parse().expect("this is a directive");
    filter = filter.add_directive(asked_for);
    // Who closes our standard error must not end us: complaining there would.
    let logs = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}
