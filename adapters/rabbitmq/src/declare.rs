//! One declaration at a time, in either mode, with faults a person can act on.

use std::fmt::Write as _;

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind, Queue};
use postrider_contract::{Error, ErrorKind, Problem, Topology as Mode};

use crate::fault;
use crate::line::{answer, open_channel};
use crate::link::Live;
use crate::properties::short;

/// What is wrong with one exchange or queue.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: ErrorKind,
    what: String,
    help: String,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            help: help.into(),
        }
    }

    /// Trying again may help.
    pub(crate) fn may_pass(&self) -> bool {
        self.kind.is_retryable()
    }

    pub(crate) fn problem(self, listener: &std::sync::Arc<str>) -> Problem {
        Problem {
            listener: listener.clone(),
            what: self.what,
            help: self.help,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::new(fault.kind, format!("{}; {}", fault.what, fault.help))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::new(error.kind(), error.to_string(), "look at the broker")
    }
}

/// Declares on a channel of its own, which every refusal closes.
pub(crate) struct Declarer<'a> {
    live: &'a Live,
    mode: Mode,
    channel: Option<Channel>,
    faults: Vec<Fault>,
    lacks_exchange: bool,
}

impl<'a> Declarer<'a> {
    pub(crate) fn new(live: &'a Live, mode: Mode) -> Self {
        Self {
            live,
            mode,
            channel: None,
            faults: Vec::new(),
            lacks_exchange: false,
        }
    }

    /// What is missing or differs, so far. Only an `Err` of the other methods ends the work.
    pub(crate) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Whether something could not be bound because there is no such exchange.
    pub(crate) fn lacks_exchange(&self) -> bool {
        self.lacks_exchange
    }

    /// A durable exchange.
    pub(crate) async fn exchange(
        &mut self,
        name: &str,
        kind: ExchangeKind,
        arguments: Option<FieldTable>,
    ) -> Result<(), Fault> {
        let declare = |passive| {
            let kind = kind.clone();
            let arguments = arguments.clone().unwrap_or_default();
            move |channel: Channel, name| async move {
                let options = ExchangeDeclareOptions {
                    passive,
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                channel.exchange_declare(name, kind, options, arguments).await
            }
        };
        if self.mode == Mode::Verify && self.run("exchange", name, declare(true)).await?.is_none() {
            return Ok(());
        }
        // It exists in verify mode, so this compares and creates nothing.
        self.run("exchange", name, declare(false)).await?;
        Ok(())
    }

    /// A durable queue.
    pub(crate) async fn queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), Fault> {
        let needed = told(&arguments);
        let declare = |passive| {
            let arguments = arguments.clone();
            move |channel: Channel, name| async move {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                channel.queue_declare(name, options, arguments).await
            }
        };
        if self.mode == Mode::Verify && self.run("queue", name, declare(true)).await?.is_none() {
            return Ok(());
        }
        let before = self.faults.len();
        self.run("queue", name, declare(false)).await?;
        if let Some(fault) = self.faults.get_mut(before) {
            // The broker tells both sides of the first difference alone.
            let _ = write!(fault.what, " (needed: durable, {needed})");
        }
        Ok(())
    }

