//! The operations endpoint: metrics, health, listeners, pause and resume, for whoever runs the service.

mod histogram;
mod listeners;
mod recorder;
mod render;
mod routes;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::variable;
use crate::contract::{Error, ErrorKind};

pub(crate) use recorder::install;
pub(crate) use server::{bind, serve};

/// The variable that says where it listens.
const ADDRESS: &str = "POSTRIDER_OPS_ADDR";
/// The variable with the token without which nothing is changed.
const TOKEN: &str = "POSTRIDER_OPS_TOKEN";

/// What the environment says. No `Debug`: the token is a secret.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) token: Option<String>,
}

impl Settings {
    /// # Errors
    /// The address is none.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let address = variable(ADDRESS)?.map(|text| parse(&text)).transpose()?;
        let token = variable(TOKEN)?;
        Ok(Self { address, token })
    }
}

/// A port alone is one of this machine only.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, Error> {
    if let Ok(port) = text.trim_start_matches(':').parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| {
        let text = format!(
            "{ADDRESS} is {text:?}; allowed is a port such as 9464, for this machine alone, or an address such as 0.0.0.0:9464"
        );
        Error::new(ErrorKind::Config, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_loopback() {
        assert_eq!(parse("9464").unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(parse(":9464").unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(parse("0.0.0.0:9464").unwrap().to_string(), "0.0.0.0:9464");
        assert_eq!(parse("[::1]:0").unwrap().to_string(), "[::1]:0");
        assert!(
            parse("localhost:x")
                .unwrap_err()
                .to_string()
                .contains("POSTRIDER_OPS_ADDR")
        );
    }

    #[test]
    fn any_address_is_the_one_that_is_written() {
        const WORDS: [&str; 9] = ["0", "9464", ":", ".", "[", "]", "::1", "0.0.0.0", "+"];
        bolero::check!().with_type::<Vec<u8>>().for_each(|words| {
            let text: String = words
                .iter()
                .map(|&word| WORDS[usize::from(word) % WORDS.len()])
                .collect();
            let Ok(address) = parse(&text) else { return };
            assert_eq!(parse(&address.to_string()).ok(), Some(address));
            // Open to others only where that is written.
            assert!(
                address.ip().is_loopback() || text.parse() == Ok(address),
                "{text:?}"
            );
        });
    }
}
