//! What can be asked of the program (programs, "valtronics-server").

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use valtronics_protocol::{reading::is_name, time::parse_period};
use valtronics_server::{
    app::{self, Signal},
    auth::Keys,
    clock,
    config::Config,
    listen, telemetry, watch,
};

/// Live telemetry, device status and alerts for WebSocket subscribers.
#[derive(Parser)]
#[command(name = "valtronics-server", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Serves (the default).
    Run(Run),
    /// Reads the configuration and says what is wrong with it.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Prints a token.
    Token(Token),
    /// Checks files of alert rules.
    Rules {
        #[command(subcommand)]
        command: Rules,
    },
    /// Prints live messages until Ctrl-C.
    Watch(watch::Args),
}

#[derive(Args)]
struct Run {
    /// The configuration; without one the server starts on its defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The address and port to listen on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where everything is kept.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Args)]
struct Token {
    /// Whom the token is for.
    #[arg(long)]
    sub: String,
    /// What it allows, separated by spaces; reading everything when left out.
    #[arg(long)]
    scope: Option<String>,
    /// Of which devices: ids and patterns of names, separated by commas.
    #[arg(long)]
    devices: Option<String>,
    /// For how long.
    #[arg(long, default_value = "30d", value_parser = parse_period)]
    ttl: Duration,
    /// The server's configuration.
    #[arg(long, conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The server's data directory.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Rules {
    /// Says what is wrong with them.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
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
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command.unwrap_or(Command::Run(self.run)) {
            Command::Run(run) => run.run(),
            Command::Check { config } => check(&config),
            Command::Token(token) => token.print(),
            Command::Rules { command: Rules::Check { files } } => check_rules(&files),
            Command::Watch(args) => Ok(runtime()?.block_on(watch::run(args))?),
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

impl Run {
    fn run(self) -> Result<(), Failure> {
        telemetry::init();
        listen::raise_descriptor_limit();
        let file = self.config.as_deref();
        let mut config = file.map_or_else(|| Ok(Config::default()), Config::load).map_err(usage)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.data_dir = self.data.unwrap_or(config.data_dir);
        // Mistakes in rules and keys are mistakes of configuration, too.
        app::load_rules(&config).map_err(usage)?;
        config.certificate().map_err(usage)?;
        let serve = async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let next_signal = async || {
                tokio::select! {
                    _ = terminate.recv() => Signal::Stop,
                    _ = interrupt.recv() => Signal::Stop,
                    _ = hangup.recv() => Signal::Reload,
                }
            };
            app::run(config, file, next_signal).await
        };
        Ok(runtime()?.block_on(serve)?)
    }
}

fn check(path: &std::path::Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(usage)?;
    app::load_rules(&config).map_err(usage)?;
    config.certificate().map_err(usage)?;
    if let Some(file) = &config.auth.hs256_secret_file {
        let (folder, data) = (&config.folder, &config.data_dir);
        Keys::load(&config.auth, folder, data, false)
            .map_err(|error| usage(format!("{}: {error}", folder.join(file).display())))?;
    }
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        eprintln!("warning: {}", app::PLAIN_BEYOND_LOOPBACK);
    }
    Ok(())
}

impl Token {
    fn print(self) -> Result<(), Failure> {
        if !is_name(&self.sub) {
            return Err(usage("--sub has 1 to 128 bytes and no control characters"));
        }
        let mut config = match &self.config {
            Some(path) => Config::load(path).map_err(usage)?,
            None => Config::default(),
        };
        config.data_dir = self.data.unwrap_or(config.data_dir);
        let keys = Keys::load(&config.auth, &config.folder, &config.data_dir, false);
        let keys = keys.map_err(usage)?;
        let devices: Option<Vec<serde_json::Value>> = self.devices.map(|devices| {
            let one = |text: &str| text.parse::<u64>().map_or_else(|_| text.into(), Into::into);
            devices.split(',').map(str::trim).map(one).collect()
        });
        let scope = self.scope.as_deref();
        let token = keys.mint(&self.sub, scope, devices.as_deref(), self.ttl, clock::now());
        println!("{}", token.map_err(anyhow::Error::from)?);
        Ok(())
    }
}

fn check_rules(files: &[PathBuf]) -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| usage(format!("{}: {error}", file.display())))?;
        if let Err(wrong) = valtronics_server::domain::rule::parse_file(&text) {
            mistakes.extend(
                wrong.into_iter().map(|(line, why)| format!("{}:{line}: {why}", file.display())),
            );
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(usage(mistakes.join("\n"))) }
}
