//! Opening a log: whatever the power cut left, what is whole is kept and what is lost is counted.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{
    disk::Disk,
    log::{Log, Segment},
    segment::{Header, Records, Unreadable},
};

/// The most files of a lane that are set aside as damaged, for whoever wants to look at them.
const DAMAGED: usize = 4;

/// The numbers that were in the log once and are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Reads what `log`'s folder holds; `end` is what the log is known to have reached.
pub(super) fn recover(log: &mut Log, end: u64) -> io::Result<Vec<Loss>> {
    let (mut losses, mut reached) = (Vec::new(), None);
    for path in log.disk.list(&log.folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(log.lane) else { continue };
        match (rest.strip_prefix('-').map(str::parse), rest.rsplit_once('.')) {
            (Some(Ok(first)), _) => take(log, &path, first, &mut reached, &mut losses),
            (_, Some((_, "spare"))) => drop(log.disk.remove(&path)),
            _ => log.aside_bytes += log.disk.size(&path)?,
        }
    }
    let reached = reached.unwrap_or(end);
    lost(&mut losses, reached, end);
    log.end = reached.max(end);
    for Loss { first, last } in &losses {
        warn!(lane = log.lane, first, last, "the disk has lost what was written");
    }
    forget_damaged(log)?;
    Ok(losses)
}

/// Takes in one file, whose name says that it begins with `first`; the log so far has `reached`.
fn take(log: &mut Log, path: &Path, first: u64, reached: &mut Option<u64>, losses: &mut Vec<Loss>) {
    let file = log.disk.read(path);
    let header = match &file {
        Ok(file) => Header::read(file).ok(),
        Err(_) => None,
    };
    let (Ok(file), Some(header)) = (&file, header) else {
        let is_newer = file.is_ok_and(|file| matches!(Header::read(&file), Err(Unreadable::Newer)));
        set_aside(log, path, if is_newer { "newer" } else { "damaged" });
        reached.get_or_insert(first);
        return;
    };
    let mut records = Records::of(&header);
    while records.read(file).is_some() {}
    // What a failed sync may have left behind stands in the next file again.
    if let Some(before) = log.segments.back_mut().filter(|before| before.end > header.first) {
        before.end = header.first;
        *reached = Some(header.first);
    }
    lost(losses, reached.unwrap_or(header.before), header.before);
    *reached = Some(records.next);
    if let Some(beyond) = records.end_beyond_damage(file) {
        warn!("{} is damaged behind number {}", path.display(), records.next);
        copy_aside(log, path);
        lost(losses, records.next, beyond);
        *reached = Some(beyond);
    }
    if records.next == header.first {
        return drop(log.disk.remove(path));
    }
    let bytes = cut(log, path, file.len(), records.offset);
    let path: PathBuf = path.into();
    log.segments.push_back(Segment { path, header, end: records.next, bytes });
}

fn lost(losses: &mut Vec<Loss>, from: u64, until: u64) {
    if from < until {
        losses.push(Loss { first: from, last: until - 1 });
    }
}

/// Gives back the room behind the last record, so that many starts do not fill the queue, and
/// returns what the file takes.
fn cut(log: &Log, path: &Path, size: usize, used: usize) -> u64 {
    let slack = size - used;
    if slack > log.segment_bytes / 4 {
        match log.disk.truncate(path, used as u64) {
            Ok(()) => return (used as u64).next_multiple_of(4096),
            Err(error) => warn!("{} cannot be cut: {error}", path.display()),
        }
    }
    size as u64
}

/// Renames a file that cannot be used, so that nothing is lost that somebody could still read.
pub(super) fn set_aside(log: &Log, path: &Path, why: &str) {
    let aside = path.with_extension(why);
    match log.disk.rename(path, &aside) {
        Ok(()) => warn!("{} is {why} and set aside", path.display()),
        Err(error) => warn!("{} is {why} and cannot be set aside: {error}", path.display()),
    }
}

fn copy_aside(log: &Log, path: &Path) {
    if let Err(error) = log.disk.copy(path, &path.with_extension("damaged")) {
        warn!("{} cannot be copied: {error}", path.display());
    }
}

/// Removes the oldest damaged files beyond the limit, and counts what the others take.
fn forget_damaged(log: &mut Log) -> io::Result<()> {
    let damaged = aside(&log.disk, &log.folder, log.lane)?;
    let beyond = damaged.len().saturating_sub(DAMAGED);
    for path in damaged.iter().take(beyond) {
        log.disk.remove(path)?;
    }
    log.aside_bytes = 0;
    for path in damaged.iter().skip(beyond) {
        log.aside_bytes += log.disk.size(path)?;
    }
    Ok(())
}

fn aside(disk: &Disk, folder: &Path, lane: &str) -> io::Result<Vec<PathBuf>> {
    let is_damaged = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(lane) && name.ends_with(".damaged")
    };
    Ok(disk.list(folder)?.into_iter().filter(is_damaged).collect())
}
