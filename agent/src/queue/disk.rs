//! The queue's file calls, all of them: what a test breaks, it breaks here.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The disk, or in tests one that fails as it is told.
#[derive(Debug, Clone, Default)]
pub(super) enum Disk {
    #[default]
    Real,
    #[cfg(test)]
    Faulty(std::sync::Arc<super::faults::Faults>),
}

/// A file that is written to.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    #[cfg_attr(not(test), expect(dead_code, reason = "names the file to a faulty disk"))]
    path: PathBuf,
    disk: Disk,
}

impl Disk {
    /// Makes the folder, if need be.
    pub(super) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.may_write()?;
        fs::create_dir_all(folder)
    }

    /// Returns the files of a folder by name, sorted.
    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        paths.sort();
        Ok(paths)
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    pub(super) fn size(&self, path: &Path) -> io::Result<u64> {
        fs::metadata(path).map(|metadata| metadata.len())
    }

    /// Opens a file for writing, making it where there is none.
    pub(super) fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.may_write()?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(DiskFile { file, path: path.into(), disk: self.clone() })
    }

    /// Makes a file of zeros: writing over blocks that are there costs no change of the file
    /// system's own records, which would double what reaches the flash.
    pub(super) fn create_zeroed(&self, path: &Path, bytes: usize) -> io::Result<()> {
        self.may_write()?;
        let mut file = File::create(path)?;
        let zeros = [0; 4096];
        for _ in 0..bytes.div_ceil(zeros.len()) {
            file.write_all(&zeros)?;
        }
        self.sync_all(&file)
    }

    /// Replaces a file as a whole: afterwards it holds either what it held before or `content`.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.may_write()?;
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        self.sync_all(&file)?;
        self.rename(&fresh, path)
    }

    /// Renames inside one folder, durably.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may_write()?;
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }

    /// Makes what was created, renamed or removed in a folder durable.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.may_write()?;
        self.sync_all(&File::open(folder)?)
    }

    pub(super) fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may_write()?;
        fs::copy(from, to).map(drop)
    }

    /// Cuts a file, durably.
    pub(super) fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.may_write()?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes)?;
        self.sync_all(&file)
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.may_write()?;
        fs::remove_file(path)
    }

    /// Returns how much room the file system has for us.
    pub(super) fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        #[cfg(test)]
        if let Self::Faulty(faults) = self
            && let Some(free) = faults.free_bytes()
        {
            return Ok(free);
        }
        let stat = rustix::fs::statvfs(folder)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        match self {
            Self::Real => file.sync_all(),
            // A test asks what survives of what it says was synced, not what this machine does.
            #[cfg(test)]
            Self::Faulty(_) => Ok(()),
        }
    }

    /// Says whether a test wants this change to fail.
    fn may_write(&self) -> io::Result<()> {
        match self {
            Self::Real => Ok(()),
            #[cfg(test)]
            Self::Faulty(faults) => faults.may_write(),
        }
    }
}

impl DiskFile {
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Disk::Faulty(faults) = &self.disk {
            faults.before_write(&self.path, bytes, offset)?;
        }
        self.disk.may_write()?;
        self.file.write_all_at(bytes, offset)
    }

    /// Waits until what was written is on the disk. After a failure nobody knows what is, so it is
    /// never tried again on this file.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.disk {
            Disk::Real => self.file.sync_data(),
            #[cfg(test)]
            Disk::Faulty(faults) => faults.sync(&self.path),
        }
    }
}

/// Takes the lock that tells two agents on one folder apart; it goes with the process.
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
