//! The folder of the configuration: paths in the file are relative to it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use toml::Spanned;

use super::fault::Fault;

/// The folder in which the configuration stands.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Takes the folder of `file`.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        Self(file.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// Returns `path` as seen from where the program runs.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.0.join(path)
    }

    /// Resolves `path` in place and checks that it can be read.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_readable(&self, path: &mut Spanned<PathBuf>) -> Result<(), Fault> {
        *path.get_mut() = self.resolve(path.get_ref());
        let shown = path.get_ref().display();
        let opened = File::open(path.get_ref()).and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_dir() => {
                Err(Fault::at(path, format!("{shown} is a folder; expected a file")))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::at(path, format!("cannot read {shown}: {error}"))),
        }
    }
}
