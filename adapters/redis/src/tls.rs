//! TLS, where the cargo feature is on.

use postrider_contract::{Error, ErrorKind};
use redis::{Client, ConnectionInfo, RedisError};

use crate::settings::Tls;

/// A client for this address: over TLS, and only so, where the URL's scheme says it.
#[cfg(not(feature = "tls"))]
pub(crate) fn client(info: ConnectionInfo, _tls: Option<&Tls>) -> Result<Client, Error> {
    // A TLS scheme was refused when the URL was read.
    Client::open(info).map_err(|error| config(format!("the Redis URL cannot be used: {error}")))
}

#[cfg(feature = "tls")]
pub(crate) fn client(info: ConnectionInfo, tls: Option<&Tls>) -> Result<Client, Error> {
    let wrong = |error: RedisError| config(format!("the Redis URL cannot be used: {error}"));
    let Some(tls) = tls else {
        return Client::open(info).map_err(wrong);
    };
    // The client library panics without one. The application may have installed its own, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |option: &str, path: &Option<String>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| config(format!("the file in option `{option}` cannot be read: {error}"))),
    };
    let client_tls = match (read("cert_file", &tls.certificate)?, read("key_file", &tls.key)?) {
        (Some(client_cert), Some(client_key)) => Some(redis::ClientTlsConfig {
            client_cert,
            client_key,
        }),
        (None, None) => None,
        _ => {
            return Err(config(
                "options `cert_file` and `key_file` are given together or not at all",
            ));
        }
    };
    let root_cert = read("ca_file", &tls.authority)?;
    if client_tls.is_none() && root_cert.is_none() {
        return Client::open(info).map_err(wrong);
    }
    Client::build_with_tls(
        info,
        redis::TlsCertificates {
            client_tls,
            root_cert,
        },
    )
    .map_err(wrong)
}

/// The error, if TLS is what the two sides could not agree on: that does not mend by trying again.
pub(crate) fn refused(host: &str, port: u16, error: &RedisError) -> Option<Error> {
    let text = error.to_string();
    if text.contains("invalid peer certificate") {
        let reason = text.split("invalid peer certificate").nth(1).unwrap_or_default();
        let reason = reason.trim_start_matches(": ");
        return Some(config(format!(
            "the certificate of Redis at {host}:{port} is not accepted ({reason}): name its authority with ca_file, or connect by the name it is made out to"
        )));
    }
    text.contains("InvalidContentType").then(|| {
        config(format!(
            "Redis at {host}:{port} does not speak TLS: use its TLS port, or the scheme without it"
        ))
    })
}

fn config(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, text)
}
