//! What can be asked of the program (programs, "valtronics-agent").

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use valtronics_agent::{
    app::{self, Signal},
    clock,
    config::{Config, DATA_DIR},
    decode::{Decoder, Format, csv::Csv, dsmr::Dsmr, guess::Guess, nmea::Nmea, vedirect::Vedirect},
    normalize::{Normalizer, Rules},
    status,
    tally::Tally,
    telemetry,
};

/// Reads sensors, keeps every reading, streams it to the server.
#[derive(Parser)]
#[command(name = "valtronics-agent", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Record the raw bytes of all sources in this file.
    #[arg(long)]
    capture: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Reads, keeps and sends (the default).
    Run(Files),
    /// Reads the configuration and says what is wrong with it; opens and sends nothing.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Prints the readings as they would be sent, and sends nothing.
    Try {
        #[command(flatten)]
        files: Files,
        /// Only this source.
        source: Option<String>,
    },
    /// Says what the running agent has read, queued, sent, had acknowledged, and dropped why.
    Status {
        /// The configuration; without it the agent of the usual data directory is asked.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads bytes and prints readings.
    Decode {
        /// How the lines are written.
        #[arg(long)]
        format: Named,
        /// The pattern of format `pattern`.
        #[arg(long)]
        pattern: Option<String>,
        /// The bytes; standard input when left out.
        file: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Files {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// Record the raw bytes of all sources in this file.
    #[arg(long)]
    capture: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    /// A JSON object a line.
    Json,
    /// Columns.
    Csv,
    /// Labels and values.
    Kv,
    /// As --pattern says.
    Pattern,
    /// Sentences of NMEA 0183.
    Nmea,
    /// Blocks of VE.Direct.
    Vedirect,
    /// Telegrams of DSMR P1.
    Dsmr,
    /// Found out from the first lines.
    Guess,
}

/// Why the program ends badly.
pub(crate) enum Failure {
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// It failed: exit code 1.
    Run(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}

fn usage(error: impl ToString) -> Failure {
    Failure::Usage(error.to_string())
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Self { command, config, capture } = self;
        let command = match (command, config) {
            (Some(command), _) => command,
            (None, Some(config)) => Command::Run(Files { config, capture }),
            (None, None) => return Err(usage("--config FILE is needed; --help tells more")),
        };
        match command {
            Command::Run(files) => run(&files),
            Command::Check { config } => Config::load(&config).map(drop).map_err(usage),
            Command::Try { files, source } => try_sources(&files, source.as_deref()),
            Command::Status { config, json } => status(config.as_deref(), json),
            Command::Decode { format, pattern, file } => {
                let format = match (format, pattern) {
                    (Named::Json, None) => Format::Json,
                    (Named::Csv, None) => Format::Csv(Csv::new(&[])),
                    (Named::Kv, None) => Format::Kv,
                    (Named::Nmea, None) => Format::Nmea(Nmea::default()),
                    (Named::Vedirect, None) => Format::Vedirect(Vedirect::default()),
                    (Named::Dsmr, None) => Format::Dsmr(Dsmr::default()),
                    (Named::Guess, None) => Format::Guess(Guess::default()),
                    (Named::Pattern, Some(pattern)) => {
                        Format::Pattern(pattern.parse().map_err(usage)?)
                    }
                    (Named::Pattern, None) => return Err(usage("--pattern PATTERN is needed")),
                    (_, Some(_)) => return Err(usage("--pattern goes with --format pattern only")),
                };
                Ok(decode(format, file)?)
            }
        }
    }
}

fn run(files: &Files) -> Result<(), Failure> {
    let config = Config::load(&files.config).map_err(usage)?;
    if config.uplink.is_none() {
        return Err(usage(format!(
            "{}: [uplink] is missing: nowhere to send to",
            files.config.display()
        )));
    }
    telemetry::start();
    runtime()?.block_on(async {
        let signals = signals()?;
        app::run(config, &files.config, files.capture.as_deref(), signals).await
    })?;
    Ok(())
}

fn try_sources(files: &Files, source: Option<&str>) -> Result<(), Failure> {
    let config = Config::load(&files.config).map_err(usage)?;
    let names: Vec<&str> = config.sources.iter().map(|source| &*source.name).collect();
    if let Some(unknown) = source.filter(|source| !names.contains(source)) {
        let known = names.join(", ");
        return Err(usage(format!("there is no source \"{unknown}\"; there are: {known}")));
    }
    telemetry::start();
    runtime()?.block_on(async {
        let signals = signals()?;
        app::try_sources(config, source, files.capture.as_deref(), signals).await
    })?;
    Ok(())
}

fn status(config: Option<&Path>, json: bool) -> Result<(), Failure> {
    let data_dir = match config {
        Some(file) => Config::load(file).map_err(usage)?.data_dir,
        None => DATA_DIR.into(),
    };
    let report = runtime()?.block_on(status::ask(&data_dir)).map_err(anyhow::Error::from)?;
    let text = if json {
        serde_json::to_string(&report).map_err(anyhow::Error::from)? + "\n"
    } else {
        report.to_string()
    };
    // Who closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// One thread is enough for a gateway, and costs the least.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn signals() -> anyhow::Result<impl AsyncFnMut() -> Signal> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move || {
        tokio::select! {
            _ = terminate.recv() => Signal::Stop,
            _ = interrupt.recv() => Signal::Stop,
            _ = hangup.recv() => Signal::Reload,
        }
    })
}

/// How much is decoded at once.
const PIECE: usize = 64 * 1024;

fn decode(format: Format, file: Option<PathBuf>) -> anyhow::Result<()> {
    let device: Arc<str> = file
        .as_ref()
        .and_then(|path| path.file_stem())
        .map_or_else(|| "stdin".into(), |stem| stem.to_string_lossy().into());
    let mut input: Box<dyn std::io::Read> = match file {
        Some(path) => Box::new(std::fs::File::open(path)?),
        None => Box::new(std::io::stdin()),
    };
    let (mut decoder, mut tally) = (Decoder::new(format, None), Tally::default());
    let mut normalizer = Normalizer::new(Rules::default(), device);
    let (mut piece, mut samples) = (vec![0; PIECE], Vec::new());
    loop {
        let count = input.read(&mut piece)?;
        let now = clock::now();
        match piece.get(..count) {
            Some(bytes) if count > 0 => decoder.feed(bytes, now, &mut samples),
            _ => decoder.finish(&mut samples),
        }
        for reading in normalizer.readings(samples.drain(..), now, &mut tally) {
            println!("{}", serde_json::to_string(&reading)?);
        }
        if count == 0 {
            break;
        }
    }
    let counts = decoder.counts();
    eprintln!("{} good, {} damaged, {} foreign", counts.good, counts.damaged, counts.foreign);
    Ok(())
}
