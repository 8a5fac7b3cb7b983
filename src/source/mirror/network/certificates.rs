//! Whose certificates are believed: the system's authorities, and those of a file.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore};

use crate::load::trust::Trust;

/// TLS with what is believed. The error says what is wrong, and what to do.
pub(super) fn client(authorities: Option<&Path>) -> Result<ClientConfig, String> {
    let trust = match authorities {
        Some(path) => Trust::Also(read(path)?),
        None => Trust::System,
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = trust.verifier(&provider).map_err(|_| {
        "this machine knows no certificate authority: install ca-certificates, or name a file by `ca_file`".to_owned()
    })?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// TLS that believes nobody, for a client that never speaks it.
pub(super) fn none() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &dyn Error| format!("the certificates in {} cannot be read: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    Ok(found)
}

/// What is wrong with a server's certificate, if that is the reason of an error.
pub(super) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(TlsError::InvalidCertificate(found)) = error.downcast_ref() {
            return Some(match found {
                // `Other`: an authority's certificate that a server shows as its own, as those that signed themselves mostly are.
                CertificateError::UnknownIssuer | CertificateError::Other(_) => {
                    "no authority that is believed here has signed its certificate; if that is right, name a PEM file with \
                     the authority's certificate, or with the host's own, by `ca_file`"
                        .to_owned()
                }
                other => format!("its certificate is not good: {other}"),
            });
        }
        // What an error of the system holds is not its source, but in its place.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
