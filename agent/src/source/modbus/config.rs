//! What `[[modbus]]` and its `[[modbus.devices]]` say.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de};
use tokio_serial::{Parity, StopBits};
use toml::Spanned;
use valtronics_protocol::{reading::is_name, time::period};

use super::super::port::{self, Line};
use crate::{
    config::{fault::Fault, folder::Folder, section::Section},
    decode::modbus::{frame::Framing, profile, register::Register},
    normalize::Rules,
};

/// How often a device is asked, if nothing else is said.
const EVERY: Duration = Duration::from_secs(10);
/// No device is asked more often: a register read at 9,600 baud takes about this long.
const LEAST_EVERY: Duration = Duration::from_millis(50);
/// How long a line keeps silent before a request, if nothing else is said: what slow transceivers
/// need to turn round.
const GAP: Duration = Duration::from_millis(20);
/// The profile of devices that say themselves what they have.
const SUNSPEC: &str = "sunspec";

/// A table `[[modbus]]`.
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) link: Link,
    pub(super) line: Line,
    pub(super) timeout: Duration,
    pub(super) gap: Duration,
    /// At least one.
    pub(super) devices: Vec<DeviceConfig>,
}

/// A table `[[modbus.devices]]`.
#[derive(Debug, Clone)]
pub(super) struct DeviceConfig {
    pub(super) unit: u8,
    pub(super) name: Arc<str>,
    pub(super) every: Duration,
    pub(super) rules: Rules,
    pub(super) registers: Vec<Register>,
    /// It says itself what it has.
    pub(super) is_sunspec: bool,
}

/// Where the devices are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Link {
    /// On a serial port.
    Device(PathBuf),
    /// On the network: host and port, and how frames are marked there.
    Network(String, Framing),
}

impl TryFrom<String> for Link {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let wanted = "expected a path such as \"/dev/ttyUSB0\", \"tcp://host:502\" or \
                      \"rtu+tcp://host:port\"";
        let framing = match text.split_once("://") {
            None if text.is_empty() => return Err(wanted),
            None => return Ok(Self::Device(text.into())),
            Some(("tcp", _)) => Framing::Tcp,
            Some(("rtu+tcp", _)) => Framing::Rtu,
            Some(_) => return Err(wanted),
        };
        let address = text.split_once("://").map_or("", |(_, address)| address);
        match address.parse::<http::uri::Authority>() {
            Ok(authority) if authority.port_u16().is_some() => {
                Ok(Self::Network(address.into(), framing))
            }
            _ => Err(wanted),
        }
    }
}

impl Link {
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Device(_) => Framing::Rtu,
            Self::Network(_, framing) => *framing,
        }
    }
}

#[derive(Deserialize)]
struct Keys {
    port: Link,
    #[serde(default = "default_baud", deserialize_with = "port::baud")]
    baud: u32,
    #[serde(default)]
    parity: Written,
    stop_bits: Option<Spanned<u8>>,
    #[serde(default = "default_timeout", deserialize_with = "timeout")]
    timeout: Duration,
    #[serde(default, deserialize_with = "gap")]
    gap: Option<Duration>,
}

/// A parity as it is written.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    #[default]
    None,
    Even,
    Odd,
}

fn default_baud() -> u32 {
    9600
}

fn default_timeout() -> Duration {
    Duration::from_secs(1)
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let timeout = period::deserialize(deserializer)?;
    let good = (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timeout);
    good.then_some(timeout).ok_or_else(|| de::Error::custom("expected 10 ms to 60 s"))
}

fn gap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let gap = period::deserialize(deserializer)?;
    let good = gap <= Duration::from_secs(10);
    good.then_some(Some(gap)).ok_or_else(|| de::Error::custom("expected at most 10 s"))
}

#[derive(Deserialize)]
struct DeviceKeys {
    unit: Spanned<u8>,
    name: Spanned<String>,
    profile: Option<Spanned<String>>,
    #[serde(default)]
    registers: Vec<Spanned<String>>,
}

