//! Tokens to model: the shape of every value is checked here, what values mean together in `validate`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Lit, LitBool, Path, Signature, Token, Visibility};

use super::model::{Ack, Batch, Breaker, Dedup, Function, Options, Retry, Start};
use crate::entries::{self, Entry, Given, Place};
use crate::problems::Problems;
use crate::values::{self, Reserved};

/// Every option of the attribute.
pub(crate) const KEYS: [&str; 21] = [
    "topic",
    "group",
    "broker",
    "concurrency",
    "prefetch",
    "retry",
    "timeout",
    "ack",
    "ordered",
    "broadcast",
    "start",
    "delivery",
    "dead_letter",
    "publish",
    "batch",
    "rate",
    "breaker",
    "dedup",
    "max_size",
    "enabled",
    "crate",
];

const DURATION: &str = "a duration in quotes";

/// Reads the attribute, which stands `here`.
pub(crate) fn options(tokens: TokenStream, here: Span, problems: &mut Problems) -> Options {
    let mut options = Options::default();
    let place = Place {
        inside: None,
        keys: &KEYS,
    };
    let entries = entries::read(tokens, place, problems);
    for entry in &entries.good {
        match entry.name().as_str() {
            "topic" => {
                options.topic = topic(
                    entry,
                    "topic = \"order.created\"",
                    Reserved::DeadLetters,
                    problems,
                );
            }
            "group" => options.group = name(entry, "group = \"inventory\"", problems),
            "broker" => options.broker = name(entry, "broker = \"audit\"", problems),
            "concurrency" => {
                options.concurrency = entry.count("concurrency = 8", problems).map(|n| entry.given(n));
            }
            "prefetch" => options.prefetch = entry.count("prefetch = 64", problems).map(|n| entry.given(n)),
            "retry" => options.retry = retry(entry, problems),
            "timeout" => {
                options.timeout =
                    duration(entry, "timeout = \"10s\"", problems).map(|time| entry.given(time));
            }
            "ack" => {
                let words = [("manual", Ack::Manual), ("auto", Ack::Auto)];
                options.ack = entry.word(&words, problems).map(|ack| entry.given(ack));
            }
            "ordered" => options.ordered = entry.flag(problems).map(|()| entry.given(())),
            "broadcast" => options.broadcast = entry.flag(problems).map(|()| entry.given(())),
            "start" => {
                let words = [("earliest", Start::Earliest), ("new", Start::New)];
                options.start = entry.word(&words, problems).map(|start| entry.given(start));
            }
            "delivery" => {
                options.delivery = entry
                    .word(&[("at_least_once", ())], problems)
                    .map(|()| entry.given(()));
            }
            "dead_letter" => {
                let example = "dead_letter = \"order.failed\"";
                options.dead_letter = topic(entry, example, Reserved::DeadLetters, problems);
            }
            "publish" => {
                options.publish = topic(entry, "publish = \"stock.reserved\"", Reserved::None, problems);
            }
            "batch" => options.batch = batch(entry, problems),
            "rate" => options.rate = rate(entry, problems),
            "breaker" => options.breaker = breaker(entry, problems),
            "dedup" => options.dedup = dedup(entry, problems),
            "max_size" => options.max_size = max_size(entry, problems),
            "enabled" => {
                let flag = entry.parse::<LitBool>("`true` or `false`", "enabled = false", problems);
                options.enabled = flag.map(|flag| entry.given(flag.value));
            }
            "crate" => options.root = root(entry, problems),
            _ => {}
        }
    }
    if !entries.meant.iter().any(|name| name == "topic") {
        problems.span(
            here,
            "a listener needs a topic",
            "write `#[listener(topic = \"order.created\")]`",
        );
    }
    options
}

/// Where the crate is.
pub(crate) fn root(entry: &Entry, problems: &mut Problems) -> Option<Path> {
    let takes = "the path at which the crate `postrider` is found, without quotes";
    entry.parse_with(
        Path::parse_mod_style,
        takes,
        "crate = my_crate::postrider",
        problems,
    )
}

