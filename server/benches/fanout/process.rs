//! What a process, or a thread, has used, as the kernel counts it.

use std::path::{Path, PathBuf};

/// How many of the kernel's ticks make a second, in what it tells programs (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// A folder of `/proc`.
pub(crate) struct Process(PathBuf);

impl Process {
    /// Names a process.
    pub(crate) fn new(id: u32) -> Self {
        Self(format!("/proc/{id}").into())
    }

    /// Names the thread that asks.
    pub(crate) fn this_thread() -> Self {
        let thread = std::fs::read_link("/proc/thread-self").expect("this is Linux");
        Self(Path::new("/proc").join(thread))
    }

    /// Returns its processor time so far, in seconds: its own and the kernel's for it.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = self.read("stat");
        // The name before it may hold anything but this.
        let (_, fields) = stat.rsplit_once(')').expect("a name ends");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
    }

    /// Returns how much memory it holds.
    pub(crate) fn rss_mib(&self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("it holds some") / 1024
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).expect("it lives")
    }
}
