//! A way to the server on which what clients send can be kept back, to arrive after they have given up: as when a network
//! that was cut comes back, and the system sends again what it has kept of connections that are closed already.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_own_broker::Port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SOON;

#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Passing,
    Held,
    Late,
}

/// A connection, and what becomes of what was kept back.
type Carried = (watch::Sender<Flow>, JoinHandle<Vec<u8>>);

pub struct Detour {
    port: Port,
    /// Bytes in a second that the server's answers may take, on each connection; 0: any number.
    rate: Arc<AtomicUsize>,
    carried: Arc<Mutex<Vec<Carried>>>,
}

impl Detour {
    /// To this port of the machine.
    pub async fn to(server: u16) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
            .await
            .unwrap();
        let carried: Arc<Mutex<Vec<Carried>>> = Arc::default();
        let connections = Arc::clone(&carried);
        let rate: Arc<AtomicUsize> = Arc::default();
        let limit = Arc::clone(&rate);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
                    continue;
                };
                let (flow, watched) = watch::channel(Flow::Passing);
                let carrying = tokio::spawn(carry(client, server, watched, Arc::clone(&limit)));
                connections.lock().unwrap().push((flow, carrying));
            }
        });
        Self { port, rate, carried }
    }

    /// The URL of the server, by this way.
    pub fn streams(&self, query: &str) -> String {
        format!("redis://127.0.0.1:{}{query}", self.port)
    }

    /// The same for channels.
    pub fn pub_sub(&self) -> String {
        format!("redis+pubsub://127.0.0.1:{}", self.port)
    }

    /// How many connections there have been that were not let go.
    pub fn connections(&self) -> usize {
        self.carried.lock().unwrap().len()
    }

    /// From now on, so many bytes of an answer arrive in a second; 0: as many as there are.
    pub fn slow(&self, bytes_per_second: usize) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Keeps back what is sent on the connections that there are; those that are made later are not held up.
    pub fn hold(&self) {
        for (flow, _) in self.carried.lock().unwrap().iter() {
            flow.send_replace(Flow::Held);
        }
    }

    /// Lets what was kept back arrive, as the last of its connections. Returns when the server has carried it out, with all of
    /// it.
    pub async fn let_go(&self) -> String {
        let held: Vec<Carried> = {
            let mut carried = self.carried.lock().unwrap();
            let (held, passing) = std::mem::take(&mut *carried)
                .into_iter()
                .partition(|(flow, _)| *flow.borrow() == Flow::Held);
            *carried = passing;
            held
        };
        let mut all = Vec::new();
        for (flow, carrying) in held {
            flow.send_replace(Flow::Late);
            let kept = timeout(SOON, carrying).await.expect("the server goes on");
            all.extend(kept.unwrap());
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// Carries a connection until the server ends it; returns what was kept back.
async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut flow: watch::Receiver<Flow>,
    rate: Arc<AtomicUsize>,
) -> Vec<u8> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let (mut kept, mut chunk, mut open) = (Vec::new(), [0; 16 * 1024], true);
        loop {
            let now = *flow.borrow_and_update();
            if now == Flow::Late {
                let _ = to_server.write_all(&kept).await;
                break;
            }
            if now == Flow::Passing && !open {
                break;
            }
            tokio::select! {
                read = from_client.read(&mut chunk), if open => {
                    let count = read.unwrap_or(0);
                    open = count > 0;
                    let now = *flow.borrow();
                    if now == Flow::Passing {
                        let _ = to_server.write_all(&chunk[..count]).await;
                    } else {
                        kept.extend_from_slice(&chunk[..count]);
                    }
                }
                changed = flow.changed() => if changed.is_err() { break },
            }
        }
        let _ = to_server.shutdown().await;
        kept
    };
    let down = async move {
        let mut chunk = [0; 16 * 1024];
        loop {
            // No long silence.
            let most = match rate.load(Ordering::Relaxed) {
                0 => chunk.len(),
                rate => (rate / 10).clamp(1, chunk.len()),
            };
            let Ok(count @ 1..) = from_server.read(&mut chunk[..most]).await else {
                break;
            };
            // The client may be gone.
            let _ = to_client.write_all(&chunk[..count]).await;
            if let Some(time) = (count as u64 * 1_000_000).checked_div(rate.load(Ordering::Relaxed) as u64) {
                tokio::time::sleep(Duration::from_micros(time)).await;
            }
        }
    };
    let (kept, ()) = tokio::join!(up, down);
    kept
}
