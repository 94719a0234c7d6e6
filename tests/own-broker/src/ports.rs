//! Ports that nobody else takes.

use std::fmt::{self, Display};
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the range that the system gives to outgoing connections: while a broker is down, a client that tries to reach it
/// would otherwise be given its port one day, and connect to itself. Apart from the ports of the shared brokers, too.
const RANGE: Range<u16> = 10_000..25_000;

/// A port that is free, and is not handed out to another test of this machine as long as this lives: whatever is told the
/// port may take it later, and again and again.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The claim: a name that one socket of the machine may have. It goes with the process, however that ends.
    _claim: UnixListener,
}

impl Port {
    /// Finds one.
    ///
    /// # Panics
    /// None is left.
    pub fn free() -> Self {
        let count = RANGE.end - RANGE.start;
        let start = fastrand::u16(..count);
        (0..count)
            .map(|step| RANGE.start + (start + step) % count)
            .find_map(Self::claim)
            .expect("a free port")
    }

    fn claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("postrider-port-{number}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        // Taken by something that claims nothing.
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self {
            number,
            _claim: claim,
        })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_claimed_port_is_handed_out_once() {
        let port = Port::free();
        assert!(RANGE.contains(&port.number()));
        assert!(Port::claim(port.number()).is_none());
    }

    #[test]
    fn a_port_that_is_listened_to_is_not_free() {
        let port = Port::free();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        let number = port.number();
        drop(port);
        assert!(Port::claim(number).is_none());
        drop(listener);
    }

    #[test]
    fn many_at_once_get_different_ones() {
        let ports: Vec<Port> = std::thread::scope(|scope| {
            let search = || (0..50).map(|_| Port::free()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(search)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
