//! The listening socket and its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::routes::Ops;
use crate::app::Overview;
use crate::contract::{Error, ErrorKind};

/// How many connections may be open at once.
const CONNECTIONS: usize = 64;
/// How long a request may take to arrive, and a connection to be idle.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may last: whoever wants more makes another.
const LIFE: Duration = Duration::from_secs(60);

/// # Errors
/// The address is taken, or not this machine's.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!("the operations endpoint cannot listen on {address} (POSTRIDER_OPS_ADDR)");
        Error::new(ErrorKind::Config, text).with_source(error)
    })
}

/// Answers for ever; of the listeners once they are `started`.
pub(crate) async fn serve(
    listener: TcpListener,
    started: Arc<OnceLock<Arc<Overview>>>,
    token: Option<String>,
    drain: CancellationToken,
) {
    let ops = Arc::new(Ops::new(started, token, drain));
    tokio::join!(ops.watch(), accept(listener, &ops));
}

async fn accept(listener: TcpListener, ops: &Arc<Ops>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let ops = ops.clone();
                connections.spawn(async move {
                    connection(stream, &ops).await;
                    drop(permit);
                });
            }
            // Such as too many open files: others may be closed meanwhile.
            Err(error) => {
                tracing::warn!("the operations endpoint cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, ops: &Arc<Ops>) {
    let answer = |request: Request<Incoming>| async move {
        let answer = ops
            .answer(request.method(), request.uri().path(), request.headers())
            .await;
        Ok::<_, Infallible>(answer)
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // Nothing else ends one that asks on and on and reads no answer.
    if let Ok(Err(error)) = tokio::time::timeout(LIFE, served).await {
        tracing::debug!("a connection to the operations endpoint ended: {error}");
    }
}
