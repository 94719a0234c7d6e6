//! SIGTERM and SIGINT; elsewhere than on Unix, Ctrl-C. They are heard on a thread of their own: what blocks the threads of the
//! app's runtime, or holds up its end, keeps no second signal from ending the process.

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::contract::{Error, ErrorKind};

/// How long the process may take to end by itself after a second signal.
const PATIENCE: Duration = Duration::from_secs(2);

/// Apps that were told of no signal yet.
static UNTOLD: Mutex<Vec<UnboundedSender<&'static str>>> = Mutex::new(Vec::new());

/// What one app hears.
pub(super) struct Signals(UnboundedReceiver<&'static str>);

impl Signals {
    pub(super) fn new() -> Result<Self, Error> {
        static HEARD: LazyLock<io::Result<()>> = LazyLock::new(hear);
        if let Err(error) = &*HEARD {
            let text = format!("signals cannot be watched: {error}");
            return Err(Error::new(ErrorKind::Internal, text));
        }
        let (tell, told) = unbounded_channel();
        let mut untold = untold();
        untold.retain(|app| !app.is_closed());
        untold.push(tell);
        Ok(Self(told))
    }

    pub(super) async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

fn untold() -> MutexGuard<'static, Vec<UnboundedSender<&'static str>>> {
    UNTOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From when this returns, signals are heard for as long as the process lives.
fn hear() -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    let hearing = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let heard = runtime.and_then(|runtime| runtime.block_on(until_second(&tell)));
        match heard {
            Ok(signal) => {
                std::thread::sleep(PATIENCE);
                // On another thread: it may be the log that blocks.
                let tell = move || {
                    tracing::error!(signal, "ended by force: something blocks the end of the process");
                };
                if std::thread::Builder::new().spawn(tell).is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
                std::process::exit(1);
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    let thread = std::thread::Builder::new().name("postrider-signals".to_owned());
    thread.spawn(hearing)?;
    told.recv().unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Passes signals on, until one comes that is the first for no app.
async fn until_second(ready: &mpsc::Sender<io::Result<()>>) -> io::Result<&'static str> {
    let mut source = Source::new()?;
    let _ = ready.send(Ok(()));
    let mut apps = Vec::new();
    loop {
        let signal = source.next().await;
        let mut untold = std::mem::take(&mut *untold());
        untold.retain(|app| !app.is_closed());
        let is_first = !untold.is_empty();
        apps.append(&mut untold);
        apps.retain(|app| app.send(signal).is_ok());
        if !is_first {
            return Ok(signal);
        }
    }
}

struct Source {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Source {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, reason = "the same form everywhere")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
