//! TLS: the certificate that is served, read again when its files change.
//!
//! [`Certificate`] hands each good pair to the accept loop through a watch channel: who connects
//! next gets it, who is here stays as he is. A pair that cannot be used changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::sync::watch;
use tokio_rustls::rustls::{
    Error, InconsistentKeys, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

/// How often the files are looked at. A change counts when it has stayed for so long: certificate
/// and key are not written at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is spoken.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server's certificate, and then those that lead from it to a root, in PEM.
    pub cert: PathBuf,
    /// The private key of the first, in PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be served. Nothing of a key stands in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    path: PathBuf,
    why: String,
}

impl Config {
    /// Takes paths as relative to a folder.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        Self { cert: folder.join(&self.cert), key: folder.join(&self.key) }
    }

    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be read or used, or they do not belong together.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let pair = SingleCertAndKey::from(self.pair(&provider)?);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|error| self.bad_cert(error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(pair));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn pair(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect);
        let chain = chain.map_err(|error| self.bad_cert(pem_fault(error)))?;
        if chain.is_empty() {
            return Err(self.bad_cert("holds no certificate in PEM"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| self.bad_key(pem_fault(error)))?;
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| self.bad_key(error))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
            Err(Error::InconsistentKeys(_)) => {
                let why = format!("is not the key of {}", self.cert.display());
                Err(self.bad_key(why))
            }
            Err(error) => Err(self.bad_cert(error)),
        }
    }

    fn bad_cert(&self, why: impl ToString) -> TlsError {
        TlsError { key: "cert", path: self.cert.clone(), why: why.to_string() }
    }

    fn bad_key(&self, why: impl ToString) -> TlsError {
        TlsError { key: "key", path: self.key.clone(), why: why.to_string() }
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.cert, &self.key].map(|file| Stamp::of(file))
    }
}

/// Says what is wrong with a file without repeating what it holds: it may be a key.
fn pem_fault(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds no private key in PEM that is not encrypted".into(),
        _ => "is no PEM".into(),
    }
}

/// By what a changed file is told: a new inode, size, content or permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size_bytes: u64,
    changed_at: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path).ok()?;
        let changed_at = (found.ctime(), found.ctime_nsec());
        Some(Self { inode: found.ino(), size_bytes: found.len(), changed_at })
    }
}

/// The certificate that is served.
#[derive(Debug)]
pub struct Certificate {
    config: Config,
    serving: watch::Sender<Arc<ServerConfig>>,
    /// The files as they were when they were last read, whatever came of it.
    read: [Option<Stamp>; 2],
}

impl Certificate {
    /// Reads the first one.
    ///
    /// # Errors
    /// When it cannot be served.
    pub fn open(config: Config) -> Result<Self, TlsError> {
        let read = config.stamps();
        let serving = watch::Sender::new(config.load()?);
        Ok(Self { config, serving, read })
    }

    /// Returns where new connections find it.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.serving.subscribe()
    }

    /// Names other files, to be read by the next [`Certificate::reload`].
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// When they cannot be served: the old certificate goes on.
    pub fn reload(&mut self) -> Result<(), TlsError> {
        self.read = self.config.stamps();
        self.serving.send_replace(self.config.load()?);
        Ok(())
    }

    /// Waits until the files are others than those that were read, and have stayed so.
    pub async fn changed(&self) {
        let mut before = self.read;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let found = self.config.stamps();
            if found == before && found != self.read {
                return;
            }
            before = found;
        }
    }
}
