//! The Lua scripts. Each is loaded when a connection is made, and run by its hash.

use redis::{Cmd, Script, ToRedisArgs};

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        /// One of the scripts; its file says what it takes and answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Name { $($(#[$doc])* $name,)* }

        const SOURCES: &[&str] = &[$(include_str!(concat!("scripts/", $file, ".lua")),)*];
    };
}

scripts! {
    /// Claims idle or own entries.
    Claim = "claim";
    /// Makes an empty stream.
    Declare = "declare";
    /// Puts frames off.
    Delay = "delay";
    /// Counts what waits for a group.
    Depth = "depth";
    /// Passes on what is due.
    Due = "due";
    /// Hands entries to others.
    GiveBack = "give_back";
    /// Takes or renews an ordered group's lease.
    Lead = "lead";
    /// Marks a message as handled.
    Mark = "mark";
    /// Settles with what is emitted.
    Move = "move";
    /// Reads for an ordered group.
    ReadAsLeader = "read_as_leader";
    /// Takes Pub/Sub messages into an inbox.
    Receive = "receive";
    /// Renews leases of entries.
    Renew = "renew";
    /// Moves a dead letter to an inbox.
    Replay = "replay";
    /// Gives an ordered group's lease up.
    Resign = "resign";
    /// Tells where a stream and a group in it stand.
    Stand = "stand";
    /// Forgets consumers.
    Sweep = "sweep";
    /// Removes what everybody has acknowledged.
    Trim = "trim";
    /// Counts what no instance received.
    Unclaimed = "unclaimed";
}

/// All of them, with their hashes.
#[derive(Debug)]
pub(crate) struct Scripts(Vec<String>);

impl Scripts {
    pub(crate) fn new() -> Self {
        Self(
            SOURCES
                .iter()
                .map(|code| Script::new(code).get_hash().to_owned())
                .collect(),
        )
    }

    /// The commands that load them.
    pub(crate) fn load() -> impl Iterator<Item = Cmd> {
        SOURCES.iter().map(|code| {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(*code);
            load
        })
    }

    /// A call without arguments yet.
    pub(crate) fn call(&self, name: Name, keys: &[impl ToRedisArgs]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.0[name as usize].as_str()).arg(keys.len()).arg(keys);
        call
    }
}