    /// Looks at a queue: `None` where there is none.
    pub(crate) async fn look(&mut self, name: &str) -> Result<Option<Queue>, Fault> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await?;
        let looking = channel.queue_declare(short(name)?, options, FieldTable::default());
        let found = answer(&channel, looking).await;
        match found {
            Ok(queue) => Ok(Some(queue)),
            Err(error) if fault::is_no_queue(&error) => {
                self.channel = None;
                Ok(None)
            }
            Err(error) => Err(fault::error(&format!("looking at queue `{name}`"), &error).into()),
        }
    }

    /// Binds a queue. AMQP cannot tell whether a binding exists, so verify mode takes it on trust.
    pub(crate) async fn bind_queue(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Fault> {
        if self.mode == Mode::Verify {
            return Ok(());
        }
        let (exchange, key) = (short(exchange)?, short(key)?);
        let bind = |channel: Channel, queue| async move {
            channel
                .queue_bind(
                    queue,
                    exchange,
                    key,
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        };
        self.run("the binding of queue", queue, bind).await?;
        Ok(())
    }

    /// Takes a queue's binding away, whether or not there is one.
    pub(crate) async fn unbind_queue(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Fault> {
        if self.mode == Mode::Verify {
            return Ok(());
        }
        let (exchange, key) = (short(exchange)?, short(key)?);
        let unbind = |channel: Channel, queue| async move {
            channel
                .queue_unbind(queue, exchange, key, FieldTable::default())
                .await
        };
        self.run("the binding of queue", queue, unbind).await?;
        Ok(())
    }

    /// Binds an exchange to another.
    pub(crate) async fn bind_exchange(&mut self, to: &str, from: &str, key: &str) -> Result<(), Fault> {
        if self.mode == Mode::Verify {
            return Ok(());
        }
        let (from, key) = (short(from)?, short(key)?);
        let bind = |channel: Channel, to| async move {
            channel
                .exchange_bind(
                    to,
                    from,
                    key,
                    ExchangeBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        };
        self.run("the binding of exchange", to, bind).await?;
        Ok(())
    }

    /// Runs one step. A refusal of this one thing is noted and answered with `None`; anything else is an error.
    async fn run<T, F, R>(&mut self, what: &str, name: &str, step: F) -> Result<Option<T>, Fault>
    where
        F: FnOnce(Channel, lapin::types::ShortString) -> R,
        R: Future<Output = lapin::Result<T>>,
    {
        let channel = self.channel().await?;
        let error = match answer(&channel, step(channel.clone(), short(name)?)).await {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        self.channel = None;
        self.lacks_exchange |= fault::is_no_exchange(&error);
        let text = fault::text(&error);
        let fault = match fault::reply_code(&error) {
            // Nothing that is being declared is missing: a node is starting.
            Some(fault::NOT_FOUND) if self.mode == Mode::Declare => Fault::new(
                ErrorKind::Unavailable,
                format!("{what} `{name}` cannot be reached: {text}"),
                "see that every node of the broker is up",
            ),
            Some(fault::NOT_FOUND) => Fault::new(
                ErrorKind::Topology,
                format!("{what} `{name}` is missing: {text}"),
                "declare it, or start with `topology = declare`",
            ),
            Some(fault::PRECONDITION_FAILED) => Fault::new(
                ErrorKind::Topology,
                format!("{what} `{name}` differs from what is needed: {text}"),
                "delete it once it is empty, and it is declared anew; or choose another name",
            ),
            // Comparing needs the permission to configure; without it the existence is all that can be checked.
            Some(fault::ACCESS_REFUSED) if self.mode == Mode::Verify => return Ok(None),
            Some(fault::ACCESS_REFUSED) => Fault::new(
                ErrorKind::Denied,
                format!("{what} `{name}` may not be declared: {text}"),
                "give the user the permissions to configure, write and read it, or start with `topology = verify`",
            ),
            _ => return Err(fault::error(&format!("declaring {what} `{name}`"), &error).into()),
        };
        self.faults.push(fault);
        Ok(None)
    }

    async fn channel(&mut self) -> Result<Channel, Fault> {
        if let Some(channel) = &self.channel
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let channel = open_channel(self.live)
            .await
            .map_err(|error| Fault::from(fault::error("opening a channel", &error)))?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}

/// Arguments as a person writes them.
fn told(arguments: &FieldTable) -> String {
    let one = |(name, value): (&ShortString, &AMQPValue)| match value {
        AMQPValue::LongString(text) => format!("{name}={text}"),
        AMQPValue::LongLongInt(number) => format!("{name}={number}"),
        AMQPValue::Boolean(truth) => format!("{name}={truth}"),
        other => format!("{name}={other:?}"),
    };
    arguments.into_iter().map(one).collect::<Vec<_>>().join(", ")
}
