//! Opening a log: whatever the power cut left, what is whole is kept and what is lost is counted.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{
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

/// How far a log is known to have come, file by file.
#[derive(Debug, Default)]
struct Progress {
    /// The number after the last that was in it.
    end: Option<u64>,
    /// Where the numbering went on, if it is known to have jumped since.
    next: u64,
    losses: Vec<Loss>,
}

impl Progress {
    /// The log is known to have ended at `end`; what was not found up to there is lost.
    fn expect(&mut self, end: u64) {
        let found = self.end.unwrap_or(end);
        let first = found.max(self.next);
        if first < end {
            self.losses.push(Loss { first, last: end - 1 });
        }
        self.end = Some(found.max(end));
    }

    fn found(&mut self, end: u64) {
        self.end = Some(end);
    }
}

/// Reads what `log`'s folder holds; `end` is what the log is known to have reached.
pub(super) fn recover(log: &mut Log, end: u64) -> io::Result<Vec<Loss>> {
    let mut progress = Progress::default();
    for path in log.disk.list(&log.folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(log.lane) else { continue };
        if rest.ends_with(".spare") {
            log.disk.remove(&path).or_else(tolerate(&path))?;
        } else if let Some(Ok(first)) = rest.strip_prefix('-').map(str::parse) {
            take(log, &path, first, &mut progress);
        }
    }
    progress.expect(end);
    log.end = progress.end.unwrap_or(end);
    for Loss { first, last } in &progress.losses {
        warn!(lane = log.lane, first, last, "the disk has lost what was written");
    }
    forget_damaged(log)?;
    Ok(progress.losses)
}

/// A file that stays where it is does no harm.
fn tolerate(path: &Path) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| {
        warn!("{} cannot be removed: {error}", path.display());
        Ok(())
    }
}

/// Takes in one file, whose name says that it begins with `first`.
fn take(log: &mut Log, path: &Path, first: u64, progress: &mut Progress) {
    let read = log.disk.read(path).map_err(|_| Unreadable::Damaged);
    let read = read.and_then(|file| Header::read(&file).map(|header| (file, header)));
    let (file, header) = match read {
        Ok(read) => read,
        Err(why) => {
            set_aside(log, path, if why == Unreadable::Newer { "newer" } else { "damaged" });
            progress.end.get_or_insert(first);
            progress.next = first;
            return;
        }
    };
    let mut records = Records::of(&header);
    while let Some(record) = records.read(&file) {
        log.ages.note(record.first, record.received);
    }
    // What a failed sync may have left behind stands in the next file again.
    if let Some(before) = log.segments.back_mut().filter(|before| before.end > header.first) {
        before.end = header.first;
        progress.found(header.first);
    }
    progress.expect(header.before);
    progress.next = header.first;
    let is_empty = records.next == header.first;
    if !is_empty {
        progress.found(records.next);
    }
    if let Some(end) = records.end_beyond_damage(&file) {
        warn!("{} is damaged behind number {}", path.display(), records.next);
        copy_aside(log, path);
        progress.expect(end);
    }
    if is_empty {
        return drop(log.disk.remove(path).or_else(tolerate(path)));
    }
    let bytes = cut(log, path, file.len(), records.offset);
    let path: PathBuf = path.into();
    log.segments.push_back(Segment { path, header, end: records.next, bytes });
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

/// Removes the oldest damaged files beyond the limit, and counts what all that is set aside takes.
fn forget_damaged(log: &mut Log) -> io::Result<()> {
    let mut aside = log.disk.list(&log.folder)?;
    let lane = log.lane;
    aside.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(lane) && (name.ends_with(".damaged") || name.ends_with(".newer"))
    });
    let is_damaged = |path: &&PathBuf| path.extension().is_some_and(|why| why == "damaged");
    let mut beyond = aside.iter().filter(is_damaged).count().saturating_sub(DAMAGED);
    for path in &aside {
        if beyond > 0 && is_damaged(&path) {
            log.disk.remove(path)?;
            beyond -= 1;
        } else {
            log.aside_bytes += log.disk.size(path)?;
        }
    }
    Ok(())
}
