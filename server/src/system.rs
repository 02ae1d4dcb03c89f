//! The state of the server's host, sampled when somebody wants it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sysinfo::{Disks, MemoryRefreshKind, System};
use tokio::sync::Notify;

use crate::{
    clock,
    engine::{EngineHandle, Input},
    hub::SystemSample,
};

/// The processor's load is measured over at least this long.
const SPAN: Duration = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

/// Samples the host each time it is woken, until the engine has ended.
///
/// # Errors
/// When the system says nothing of itself.
pub async fn run(
    data_dir: PathBuf,
    wake: Arc<Notify>,
    engine: EngineHandle,
) -> Result<(), sysinfo::Error> {
    let started_at = clock::instant();
    let mut system = System::new()?;
    system.refresh_cpu_usage();
    loop {
        wake.notified().await;
        // The load since the last sample may be that of hours ago.
        system.refresh_cpu_usage();
        tokio::time::sleep(SPAN).await;
        let dir = data_dir.clone();
        let sampled = tokio::task::spawn_blocking(move || {
            system.refresh_cpu_usage();
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            let sample = sample(&system, &dir);
            (system, sample)
        });
        let (sampled_system, mut sample) = sampled.await.expect("sampling does not panic");
        system = sampled_system;
        sample.uptime_seconds = clock::instant().duration_since(started_at).as_secs();
        if engine.send(Input::System(sample)).await.is_err() {
            return Ok(());
        }
    }
}

fn sample(system: &System, data_dir: &std::path::Path) -> SystemSample {
    let percent = |part: u64, whole: u64| {
        if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
    };
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_path_buf());
    let disks = Disks::new_with_refreshed_list();
    let disks = disks.iter().flat_map(|disks| disks.iter());
    // The longest mount point that holds the folder is the disk's.
    let holds = |disk: &&sysinfo::Disk| data_dir.starts_with(disk.mount_point());
    let disk = disks.filter(holds).max_by_key(|disk| disk.mount_point().as_os_str().len());
    let disk_usage = disk.map_or(0.0, |disk| {
        percent(disk.total_space().saturating_sub(disk.available_space()), disk.total_space())
    });
    SystemSample {
        cpu_usage: f64::from(system.global_cpu_usage()),
        memory_usage: percent(system.used_memory(), system.total_memory()),
        disk_usage,
        memory_total: system.total_memory(),
        load_average: System::load_average().map_or(0.0, |load| load.one),
        ..SystemSample::default()
    }
}
