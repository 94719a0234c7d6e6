//! Makes `orders.ndjson`, the orders of `order_flow`: one JSON object on each line, the same file every time.
//!
//! ```text
//! cargo run --example generate_orders            writes examples/data/orders.ndjson
//! cargo run --example generate_orders -- --check fails if the file is not what would be written
//! ```
//!
//! Of the 10,000 lines, spread at random:
//!
//! | lines | what they are | what should become of them |
//! |---|---|---|
//! | 20 | no valid order: JSON that breaks off, a missing field, a field of a wrong type | dead-lettered: `decode` |
//! | 50 | an order of an article that the shop does not sell | dead-lettered: `permanent` |
//! | 500 | paid by a card at which the payment gateway fails one to three times first | shipped |
//! | 50 | paid by a card that is declined | the stock is released again |
//! | 9,380 | orders like any other | shipped |

#[path = "../order_flow/catalogue.rs"]
mod catalogue;

use std::path::Path;
use std::process::ExitCode;

use catalogue::{ARTICLES, sells};
use fastrand::Rng;

const LINES: usize = 10_000;
const NOT_VALID: usize = 20;
const UNKNOWN_ARTICLE: usize = 50;
const FAILING_GATEWAY: usize = LINES / 20;
const DECLINED: usize = LINES / 200;

const GIVEN_NAMES: &[&str] = &[
    "Amira", "Bruno", "Chiara", "Daan", "Elif", "Femke", "Goran", "Hanna", "Igor", "Jonas", "Kaja", "Linnea",
    "Mateo", "Nora", "Olga", "Pavel", "Quentin", "Rosa", "Sanna", "Tomas",
];
const FAMILY_NAMES: &[&str] = &[
    "Andersen",
    "Bakker",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Horvat",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Pereira",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Weber",
];
const STREETS: &[&str] = &[
    "Harbour Street",
    "Mill Lane",
    "Station Road",
    "Church Square",
    "Linden Avenue",
    "River Walk",
    "Market Place",
];
const CITIES: &[(&str, &str)] = &[
    ("Aarhus", "DK"),
    ("Bologna", "IT"),
    ("Gdansk", "PL"),
    ("Ghent", "BE"),
    ("Hamburg", "DE"),
    ("Lyon", "FR"),
    ("Porto", "PT"),
    ("Turku", "FI"),
    ("Utrecht", "NL"),
    ("Zagreb", "HR"),
];
const CARDS: &[&str] = &["tok_visa", "tok_mastercard", "tok_amex", "tok_maestro"];

/// What is special about a line.
#[derive(Clone, Copy)]
enum Kind {
    Usual,
    NotValid(usize),
    UnknownArticle,
    FailingGateway,
    Declined,
}

struct Order {
    id: usize,
    placed_at: String,
    name: String,
    email: String,
    street: String,
    city: &'static str,
    country: &'static str,
    article: String,
    quantity: u64,
    total_cents: u64,
    card: String,
}

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/orders.ndjson");
    let made = generate();
    if std::env::args().any(|argument| argument == "--check") {
        let same = std::fs::read_to_string(&path).is_ok_and(|is| is == made);
        println!(
            "{}",
            if same {
                "orders.ndjson is as generated"
            } else {
                "orders.ndjson differs"
            }
        );
        return if same {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    match std::fs::write(&path, &made) {
        Ok(()) => {
            println!("{LINES} lines, {} bytes", made.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{} cannot be written: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn generate() -> String {
    let mut random = Rng::with_seed(20_260_302);
    let mut kinds = vec![Kind::Usual; LINES];
    let special = (0..NOT_VALID)
        .map(Kind::NotValid)
        .chain([Kind::UnknownArticle; UNKNOWN_ARTICLE])
        .chain([Kind::FailingGateway; FAILING_GATEWAY])
        .chain([Kind::Declined; DECLINED]);
    kinds
        .iter_mut()
        .zip(special)
        .for_each(|(kind, special)| *kind = special);
    random.shuffle(&mut kinds);

    let mut text = String::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let line = order(index, kind, &mut random).to_json();
        text.push_str(&match kind {
            Kind::NotValid(way) => spoil(&line, way),
            _ => line,
        });
        text.push('\n');
    }
    text
}

fn order(index: usize, kind: Kind, random: &mut Rng) -> Order {
    let id = 100_001 + index;
    let second = index * 3;
    let (given, family) = (choose(GIVEN_NAMES, random), choose(FAMILY_NAMES, random));
    let (city, country) = choose(CITIES, random);
    let (article, price) = choose(ARTICLES, random);
    let quantity = [1, 1, 1, 2, 2, 3, 4][random.usize(..7)];
    let article = match kind {
        Kind::UnknownArticle => format!("{article}-{}", random.u32(1970..2020)),
        _ => article.to_owned(),
    };
    assert_eq!(sells(&article), !matches!(kind, Kind::UnknownArticle));
    let card = choose(CARDS, random);
    Order {
        id,
        placed_at: format!(
            "2026-03-02T{:02}:{:02}:{:02}Z",
            8 + second / 3600,
            second / 60 % 60,
            second % 60
        ),
        name: format!("{given} {family}"),
        email: format!("{given}.{family}.{id}@example.com").to_lowercase(),
        street: format!("{} {}", choose(STREETS, random), random.u32(1..=180)),
        city,
        country,
        article,
        quantity,
        total_cents: quantity * price,
        card: match kind {
            Kind::FailingGateway => format!("{card}_unreachable_{}", random.u32(1..=3)),
            Kind::Declined => format!("{card}_declined"),
            _ => card.to_owned(),
        },
    }
}

impl Order {
    fn to_json(&self) -> String {
        let Self {
            id,
            placed_at,
            name,
            email,
            street,
            city,
            country,
            article,
            quantity,
            total_cents,
            card,
        } = self;
        format!(
            r#"{{"order_id":{id},"placed_at":"{placed_at}","customer":{{"name":"{name}","email":"{email}","#,
        ) + &format!(r#""street":"{street}","city":"{city}","country":"{country}"}},"#)
            + &format!(
                r#""article":"{article}","quantity":{quantity},"total_cents":{total_cents},"card":"{card}"}}"#
            )
    }
}

/// A line that is no valid order, in one of several ways.
fn spoil(line: &str, way: usize) -> String {
    let without = |from: &str, to: &str| {
        let (start, end) = (line.find(from), line.find(to));
        format!("{}{}", &line[..start.unwrap_or(0)], &line[end.unwrap_or(0)..])
    };
    match way % 6 {
        0 => line[..line.len() * 2 / 3].to_owned(),
        1 => line.replacen(':', "=", 3),
        2 => without("\"article\"", "\"quantity\""),
        3 => without("\"customer\"", "\"article\""),
        4 => line.replace("\"quantity\":", "\"quantity\":\"about \",\"more\":"),
        _ => line.replace("\"total_cents\":", "\"total_cents\":-"),
    }
}

fn choose<T: Copy>(from: &[T], random: &mut Rng) -> T {
    from[random.usize(..from.len())]
}