impl Config {
    /// Reads what is left of a source's table; its rules were already taken out, and hold for each
    /// device that has none of its own.
    ///
    /// # Errors
    /// When a value is none that this version knows.
    pub fn read(
        section: &mut Section<'_>,
        rules: &Section<'_>,
        folder: &Folder,
    ) -> Result<Self, Fault> {
        let Keys { port, baud, parity, stop_bits, timeout, gap } = section.read()?;
        let link = match port {
            Link::Device(path) => Link::Device(folder.resolve(&path)),
            Link::Network(..) => port,
        };
        let parity = match parity {
            Written::None => Parity::None,
            Written::Even => Parity::Even,
            Written::Odd => Parity::Odd,
        };
        let stop_bits = match stop_bits.map(|bits| (*bits.get_ref(), bits)) {
            None | Some((1, _)) => StopBits::One,
            Some((2, _)) => StopBits::Two,
            Some((_, bits)) => return Err(Fault::at(&bits, "expected 1 or 2")),
        };
        let usual_gap = if link.framing() == Framing::Tcp { Duration::ZERO } else { GAP };
        let span = section.span();
        let mut devices: Vec<DeviceConfig> = Vec::new();
        for table in section.take_all("devices")? {
            let (name, device) = DeviceConfig::read(table, rules, &link)?;
            if devices.iter().any(|known| known.name == device.name) {
                return Err(Fault::at(&name, "another device here has this name"));
            }
            devices.push(device);
        }
        if devices.is_empty() {
            let why = "expected at least one [[modbus.devices]], with `unit` and `name`";
            return Err(Fault::in_span(span, why));
        }
        Ok(Self {
            link,
            line: Line { baud, parity, stop_bits },
            timeout,
            gap: gap.unwrap_or(usual_gap),
            devices,
        })
    }

    /// Returns the name of a source that has none of its own.
    #[must_use]
    pub fn usual_name(&self) -> String {
        match &self.link {
            Link::Device(path) => path.file_name().unwrap_or_default().to_string_lossy().into(),
            Link::Network(address, _) => address.clone(),
        }
    }
}

impl DeviceConfig {
    fn read(
        mut table: Section<'_>,
        rules: &Section<'_>,
        link: &Link,
    ) -> Result<(Spanned<String>, Self), Fault> {
        let span = table.span();
        let DeviceKeys { unit, name, profile, registers: lines } = table.read()?;
        let mut own = table.part::<Rules>();
        table.finish()?;
        own.inherit(rules);
        let mut rules: Rules = own.read()?;
        if *unit.get_ref() == 0 && link.framing() == Framing::Rtu {
            return Err(Fault::at(&unit, "0 asks all units of a line, and none answers"));
        }
        if !is_name(name.get_ref()) {
            let why = "expected a name of 1 to 128 bytes without control characters";
            return Err(Fault::at(&name, why));
        }
        let is_sunspec = profile.as_ref().is_some_and(|profile| profile.get_ref() == SUNSPEC);
        let mut registers = profile.filter(|_| !is_sunspec).map_or(Ok(Vec::new()), |profile| {
            let known = profile::registers(profile.get_ref());
            known.ok_or_else(|| {
                let names: Vec<_> = profile::names().chain([SUNSPEC]).collect();
                Fault::at(&profile, format!("expected one of {}", names.join(", ")))
            })
        })?;
        let mut metrics: BTreeSet<Arc<str>> =
            registers.iter().map(|register| register.metric.clone()).collect();
        for line in lines {
            let register: Register =
                line.get_ref().parse().map_err(|bad| Fault::at(&line, format!("{bad}")))?;
            if !metrics.insert(register.metric.clone()) {
                let why = format!("the device has another register `{}`", register.metric);
                return Err(Fault::at(&line, why));
            }
            registers.push(register);
        }
        if registers.is_empty() && !is_sunspec {
            return Err(Fault::in_span(span, "expected `profile` or `registers`"));
        }
        let every = rules.every.take().unwrap_or(EVERY).max(LEAST_EVERY);
        let unit = unit.into_inner();
        let device = Self {
            unit,
            name: name.get_ref().as_str().into(),
            every,
            rules,
            registers,
            is_sunspec,
        };
        Ok((name, device))
    }
}
