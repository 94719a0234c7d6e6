//! `key`, `key = value` and `key(…)`, separated by commas: what stands in `#[listener(…)]` and `#[message(…)]`.
//!
//! Read from tokens one entry at a time, so that a mistake in one does not hide those in the others.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, Parser};
use syn::{Lit, LitStr};

use crate::problems::Problems;
use crate::suggest;

/// One of them.
pub(crate) struct Entry {
    pub(crate) key: Ident,
    value: Value,
}

enum Value {
    Nothing,
    Assigned(TokenStream),
    List(Group),
}

/// A value that was given, and the key it was given for.
#[derive(Clone)]
pub(crate) struct Given<T> {
    pub(crate) key: Ident,
    pub(crate) value: T,
}

impl<T> Given<T> {
    /// The key, for its span.
    pub(crate) fn key(&self) -> &Ident {
        &self.key
    }
}

/// Where entries stand, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The option that they are inside of.
    pub(crate) inside: Option<&'a str>,
    /// Those that are allowed.
    pub(crate) keys: &'a [&'a str],
}

/// What was read.
pub(crate) struct Entries {
    /// Those that are known and have the shape of one, each once.
    pub(crate) good: Vec<Entry>,
    /// The names of these and of what was probably meant by others.
    pub(crate) meant: Vec<String>,
}

/// Reads all entries; malformed, unknown and repeated ones are reported and left out.
pub(crate) fn read(tokens: TokenStream, place: Place<'_>, problems: &mut Problems) -> Entries {
    let mut entries = Entries {
        good: Vec::new(),
        meant: Vec::new(),
    };
    for chunk in split(tokens, problems) {
        if let Some(TokenTree::Ident(key)) = chunk.first() {
            entries.meant.push(key.unraw().to_string());
        } else if matches!(chunk.first(), Some(TokenTree::Literal(_))) {
            entries.meant.push("topic".to_owned());
        }
        let Some(entry) = Entry::read(chunk, place, problems) else {
            continue;
        };
        let name = entry.name();
        if !place.keys.contains(&name.as_str()) {
            let written = suggest::inside(&name, place.keys);
            let near = match written {
                Some((outer, _)) => Some(outer),
                None => suggest::nearest(&name, place.keys),
            };
            entries.meant.extend(near.map(str::to_owned));
            let inside = place
                .inside
                .map(|option| format!(" of `{option}`"))
                .unwrap_or_default();
            let all = place.all();
            let help = match (written, near) {
                (Some((_, example)), _) => format!("write `{example}`\n= note: {all}"),
                (None, Some(near)) => format!("did you mean `{near}`?\n= note: {all}"),
                (None, None) => all,
            };
            problems.span(entry.key.span(), format!("unknown option `{name}`{inside}"), help);
        } else if entries.good.iter().any(|other| other.name() == name) {
            problems.span(
                entry.key.span(),
                format!("`{name}` is given twice"),
                "keep one of the two",
            );
        } else {
            entries.good.push(entry);
        }
    }
    entries
}

impl Place<'_> {
    fn all(&self) -> String {
        format!("the options are {}", list(self.keys))
    }
}

