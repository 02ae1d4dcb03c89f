//! What can be asked of the program (programs, "valtronics-server").

use std::{io::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use valtronics_protocol::{reading::is_name, time::parse_period};
use valtronics_server::{
    app::{self, Signal},
    clock,
    commit::AlertDraft,
    config::Config,
    listen, moment,
    rehearsal::Rehearsal,
    rule_files,
    store::past,
    telemetry, watch,
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
    /// Prints the alerts that they would have raised: time, rule, device, severity, status, value.
    Test {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The server's configuration.
        #[arg(long, conflicts_with = "data")]
        config: Option<PathBuf>,
        /// The server's data directory.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Since when: RFC 3339, or so long ago.
        #[arg(long, default_value = "-7d", allow_hyphen_values = true)]
        from: String,
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
            Command::Rules { command: Rules::Check { files } } => {
                rule_files::read(&files).map(drop).map_err(usage)
            }
            Command::Rules { command: Rules::Test { files, config, data, from } } => {
                test_rules(&files, config.as_deref(), data, &from)
            }
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
        rule_files::read(&config.rule_files().map_err(usage)?).map_err(usage)?;
        config.keys(true).map_err(usage)?;
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
    rule_files::read(&config.rule_files().map_err(usage)?).map_err(usage)?;
    config.keys(false).map_err(usage)?;
    config.certificate().map_err(usage)?;
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
        let keys = config.keys(false).map_err(usage)?;
        let devices: Option<Vec<serde_json::Value>> = self.devices.map(|devices| {
            let one = |text: &str| text.parse::<u64>().map_or_else(|_| text.into(), Into::into);
            devices.split(',').map(str::trim).map(one).collect()
        });
        let scope = self.scope.as_deref();
        let token = keys.mint(&self.sub, scope, devices.as_deref(), self.ttl, clock::now());
        println!("{}", token.map_err(usage)?);
        Ok(())
    }
}

fn test_rules(
    files: &[PathBuf],
    config: Option<&std::path::Path>,
    data: Option<PathBuf>,
    from: &str,
) -> Result<(), Failure> {
    let rules = rule_files::read(files).map_err(usage)?;
    let config = config.map_or_else(|| Ok(Config::default()), Config::load).map_err(usage)?;
    let (dir, now) = (data.unwrap_or(config.data_dir), clock::now());
    let from = moment::parse(from, now);
    let from = from.ok_or_else(|| usage(format!("--from: is {}", moment::FORM)))?;
    let mut rehearsal = Rehearsal::new(rules, from);
    let mut printed = Ok(());
    let read = past(&dir, from, |piece| {
        let drafts = rehearsal.play(piece);
        printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| print(&rehearsal, &drafts));
    });
    read.with_context(|| dir.display().to_string())?;
    let rest = rehearsal.wait(now);
    Ok(printed.and_then(|()| print(&rehearsal, &rest)).context("standard output")?)
}

/// Prints what became of alerts, a line each.
fn print(rehearsal: &Rehearsal, drafts: &[AlertDraft]) -> std::io::Result<()> {
    let word = |json: serde_json::Value| json.as_str().unwrap_or_default().to_owned();
    for draft in drafts {
        let severity = word(serde_json::json!(draft.severity));
        let status = word(serde_json::json!(draft.status));
        let value = draft.actual.as_ref().map(ToString::to_string).unwrap_or_default();
        let (rule, device) = (&draft.key.rule, rehearsal.device_key(draft));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}\t{rule}\t{device}\t{severity}\t{status}\t{value}", draft.at)?;
    }
    Ok(())
}
