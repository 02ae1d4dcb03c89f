//! A disk for tests: it fails as it is told, and forgets on a power cut what was not synced.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing_syncs: u32,
    error: Option<io::ErrorKind>,
    free_bytes: Option<u64>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    path: PathBuf,
    offset: u64,
    before: Vec<u8>,
}

impl Faults {
    /// The next `count` syncs fail.
    pub(super) fn fail_syncs(&self, count: u32) {
        self.0.lock().unwrap().failing_syncs = count;
    }

    /// All changes fail from now on, or none any more.
    pub(super) fn fail_writes(&self, error: Option<io::ErrorKind>) {
        self.0.lock().unwrap().error = error;
    }

    /// How much room there seems to be.
    pub(super) fn set_free_bytes(&self, free: Option<u64>) {
        self.0.lock().unwrap().free_bytes = free;
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.0.lock().unwrap().free_bytes
    }

    pub(super) fn may_write(&self) -> io::Result<()> {
        self.0.lock().unwrap().error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    pub(super) fn before_write(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        let file = fs::File::open(path)?;
        let length = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap();
        before.truncate(length);
        file.read_exact_at(&mut before, offset)?;
        self.0.lock().unwrap().unsynced.push(Write { path: path.into(), offset, before });
        Ok(())
    }

    pub(super) fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(io::Error::other("told to fail"));
        }
        state.unsynced.retain(|write| write.path != path);
        Ok(())
    }

    /// Cuts the power: of each write that was not synced only the first `kept` bytes, in whole
    /// sectors or not, have arrived.
    pub(super) fn cut_power(&self, mut kept: impl FnMut(usize) -> usize) {
        for write in std::mem::take(&mut self.0.lock().unwrap().unsynced).into_iter().rev() {
            let kept = kept(write.before.len()).min(write.before.len());
            let file = fs::OpenOptions::new().write(true).open(&write.path);
            // A file that was renamed in the meantime was synced before.
            if let Ok(file) = file {
                file.write_all_at(&write.before[kept..], write.offset + kept as u64).unwrap();
            }
        }
    }
}
