//! Bytes of what is published, written side by side, so that a message costs no allocation for each of its parts.

use std::cell::Cell;

use bytes::BytesMut;
use serde::Serialize;
use uuid::Uuid;

use crate::contract::{ByteString, Bytes};

/// What is written into one allocation. It goes when the last of its pieces does: a piece that is kept for long keeps no
/// more than this.
const CHUNK_SIZE: usize = 4 * 1024;
/// What is larger has an allocation of its own.
const SMALL: usize = 1024;
/// The length of an id as text.
const ID: usize = 36;
/// Where the last group of an id begins: the 12 digits that it counts on in.
const TAIL: usize = 24;

thread_local! {
    static CHUNK: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// Taken out while it is written to: serializing runs code that may publish.
    static JSON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The last id, and the millisecond in which it was asked for.
    static LAST: Cell<(i64, [u8; ID])> = const { Cell::new((i64::MIN, [0; ID])) };
}

/// A new message id, at this time in milliseconds since 1970: a UUID v7.
///
/// The first of each millisecond and thread is random; the others count on from it (RFC 9562, 6.2, method 2). So the system
/// is asked for random bytes once in a millisecond instead of once for each message, and as nothing random is kept for
/// longer, a process that was forked does not go on with its parent's ids.
pub(crate) fn id(millis: i64) -> ByteString {
    let (last_millis, mut text) = LAST.get();
    if millis != last_millis || !count_on(&mut text[TAIL..]) {
        Uuid::now_v7().hyphenated().encode_lower(&mut text);
    }
    LAST.set((millis, text));
    match ByteString::try_from(copy(&text)) {
        Ok(id) => id,
        Err(_) => Uuid::now_v7().to_string().into(),
    }
}

/// Adds one to a number of hexadecimal digits; false where it was the largest.
fn count_on(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        *digit = match *digit {
            b'f' => b'0',
            b'9' => b'a',
            other => other + 1,
        };
        if *digit != b'0' {
            return true;
        }
    }
    false
}

/// A value as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut text = JSON.take();
    text.clear();
    serde_json::to_writer(&mut text, value)?;
    if text.len() > SMALL {
        return Ok(text.into());
    }
    let copied = copy(&text);
    JSON.set(text);
    Ok(copied)
}

/// A copy of something small.
fn copy(bytes: &[u8]) -> Bytes {
    let mut chunk = CHUNK.take().unwrap_or_default();
    if chunk.capacity() < bytes.len() {
        // Uses the same allocation again where none of its pieces is left.
        chunk.reserve(CHUNK_SIZE);
    }
    chunk.extend_from_slice(bytes);
    let copied = chunk.split().freeze();
    CHUNK.set(Some(chunk));
    copied
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn parsed(id: &str) -> Uuid {
        let uuid = Uuid::parse_str(id).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(uuid.to_string(), id);
        uuid
    }

    #[test]
    fn ids_differ_within_a_millisecond_and_across_threads() {
        let make = || (0..1000).map(|n| id(n / 500)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let ids: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        for id in &ids {
            parsed(id);
        }
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4000);
    }

    #[test]
    fn ids_count_on_within_a_millisecond_and_begin_anew_after() {
        let (first, second, third) = (id(7), id(7), id(8));
        let number = |id| parsed(id).as_u128();
        assert_eq!(number(&second), number(&first) + 1);
        assert_ne!(number(&third), number(&second) + 1);
    }

    #[test]
    fn ids_count_on_in_hexadecimal() {
        for (number, next) in [
            ("00", "01"),
            ("09", "0a"),
            ("0f", "10"),
            ("9f", "a0"),
            ("ef", "f0"),
        ] {
            let mut digits: Vec<u8> = number.into();
            assert!(count_on(&mut digits));
            assert_eq!(digits, next.as_bytes());
        }
        assert!(!count_on(&mut b"ff".to_owned()));
    }

    #[test]
    fn the_tail_does_not_run_over() {
        let largest = "019a0000-0000-7000-8000-ffffffffffff";
        LAST.set((7, largest.as_bytes().try_into().unwrap()));
        let fresh = id(7);
        assert_ne!(parsed(&fresh).to_string()[..TAIL], largest[..TAIL]);
    }

    #[test]
    fn small_pieces_share_and_large_ones_do_not() {
        let (one, two) = (json("one").unwrap(), json("two").unwrap());
        assert_eq!((&one[..], &two[..]), (&b"\"one\""[..], &b"\"two\""[..]));
        assert_eq!(two.as_ptr() as usize - one.as_ptr() as usize, one.len());
        let large = json(&"x".repeat(100_000)).unwrap();
        assert_eq!(large.len(), 100_002);
        let three = json("three").unwrap();
        assert_eq!(three.as_ptr() as usize - two.as_ptr() as usize, two.len());
    }

    #[test]
    fn what_does_not_serialize_leaves_nothing_behind() {
        struct Half;
        impl Serialize for Half {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq;
                let mut half = serializer.serialize_seq(None)?;
                half.serialize_element("half")?;
                // Publishing within is allowed.
                assert_eq!(&json(&1).unwrap()[..], b"1");
                Err(serde::ser::Error::custom("no more"))
            }
        }
        assert!(json(&Half).is_err());
        assert_eq!(&json("whole").unwrap()[..], b"\"whole\"");
    }
}
