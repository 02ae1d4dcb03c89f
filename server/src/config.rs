//! The server's configuration: composed of each part's own, read from one TOML file.
//!
//! Every key has a default, so the server starts without a file. A mistake names file, line and key,
//! and nothing starts.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use valtronics_protocol::time::{optional_period, period};

use crate::{
    auth, limits,
    proxy::TrustedProxies,
    tls::{self, Certificate},
};

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// HTTP.
    pub http: Http,
    /// The certificate; absent: plain HTTP.
    pub tls: Option<tls::Config>,
    /// Tokens.
    pub auth: auth::Config,
    /// Which pages may connect.
    pub origins: Origins,
    /// What limits clients.
    pub limits: limits::Config,
    /// How messages go out.
    pub websocket: WebSocket,
    /// `/metrics`.
    pub metrics: Metrics,
    /// Devices.
    pub devices: Devices,
    /// What is kept for how long.
    pub history: History,
    /// Alert rules.
    pub rules: Rules,
    /// The folder of the file: relative paths are relative to it.
    #[serde(skip)]
    pub folder: PathBuf,
    #[serde(skip)]
    file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8000),
            data_dir: "data".into(),
            http: Http::default(),
            tls: None,
            auth: auth::Config::default(),
            origins: Origins::default(),
            limits: limits::Config::default(),
            websocket: WebSocket::default(),
            metrics: Metrics::default(),
            devices: Devices::default(),
            history: History::default(),
            rules: Rules::default(),
            folder: PathBuf::new(),
            file: None,
        }
    }
}

/// HTTP.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Whose `X-Forwarded-For` and `-Host` are believed.
    pub trusted_proxies: TrustedProxies,
}

/// Which pages may connect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origins {
    /// Besides the server's own.
    pub allow: Vec<String>,
}

/// How messages go out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// How long telemetry may wait for company when a connection is busy; up to 1 s.
    #[serde(with = "period")]
    pub coalesce: Duration,
}

/// `/metrics`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// It needs no token.
    pub open: bool,
}

/// Devices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// After how much silence a device counts as offline; absent: learned.
    #[serde(with = "optional_period")]
    pub offline_after: Option<Duration>,
}

/// What is kept for how long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Readings.
    #[serde(with = "period")]
    pub keep: Duration,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 86_400) }
    }
}

/// Alert rules.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Files of rules; `*` in a file's name stands for anything.
    pub files: Vec<String>,
}

/// Why a configuration cannot be used: one line for each mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or something in it is not understood or out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{shown}: {error}")))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            ConfigError(format!("{shown}:{line}: {}", error.message()))
        })?;
        // The parent of a bare name is empty, which is no folder that can be listed.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        config.folder = parent.unwrap_or(Path::new(".")).to_path_buf();
        config.data_dir = config.folder.join(&config.data_dir);
        config.file = Some(path.to_path_buf());
        config.validate().map_err(|(key, why)| config.mistake(key, why))?;
        Ok(config)
    }

    /// Reads the certificate; none: plain HTTP.
    ///
    /// # Errors
    /// When it cannot be served, with file and line.
    pub fn certificate(&self) -> Result<Option<Certificate>, ConfigError> {
        let certificate = self.tls.as_ref().map(|tls| Certificate::open(tls.within(&self.folder)));
        certificate.transpose().map_err(|error| self.mistake(error.key, error))
    }

    /// Says where a mistake stands.
    fn mistake(&self, key: &str, why: impl std::fmt::Display) -> ConfigError {
        let Some(path) = &self.file else { return ConfigError(format!("{key}: {why}")) };
        // A file that has gone meanwhile has no lines to name.
        let line = key_line(&std::fs::read_to_string(path).unwrap_or_default(), key);
        ConfigError(format!("{}:{line}: {key}: {why}", path.display()))
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.websocket.coalesce > Duration::from_secs(1) {
            return Err(("coalesce", "is at most 1s".into()));
        }
        if self.history.keep < Duration::from_secs(60) {
            return Err(("keep", "is at least 1m".into()));
        }
        if self.devices.offline_after.is_some_and(|after| after < Duration::from_secs(1)) {
            return Err(("offline_after", "is at least 1s".into()));
        }
        for origin in &self.origins.allow {
            let scheme = ["http://", "https://"].iter().find_map(|s| origin.strip_prefix(s));
            let good = scheme.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            if !good && origin != "null" {
                let why = format!("{origin:?} is no origin such as \"https://dash.example.com\"");
                return Err(("allow", why));
            }
        }
        Ok(())
    }

    /// Finds the files of rules.
    ///
    /// # Errors
    /// When a folder cannot be read, or a file that is named without `*` is not there.
    pub fn rule_files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut files = Vec::new();
        for pattern in &self.rules.files {
            let path = self.folder.join(pattern);
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let name = name.to_string_lossy();
            if !name.contains('*') {
                files.push(path.clone());
                continue;
            }
            let pattern = crate::domain::pattern::NamePattern::new(&name);
            let entries = std::fs::read_dir(folder)
                .map_err(|error| ConfigError(format!("{}: {error}", folder.display())))?;
            let mut found: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.file_name().is_some_and(|name| pattern.matches(&name.to_string_lossy()))
                })
                .collect();
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }
}

/// Returns the line, from 1, in which a byte stands.
#[must_use]
pub fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn key_line(text: &str, key: &str) -> usize {
    let stands = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(stands).map_or(1, |at| at + 1)
}