fn topic(entry: &Entry, example: &str, reserved: Reserved, problems: &mut Problems) -> Option<Given<String>> {
    let literal = entry.text("the name of a topic in quotes", example, problems)?;
    values::check_topic(&literal, &entry.name(), reserved, problems)?;
    Some(entry.given(literal.value()))
}

fn name(entry: &Entry, example: &str, problems: &mut Problems) -> Option<Given<String>> {
    let literal = entry.text("a name in quotes", example, problems)?;
    values::check_name(&literal, &entry.name(), problems)?;
    Some(entry.given(literal.value()))
}

fn duration(entry: &Entry, example: &str, problems: &mut Problems) -> Option<Duration> {
    let literal = entry.text(DURATION, example, problems)?;
    let help = format!("write `{example}`; the units are `ms`, `s`, `m` and `h`");
    accept(values::duration(&literal.value()), &literal, &help, problems)
}

fn retry(entry: &Entry, problems: &mut Problems) -> Option<Given<Retry>> {
    let example = "retry(attempts = 5, backoff = \"200ms..30s\")` or, for no retry, `retry(attempts = 1)";
    let mut retry = Retry {
        attempts: None,
        backoff: None,
        max_age: None,
    };
    for inner in entry.list(&["attempts", "backoff", "max_age"], example, problems)? {
        if inner.key == "attempts" {
            retry.attempts = inner.count("attempts = 5", problems);
        } else if inner.key == "max_age" {
            retry.max_age = duration(&inner, "max_age = \"1h\"", problems);
        } else if let Some(literal) = inner.text(DURATION, "backoff = \"200ms..30s\"", problems) {
            let help = "write the shortest and the longest wait, `backoff = \"200ms..30s\"` or \
                        `backoff = \"linear 1s..30s\"`, or a fixed one, `backoff = \"5s\"`";
            retry.backoff = accept(values::backoff(&literal.value()), &literal, help, problems);
        }
    }
    Some(entry.given(retry))
}

fn batch(entry: &Entry, problems: &mut Problems) -> Option<Given<Batch>> {
    let example = "batch(size = 100, wait = \"50ms\")";
    let inner = entry.list(&["size", "wait"], example, problems)?;
    let (mut size, mut wait) = (None, None);
    for option in &inner {
        if option.key == "size" {
            size = option.count("size = 100", problems);
        } else {
            wait = duration(option, "wait = \"50ms\"", problems);
        }
    }
    needs(entry, &inner, ["size", "wait"], example, problems);
    Some(entry.given(Batch {
        size: size?,
        wait: wait?,
    }))
}

fn breaker(entry: &Entry, problems: &mut Problems) -> Option<Given<Breaker>> {
    let example = "breaker(failures = 10, pause = \"30s\")";
    let inner = entry.list(&["failures", "pause"], example, problems)?;
    let (mut failures, mut pause) = (None, None);
    for option in &inner {
        if option.key == "failures" {
            failures = option.count("failures = 10", problems);
        } else {
            pause = duration(option, "pause = \"30s\"", problems);
        }
    }
    needs(entry, &inner, ["failures", "pause"], example, problems);
    Some(entry.given(Breaker {
        failures: failures?,
        pause: pause?,
    }))
}

fn dedup(entry: &Entry, problems: &mut Problems) -> Option<Given<Dedup>> {
    let example = "dedup(window = \"24h\")";
    let inner = entry.list(&["window", "key"], example, problems)?;
    let (mut window, mut key) = (None, None);
    for option in &inner {
        if option.key == "window" {
            window = duration(option, "window = \"24h\"", problems);
        } else {
            key = field(option, problems);
        }
    }
    needs(entry, &inner, ["window"], example, problems);
    Some(entry.given(Dedup { window: window?, key }))
}

