//! A whole message as one byte string: what travels through Pub/Sub, sorted sets and inboxes.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `00 50 52 01`: NUL, `PR`, version 1 |
//! | 4 | 16 | the publisher's id, drawn at random when it connects; all zero: nothing tells its frames apart |
//! | 20 | 8 | the publisher's sequence number within this channel, big-endian, from 1 |
//! | 28 | 4 | number of fields, big-endian |
//! | 32 | … | per field: 4 bytes length and the name, 4 bytes length and the value |
//!
//! Receivers count the gaps in a publisher's sequence numbers, unless the first bit of its id is set: then its numbers only
//! tell frames apart.
//!
//! The fields are those of a stream entry: `payload`, `key`, and headers. No text and no JSON begins with NUL, so whatever
//! does not begin so is a bare body.

use postrider_contract::{Bytes, Message};

use crate::fields;

const MAGIC: [u8; 4] = [0, b'P', b'R', 1];
const HEAD: usize = 32;

/// A publisher's random id.
pub(crate) type Publisher = [u8; 16];

/// Who published a frame, and its number with it.
pub(crate) type Identity = (Publisher, u64);

/// A fresh id. `ordered`: gaps in its numbers mean something.
pub(crate) fn new_publisher(ordered: bool) -> Publisher {
    let mut id: Publisher = fastrand::u128(1..).to_be_bytes();
    id[0] = if ordered { id[0] & 0x7f } else { id[0] | 0x80 };
    // All zero has its own meaning.
    id[15] |= 1;
    id
}

/// Whether gaps in this publisher's numbers mean something.
pub(crate) fn is_ordered(publisher: &Publisher) -> bool {
    publisher[0] & 0x80 == 0
}

/// A frame, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    /// Who published it and under which number, where that tells it apart.
    pub(crate) identity: Option<Identity>,
    pub(crate) message: Message,
}

impl Frame {
    /// Writes a frame.
    pub(crate) fn encode(message: &Message, publisher: &Publisher, sequence: u64) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEAD + message.size() + 16 * fields::count(message));
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(publisher);
        frame.extend_from_slice(&sequence.to_be_bytes());
        frame.extend_from_slice(&(fields::count(message) as u32).to_be_bytes());
        fields::each(message, |name, value| {
            for part in [name, value] {
                frame.extend_from_slice(&(part.len() as u32).to_be_bytes());
                frame.extend_from_slice(part);
            }
        });
        frame
    }

    /// Reads a frame; `None` if it is not one, or is cut or wrong anywhere.
    pub(crate) fn decode(frame: &Bytes) -> Option<Self> {
        if !Self::is_frame(frame) {
            return None;
        }
        let identity = Self::identity(frame);
        let mut rest = frame.slice(28..);
        let fields = number(&mut rest)?;
        // Each field takes at least its two lengths: a wrong count allocates nothing.
        let mut read = Vec::with_capacity((fields as usize).min(rest.len() / 8));
        for _ in 0..fields {
            read.push((part(&mut rest)?, part(&mut rest)?));
        }
        rest.is_empty().then(|| Self {
            identity,
            message: fields::from_fields(read),
        })
    }

    /// Whether this begins as a frame does.
    pub(crate) fn is_frame(bytes: &[u8]) -> bool {
        bytes.len() >= HEAD && bytes.starts_with(&MAGIC)
    }

    /// Only what tells it apart.
    pub(crate) fn identity(bytes: &[u8]) -> Option<Identity> {
        let head: &[u8; HEAD] = bytes.first_chunk().filter(|_| Self::is_frame(bytes))?;
        let publisher: Publisher = *head[4..].first_chunk()?;
        let sequence = u64::from_be_bytes(*head[20..].first_chunk()?);
        (publisher != [0; 16] && sequence > 0).then_some((publisher, sequence))
    }
}

fn number(rest: &mut Bytes) -> Option<u32> {
    let number = u32::from_be_bytes(*rest.first_chunk()?);
    *rest = rest.slice(4..);
    Some(number)
}

fn part(rest: &mut Bytes) -> Option<Bytes> {
    let length = number(rest)? as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Parts, message};

    const PUBLISHER: Publisher = *b"0123456789abcdef";

    #[test]
    fn the_documented_layout() {
        let frame = Frame::encode(&Message::new("hi").with_key("k"), &PUBLISHER, 7);
        let expected = [
            &b"\0PR\x01"[..],
            b"0123456789abcdef",
            b"\0\0\0\0\0\0\0\x07",
            b"\0\0\0\x02",
            b"\0\0\0\x03key\0\0\0\x01k",
            b"\0\0\0\x07payload\0\0\0\x02hi",
        ];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn a_bare_body_is_no_frame() {
        for body in [
            &b""[..],
            b"{}",
            b"\0PR",
            b"\0PR\x02 and more than thirty-two bytes of it",
        ] {
            assert_eq!(Frame::decode(&Bytes::from_static(body)), None);
            assert!(!Frame::is_frame(body));
        }
    }

    #[test]
    fn an_id_of_zeros_tells_nothing_apart() {
        let frame = Frame::encode(&Message::new("hi"), &[0; 16], 3);
        assert!(Frame::is_frame(&frame));
        assert_eq!(Frame::identity(&frame), None);
    }

    #[test]
    fn round_trip() {
        let check = |(parts, sequence): &(Parts, u64)| {
            let message = message(parts);
            let frame = Bytes::from(Frame::encode(&message, &PUBLISHER, *sequence));
            let identity = (*sequence > 0).then_some((PUBLISHER, *sequence));
            assert_eq!(Frame::identity(&frame), identity);
            assert_eq!(Frame::decode(&frame), Some(Frame { identity, message }));
        };
        bolero::check!().with_type().for_each(check);
    }

    #[test]
    fn a_cut_frame_is_none() {
        let check = |(parts, cut): &(Parts, u16)| {
            let frame = Bytes::from(Frame::encode(&message(parts), &PUBLISHER, 1));
            let end = frame.len().saturating_sub(1 + usize::from(*cut));
            assert_eq!(Frame::decode(&frame.slice(..end)), None);
        };
        bolero::check!().with_type().for_each(check);
    }

    /// What is read of a damaged frame is a message that could have been sent, and no larger than the frame was.
    #[test]
    fn one_wrong_byte_invents_nothing() {
        let check = |(parts, at, byte): &(Parts, u16, u8)| {
            let mut frame = Frame::encode(&message(parts), &PUBLISHER, 1);
            let at = usize::from(*at) % frame.len();
            frame[at] = *byte;
            sound(&frame.into());
        };
        bolero::check!().with_type().for_each(check);
    }

    #[test]
    fn nonsense_invents_nothing() {
        bolero::check!().for_each(|bytes: &[u8]| {
            sound(&Bytes::copy_from_slice(bytes));
            let framed = [&MAGIC, bytes].concat();
            sound(&framed.into());
        });
    }

    fn sound(bytes: &Bytes) {
        let Some(frame) = Frame::decode(bytes) else { return };
        // Names that are not UTF-8 grow when they become text.
        assert!(frame.message.size() <= 3 * bytes.len());
        let again = Frame::encode(&frame.message, &PUBLISHER, 1);
        assert_eq!(
            Frame::decode(&again.into()).map(|again| again.message),
            Some(frame.message)
        );
    }
}
