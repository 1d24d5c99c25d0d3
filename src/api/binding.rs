//! Where the API listens: addresses with who may be let in there, and the system's listeners.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use onelane_core::model::Secret;
use tokio::net::{TcpListener, TcpSocket};

use super::wire::Wire;
use super::{auth, limits};
use crate::config::{NOWHERE, ServerSection};

/// Why the API can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address makes no sense or its host is unknown.
    #[error(
        "can't listen on {listen:?}: {problem}; give an address and a port, like 127.0.0.1:4700"
    )]
    Address {
        /// The address as configured.
        listen: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Others could reach the API and nothing would stop them.
    #[error(
        "refusing to listen on {address} without a token, since others could reach it; set \
         ONELANE_ADMIN_TOKEN, or listen on 127.0.0.1"
    )]
    NoToken {
        /// The address that is not a loopback address.
        address: SocketAddr,
    },
    /// A token without a character protects nothing.
    #[error("the admin token is empty; set ONELANE_ADMIN_TOKEN to a long random text, or unset it")]
    EmptyToken,
    /// Others could reach the API, and guess the token.
    #[error(
        "refusing to listen on {address}: others could reach it, and the {whose} token {problem}; use a random \
         text, such as `openssl rand -hex 32` makes, or listen on 127.0.0.1"
    )]
    WeakToken {
        /// The address that is not a loopback address.
        address: SocketAddr,
        /// Admin or viewer.
        whose: &'static str,
        /// Why it could be guessed.
        problem: &'static str,
    },
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another program, perhaps another onelane; stop that one, or choose \
         another address with --listen"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// It is to listen nowhere.
    #[error("server.listen is \"none\", and server.socket names no socket; set one of them")]
    Nowhere,
    /// A socket can't be listened on.
    #[error("can't listen on server.socket = {path:?}: {problem}")]
    Socket {
        /// Its path.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Every web page could use the API.
    #[error(
        "server.cors_origins is \"*\", which lets every web page in, and there is no admin token; set \
         ONELANE_ADMIN_TOKEN, or name the origins"
    )]
    EveryPage,
    /// Certificate or key of TLS can't be used.
    #[error("{setting} = {file:?} {problem}")]
    Tls {
        /// The setting.
        setting: &'static str,
        /// The file that it names.
        file: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Any other refusal of the system.
    #[error("can't listen on {address}: {source}; choose another address with --listen")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
}

/// Refuses tokens that protect nothing.
fn check_tokens(config: &ServerSection) -> Result<(), BindError> {
    let is_empty = |token: &Secret| token.expose().trim().is_empty();
    let mut tokens = config.admin_token.iter().chain(&config.viewer_token);
    if tokens.any(is_empty) {
        return Err(BindError::EmptyToken);
    }
    let lets_all_in = config.cors_origins.iter().any(|origin| origin == "*");
    match config.admin_token {
        None if lets_all_in => Err(BindError::EveryPage),
        _ => Ok(()),
    }
}

/// Refuses an address that others can reach without a token that is hard to guess.
fn check_reach(config: &ServerSection, address: SocketAddr) -> Result<(), BindError> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if config.admin_token.is_none() {
        return Err(BindError::NoToken { address });
    }
    let tokens = [
        ("admin", &config.admin_token),
        ("viewer", &config.viewer_token),
    ];
    for (whose, token) in tokens {
        let token = token.as_ref().map(Secret::expose);
        if let Some(problem) = token.and_then(auth::weakness) {
            return Err(BindError::WeakToken {
                address,
                whose,
                problem,
            });
        }
    }
    Ok(())
}

/// What the API listens on.
#[derive(Debug)]
pub(super) struct Places {
    tcp: Option<(TcpListener, SocketAddr)>,
    socket: Option<OwnSocket>,
}

impl Places {
    /// Takes the address and the socket that are configured.
    pub(super) async fn take(config: &ServerSection) -> Result<Self, BindError> {
        check_tokens(config)?;
        let tcp = match config.listen.as_str() {
            NOWHERE if config.socket.is_none() => return Err(BindError::Nowhere),
            NOWHERE => None,
            listen => {
                let address = resolve(listen).await?;
                check_reach(config, address)?;
                Some(take(address)?)
            }
        };
        let socket = match &config.socket {
            Some(path) => Some(OwnSocket::take(path, &config.socket_mode).await?),
            None => None,
        };
        Ok(Self { tcp, socket })
    }

