//! TLS of the API: a certificate and its key out of two files, which are read anew when they have changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig};

use super::binding::BindError;
use crate::config::ServerSection;

/// How often the files are looked at, while clients come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What clients may speak, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERTIFICATE: &str = "server.tls_cert";
const KEY: &str = "server.tls_key";

/// Certificate and key.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// By what a change of the files is seen.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

/// What handshakes are made with.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// How the files were when they were read last.
    stamp: Stamp,
    looked: Instant,
}

impl Tls {
    /// Reads the files; `None`: none is named. A key that others can read is told to the log.
    pub(super) fn of(config: &ServerSection) -> Result<Option<Arc<Self>>, BindError> {
        let (certificate, key) = match (&config.tls_cert, &config.tls_key) {
            (None, None) => return Ok(None),
            (Some(file), None) => return Err(alone(CERTIFICATE, file, KEY)),
            (None, Some(file)) => return Err(alone(KEY, file, CERTIFICATE)),
            (Some(certificate), Some(key)) => (certificate.into(), key.into()),
        };
        let files = Files { certificate, key };
        let stamp = files.stamp();
        let config = Arc::new(files.read()?);
        if is_readable_by_others(&files.key) {
            tracing::warn!(
                file = %files.key.display(),
                "everybody on this machine can read the key of server.tls_key; chmod 600 it"
            );
        }
        let state = State {
            config,
            stamp,
            looked: Instant::now(),
        };
        Ok(Some(Arc::new(Self {
            files,
            state: Mutex::new(state),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next handshake is made with.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<ServerConfig> {
        {
            let mut state = self.state();
            if state.looked.elapsed() < LOOK_EVERY {
                return Arc::clone(&state.config);
            }
            state.looked = Instant::now();
        }
        let tls = Arc::clone(self);
        // A disk that hangs holds up nobody but this client.
        let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        Arc::clone(&self.state().config)
    }

    /// Reads the files again if they have changed. What makes no sense is told once for each change, and the old
    /// certificate stays.
    fn look(&self) {
        let stamp = self.files.stamp();
        if self.state().stamp == stamp {
            return;
        }
        let read = self.files.read();
        let mut state = self.state();
        state.stamp = stamp;
        match read {
            Ok(config) => {
                state.config = Arc::new(config);
                tracing::info!("{CERTIFICATE} and {KEY} have changed and are in force");
            }
            Err(error) => tracing::warn!(%error, "the certificate in force stays"),
        }
    }
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|file| {
            let meta = std::fs::metadata(file).ok()?;
            Some((meta.modified().ok()?, meta.len(), number(&meta)))
        })
    }

    fn read(&self) -> Result<ServerConfig, BindError> {
        let wrong = |setting, file: &Path, problem| BindError::Tls {
            setting,
            file: file.display().to_string(),
            problem,
        };
        let of_certificate = |problem| wrong(CERTIFICATE, &self.certificate, problem);
        let of_key = |problem| wrong(KEY, &self.key, problem);

        let text = std::fs::read(&self.certificate).map_err(|e| of_certificate(unread(&e)))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|_| of_certificate(NO_PEM.to_owned()))?;
        if chain.is_empty() {
            let problem = "holds no certificate; give a file in PEM, with BEGIN CERTIFICATE in it";
            return Err(of_certificate(problem.to_owned()));
        }

        let text = std::fs::read(&self.key).map_err(|e| of_key(unread(&e)))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
            of_key(match error {
                pem::Error::NoItemsFound if is_encrypted => ENCRYPTED.to_owned(),
                pem::Error::NoItemsFound => NO_KEY.to_owned(),
                _ => NO_PEM.to_owned(),
            })
        })?;
        let provider = crate::tls::provider();
        // Whose fault it is can't be seen later.
        let loaded = provider.key_provider.load_private_key(key.clone_key());
        loaded.map_err(|error| of_key(format!("can't be used: {error}")))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| of_certificate(format!("can't be used: {error}")))?;
        let made = builder.with_no_client_auth().with_single_cert(chain, key);
        let mut config = made.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => of_key(format!(
                "is not the key of the certificate in {}; name the two that were made together",
                self.certificate.display()
            )),
            error => of_certificate(format!("can't be used: {error}")),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

const NO_PEM: &str = "is no whole PEM file";
const NO_KEY: &str = "holds no private key; give a file in PEM, with BEGIN PRIVATE KEY in it";
const ENCRYPTED: &str = "holds a key under a passphrase; give it without one, as `openssl pkey -in KEY -out PLAIN` makes it";

fn unread(error: &std::io::Error) -> String {
    format!("can't be read: {error}")
}

fn alone(setting: &'static str, file: &str, other: &str) -> BindError {
    BindError::Tls {
        setting,
        file: file.to_owned(),
        problem: format!("is nothing without {other}; set both, or none"),
    }
}

/// By what the system tells a file from one that took its place.
#[cfg(unix)]
fn number(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(unix)]
fn is_readable_by_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &Path) -> bool {
    false
}
