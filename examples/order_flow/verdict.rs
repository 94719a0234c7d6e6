//! Whether everything came out right, judged by what took effect and by what the broker holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use postrider::{ListenerStatus, Message, Running};

use crate::dead_letters;
use crate::inventory::PIECES;
use crate::messages::{InventoryDecreased, OrderCreated, PaymentCompleted, PaymentFailed, ShipmentArranged};
use crate::notification::Mail;
use crate::orders::{Fate, Line};
use crate::report::grouped;
use crate::shop::Shop;

/// How many problems of one kind are shown.
const SHOWN: usize = 5;

pub(crate) struct Verdict(Vec<Check>);

struct Check {
    name: &'static str,
    /// What holds if there are no problems.
    what: String,
    problems: Vec<String>,
}

impl Verdict {
    pub(crate) async fn of(shop: &Shop, lines: &[Line], running: &Running) -> Self {
        Self(vec![
            orders(shop, lines),
            stock(shop, lines),
            money(shop, lines),
            seen_by_audit(shop, lines),
            mailed(shop, lines),
            tried_again(shop),
            given_up(shop, lines, running).await,
        ])
    }

    pub(crate) fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.problems.is_empty())
    }
}

/// Every valid order is shipped or compensated, and nothing else is.
fn orders(shop: &Shop, lines: &[Line]) -> Check {
    let reserved = shop.warehouse.reserved.entries();
    let released = shop.warehouse.released.entries();
    let charged = shop.gateway.charges.entries();
    let parcels = shop.carrier.parcels.entries();
    let (mut shipped, mut compensated, mut problems) = (0_u64, 0_u64, Vec::new());
    let mut strays = parcels.len() + released.len();
    for (line, order) in valid(lines) {
        let id = order.order_id;
        let mut is = |what: &str, is: bool, should: bool| {
            if is != should {
                problems.push(format!(
                    "order {id} is {}{what}",
                    if should { "not " } else { "" }
                ));
            }
        };
        let ships = line.fate == Fate::Shipped;
        is("reserved", reserved.contains_key(&id), true);
        is("paid", charged.contains_key(&id), ships);
        is("shipped", parcels.contains_key(&id), ships);
        is("released", released.contains_key(&id), !ships);
        if ships {
            shipped += 1;
        } else {
            compensated += 1;
        }
        strays -= usize::from(parcels.contains_key(&id)) + usize::from(released.contains_key(&id));
    }
    if strays > 0 {
        problems.push(format!(
            "{strays} orders were shipped or released that are no valid orders"
        ));
    }
    let what = format!(
        "{} valid orders: {} shipped, {} declined and their stock released, each exactly once in effect \
         ({} deliveries came again and changed nothing)",
        grouped(shipped + compensated),
        grouped(shipped),
        grouped(compensated),
        grouped(shop.repeats()),
    );
    Check {
        name: "orders",
        what,
        problems,
    }
}

/// What is gone from the shelves is what was shipped.
fn stock(shop: &Shop, lines: &[Line]) -> Check {
    let on_hand = shop.warehouse.on_hand();
    let mut left: BTreeMap<&str, i64> = on_hand
        .keys()
        .map(|&article| (article, i64::from(PIECES)))
        .collect();
    for (_, order) in valid(lines).filter(|(line, _)| line.fate == Fate::Shipped) {
        *left.entry(order.article.as_str()).or_default() -= i64::from(order.quantity);
    }
    let problems = left
        .iter()
        .filter_map(|(article, &left)| {
            let is = on_hand.get(article).copied().map_or(0, i64::from);
            (is != left).then(|| format!("{article}: {is} on hand, should be {left}"))
        })
        .collect();
    let pieces = on_hand.len() as u64 * u64::from(PIECES);
    let sum: u64 = on_hand.values().map(|&pieces| u64::from(pieces)).sum();
    let what = format!(
        "it adds up: {} articles, {} pieces - {} shipped = {}",
        on_hand.len(),
        grouped(pieces),
        grouped(pieces - sum),
        grouped(sum)
    );
    Check {
        name: "stock",
        what,
        problems,
    }
}

