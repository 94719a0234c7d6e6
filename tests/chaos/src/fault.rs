//! What goes wrong, one thing a round.

use clap::ValueEnum;

use crate::system::System;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The broker is ended with SIGKILL and started again.
    BrokerKill,
    /// The broker is frozen with SIGSTOP, longer than the limits of its clients' sessions.
    BrokerPause,
    /// All consumers, or all but one, are ended with SIGKILL in the middle of their handlers, and started again.
    ConsumerKill,
    /// One consumer is frozen with SIGSTOP beyond its session's limit, and then acknowledges late.
    ConsumerPause,
    /// One consumer after the other drains and is replaced.
    RollingRestart,
    /// Bytes one way do not arrive, and do when it is over.
    Partition,
    /// Bytes one way vanish, and those connections stay silent for good.
    Blackhole,
    /// All connections are reset, a few times.
    Reset,
    /// The dead-letter topics do not take what is written.
    DeadLettersRefused,
    /// The topic, queue or stream is deleted.
    Deleted,
}

impl Fault {
    /// As it is written on the command line and in the lines of results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BrokerKill => "broker-kill",
            Self::BrokerPause => "broker-pause",
            Self::ConsumerKill => "consumer-kill",
            Self::ConsumerPause => "consumer-pause",
            Self::RollingRestart => "rolling-restart",
            Self::Partition => "partition",
            Self::Blackhole => "blackhole",
            Self::Reset => "reset",
            Self::DeadLettersRefused => "dead-letters-refused",
            Self::Deleted => "deleted",
        }
    }

    /// Whether clients must go through a proxy for it.
    pub(crate) fn needs_proxy(self) -> bool {
        matches!(self, Self::Partition | Self::Blackhole | Self::Reset)
    }

    /// Why messages may be gone that were sent before the service was whole again; `None`: none may.
    pub(crate) fn excuse(self, system: System) -> Option<&'static str> {
        if self == Self::Deleted {
            // Whoever deletes a queue deletes what is in it, and what is published until it is there again.
            Some("deleted with it")
        } else if !system.is_durable() {
            Some("at most once: not connected, or on the way")
        } else {
            None
        }
    }
}