    /// The address, with the port that was chosen.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        Some(self.tcp.as_ref()?.1)
    }

    /// The path of the socket.
    pub(super) fn socket(&self) -> Option<&Path> {
        Some(&self.socket.as_ref()?.path)
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Wire> {
        let over_tcp = async {
            let Some((listener, _)) = &self.tcp else {
                return std::future::pending().await;
            };
            let (stream, _) = listener.accept().await?;
            // Answers are small and written at once; waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            Ok(Wire::Tcp(stream))
        };
        let over_socket = async {
            match &self.socket {
                Some(socket) => socket.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = over_tcp => accepted,
            accepted = over_socket => accepted,
        }
    }
}

/// A socket that is listened on. Dropped, it is gone, unless another one has taken its place.
#[cfg(unix)]
#[derive(Debug)]
struct OwnSocket {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl OwnSocket {
    async fn take(path: &str, mode: &str) -> Result<Self, BindError> {
        use std::os::unix::fs::PermissionsExt as _;

        let wrong = |problem: String| BindError::Socket {
            path: path.to_owned(),
            problem,
        };
        let refused = |error: io::Error| wrong(error.to_string());
        // It was checked where it was said.
        let mode = u32::from_str_radix(mode, 8).unwrap_or(0o600);
        let path = PathBuf::from(path);
        clear(&path).await.map_err(wrong)?;
        let socket = tokio::net::UnixSocket::new_stream().map_err(refused)?;
        socket.bind(&path).map_err(refused)?;
        let file = number(&path);
        let own = |listener| Self {
            listener,
            path: path.clone(),
            file,
        };
        // Nobody can connect before it listens.
        let private = std::fs::Permissions::from_mode(mode);
        let listening = std::fs::set_permissions(&path, private)
            .and_then(|()| socket.listen(limits::UNACCEPTED_MAX));
        listening.map(own).map_err(|error| {
            let _ = std::fs::remove_file(&path);
            refused(error)
        })
    }

    async fn accept(&self) -> io::Result<Wire> {
        let (stream, _) = self.listener.accept().await?;
        Ok(Wire::Unix(stream))
    }
}

#[cfg(unix)]
impl Drop for OwnSocket {
    fn drop(&mut self) {
        if self.file.is_some() && number(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// By what the system tells a socket from one that took its place.
#[cfg(unix)]
fn number(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Takes the socket of a process that is dead out of the way.
#[cfg(unix)]
async fn clear(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;

    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !meta.file_type().is_socket() {
        return Err("something is there that is no socket; name another path".to_owned());
    }
    match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|error| format!("the socket of a dead process can't be removed: {error}"))
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(format!(
            "a socket is there, and who listens on it can't be found out: {error}"
        )),
        _ => Err(
            "it is in use by another program, perhaps another onelane; stop that one, or name another path"
                .to_owned(),
        ),
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
struct OwnSocket {
    path: PathBuf,
}

#[cfg(not(unix))]
impl OwnSocket {
    async fn take(path: &str, _: &str) -> Result<Self, BindError> {
        Err(BindError::Socket {
            path: path.to_owned(),
            problem: "this system has no Unix sockets; set server.listen alone".to_owned(),
        })
    }

    async fn accept(&self) -> io::Result<Wire> {
        std::future::pending().await
    }
}

/// Takes an address.
fn take(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Io { address, source },
    };
    let listener = listener(address).map_err(refused)?;
    let local_addr = listener.local_addr().map_err(refused)?;
    Ok((listener, local_addr))
}

/// Listens so that a burst of clients finds room to wait in: what a listener has usually is full with 128 of them, and
/// the others are a second late.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Elsewhere it would let another program take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::UNACCEPTED_MAX)
}

/// The address to listen on. A name may have several: the IPv4 one is what most clients try.
async fn resolve(listen: &str) -> Result<SocketAddr, BindError> {
    let wrong = |problem: String| BindError::Address {
        listen: listen.to_owned(),
        problem,
    };
    let found = tokio::net::lookup_host(listen).await;
    let mut found: Vec<SocketAddr> = found.map_err(|e| wrong(e.to_string()))?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| wrong("the host has no address".to_owned()))
}
