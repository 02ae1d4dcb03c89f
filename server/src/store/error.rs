//! Why the store cannot do something.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// Another server uses the data directory.
    #[error("{}: another server uses this data directory", .0.display())]
    Locked(PathBuf),
    /// A newer version made the file.
    #[error(
        "the data directory was made by a newer version (format {found}, this one knows {known})"
    )]
    Newer {
        /// The format that was found.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The file is of another program.
    #[error("{}: not a file of this program", .0.display())]
    Foreign(PathBuf),
    /// What was stored cannot be read.
    #[error("what is stored is damaged: {0}")]
    Damaged(String),
    /// The disk or the system refuses.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The store's task has ended.
    #[error("the server stops")]
    Ended,
    /// Something else of the database.
    #[error("the database refuses: {0}")]
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Database(error),
        }
    }
}
