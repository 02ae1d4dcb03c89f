//! Where readings come from: one task for each `[[serial]]`, `[[mqtt]]`, `[[sparkplug]]`,
//! `[[modbus]]`, `[[replay]]` and `[host]`.
//!
//! A source reads bytes, has them decoded and normalised, and puts [`SourceEvent`]s into its
//! [`outlet`]. What breaks is opened again by the source itself, with its reason as a device status.

pub mod capture;
pub mod outlet;
pub mod lines;
pub mod port;
pub mod serial;
pub mod topics;
mod attendance;
pub mod messages;
pub mod mqtt;
pub mod sparkplug;
pub mod modbus;
pub mod replay;
pub mod host;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use toml::Spanned;
use valtronics_protocol::{
    event::Status,
    reading::{Reading, is_name},
    time::UnixMillis,
    uplink::DeviceInfo,
};

use crate::{
    config::{fault::Fault, folder::Folder, section::Section},
    normalize::Rules,
    tally::Tally,
};
use outlet::Outlet;

/// What a source says.
#[derive(Debug)]
pub enum SourceEvent {
    /// Readings that came in at one moment.
    Readings {
        /// The source's name.
        source: Arc<str>,
        /// What the source has counted since the last ones; these are in it.
        tally: Tally,
        /// When they came in.
        received: UnixMillis,
        /// The readings, in order.
        readings: Vec<Reading>,
        /// Told when they are durable in the queue, or committed by the server, for sources that
        /// acknowledge what they took.
        receipt: Option<oneshot::Sender<()>>,
    },
    /// The source knows that a device's status has changed.
    Status(StatusChange),
    /// What is configured for a device, when it is first seen.
    Device(DeviceInfo),
}

/// A change of a device's status.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusChange {
    /// The device.
    pub device: Arc<str>,
    /// What it is now.
    pub status: Status,
    /// One sentence that is true.
    pub reason: String,
    /// When it happened.
    pub timestamp: UnixMillis,
}

/// One source of the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it is called: the device of its readings, unless they name another.
    pub name: Arc<str>,
    /// After how much silence its devices count as offline; absent: the server's rule. With a
    /// deadband the agent knows better than the server can learn how long a device may keep still.
    pub offline_after: Option<Duration>,
    /// What it reads.
    pub kind: Kind,
}

/// The kinds of sources.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Text lines from a serial port or a TCP connection.
    Serial(serial::Config),
    /// Messages from an MQTT broker.
    Mqtt(mqtt::Config),
    /// Nodes and devices that speak Sparkplug B over a broker.
    Sparkplug(sparkplug::Config),
    /// Devices on a Modbus line or network.
    Modbus(modbus::Config),
    /// A recorded file.
    Replay(replay::Config),
    /// The gateway itself.
    Host(host::Config),
}

impl Kind {
    /// Promises nothing to others: what is read is only shown.
    pub fn try_only(&mut self) {
        match self {
            Self::Sparkplug(config) => config.step_back(),
            Self::Serial(_) | Self::Mqtt(_) | Self::Modbus(_) | Self::Replay(_) | Self::Host(_) => {
            }
        }
    }
}

/// How often a value that keeps still may get lost on its way before its device counts as offline,
/// and once more.
const STILL_ROUNDS: u32 = 3;

/// The keys of every source, beside the rules of `normalize`.
#[derive(Debug, Deserialize)]
struct Common {
    name: Option<Spanned<String>>,
    #[serde(default, with = "valtronics_protocol::time::optional_period")]
    offline_after: Option<Duration>,
}

/// Reads the table of one source.
///
/// # Errors
/// When a key or a value is none that this version knows.
pub fn read(
    kind: &'static str,
    mut section: Section<'_>,
    folder: &Folder,
    gateway: &str,
) -> Result<(Spanned<Arc<str>>, Config), Fault> {
    let common: Common = section.read()?;
    let rules = section.part::<Rules>();
    let still = rules.clone().read::<Rules>()?.longest_still();
    let span = section.span();
    let (kind, usual_name) = match kind {
        "serial" => serial::Config::read(&mut section, rules, folder).map(|own| {
            let name = own.port.usual_name();
            (Kind::Serial(own), name)
        })?,
        "mqtt" => mqtt::Config::read(&mut section, &rules, folder).map(|own| {
            let name = own.broker.url.host.clone();
            (Kind::Mqtt(own), name)
        })?,
        "sparkplug" => sparkplug::Config::read(&mut section, rules, folder).map(|own| {
            let name = own.broker.url.host.clone();
            (Kind::Sparkplug(own), name)
        })?,
        "modbus" => modbus::Config::read(&mut section, &rules, folder).map(|own| {
            let name = own.usual_name();
            (Kind::Modbus(own), name)
        })?,
        "replay" => replay::Config::read(&mut section, rules, folder).map(|own| {
            let name = own.usual_name();
            (Kind::Replay(own), name)
        })?,
        _ => (Kind::Host(host::Config::read(&mut section, rules)?), gateway.to_owned()),
    };
    section.finish()?;
    let name = common.name.unwrap_or_else(|| Spanned::new(span, usual_name));
    if !is_name(name.get_ref()) {
        let message = "expected a name of 1 to 128 bytes without control characters";
        return Err(Fault::at(&name, message));
    }
    let shared: Arc<str> = name.get_ref().as_str().into();
    let offline_after = common.offline_after.or(still.map(|still| STILL_ROUNDS * still));
    let config = Config { name: shared.clone(), offline_after, kind };
    Ok((Spanned::new(name.span(), shared), config))
}

/// Runs a source until `outlet` closes; only a recording comes to an end by itself.
pub async fn run(kind: Kind, outlet: Outlet) {
    let closing = outlet.closing.clone();
    match kind {
        Kind::Mqtt(config) => mqtt::run(config, outlet).await,
        Kind::Sparkplug(config) => sparkplug::run(config, outlet).await,
        Kind::Serial(config) => stopped(&closing, serial::run(config, outlet)).await,
        Kind::Modbus(config) => stopped(&closing, modbus::run(config, outlet)).await,
        Kind::Replay(config) => stopped(&closing, replay::run(config, outlet)).await,
        Kind::Host(config) => stopped(&closing, host::run(config, outlet)).await,
    }
}

/// Runs what owes nothing to anybody when it stops.
async fn stopped(closing: &CancellationToken, run: impl Future<Output = ()>) {
    // Whether it ended or was stopped is the same.
    let _ = closing.run_until_cancelled(run).await;
}
