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
/// The last 62 bits of an id: random, behind its variant.
const TAIL: u128 = (1 << 62) - 1;

thread_local! {
    static CHUNK: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// Taken out while it is written to: serializing runs code that may publish.
    static JSON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The last id, and the millisecond in which it was asked for.
    static LAST: Cell<(i64, u128)> = const { Cell::new((i64::MIN, 0)) };
}

/// A new message id, at this time in milliseconds since 1970: a UUID v7.
///
/// The first of each millisecond and thread is random; the others count on from it (RFC 9562, 6.2, method 2). So the system
/// is asked for random bytes once in a millisecond instead of once for each message, and as nothing random is kept for
/// longer, a process that was forked does not go on with its parent's ids.
pub(crate) fn id(millis: i64) -> ByteString {
    let (last_millis, last) = LAST.get();
    let fresh = millis != last_millis || last & TAIL == TAIL;
    let id = if fresh { Uuid::now_v7().as_u128() } else { last + 1 };
    LAST.set((millis, id));
    let mut text = [0; 36];
    Uuid::from_u128(id).hyphenated().encode_lower(&mut text);
    match ByteString::try_from(copy(&text)) {
        Ok(id) => id,
        Err(_) => Uuid::from_u128(id).to_string().into(),
    }
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
    fn the_tail_does_not_run_over_into_the_variant() {
        LAST.set((7, Uuid::now_v7().as_u128() | TAIL));
        parsed(&id(7));
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
