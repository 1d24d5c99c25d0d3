//! TLS, as every client and server of onelane speaks it: whose cryptography it is, and whom clients trust.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use reqwest::ClientBuilder;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, Error};
use rustls_platform_verifier::Verifier;

/// The cryptography: that of the process, if its program has chosen one, or ring's, which is never made that of the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static OURS: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    let of_process = CryptoProvider::get_default();
    Arc::clone(of_process.unwrap_or(&OURS))
}

/// The beginning of a client that trusts the system's authorities.
pub fn client() -> Result<ClientBuilder, NoTrust> {
    Ok(Trust::of_system()?.on(reqwest::Client::builder()))
}

/// Whom a client trusts. Clones are cheap, and share the authorities.
#[derive(Debug, Clone)]
pub struct Trust(ClientConfig);

/// There is nobody to trust, or a certificate that can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct NoTrust(#[from] Error);

impl Trust {
    /// The authorities of the system, which are read once for all clients of the process.
    pub fn of_system() -> Result<Self, NoTrust> {
        static SYSTEM: LazyLock<Result<Trust, NoTrust>> = LazyLock::new(|| Trust::with(Vec::new()));
        SYSTEM.clone()
    }

    /// Those of the system, and the certificates of a PEM file. The error says what is wrong with the file.
    pub fn of_file(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|e| format!("{shown} can't be read: {e}"))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.unwrap_or_default();
        if certificates.is_empty() {
            let problem = "holds no certificate; give a file in PEM, with BEGIN CERTIFICATE in it";
            return Err(format!("{shown} {problem}"));
        }
        Self::with(certificates)
            .map_err(|_| format!("{shown} holds a certificate that can't be used"))
    }

    fn with(more: Vec<CertificateDer<'static>>) -> Result<Self, NoTrust> {
        let verifier = match more.is_empty() {
            true => Verifier::new(provider())?,
            false => Verifier::new_with_extra_roots(more, provider())?,
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(config))
    }

    /// The same client, with this trust.
    pub fn on(&self, client: ClientBuilder) -> ClientBuilder {
        client.tls_backend_preconfigured(self.0.clone())
    }
}