/// The name of a field in a JSON object.
fn field(entry: &Entry, problems: &mut Problems) -> Option<String> {
    let example = "key = \"order_id\"";
    let literal = entry.text("the name of a field of the payload in quotes", example, problems)?;
    if literal.value().is_empty() {
        let help = format!("write `{example}`, or leave it out to tell messages by their id");
        problems.at(&literal, "the `key` is empty", help);
        return None;
    }
    Some(literal.value())
}

/// Reports what a list lacks.
fn needs<const N: usize>(
    entry: &Entry,
    inner: &[Entry],
    keys: [&str; N],
    example: &str,
    problems: &mut Problems,
) {
    for key in keys {
        if !inner.iter().any(|option| option.key == key) {
            let what = format!("`{}` needs `{key}`", entry.key);
            problems.span(entry.key.span(), what, format!("write `{example}`"));
        }
    }
}

fn rate(entry: &Entry, problems: &mut Problems) -> Option<Given<(u32, Duration)>> {
    let literal = entry.text("a number in a time, in quotes", "rate = \"500/s\"", problems)?;
    let help = "write `rate = \"500/s\"`; the units are `s`, `m` and `h`";
    accept(values::rate(&literal.value()), &literal, help, problems).map(|rate| entry.given(rate))
}

fn max_size(entry: &Entry, problems: &mut Problems) -> Option<Given<u64>> {
    let example = "max_size = \"64KiB\"";
    let literal: Lit = entry.parse("a number of bytes", example, problems)?;
    let size = match &literal {
        Lit::Str(text) => values::size(&text.value()),
        Lit::Int(number) => values::size(&number.to_string().replace('_', "")),
        _ => Err("`max_size` takes a number of bytes".to_owned()),
    };
    let help = format!("write `{example}`; the units are `B`, `kB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`");
    accept(size, &literal, &help, problems).map(|size| entry.given(size))
}

fn accept<T>(
    value: Result<T, String>,
    literal: &impl quote::ToTokens,
    help: &str,
    problems: &mut Problems,
) -> Option<T> {
    value.map_err(|what| problems.at(literal, what, help)).ok()
}

const FUNCTION: &str = "write `async fn name(payload: OrderCreated) -> Result<(), HandlerError> { … }`";

/// Reads the function as far as its body. Without it nothing can be made: `None` then.
pub(crate) fn function(tokens: TokenStream, here: Span, problems: &mut Problems) -> Option<Function> {
    match (is_function.parse2(tokens.clone()), head.parse2(tokens.clone())) {
        (_, Ok((attributes, visibility, signature, Some(TokenTree::Group(_))))) => Some(Function {
            attributes,
            visibility,
            signature,
            tokens,
        }),
        (_, Ok((_, _, signature, _))) => {
            problems.at(&signature, "a listener needs a body", FUNCTION);
            None
        }
        // Broken in itself, which rustc says of the function as it is emitted.
        (Ok(true), Err(error)) => {
            problems.span(error.span(), error, FUNCTION);
            None
        }
        _ => {
            problems.span(here, "`#[listener]` belongs on an `async fn`", FUNCTION);
            None
        }
    }
}

type Head = (Vec<Attribute>, Visibility, Signature, Option<TokenTree>);

fn head(input: ParseStream<'_>) -> syn::Result<Head> {
    let (attributes, visibility, signature) = (
        input.call(Attribute::parse_outer)?,
        input.parse()?,
        input.parse()?,
    );
    let body: TokenStream = input.parse()?;
    Ok((attributes, visibility, signature, body.into_iter().next()))
}

/// Whether it begins like one.
fn is_function(input: ParseStream<'_>) -> syn::Result<bool> {
    input.call(Attribute::parse_outer)?;
    input.parse::<Visibility>()?;
    while input.peek(Token![const]) || input.peek(Token![async]) || input.peek(Token![unsafe]) {
        input.call(syn::Ident::parse_any)?;
    }
    input.parse::<Option<syn::Abi>>()?;
    let is_function = input.peek(Token![fn]);
    input.parse::<TokenStream>()?;
    Ok(is_function)
}
