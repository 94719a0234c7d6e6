//! A proxy between clients and broker, which can fall silent in one direction without closing anything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a fault that was ordered may take to be carried out.
const MEETING_LIMIT: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker,
    ToClients,
}

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// They pass.
    Passes,
    /// One way they wait, and pass later: a cable that is pulled and put back, with the sender trying again.
    Waits(Way),
    /// One way they vanish. A connection that lost some is silent that way for good, since what came after would make no
    /// sense: a router that forgot it. Connections that are made later are well again.
    Vanishes(Way),
}

/// How many connections were held up, lost bytes or were reset, by all orders so far.
type Met = Arc<AtomicUsize>;

#[derive(Debug, Clone, Copy)]
struct Order {
    traffic: Traffic,
    /// Connections that are older than the last reset end with it.
    resets: u64,
}

pub(crate) struct Proxy {
    orders: watch::Sender<Order>,
    met: Met,
    /// Ends with this.
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of this machine and passes on to another.
    pub(crate) async fn start(port: u16, to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (orders, seen) = watch::channel(Order {
            traffic: Traffic::Passes,
            resets: 0,
        });
        let mut accepting = JoinSet::new();
        let met = Met::default();
        accepting.spawn(accept(listener, to, seen, met.clone()));
        Ok(Self {
            orders,
            met,
            _accepting: accepting,
        })
    }

    pub(crate) fn set(&self, traffic: Traffic) {
        self.orders.send_modify(|order| order.traffic = traffic);
    }

    /// Ends every connection with RST, to both sides.
    pub(crate) fn reset(&self) {
        self.orders.send_modify(|order| order.resets += 1);
    }

    /// Waits until what was ordered has met so many connections: a fault that meets nobody shows nothing.
    ///
    /// # Errors
    /// It has met fewer.
    pub(crate) async fn meets(&self, least: usize) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let met = self.met.load(Ordering::Relaxed);
            if met >= least {
                return Ok(());
            }
            if begin.elapsed() > MEETING_LIMIT {
                return Err(format!(
                    "the fault met {met} connections, where there are {least} clients"
                ));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn accept(listener: TcpListener, to: u16, orders: watch::Receiver<Order>, met: Met) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(connection(client, to, orders.clone(), met.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, to: u16, orders: watch::Receiver<Order>, met: Met) {
    let resets = orders.borrow().resets;
    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let mut resetting = orders.clone();
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_broker, Way::ToBroker, orders.clone(), &met),
                pump(from_broker, to_client, Way::ToClients, orders.clone(), &met),
            )
        };
        tokio::select! {
            _ = both => false,
            _ = resetting.wait_for(|order| order.resets > resets) => true,
        }
    };
    if is_reset {
        met.fetch_add(1, Ordering::Relaxed);
        let _ = (client.set_zero_linger(), broker.set_zero_linger());
    }
}

/// One direction of a connection, until its sender ends it.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    mut orders: watch::Receiver<Order>,
    met: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut is_lost = false;
    loop {
        let traffic = orders.borrow_and_update().traffic;
        if traffic == Traffic::Waits(way) {
            met.fetch_add(1, Ordering::Relaxed);
            gone(orders.changed().await)?;
            continue;
        }
        let count = tokio::select! {
            count = from.read(&mut bytes) => count?,
            changed = orders.changed() => {
                gone(changed)?;
                continue;
            }
        };
        // What was read in the moment of the change goes by the new order.
        let vanishes = orders.borrow().traffic == Traffic::Vanishes(way);
        met.fetch_add(usize::from(vanishes && !is_lost), Ordering::Relaxed);
        is_lost |= vanishes;
        match (count, is_lost) {
            // That the sender is gone is lost too.
            (0, true) => std::future::pending().await,
            (0, false) => return to.shutdown().await,
            (_, true) => {}
            (count, false) => {
                if orders.borrow().traffic == Traffic::Waits(way) {
                    met.fetch_add(1, Ordering::Relaxed);
                    gone(
                        orders
                            .wait_for(|order| order.traffic != Traffic::Waits(way))
                            .await
                            .map(drop),
                    )?;
                }
                to.write_all(&bytes[..count]).await?;
            }
        }
    }
}

fn gone(changed: Result<(), watch::error::RecvError>) -> io::Result<()> {
    changed.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A client, the broker's side of its connection, and the proxy between them.
    async fn connected() -> (TcpStream, TcpStream, Proxy, TcpListener, u16) {
        let broker = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let proxy = Proxy::start(port, broker.local_addr().unwrap().port())
            .await
            .unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (served, _) = broker.accept().await.unwrap();
        (client, served, proxy, broker, port)
    }

    /// The next byte, which must come.
    async fn hears(stream: &mut TcpStream) -> u8 {
        let byte = timeout(Duration::from_secs(10), stream.read_u8()).await;
        byte.expect("a byte in time").unwrap()
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        let byte = timeout(Duration::from_millis(200), stream.read_u8()).await;
        !matches!(byte, Ok(Ok(_)))
    }

    #[tokio::test]
    async fn what_waits_arrives_later_and_the_other_way_goes_on() {
        let (mut client, mut served, proxy, ..) = connected().await;
        client.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut served).await, 1);
        proxy.set(Traffic::Waits(Way::ToBroker));
        client.write_u8(2).await.unwrap();
        served.write_u8(3).await.unwrap();
        assert!(is_silent(&mut served).await);
        assert_eq!(hears(&mut client).await, 3);
        proxy.set(Traffic::Passes);
        assert_eq!(hears(&mut served).await, 2);
        assert_eq!(proxy.met.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_vanishes_never_arrives_and_later_connections_are_well() {
        let (mut client, mut served, proxy, broker, port) = connected().await;
        proxy.set(Traffic::Vanishes(Way::ToBroker));
        client.write_u8(1).await.unwrap();
        assert!(is_silent(&mut served).await);
        client.write_u8(1).await.unwrap();
        assert!(is_silent(&mut served).await);
        proxy.set(Traffic::Passes);
        assert_eq!(proxy.met.load(Ordering::Relaxed), 1);
        client.write_u8(2).await.unwrap();
        assert!(is_silent(&mut served).await, "silent for good");
        served.write_u8(3).await.unwrap();
        assert_eq!(hears(&mut client).await, 3);
        drop(client);
        assert!(is_silent(&mut served).await);
        let mut later = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut served, _) = broker.accept().await.unwrap();
        later.write_u8(4).await.unwrap();
        assert_eq!(hears(&mut served).await, 4);
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_on_both_sides() {
        let (mut client, mut served, proxy, ..) = connected().await;
        client.write_u8(1).await.unwrap();
        assert_eq!(hears(&mut served).await, 1);
        proxy.reset();
        for side in [&mut client, &mut served] {
            let error = timeout(Duration::from_secs(1), side.read_u8())
                .await
                .unwrap()
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        assert_eq!(proxy.met.load(Ordering::Relaxed), 1);
    }
}
