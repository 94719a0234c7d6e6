//! A proxy before a broker. It can be away or slow, and it can make the broker say that there is no broker in the cluster, as one
//! does that was frozen and is fenced.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long an answer of a slow cluster takes.
const SLOWNESS: Duration = Duration::from_millis(30);
const METADATA: i16 = 3;
const SASL_HANDSHAKE: i16 = 17;
/// From this version on, arrays and strings are compact and fields have tags.
const FLEXIBLE: i16 = 9;

/// Versions of the metadata requests that are under way on one connection, by their number.
type Asked = Mutex<HashMap<i32, i16>>;

/// What clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// The broker.
    Whole,
    /// The broker, which names no broker when it is asked for them.
    Fenced,
    /// Nothing: connections are ended.
    Away,
    /// The broker, and new connections are ended before it has seen a password.
    Brief,
    /// The broker, and each answer takes [`SLOWNESS`].
    Slow,
}

pub struct Fence {
    cluster: watch::Sender<Cluster>,
    /// Ends with this.
    _accepting: JoinSet<()>,
}

impl Fence {
    /// Listens on a port of this machine and passes on to another.
    pub async fn start(port: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (cluster, seen) = watch::channel(Cluster::Whole);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, to, seen));
        Self {
            cluster,
            _accepting: accepting,
        }
    }

    pub fn set(&self, cluster: Cluster) {
        self.cluster.send_replace(cluster);
    }
}

async fn accept(listener: TcpListener, to: u16, cluster: watch::Receiver<Cluster>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let mut away = cluster.clone();
                let passing = connection(client, to, cluster.clone());
                connections.spawn(async move {
                    tokio::select! {
                        _ = passing => {}
                        _ = away.wait_for(|cluster| *cluster == Cluster::Away) => {}
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, to: u16, cluster: watch::Receiver<Cluster>) -> io::Result<()> {
    let mut broker = TcpStream::connect(("127.0.0.1", to)).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let asked = Asked::default();
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    tokio::try_join!(
        requests(from_client, to_broker, &asked, &cluster),
        answers(from_broker, to_client, &asked, &cluster),
    )
    .map(drop)
}

async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    asked: &Asked,
    cluster: &watch::Receiver<Cluster>,
) -> io::Result<()> {
    loop {
        let request = frame(&mut from).await?;
        match number16(&request, 0) {
            METADATA => {
                let (version, number) = (number16(&request, 2), number32(&request, 4));
                asked.lock().unwrap().insert(number, version);
            }
            SASL_HANDSHAKE if *cluster.borrow() == Cluster::Brief => {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        send(&mut to, &request).await?;
    }
}

async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    asked: &Asked,
    cluster: &watch::Receiver<Cluster>,
) -> io::Result<()> {
    loop {
        let mut answer = frame(&mut from).await?;
        let version = asked.lock().unwrap().remove(&number32(&answer, 0));
        if let Some(version) = version.filter(|_| *cluster.borrow() == Cluster::Fenced) {
            answer = without_brokers(&answer, version);
        }
        if *cluster.borrow() == Cluster::Slow {
            tokio::time::sleep(SLOWNESS).await;
        }
        send(&mut to, &answer).await?;
    }
}

async fn frame(from: &mut ReadHalf<'_>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send(to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut all = (bytes.len() as u32).to_be_bytes().to_vec();
    all.extend_from_slice(bytes);
    to.write_all(&all).await
}

fn number16(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn number32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// An answer to a metadata request, of a version with compact arrays, with the list of brokers empty.
fn without_brokers(answer: &[u8], version: i16) -> Vec<u8> {
    assert!(
        version >= FLEXIBLE,
        "metadata version {version}: teach the proxy to read it"
    );
    // The number, no tags, the throttle time.
    let begin = 4 + 1 + 4;
    let mut at = begin;
    let brokers = unsigned(answer, &mut at) - 1;
    for _ in 0..brokers {
        at += 4;
        skip_string(answer, &mut at);
        at += 4;
        skip_string(answer, &mut at);
        assert_eq!(unsigned(answer, &mut at), 0, "a broker with tags");
    }
    let mut edited = answer[..begin].to_vec();
    edited.push(1);
    edited.extend_from_slice(&answer[at..]);
    edited
}

fn unsigned(bytes: &[u8], at: &mut usize) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn skip_string(bytes: &[u8], at: &mut usize) {
    *at += unsigned(bytes, at).saturating_sub(1);
}