/// Every customer paid what the order costs, also where the gateway failed at first.
fn money(shop: &Shop, lines: &[Line]) -> Check {
    let charged = shop.gateway.charges.entries();
    let mut problems = Vec::new();
    let (mut unlucky, mut failures) = (0_u64, 0);
    for (line, order) in valid(lines).filter(|(line, _)| line.fate == Fate::Shipped) {
        unlucky += u64::from(line.failures() > 0);
        failures += line.failures() as usize;
        let (id, cents) = (order.order_id, order.total_cents);
        match charged.get(&id) {
            Some(&paid) if paid == cents => {}
            Some(paid) => problems.push(format!("order {id} was charged {paid} cents, should be {cents}")),
            None => problems.push(format!("order {id} was not charged")),
        }
    }
    if shop.gateway.failed() != failures {
        let failed = shop.gateway.failed();
        problems.push(format!(
            "{failed} requests to the gateway failed, should be {failures}"
        ));
    }
    let total: u64 = charged.values().sum();
    let what = format!(
        "it adds up: {}.{:02} EUR; {} orders met a failing gateway, {} times in all, and were tried again",
        grouped(total / 100),
        total % 100,
        grouped(unlucky),
        grouped(failures as u64)
    );
    Check {
        name: "money",
        what,
        problems,
    }
}

/// The audit group saw every message of every topic.
fn seen_by_audit(shop: &Shop, lines: &[Line]) -> Check {
    let entries = shop.trail.entries.entries();
    let mut seen: HashMap<&str, HashSet<&str>> = HashMap::new();
    for entry in entries.keys() {
        seen.entry(&entry.topic).or_default().insert(&entry.key);
    }
    let mut problems = Vec::new();
    let mut expect = |topic: &str, passes: &dyn Fn(&Line) -> bool| {
        let mut seen = seen.remove(topic).unwrap_or_default();
        for line in lines.iter().filter(|line| passes(line)) {
            if !seen.remove(line.key().as_str()) {
                problems.push(format!("{topic} of {} was not seen", line.key()));
            }
        }
        problems.extend(seen.iter().map(|key| format!("{topic} of {key} should not be")));
    };
    expect(OrderCreated::TOPIC, &|_| true);
    expect(InventoryDecreased::TOPIC, &|line| {
        matches!(line.fate, Fate::Shipped | Fate::Compensated)
    });
    expect(PaymentCompleted::TOPIC, &|line| line.fate == Fate::Shipped);
    expect(PaymentFailed::TOPIC, &|line| line.fate == Fate::Compensated);
    expect(ShipmentArranged::TOPIC, &|line| line.fate == Fate::Shipped);
    let what = format!(
        "all {} messages of 5 topics were seen",
        grouped(entries.len() as u64)
    );
    Check {
        name: "audit",
        what,
        problems,
    }
}

/// The notification group mailed every customer at every step.
fn mailed(shop: &Shop, lines: &[Line]) -> Check {
    let mut sent = shop.mailbox.sent.entries();
    let count = sent.len() as u64;
    let mut problems = Vec::new();
    for line in lines {
        let Some(order) = &line.order else { continue };
        let due: &[Mail] = match line.fate {
            Fate::Shipped => &[Mail::Ordered, Mail::Reserved, Mail::Paid, Mail::Shipped],
            Fate::Compensated => &[Mail::Ordered, Mail::Reserved, Mail::NotPaid],
            Fate::DeadLettered(_) => &[Mail::Ordered],
        };
        for mail in due {
            if sent.remove(&(order.order_id, *mail)).is_none() {
                problems.push(format!(
                    "order {}: the mail {mail:?} was not sent",
                    order.order_id
                ));
            }
        }
    }
    problems.extend(
        sent.keys()
            .map(|(order, mail)| format!("order {order}: no mail {mail:?} was due")),
    );
    Check {
        name: "mails",
        what: format!("{} were sent", grouped(count)),
        problems,
    }
}

