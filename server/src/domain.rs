//! The rules of the trade, pure: alert rules, alerts, and the status of devices.

pub mod pattern;
pub mod rule;
pub mod alerts;
pub mod status;
