//! The agent's configuration: composed of each part's own, read from one TOML file.
//!
//! A mistake names file, line and key and says what would be right; then nothing starts.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, de::DeTable};
use valtronics_protocol::reading::is_name;

use crate::{queue, source, uplink};

pub mod fault;
pub mod folder;
pub mod section;
pub mod size;

use fault::{Fault, Mistakes};
use folder::Folder;
use section::Section;

/// The configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gateway's name.
    pub name: String,
    /// Where the agent keeps what survives.
    pub data_dir: PathBuf,
    /// The server; absent only where nothing is sent.
    pub uplink: Option<uplink::Config>,
    /// What waits for the server.
    pub queue: queue::Config,
    /// Where readings come from.
    pub sources: Vec<source::Config>,
}

#[derive(Deserialize)]
struct Keys {
    name: Option<Spanned<String>>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    queue: queue::Config,
}

/// Where the agent keeps what survives, if nothing else is said.
pub const DATA_DIR: &str = "/var/lib/valtronics-agent";

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Mistakes::unreadable(path, &error))?;
        Self::parse(&text, &Folder::of(path)).map_err(|faults| Mistakes::new(path, &text, faults))
    }

    fn parse(text: &str, folder: &Folder) -> Result<Self, Vec<Fault>> {
        let table = DeTable::parse(text).map_err(|error| {
            vec![Fault::in_span(error.span().unwrap_or_default(), error.message())]
        })?;
        let (mut file, mut faults) = (Section::file(table), Vec::new());
        let keys: Option<Keys> = file.read().map_err(|fault| faults.push(fault)).ok();
        let Keys { name, data_dir, queue } = keys.unwrap_or_else(|| Keys {
            name: None,
            data_dir: None,
            queue: queue::Config::default(),
        });
        if let Some(name) = name.as_ref().filter(|name| !is_name(name.get_ref())) {
            let why = "expected a name of 1 to 128 bytes without control characters";
            faults.push(Fault::at(name, why));
        }
        let name = name.map_or_else(host_name, Spanned::into_inner);
        let uplink = read_uplink(&mut file, folder).map_err(|fault| faults.push(fault));
        let sources = read_sources(&mut file, folder, &name, &mut faults);
        if let Err(fault) = file.finish() {
            faults.push(fault);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let data_dir = folder.resolve(&data_dir.unwrap_or_else(|| DATA_DIR.into()));
        Ok(Self { name, data_dir, uplink: uplink.unwrap_or_default(), queue, sources })
    }
}

fn read_uplink(file: &mut Section<'_>, folder: &Folder) -> Result<Option<uplink::Config>, Fault> {
    let Some(value) = file.take("uplink") else { return Ok(None) };
    let mut section = Section::of(value)?;
    let mut config: uplink::Config = section.read()?;
    section.finish()?;
    config.check(folder)?;
    Ok(Some(config))
}

fn read_sources(
    file: &mut Section<'_>,
    folder: &Folder,
    gateway: &str,
    faults: &mut Vec<Fault>,
) -> Vec<source::Config> {
    let mut sources: Vec<source::Config> = Vec::new();
    for kind in ["serial", "mqtt", "sparkplug", "modbus", "replay", "host"] {
        let tables = match kind {
            "host" => file.take("host").map_or(Ok(Vec::new()), |host| Ok(vec![Section::of(host)?])),
            _ => file.take_all(kind),
        };
        let tables = tables.unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        });
        for table in tables {
            match source::read(kind, table, folder, gateway) {
                Ok((name, config)) => {
                    if sources.iter().any(|known| known.name == config.name) {
                        let why = "another source has this name: give each its own `name`";
                        faults.push(Fault::at(&name, why));
                    }
                    sources.push(config);
                }
                Err(fault) => faults.push(fault),
            }
        }
    }
    sources
}

/// Returns the name of the machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_name(name) { name.to_owned() } else { "gateway".to_owned() }
}

#[cfg(test)]
mod tests;
