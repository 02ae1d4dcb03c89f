//! A recorded file, played as if it came in now.
//!
//! A recording of `--capture` is played at its pace; any other file is text lines, one each
//! `interval`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, BufReader},
    time::sleep_until,
};
use toml::Spanned;
use tracing::{info, warn};

use super::{
    capture::{self, Record},
    lines::{self, Lines},
    outlet::{Outlet, Stopping},
};
use crate::{
    clock,
    config::{fault::Fault, folder::Folder, section::Section},
};

/// How long a player that loops waits at the end of a file that holds nothing.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);

/// A table `[[replay]]`.
#[derive(Debug, Clone)]
pub struct Config {
    file: PathBuf,
    speed: f64,
    interval: Duration,
    repeat: bool,
    lines: lines::Config,
}

#[derive(Deserialize)]
struct Keys {
    file: Spanned<PathBuf>,
    speed: Option<Spanned<f64>>,
    #[serde(default, with = "valtronics_protocol::time::optional_period")]
    interval: Option<Duration>,
    #[serde(default, rename = "loop")]
    repeat: bool,
}

impl Config {
    /// Reads what is left of a source's table; its rules were already taken out.
    ///
    /// # Errors
    /// When a value is none that this version knows, or the file cannot be read.
    pub fn read(
        section: &mut Section<'_>,
        rules: Section<'_>,
        folder: &Folder,
    ) -> Result<Self, Fault> {
        let Keys { mut file, speed, interval, repeat } = section.read()?;
        folder.check_readable(&mut file)?;
        if let Some(speed) = &speed
            && !(0.001..=1000.0).contains(speed.get_ref())
        {
            return Err(Fault::at(speed, "expected a speed of 0.001 to 1000"));
        }
        Ok(Self {
            file: file.into_inner(),
            speed: speed.map_or(1.0, Spanned::into_inner),
            interval: interval.unwrap_or(Duration::from_secs(1)),
            repeat,
            lines: lines::Config::read(section, rules)?,
        })
    }

    /// Returns the name of a source that has none of its own: that of the file.
    #[must_use]
    pub fn usual_name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into()
    }
}

/// Plays the file, once or again and again.
pub async fn run(config: Config, mut outlet: Outlet) {
    let mut lines = Lines::new(&config.lines, outlet.name.clone());
    loop {
        let played = match play(&config, &mut lines, &mut outlet).await {
            Ok(played) => played,
            Err(Ended::Stopping) => return,
            Err(Ended::File(error)) => {
                let reason = format!("Recording unreadable: {error}");
                // Nobody is left to be told when the agent stops.
                let _ = outlet.offline(&reason).await;
                return;
            }
        };
        if !config.repeat {
            info!(source = %outlet.name, "the recording is at its end");
            let _ = outlet.offline("Recording at its end").await;
            return;
        }
        if !played {
            tokio::time::sleep(EMPTY_PAUSE).await;
        }
        lines.restart();
    }
}

enum Ended {
    Stopping,
    File(std::io::Error),
}

impl From<Stopping> for Ended {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

/// Plays the file once; returns whether it holds anything.
async fn play(config: &Config, lines: &mut Lines, outlet: &mut Outlet) -> Result<bool, Ended> {
    let begin = clock::monotonic();
    let mut file = BufReader::new(open(&config.file).await?);
    let (mut line, mut played, mut recorded) = (Vec::new(), 0_u32, false);
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).await? == 0 {
            lines.finish(outlet).await?;
            return Ok(played > 0);
        }
        let text = String::from_utf8_lossy(&line);
        if played == 0 && !recorded && capture::is_header(&text) {
            recorded = true;
            continue;
        }
        let (after, bytes) = if recorded {
            let record = serde_json::from_str::<Record>(&text).ok();
            let Some(bytes) = record.as_ref().and_then(Record::bytes) else {
                warn!(source = %outlet.name, "the recording holds a damaged line");
                continue;
            };
            let after = record.as_ref().map_or(0, |record| record.ms);
            (Duration::from_millis(after), bytes.into_owned())
        } else {
            (config.interval * played, line.clone())
        };
        sleep_until(begin + after.div_f64(config.speed)).await;
        lines.feed(&bytes, outlet).await?;
        played = played.saturating_add(1);
    }
}

async fn open(path: &Path) -> std::io::Result<File> {
    File::open(path).await
}
