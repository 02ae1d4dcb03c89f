//! Turns readings from gateways into live telemetry, device status and alerts for subscribers.

pub mod commit;
pub mod domain;
