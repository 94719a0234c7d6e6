use std::fmt;
use std::sync::Arc;

use crate::{ByteString, Bytes, Error, names};

/// The headers of a message, in order; a name may occur more than once. Names are compared exactly.
///
/// Cheap to clone: copies share their content until one is changed. Empty headers own nothing.
#[derive(Clone, Default)]
pub struct Headers {
    /// As they were received, in one allocation. Never beside `growing`.
    fixed: Option<Arc<[Entry]>>,
    growing: Option<Arc<Vec<Entry>>>,
}

type Entry = (ByteString, Value);

/// A header's value. Brokers with typed headers keep the type; the others carry its text or bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Text.
    Text(ByteString),
    /// Bytes, UTF-8 or not.
    Bytes(Bytes),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Present without a value.
    Null,
    /// A type that only one broker has, in that adapter's own encoding. Sent back through the same adapter it is
    /// unchanged; another carries the bytes.
    Native {
        /// The type, as the adapter numbers it.
        code: u8,
        /// The encoded value.
        bytes: Bytes,
    },
}

impl Value {
    /// As text, where it is text or UTF-8 bytes.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// As a whole number, where it is one or its text is one. Numbers of a width that only one broker has count too: an
    /// adapter holds them as decimal text.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Native { bytes, .. } => std::str::from_utf8(bytes).ok()?.parse().ok(),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// As the bytes that a broker without typed headers carries.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => text.as_bytes().clone(),
            Self::Bytes(bytes) | Self::Native { bytes, .. } => bytes.clone(),
            Self::Int(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Bool(truth) => Bytes::from_static(if *truth { b"true" } else { b"false" }),
            Self::Null => Bytes::new(),
        }
    }

    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) | Self::Native { bytes, .. } => bytes.len(),
            Self::Int(_) | Self::Float(_) => 8,
            Self::Bool(_) | Self::Null => 1,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            other => String::from_utf8_lossy(&other.to_bytes()).fmt(f),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$it:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($it: $from) -> Self { $to }
        }
    )*};
}
value_from! {
    ByteString => |it| Self::Text(it);
    String => |it| Self::Text(it.into());
    &str => |it| Self::Text(it.into());
    Bytes => |it| Self::Bytes(it);
    Vec<u8> => |it| Self::Bytes(it.into());
    i64 => |it| Self::Int(it);
    i32 => |it| Self::Int(it.into());
    u32 => |it| Self::Int(it.into());
    f64 => |it| Self::Float(it);
    bool => |it| Self::Bool(it);
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self {
            fixed: None,
            growing: None,
        }
    }

    /// These headers, in one allocation: for adapters, which read them into a vector that they use again. Leaves it empty.
    pub fn take_from(entries: &mut Vec<(ByteString, Value)>) -> Self {
        if entries.is_empty() {
            return Self::new();
        }
        Self {
            fixed: Some(entries.drain(..).collect()),
            ..Self::new()
        }
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find_map(|(n, v)| (n == name).then_some(v))
    }

    /// The first value under this name, as text.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries().iter().map(|(name, value)| (&**name, value))
    }

    /// All of them as they are held.
    pub fn entries(&self) -> &[(ByteString, Value)] {
        match (&self.fixed, &self.growing) {
            (Some(entries), _) => entries,
            (None, Some(entries)) => entries,
            (None, None) => &[],
        }
    }

    /// Replaces every value under this name by one.
    pub fn set(&mut self, name: impl Into<ByteString>, value: impl Into<Value>) {
        let name = name.into();
        let entries = self.to_mut();
        entries.retain(|(n, _)| *n != name);
        entries.push((name, value.into()));
    }

    /// Adds a value, beside others under the same name.
    pub fn append(&mut self, name: impl Into<ByteString>, value: impl Into<Value>) {
        self.to_mut().push((name.into(), value.into()));
    }

    /// Takes out every value under this name.
    pub fn remove(&mut self, name: &str) {
        if self.get(name).is_some() {
            self.retain(|n, _| n != name);
        }
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        if !self.is_empty() {
            self.to_mut().retain(|(name, value)| keep(name, value));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// About how many bytes they take on the wire.
    pub fn size(&self) -> usize {
        self.entries()
            .iter()
            .map(|(name, value)| name.len() + value.size())
            .sum()
    }

    /// Whether every broker can carry these names: for what an application sends. What was received may go back as it came.
    pub fn check(&self) -> Result<(), Error> {
        let mut names = self.entries().iter().map(|(name, _)| name);
        match names.find(|name| !names::is_header(name)) {
            None => Ok(()),
            Some(name) => Err(names::wrong_header(name)),
        }
    }

    fn to_mut(&mut self) -> &mut Vec<Entry> {
        let fixed = self.fixed.take();
        let begin = || Arc::new(fixed.map_or_else(Vec::new, |entries| entries.to_vec()));
        Arc::make_mut(self.growing.get_or_insert_with(begin))
    }
}

/// These headers, in one allocation.
impl<const N: usize> From<[(ByteString, Value); N]> for Headers {
    fn from(entries: [(ByteString, Value); N]) -> Self {
        Self {
            fixed: Some(Arc::new(entries)),
            ..Self::new()
        }
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.entries().iter().map(|(name, value)| (name, value)))
            .finish()
    }
}

impl<N: Into<ByteString>, V: Into<Value>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in entries {
            headers.append(name, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_until_changed() {
        let mut one: Headers = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        let two = one.clone();
        one.set("a", 4i64);
        assert_eq!(one.get("a").and_then(Value::as_i64), Some(4));
        assert_eq!(two.iter().filter(|(name, _)| *name == "a").count(), 2);
        one.remove("b");
        assert_eq!((one.len(), two.len()), (1, 3));
    }

    #[test]
    fn received_ones_are_read_and_changed_as_others() {
        let mut entries = vec![("a".into(), Value::from("1")), ("b".into(), Value::from("2"))];
        let received = Headers::take_from(&mut entries);
        assert!(entries.is_empty());
        assert_eq!(received, [("a", "1"), ("b", "2")].into_iter().collect());
        let mut changed = received.clone();
        changed.append("a", "3");
        changed.remove("b");
        assert_eq!(changed, [("a", "1"), ("a", "3")].into_iter().collect());
        assert_eq!(received.len(), 2);
        assert_eq!(Headers::take_from(&mut entries), Headers::new());
    }

    #[test]
    fn numbers_read_from_text_too() {
        assert_eq!(Value::from(Bytes::from_static(b"12")).as_i64(), Some(12));
        assert_eq!(Value::from("x").as_i64(), None);
        let native = Value::Native {
            code: b'I',
            bytes: Bytes::from_static(b"-7"),
        };
        assert_eq!(native.as_i64(), Some(-7));
    }
}
