//! Whose certificates are believed: the system's authorities, and those of a file.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore};

/// What is believed. The error says what is wrong, and what to do.
pub(super) fn client(authorities: Option<&Path>) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = authorities {
        let unreadable = |error: &dyn Error| format!("the authorities in {} cannot be read: {error}", path.display());
        let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
        let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
        let (taken, _) = store.add_parsable_certificates(found);
        if taken == 0 {
            return Err(format!("{} holds no certificate of an authority, in PEM", path.display()));
        }
    }
    if store.is_empty() {
        return Err("this machine knows no certificate authority: install ca-certificates, or set `ca_file`".to_owned());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

/// What is wrong with a server's certificate, if that is the reason of an error.
pub(super) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(TlsError::InvalidCertificate(found)) = error.downcast_ref() {
            return Some(match found {
                CertificateError::UnknownIssuer => "no authority that is believed here has signed its certificate; \
                     if the host has one of its own, name the authority's PEM file by `ca_file`"
                    .to_owned(),
                // rustls has no word of its own for an authority's certificate that a server shows as its own.
                CertificateError::Other(_) => format!(
                    "its certificate is not good ({found}); one that signed itself is not taken as a server's own, \
                     only one that an authority signed"
                ),
                other => format!("its certificate is not good: {other}"),
            });
        }
        // What an error of the system holds is not its source, but in its place.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