impl Entry {
    fn read(chunk: Vec<TokenTree>, place: Place<'_>, problems: &mut Problems) -> Option<Self> {
        let mut tokens = chunk.into_iter();
        let key = match tokens.next()? {
            TokenTree::Ident(key) => key,
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                problems.at(comma, "expected an option before this comma", "remove the comma");
                return None;
            }
            TokenTree::Literal(text) => {
                let help = format!("write `topic = {text}`\n= note: {}", place.all());
                problems.at(text, "expected the name of an option", help);
                return None;
            }
            other => {
                problems.at(other, "expected the name of an option", place.all());
                return None;
            }
        };
        let value = match tokens.next() {
            None => Value::Nothing,
            Some(TokenTree::Punct(equals)) if equals.as_char() == '=' => Value::Assigned(tokens.collect()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                if let Some(extra) = tokens.next() {
                    problems.at(
                        extra,
                        format!("expected `,` after `{key}(…)`"),
                        format!("write `{key}(…), …`"),
                    );
                }
                Value::List(group)
            }
            Some(other) => {
                let help = format!("write `{key} = …`, `{key}(…)`, or a comma before the next option");
                problems.at(other, format!("expected `=`, `(` or `,` after `{key}`"), help);
                return None;
            }
        };
        Some(Self { key, value })
    }

    /// The key's name.
    pub(crate) fn name(&self) -> String {
        self.key.unraw().to_string()
    }

    /// The value with its key.
    pub(crate) fn given<T>(&self, value: T) -> Given<T> {
        Given {
            key: self.key.clone(),
            value,
        }
    }

    /// It takes no value.
    pub(crate) fn flag(&self, problems: &mut Problems) -> Option<()> {
        match self.value {
            Value::Nothing => Some(()),
            _ => {
                let key = &self.key;
                let help = format!("write `{key}` alone, or leave it out");
                problems.span(self.value_span(), format!("`{key}` takes no value"), help);
                None
            }
        }
    }

    /// `key = value`, where the value parses as `T`; otherwise says what it takes.
    pub(crate) fn parse<T: Parse>(&self, takes: &str, example: &str, problems: &mut Problems) -> Option<T> {
        self.parse_with(T::parse, takes, example, problems)
    }

    /// The same with a parser that is no type.
    pub(crate) fn parse_with<P: Parser>(
        &self,
        parser: P,
        takes: &str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<P::Output> {
        let parsed = match &self.value {
            Value::Assigned(tokens) => parser.parse2(tokens.clone()).ok(),
            _ => None,
        };
        if parsed.is_none() {
            self.refuse(takes, example, problems);
        }
        parsed
    }

    /// `key = "text"`.
    pub(crate) fn text(&self, takes: &str, example: &str, problems: &mut Problems) -> Option<LitStr> {
        self.parse(takes, example, problems)
    }

    /// `key = 8`, at least 1.
    pub(crate) fn count(&self, example: &str, problems: &mut Problems) -> Option<u32> {
        let number = self.whole(example, problems)?;
        if number == 0 {
            let key = &self.key;
            problems.span(
                self.value_span(),
                format!("`{key}` is at least 1"),
                format!("write `{example}`"),
            );
            return None;
        }
        Some(number)
    }

    /// `key = 8`, also zero.
    pub(crate) fn whole(&self, example: &str, problems: &mut Problems) -> Option<u32> {
        let takes = format!("a whole number up to {}", u32::MAX);
        let parsed = match &self.value {
            Value::Assigned(tokens) => syn::parse2::<Lit>(tokens.clone()).ok(),
            _ => None,
        };
        let number = match &parsed {
            Some(Lit::Int(number)) => number.base10_parse::<u32>().ok(),
            _ => None,
        };
        if number.is_none() {
            self.refuse(&takes, example, problems);
        }
        number
    }

    /// `key = word`, one of these.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let given = match &self.value {
            Value::Assigned(tokens) => syn::parse2::<Ident>(tokens.clone()).ok(),
            _ => None,
        };
        let found = given.and_then(|word| words.iter().find(|(name, _)| word == name));
        if found.is_none() {
            let key = &self.key;
            let choices: Vec<_> = words
                .iter()
                .map(|(name, _)| format!("`{key} = {name}`"))
                .collect();
            let takes: Vec<_> = words.iter().map(|(name, _)| *name).collect();
            let what = format!("`{key}` takes {}", either(&list_each(&takes)));
            problems.span(self.value_span(), what, format!("write {}", either(&choices)));
        }
        found.map(|(_, value)| *value)
    }

    /// `key(…)`, with these keys inside.
    pub(crate) fn list(&self, keys: &[&str], example: &str, problems: &mut Problems) -> Option<Vec<Entry>> {
        match &self.value {
            Value::List(group) => {
                let name = self.name();
                let place = Place {
                    inside: Some(&name),
                    keys,
                };
                Some(read(group.stream(), place, problems).good)
            }
            _ => {
                self.refuse(
                    &format!("its options in parentheses: {}", list(keys)),
                    example,
                    problems,
                );
                None
            }
        }
    }

    fn refuse(&self, takes: &str, example: &str, problems: &mut Problems) {
        problems.at(
            self.value_tokens(),
            format!("`{}` takes {takes}", self.key),
            format!("write `{example}`"),
        );
    }

    /// The value's tokens, or the key where there are none.
    pub(crate) fn value_tokens(&self) -> TokenStream {
        match &self.value {
            Value::Assigned(tokens) if !tokens.is_empty() => tokens.clone(),
            Value::List(group) => TokenTree::from(group.clone()).into(),
            _ => TokenTree::from(self.key.clone()).into(),
        }
    }

    fn value_span(&self) -> Span {
        let mut tokens = self.value_tokens().into_iter();
        tokens.next().map_or(self.key.span(), |token| token.span())
    }
}

/// At top-level commas, and where one is missing: before a second `key =`. A comma with nothing before it is a chunk of its
/// own.
fn split(tokens: TokenStream, problems: &mut Problems) -> Vec<Vec<TokenTree>> {
    let is = |token: Option<&TokenTree>, sign: char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if is(Some(&token), ',') {
            if chunk.is_empty() {
                chunk.push(token);
            }
            chunks.push(std::mem::take(&mut chunk));
            continue;
        }
        if matches!(token, TokenTree::Ident(_))
            && !chunk.is_empty()
            && !is(chunk.last(), '=')
            && is(tokens.peek(), '=')
        {
            problems.at(
                &token,
                format!("expected `,` before `{token}`"),
                format!("write `…, {token} = …`"),
            );
            chunks.push(std::mem::take(&mut chunk));
        }
        chunk.push(token);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn list(names: &[&str]) -> String {
    list_each(names).join(", ")
}

fn list_each(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("`{name}`")).collect()
}

fn either(choices: &[String]) -> String {
    choices.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let mut problems = Problems::default();
        let tokens = "topik = 1, , group = \"a\" retry(), group, 5"
            .parse()
            .expect("tokens");
        let keys = ["topic", "group", "retry"];
        let read = read(
            tokens,
            Place {
                inside: None,
                keys: &keys,
            },
            &mut problems,
        );
        assert_eq!(read.good.len(), 1);
        assert_eq!(problems.texts().len(), 4, "{:?}", problems.texts());
    }
}
