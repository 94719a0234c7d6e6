//! Certificates for `amqps://`.

use lapin::tcp::OwnedTLSConfig;
use postrider_contract::Error;

use crate::options::TlsFiles;

/// Reads the files. The system's own roots are trusted where no `ca_file` is given, and beside it.
#[cfg(feature = "tls")]
pub(crate) fn config(files: &TlsFiles) -> Result<OwnedTLSConfig, Error> {
    use lapin::tcp::OwnedIdentity;
    use postrider_contract::ErrorKind;

    // One process has one provider: if the application or another adapter installed one, that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let read = |option: &str, path: &str| {
        std::fs::read(path).map_err(|error| {
            Error::new(
                ErrorKind::Config,
                format!("option `{option}`: {path} cannot be read: {error}"),
            )
        })
    };
    let cert_chain = match &files.ca {
        None => None,
        Some(path) => Some(String::from_utf8(read("ca_file", path)?).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                format!("option `ca_file`: {path} is no PEM file"),
            )
        })?),
    };
    let identity = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("cert_file", certificate)?,
            key: read("key_file", key)?,
        }),
        _ => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Never reached: `amqps://` is refused without the feature.
#[cfg(not(feature = "tls"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as with TLS")]
pub(crate) fn config(_: &TlsFiles) -> Result<OwnedTLSConfig, Error> {
    Ok(OwnedTLSConfig::default())
}
