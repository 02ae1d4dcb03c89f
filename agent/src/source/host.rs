//! The gateway itself, as a device: processor, memory, disk, temperature.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use sysinfo::{Components, Disks, MemoryRefreshKind, System};
use tokio::time::{MissedTickBehavior, interval, sleep};
use valtronics_protocol::value::Value;

use super::outlet::Outlet;
use crate::{
    clock,
    config::{fault::Fault, section::Section},
    decode::Sample,
    normalize::{Normalizer, Rules},
};

/// How often, if nothing else is said.
const EVERY: Duration = Duration::from_secs(30);

/// The table `[host]`.
#[derive(Debug, Clone)]
pub struct Config {
    rules: Rules,
    /// The folder whose disk is watched.
    pub disk_of: PathBuf,
}

#[derive(Deserialize)]
struct Keys {}

impl Config {
    /// Reads what is left of the table; its rules were already taken out.
    ///
    /// # Errors
    /// When a value is none that this version knows.
    pub fn read(section: &mut Section<'_>, mut rules: Section<'_>) -> Result<Self, Fault> {
        let Keys {} = section.read()?;
        Ok(Self { rules: rules.read()?, disk_of: ".".into() })
    }
}

/// Looks at the gateway again and again.
pub async fn run(config: Config, mut outlet: Outlet) {
    let Config { mut rules, disk_of } = config;
    let every = rules.every.take().unwrap_or(EVERY).max(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
    let mut normalizer = Normalizer::new(rules, Arc::clone(&outlet.name));
    let Ok(mut system) = System::new() else {
        // Nobody is left to be told when the agent stops.
        let _ = outlet.offline("The system says nothing of itself").await;
        return;
    };
    system.refresh_cpu_usage();
    // The processor's load is that between two looks.
    sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL).await;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let disk_of = disk_of.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let samples = look(&mut system, &disk_of);
            (system, samples)
        });
        let Ok((looked_at, samples)) = looked.await else { return };
        system = looked_at;
        let now = clock::now();
        let readings = normalizer.readings(samples, now, &mut outlet.tally);
        if outlet.send(now, readings).await.is_err() {
            return;
        }
    }
}

fn look(system: &mut System, disk_of: &std::path::Path) -> Vec<Sample> {
    system.refresh_cpu_usage();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let rounded = |number: f64| Value::finite((number * 10.0).round() / 10.0);
    let percent = |part: u64, whole: u64| {
        (whole > 0).then(|| part as f64 * 100.0 / whole as f64).and_then(rounded)
    };
    let disks = Disks::new_with_refreshed_list();
    let folder = disk_of.canonicalize().unwrap_or_else(|_| disk_of.to_path_buf());
    let holds = |disk: &&sysinfo::Disk| folder.starts_with(disk.mount_point());
    let disk = disks.iter().flat_map(|disks| disks.iter()).filter(holds);
    let disk = disk.max_by_key(|disk| disk.mount_point().as_os_str().len());
    let used = |disk: &sysinfo::Disk| disk.total_space().saturating_sub(disk.available_space());
    let temperature = Components::new_with_refreshed_list()
        .iter()
        .flat_map(|components| components.iter())
        .filter_map(|component| component.temperature())
        .fold(None, |hottest: Option<f32>, next| Some(hottest.map_or(next, |h| h.max(next))));
    let load = System::load_average().ok();
    let figures = [
        ("cpu_usage", rounded(f64::from(system.global_cpu_usage())), Some("%")),
        ("memory_usage", percent(system.used_memory(), system.total_memory()), Some("%")),
        ("disk_usage", disk.and_then(|disk| percent(used(disk), disk.total_space())), Some("%")),
        ("load_1m", load.and_then(|load| Value::finite(load.one)), None),
        ("temperature", temperature.and_then(|t| rounded(f64::from(t))), Some("°C")),
        ("uptime", System::uptime().ok().map(Value::from), Some("s")),
    ];
    let sample = |(metric, value, unit): (&str, Option<Value>, Option<&str>)| {
        let unit = unit.map(Arc::from);
        let (metric, value) = (metric.into(), value?);
        Some(Sample { device: None, metric, value, unit, at: None, received: None })
    };
    figures.into_iter().filter_map(sample).collect()
}
