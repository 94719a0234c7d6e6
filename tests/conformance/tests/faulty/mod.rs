//! An adapter over the embedded broker that is wrong in one way at a time.

mod broker;
mod letters;
mod receiving;
mod settling;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Client, Error, Settlement, Settler, Token, Verdict};
use postrider_memory::Memory;

use broker::FaultyBroker;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: shows that the wrapper itself is harmless.
    None,
    // Publishing.
    DropsSome,
    Doubles,
    MixesTopics,
    LossyPayload,
    CutsPayload,
    FewHeaders,
    ObeysControlHeaders,
    RefusesWholeBatch,
    AnswersMixedUp,
    PretendsReceived,
    HasBackDoor,
    // Time.
    Early,
    Late,
    FirstInFirstOut,
    ForgetsWaiting,
    WritesAtClose,
    BlocksWhileWaiting,
    // Groups.
    MergesGroups,
    EveryoneGetsAll,
    DeclaresAtOpen,
    StartsAtEarliest,
    StartsAtNew,
    CountsNothing,
    Unordered,
    SharesBroadcast,
    // Receiving.
    Sleepy,
    GivesTooMany,
    Hoards,
    IgnoresPause,
    CancelLoses,
    TrustsHeaders,
    ForgetsReplays,
    // Settling.
    AcksBeforeEmit,
    LeaksInbox,
    LosesRelease,
    LimitsReleases,
    ForgetsAcks,
    AcksAllBefore,
    FirstCopyOnly,
    NoHeadroom,
    NamesSlots,
    DoneWhenStale,
    GivesHeldAway,
    AcksAtClose,
    KeepsForEver,
    // Dead letters.
    LossyLetters,
    BrowsingTakes,
    SamePageAgain,
    ReplaysToAll,
    ReplaysAgain,
    PurgesAll,
    MixesLetters,
    // Planning, status, closing.
    AcceptsNames,
    OneProblemOnly,
    VerifyDeclares,
    PlanResets,
    ShortNames,
    WrongDepths,
    NeverCloses,
}

/// One broker with one fault.
pub(crate) struct Faulty {
    memory: Memory,
    fault: Fault,
    kept: Arc<Mutex<Vec<Arc<dyn Settler>>>>,
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        let memory = Memory::new(1_000_000, 10_000);
        let kept = Arc::default();
        Self { memory, fault, kept }
    }
}

#[async_trait]
impl Harness for Faulty {
    fn name(&self) -> &'static str {
        "the faulty adapter"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        let client = Client {
            application: application.into(),
            instance: "faulty".into(),
        };
        Ok(Arc::new(FaultyBroker {
            inner: self.memory.connect(client.clone()),
            other: self.memory.connect(client),
            fault: self.fault,
            count: AtomicU64::new(0),
            held: Mutex::default(),
            unwritten: Arc::default(),
            kept: self.kept.clone(),
        }))
    }

    fn patience(&self) -> Duration {
        // Longer than the longest wait of any case, so that none fails for that alone.
        Duration::from_secs(10)
    }

    async fn restart(&self) -> bool {
        true
    }
}

/// What a subscription was given and has not settled, in that order.
pub(crate) type Held = Arc<Mutex<Vec<Token>>>;

pub(crate) async fn ack(settler: &Arc<dyn Settler>, tokens: impl IntoIterator<Item = Token>) {
    let verdict = Verdict::ACK;
    let ack = |token| Settlement {
        token,
        verdict: verdict.clone(),
    };
    settler
        .settle(&mut tokens.into_iter().map(ack).collect(), &mut Vec::new())
        .await;
}
