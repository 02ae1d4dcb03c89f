//! Keeps a timeline over restarts of the agent, for as long as the machine is up.
//!
//! After a restart of the machine its clocks have nothing to do with those of before. So a power cut
//! takes nothing that would be missed, and nothing waits for the disk.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Stretch, Timeline};

/// The file in the agent's data directory.
const FILE: &str = "clock.json";

/// Where a timeline is written down.
#[derive(Debug)]
pub struct Notebook {
    folder: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Page<'a> {
    boot_id: String,
    queue: String,
    stretches: std::borrow::Cow<'a, VecDeque<Stretch>>,
}

impl Notebook {
    /// Names the data directory, and what changes with every start of the machine; without that
    /// nothing is read or written.
    #[must_use]
    pub fn new(folder: &Path, boot_id: &str) -> Self {
        Self { folder: folder.into(), boot_id: boot_id.into() }
    }

    /// Returns the timeline of a queue; an empty one if none of this start is to be found.
    #[must_use]
    pub fn read(&self, queue: &str) -> Timeline {
        let page = fs::read(self.folder.join(FILE)).ok();
        let page = page.and_then(|page| serde_json::from_slice::<Page<'_>>(&page).ok());
        let is_ours =
            |page: &Page<'_>| self.is_used() && page.boot_id == self.boot_id && page.queue == queue;
        let stretches = page.filter(is_ours).map(|page| page.stretches.into_owned());
        Timeline { stretches: stretches.unwrap_or_default(), start: None }
    }

    /// Writes the timeline of a queue down.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, queue: &str, timeline: &Timeline) -> io::Result<()> {
        if !self.is_used() {
            return Ok(());
        }
        let stretches = std::borrow::Cow::Borrowed(&timeline.stretches);
        let (boot_id, queue) = (self.boot_id.clone(), queue.to_owned());
        let page = serde_json::to_vec(&Page { boot_id, queue, stretches })?;
        fs::create_dir_all(&self.folder)?;
        let unfinished = self.folder.join(format!("{FILE}.new"));
        fs::write(&unfinished, page)?;
        fs::rename(unfinished, self.folder.join(FILE))
    }

    fn is_used(&self) -> bool {
        !self.boot_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use valtronics_protocol::time::UnixMillis;

    use super::*;

    #[test]
    fn a_timeline_outlives_the_agent_and_not_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let notebook = Notebook::new(&folder, "boot");
        let mut timeline = notebook.read("q");
        assert!(timeline.note(UnixMillis(5), Duration::ZERO, (1, 1)));
        notebook.write("q", &timeline).unwrap();
        let kept =
            |boot: &str, queue: &str| Notebook::new(&folder, boot).read(queue).stretches.len();
        assert_eq!(kept("boot", "q"), 1);
        assert_eq!((kept("another", "q"), kept("boot", "another"), kept("", "q")), (0, 0, 0));
        let mut goes_on = notebook.read("q");
        assert!(!goes_on.note(UnixMillis(6), Duration::ZERO, (9, 1)));
        fs::write(folder.join(FILE), "{").unwrap();
        assert_eq!(kept("boot", "q"), 0);
    }

    #[test]
    fn a_machine_that_does_not_tell_its_starts_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Notebook::new(dir.path(), "").write("q", &Timeline::default()).unwrap();
        assert!(!dir.path().join(FILE).exists());
    }
}
