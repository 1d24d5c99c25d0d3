//! An authority of the tests' own, what it signs, and clients that trust it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Whom the tests' clients trust.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(authority, key).unwrap())
    }

    /// A certificate for this machine and its key, in PEM.
    pub(crate) fn signs(&self) -> (String, String) {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = server.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The same in these files.
    pub(crate) fn signs_into(&self, certificate: &Path, key: &Path) {
        let (signed, its_key) = self.signs();
        std::fs::write(certificate, signed).unwrap();
        std::fs::write(key, its_key).unwrap();
    }

    /// A client of `reqwest` that trusts it alone.
    pub(crate) fn client(&self) -> reqwest::Client {
        let config = self.config(&[&TLS13, &TLS12]);
        let client = reqwest::Client::builder().no_proxy();
        client.tls_backend_preconfigured(config).build().unwrap()
    }

    fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(versions).unwrap();
        config.with_root_certificates(roots).with_no_client_auth()
    }

    /// A connection that asks for these protocols in these versions of TLS.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.config(versions);
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    }
}
