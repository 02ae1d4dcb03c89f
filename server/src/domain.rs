//! What the server makes of readings, pure: alert rules, alerts, and the status of devices.

pub mod intervals;
pub mod pattern;
pub mod rule;
pub mod alerts;
pub mod rhythm;
pub mod freshness;
pub mod status;
