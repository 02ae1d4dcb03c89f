//! Room on the disk that is kept for when it is full: then it is let go, and what has to be said of
//! that (status events, alerts) still finds room.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

/// How much is kept: events of some thousand bytes each for hours.
const BYTES: u64 = 8 * 1024 * 1024;
/// How much has to be free before it is kept again: what is taken must not fill the disk at once.
const FREE: u64 = 4 * BYTES;

/// The room, as a file.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    there: bool,
    /// It was let go and is not there again.
    missed: bool,
}

impl Ballast {
    /// Takes the room in a folder, if there is enough.
    pub(super) fn new(dir: &Path) -> Self {
        let mut ballast = Self { path: dir.join("ballast"), there: false, missed: false };
        ballast.there = ballast.path.metadata().is_ok_and(|file| file.len() == BYTES);
        ballast.take();
        ballast
    }

    /// Tells whether the room is in use.
    pub(super) fn is_missed(&self) -> bool {
        self.missed
    }

    /// Gives the room back; true when there was any.
    pub(super) fn let_go(&mut self) -> bool {
        let gone = std::mem::take(&mut self.there) && std::fs::remove_file(&self.path).is_ok();
        self.missed |= gone;
        gone
    }

    /// Takes the room again, once there is enough.
    pub(super) fn take(&mut self) {
        let folder = self.path.parent().unwrap_or(&self.path);
        let free = |fs: rustix::fs::StatVfs| fs.f_bavail.saturating_mul(fs.f_frsize);
        if self.there || !statvfs(folder).is_ok_and(|fs| free(fs) >= FREE) {
            return;
        }
        self.there = self.fill().is_ok();
        if self.there {
            self.missed = false;
        } else {
            // Half of it helps nobody, and the next attempt begins anew anyway.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn fill(&self) -> io::Result<()> {
        let options =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = options.open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // Some file systems know no reservation.
            Err(Errno::OPNOTSUPP) => {
                io::copy(&mut io::Read::take(io::repeat(0), BYTES), &mut file).map(drop)
            }
            reserved => Ok(reserved?),
        }
    }
}