/// Whatever failed has come again until it succeeded or was given up.
fn tried_again(shop: &Shop) -> Check {
    let open = shop.this_run.open();
    let problem = |(listener, message): &(String, String)| {
        format!("{listener}: message {message} failed or is not done")
    };
    let problems = open.iter().map(problem).collect();
    Check {
        name: "retries",
        what: "nothing is left to be tried again".to_owned(),
        problems,
    }
}

/// Every bad line is in its dead-letter topic with the right reason, its bytes intact, and nothing else is.
async fn given_up(shop: &Shop, lines: &[Line], running: &Running) -> Check {
    let mut problems = Vec::new();
    let mut held = Vec::new();
    let mut system = "";
    for listener in running.status() {
        system = listener.system;
        let mut due = due_dead_letters(lines, &listener);
        if due.is_empty() && listener.counts.dead_lettered == 0 {
            continue;
        }
        let topic = &listener.dead_letter_topic;
        let letters = match dead_letters::of_run(running, &listener.name, &shop.run).await {
            Ok(letters) => letters,
            Err(error) => {
                problems.push(format!("{topic} could not be read: {error}"));
                continue;
            }
        };
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        let mut unexpected = HashMap::new();
        for (payload, why) in &letters {
            match due.remove(payload.as_ref()) {
                Some((_, reason)) if reason == why.reason => *reasons.entry(reason).or_default() += 1,
                Some((number, reason)) => {
                    problems.push(format!(
                        "{topic}: line {number} is there as {}, should be {reason}",
                        why.reason
                    ));
                }
                None => drop(unexpected.insert(payload, why)),
            }
        }
        let all = due_dead_letters(lines, &listener);
        for (payload, why) in unexpected {
            // A copy of one that is there is no second effect: after a crash, the same is given up again.
            if !all.contains_key(payload.as_ref()) {
                problems.push(format!(
                    "{topic}: should not be there ({}): {}",
                    why.reason, why.error
                ));
            }
        }
        for (number, reason) in due.into_values() {
            problems.push(format!(
                "{topic}: line {number} is missing, should be there as {reason}"
            ));
        }
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        if !reasons.is_empty() {
            held.push(format!("{} in {topic}", reasons.join(" + ")));
        }
    }
    let what = format!("every bad line is one, says {system}: {}", held.join(", "));
    Check {
        name: "dead letters",
        what,
        problems,
    }
}

/// The payloads that a listener should give up, with their lines' numbers and why.
fn due_dead_letters<'a>(
    lines: &'a [Line],
    listener: &ListenerStatus,
) -> HashMap<&'a [u8], (usize, &'static str)> {
    let due = |line: &'a Line| match (listener.name.as_str(), line.fate) {
        ("reserve_stock", Fate::DeadLettered(reason))
        | ("notify_order", Fate::DeadLettered(reason @ "decode")) => {
            Some((line.text.as_bytes(), (line.number, reason)))
        }
        _ => None,
    };
    lines.iter().filter_map(due).collect()
}

/// The lines that should be shipped or compensated, with their orders.
fn valid(lines: &[Line]) -> impl Iterator<Item = (&Line, &OrderCreated)> {
    let valid = |line: &&Line| !matches!(line.fate, Fate::DeadLettered(_));
    lines
        .iter()
        .filter(valid)
        .filter_map(|line| Some((line, line.order.as_ref()?)))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, what, problems } in &self.0 {
            if problems.is_empty() {
                writeln!(f, "  ok     {name:12}  {what}")?;
                continue;
            }
            writeln!(f, "  WRONG  {name:12}  {} problems:", problems.len())?;
            for problem in problems.iter().take(SHOWN) {
                writeln!(f, "           {problem}")?;
            }
            if problems.len() > SHOWN {
                writeln!(f, "           … and {} more", problems.len() - SHOWN)?;
            }
        }
        let word = if self.is_good() {
            "all is well"
        } else {
            "NOT all is well"
        };
        write!(f, "Verdict: {word}")
    }
}
