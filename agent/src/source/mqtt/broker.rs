//! Where a broker is, and how one gets in.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::config::{fault::Fault, folder::Folder, section::Section};

/// The keys of a source that reads from a broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Where it is.
    pub url: Url,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Keys {
    url: Url,
    password_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
}

/// Where a broker is: `mqtt://` or `mqtts://`, perhaps with a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// The broker's host.
    pub host: String,
    pub(super) port: u16,
    pub(super) secure: bool,
    pub(super) user: Option<String>,
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = "expected a URL such as \"mqtt://user@10.0.0.2:1883\"";
        let url: http::Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
        let secure = match url.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => return Err(format!("the URL does not begin with mqtt:// or mqtts://; {wanted}")),
        };
        if !matches!(url.path(), "" | "/") {
            return Err(format!("topics go into `read`; {wanted}"));
        }
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err(format!("a password goes into `password_file`; {wanted}"));
        }
        Ok(Self {
            host: url.host().unwrap_or_default().trim_matches(['[', ']']).into(),
            port: url.port_u16().unwrap_or(if secure { 8883 } else { 1883 }),
            secure,
            user: user.map(str::to_owned),
        })
    }
}

impl Broker {
    /// Takes its keys out of a source's table.
    ///
    /// # Errors
    /// When a value is none that this version knows, or a file cannot be read.
    pub fn read(section: &mut Section<'_>, folder: &Folder) -> Result<Self, Fault> {
        let mut keys: Keys = section.read()?;
        for file in [&mut keys.password_file, &mut keys.ca_file] {
            file.as_mut().map_or(Ok(()), |file| folder.check_readable(file))?;
        }
        Ok(Self {
            url: keys.url,
            password_file: keys.password_file.map(Spanned::into_inner),
            ca_file: keys.ca_file.map(Spanned::into_inner),
        })
    }
}
