//! A proxy before a broker. It can be away or slow, and it can make the broker say that there is no broker in the cluster, as one
//! does that was frozen and is fenced.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
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
/// From this version on, topics have ids, and perhaps no name.
const WITH_IDS: i16 = 10;

/// Versions of the metadata requests that are under way on one connection, by their number.
type Asked = Mutex<HashMap<i32, i16>>;

/// What clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// The broker.
    Whole,
    /// The broker, which names no broker when it is asked for them.
    Fenced,
    /// The broker as one before Kafka 2.8, or a service beside it, which tells no ids of topics.
    WithoutIds,
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
        match (version, *cluster.borrow()) {
            (Some(version), Cluster::Fenced) => answer = without_brokers(&answer, version),
            (Some(version), Cluster::WithoutIds) => forget_ids(&mut answer, version),
            _ => {}
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

/// The list of brokers within an answer to a metadata request, of a version with compact arrays.
fn brokers(answer: &[u8], version: i16) -> Range<usize> {
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
    begin..at
}

/// The answer with the list of brokers empty.
fn without_brokers(answer: &[u8], version: i16) -> Vec<u8> {
    let brokers = brokers(answer, version);
    [&answer[..brokers.start], &[1], &answer[brokers.end..]].concat()
}

/// Zero is what an old broker's answer comes to.
fn forget_ids(answer: &mut [u8], version: i16) {
    let mut at = brokers(answer, version).end;
    assert!(version >= WITH_IDS, "metadata version {version} has no ids");
    // The cluster and its controller.
    skip_string(answer, &mut at);
    at += 4;
    let topics = unsigned(answer, &mut at) - 1;
    for _ in 0..topics {
        at += 2;
        skip_string(answer, &mut at);
        answer[at..at + 16].fill(0);
        at += 16 + 1;
        let partitions = unsigned(answer, &mut at) - 1;
        for _ in 0..partitions {
            at += 2 + 4 + 4 + 4;
            // Replicas, those in sync, and those that are offline.
            for _ in 0..3 {
                at += 4 * unsigned(answer, &mut at).saturating_sub(1);
            }
            assert_eq!(unsigned(answer, &mut at), 0, "a partition with tags");
        }
        at += 4;
        assert_eq!(unsigned(answer, &mut at), 0, "a topic with tags");
    }
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
