//! Whose certificates are believed, and what is said if one is not.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, SignatureScheme,
};

use crate::load::insecure::AnyCertificate;
use crate::load::target::TargetError;

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// The system's authorities.
    #[default]
    System,
    /// What these (DER) have signed, and these themselves: a server that signed its own certificate shows just that.
    Only(Vec<CertificateDer<'static>>),
    /// The system's authorities, and as [`Trust::Only`].
    Also(Vec<CertificateDer<'static>>),
    /// Anybody's: the server is not authenticated at all.
    Anyone,
}

impl Trust {
    /// The verifier.
    ///
    /// # Errors
    /// [`TargetError::Roots`] if nobody is believed.
    pub fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TargetError> {
        Ok(match self {
            Trust::Anyone => Arc::new(AnyCertificate::new(provider)),
            Trust::System => authorities(rustls_native_certs::load_native_certs().certs, provider)?,
            Trust::Only(given) => {
                Arc::new(Given { authorities: authorities(given.clone(), provider)?, given: given.clone() })
            }
            Trust::Also(given) => {
                let all = [rustls_native_certs::load_native_certs().certs, given.clone()].concat();
                Arc::new(Given { authorities: authorities(all, provider)?, given: given.clone() })
            }
        })
    }
}

fn authorities(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TargetError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|_| TargetError::Roots)
}

/// Believes what given certificates have signed, and the given ones themselves.
#[derive(Debug)]
struct Given {
    given: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Given {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // One that signed itself is usually an authority too, which as a server's own certificate is refused otherwise.
        if self.given.iter().any(|given| given == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Why a handshake failed, in words that say what to do.
pub(super) fn handshake_problem(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        // `Other`: an authority's certificate that a server shows as its own, as those that signed themselves mostly are.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))) => {
            "no authority that is believed here has signed the server's certificate: name a file with the authority's, or \
             with the server's own (--ca-cert), or believe any (--insecure)"
                .to_owned()
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "what the server says is not TLS: try http://".to_owned()
        }
        Some(_) | None => error.to_string(),
    }
}
