//! The file and its tables. A migration that shipped never changes.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Tells our files from others' (`Valt`).
const APPLICATION_ID: u32 = 0x5661_6c74;

/// The file's name.
const FILE: &str = "valtronics.db";

/// What leads from each version of the tables to the next.
const MIGRATIONS: [&str; 7] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('log', lower(hex(randomblob(8))));
    CREATE TABLE devices (
        id INTEGER PRIMARY KEY,
        sub TEXT NOT NULL,
        name TEXT NOT NULL,
        gateway TEXT,
        created_at INTEGER NOT NULL,
        status TEXT,
        UNIQUE (sub, name)
    );
    CREATE TABLE metrics (
        device INTEGER NOT NULL REFERENCES devices,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        unit TEXT NOT NULL,
        PRIMARY KEY (device, position)
    ) WITHOUT ROWID;
    CREATE TABLE queues (
        sub TEXT NOT NULL,
        queue TEXT NOT NULL,
        lane INTEGER NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (sub, queue, lane)
    ) WITHOUT ROWID;
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY,
        received_at INTEGER NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        count INTEGER NOT NULL,
        rows BLOB NOT NULL
    );
    CREATE TABLE last_values (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        upto INTEGER NOT NULL,
        rows BLOB NOT NULL
    );
    CREATE TABLE events (
        channel INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        announces INTEGER,
        had INTEGER,
        json TEXT NOT NULL,
        PRIMARY KEY (channel, seq)
    ) WITHOUT ROWID;
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY,
        resolved INTEGER NOT NULL,
        had INTEGER NOT NULL,
        json TEXT NOT NULL
    );
    CREATE INDEX open_alerts ON alerts (id) WHERE NOT resolved;
    CREATE TABLE rules (name TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
",
    "
    CREATE INDEX journal_by_receipt ON journal (received_at);
    ALTER TABLE alerts ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    UPDATE alerts SET seq = json ->> '$.seq';
    CREATE INDEX resolved_alerts ON alerts (seq) WHERE resolved;
",
    "
    CREATE TABLE agents (
        id INTEGER PRIMARY KEY,
        sub TEXT NOT NULL,
        kind INTEGER NOT NULL,
        name TEXT NOT NULL,
        json TEXT NOT NULL,
        UNIQUE (sub, kind, name)
    );
    CREATE TABLE agent_sums (
        id INTEGER PRIMARY KEY,
        last_seen INTEGER NOT NULL,
        received INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        duplicated INTEGER NOT NULL,
        expired INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        events_received INTEGER NOT NULL,
        events_duplicated INTEGER NOT NULL
    );
    CREATE TABLE used_keys (
        sub TEXT NOT NULL,
        key BLOB NOT NULL,
        body BLOB NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (sub, key)
    ) WITHOUT ROWID;
    CREATE INDEX used_keys_by_time ON used_keys (at);
    ALTER TABLE queues ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
    UPDATE queues SET seen_at = unixepoch() * 1000;
",
    "
    CREATE TABLE watches (
        rule TEXT NOT NULL,
        device INTEGER NOT NULL,
        json TEXT NOT NULL,
        PRIMARY KEY (rule, device)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE gaps (
        id INTEGER PRIMARY KEY,
        device INTEGER NOT NULL REFERENCES devices,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        reason TEXT NOT NULL,
        committed_at INTEGER NOT NULL
    );
    CREATE INDEX gaps_of_device ON gaps (device, last_at);
    CREATE TABLE queue_machines (
        sub TEXT NOT NULL,
        queue TEXT NOT NULL,
        machine TEXT NOT NULL,
        PRIMARY KEY (sub, queue)
    ) WITHOUT ROWID;
",
    "
    CREATE INDEX journal_by_time ON journal (last_at, first_at, received_at);
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        device INTEGER NOT NULL,
        hour INTEGER NOT NULL,
        part INTEGER NOT NULL,
        upto INTEGER NOT NULL,
        first_arrived INTEGER NOT NULL,
        last_arrived INTEGER NOT NULL,
        count INTEGER NOT NULL,
        readings BLOB NOT NULL,
        minutes BLOB NOT NULL
    );
    CREATE INDEX chunks_by_device
        ON chunks (device, hour, part, upto, first_arrived, last_arrived);
    CREATE INDEX chunks_by_hour ON chunks (hour);
    CREATE INDEX chunks_by_arrival ON chunks (last_arrived, first_arrived);
    CREATE TABLE merges (
        device INTEGER NOT NULL,
        hour INTEGER NOT NULL,
        part INTEGER NOT NULL,
        PRIMARY KEY (device, hour, part)
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE journal ADD COLUMN marks BLOB;
    ALTER TABLE last_values ADD COLUMN marks BLOB;
",
];

/// Makes the data directory and holds it for this process alone.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let at = |error| StoreError::Io { path: dir.to_path_buf(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    let file = private(&dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_path_buf())),
        Err(std::fs::TryLockError::Error(error)) => Err(at(error)),
    }
}

/// Opens a file, or makes it, for the server's user alone.
fn private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::Io { path: path.to_path_buf(), error })
}

/// Opens the file and brings its tables up to date.
pub(super) fn open(dir: &Path) -> Result<Connection, StoreError> {
    migrate_to(dir, MIGRATIONS.len())
}

/// Opens a file that there is, to read it.
pub(super) fn open_to_read(dir: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(dir.join(FILE), flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(db) }
}

/// Opens the file and brings its tables to a version at least.
pub(super) fn migrate_to(dir: &Path, target: usize) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    // SQLite would let everybody read it; its other files take over these rights.
    drop(private(&path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(&path, flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let version: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let pages: u32 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // These cannot be changed once there is a table.
        db.pragma_update(None, "page_size", 4096)?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    let application: u32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(StoreError::Foreign(path));
    }
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if version > known {
        return Err(StoreError::Newer { found: version, known });
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    let steps = MIGRATIONS.iter().zip(1_u32..).take(target).skip(version as usize);
    for (migration, to) in steps {
        let transaction = db.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", to)?;
        transaction.commit()?;
    }
    Ok(db)
}
