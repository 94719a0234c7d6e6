use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Context, HandlerError, Reason};
use crate::Message;
use crate::contract::{Bytes, names};

/// The first parameter of a listener: what the payload is decoded to.
///
/// A type with `#[derive(Message, Deserialize)]`, [`Json<T>`] for any other `Deserialize` type, [`Bytes`] for the raw
/// payload, and `Option` of these to accept a tombstone (a message without payload, or with an empty one that does not decode).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no payload",
    label = "the first parameter of a listener is its payload, and this cannot be decoded from a message",
    note = "take a type with `#[derive(Message, Deserialize)]`, `Json<T>` for another `Deserialize` type, or `Bytes`",
    note = "to take a `Vec` of messages, write `batch(size = 100, wait = \"50ms\")` in the attribute"
)]
pub trait FromPayload: Sized + Send {
    /// Where messages of this type are published to, where the type says it.
    const MESSAGE_TOPIC: Option<&'static str> = None;

    /// Decodes the payload.
    ///
    /// # Errors
    /// It does not decode: [`Reason::Decode`], dead-lettered at once with its bytes intact.
    fn from_payload(cx: &Context) -> Result<Self, HandlerError>;
}

/// A JSON payload of any `Deserialize` type, from any topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

// Without this, an error of rustc names `Message` and `Deserialize`, once each, instead of what the notes above say.
#[diagnostic::do_not_recommend]
impl<T: Message + DeserializeOwned + Send> FromPayload for T {
    const MESSAGE_TOPIC: Option<&'static str> = Some(T::TOPIC);

    fn from_payload(cx: &Context) -> Result<Self, HandlerError> {
        decode(cx)
    }
}

impl<T: DeserializeOwned + Send> FromPayload for Json<T> {
    fn from_payload(cx: &Context) -> Result<Self, HandlerError> {
        decode(cx).map(Self)
    }
}

impl FromPayload for Bytes {
    fn from_payload(cx: &Context) -> Result<Self, HandlerError> {
        Ok(cx.message().payload.clone().unwrap_or_default())
    }
}

/// `None` for a tombstone. RabbitMQ and Redis have none, and deliver an empty payload instead: that is one too, where it does
/// not decode.
impl<T: FromPayload> FromPayload for Option<T> {
    const MESSAGE_TOPIC: Option<&'static str> = T::MESSAGE_TOPIC;

    fn from_payload(cx: &Context) -> Result<Self, HandlerError> {
        let Some(payload) = &cx.message().payload else {
            return Ok(None);
        };
        match T::from_payload(cx) {
            Err(_) if payload.is_empty() => Ok(None),
            decoded => decoded.map(Some),
        }
    }
}

/// The first parameter of a listener with `batch(…)`: a `Vec` of payloads.
#[diagnostic::on_unimplemented(
    message = "`batch` takes a `Vec`, not `{Self}`",
    label = "the first parameter of a batch listener is `Vec<…>`",
    note = "write `Vec<OrderCreated>`, `Vec<Json<T>>` or `Vec<Bytes>`"
)]
pub trait FromBatch: Sized + Send {
    /// What each message is decoded to.
    type Item: FromPayload;

    /// All that decoded.
    fn from_items(items: Vec<Self::Item>) -> Self;
}

impl<T: FromPayload> FromBatch for Vec<T> {
    type Item = T;

    fn from_items(items: Vec<T>) -> Self {
        items
    }
}

/// A JSON payload.
pub(crate) fn decode<'a, T: Deserialize<'a>>(cx: &'a Context) -> Result<T, HandlerError> {
    if let Some(content_type) = cx.headers().get_str(names::CONTENT_TYPE)
        && !is_json(content_type)
    {
        let text = format!(
            "the content type is {content_type:?}, not JSON: take `Bytes` and decode it in the handler"
        );
        return Err(HandlerError::with_reason(Reason::Decode, text));
    }
    let Some(payload) = &cx.message().payload else {
        let text = "the message has no payload (a tombstone): take an `Option` to accept it";
        return Err(HandlerError::with_reason(Reason::Decode, text));
    };
    serde_json::from_slice(payload).map_err(|error| HandlerError::with_reason(Reason::Decode, error))
}

/// Also what says nothing about its format is read as JSON.
fn is_json(content_type: &str) -> bool {
    const USUAL: &str = "application/json";
    const READ_AS_JSON: [&str; 5] = [USUAL, "", "text/json", "text/plain", "application/octet-stream"];
    if content_type == USUAL {
        return true;
    }
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let suffix = media_type.rfind('+').map_or("", |plus| &media_type[plus..]);
    READ_AS_JSON
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
        || suffix.eq_ignore_ascii_case("+json")
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn what_is_read_as_json() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            " text/json",
            "application/cloudevents+json",
            "application/vnd.shop.order+JSON; version=2",
            "",
        ] {
            assert!(is_json(json), "{json:?}");
        }
        for other in [
            "application/cbor",
            "application/jsonl",
            "text/csv",
            "json",
            "+json/x",
        ] {
            assert!(!is_json(other), "{other:?}");
        }
    }

    #[test]
    fn any_content_type_is_json_or_not_whatever_its_case_and_parameters() {
        const WORDS: [&str; 12] = [
            "application",
            "/",
            "json",
            "+json",
            "text",
            "plain",
            ";",
            " ",
            "charset=utf-8",
            "octet-stream",
            "+",
            "\u{130}",
        ];
        bolero::check!().with_type::<Vec<u8>>().for_each(|words| {
            let text: String = words
                .iter()
                .map(|&word| WORDS[usize::from(word) % WORDS.len()])
                .collect();
            let json = is_json(&text);
            assert_eq!(is_json(&text.to_ascii_uppercase()), json, "{text:?}");
            assert_eq!(is_json(&format!(" {text} ;x=y")), json, "{text:?}");
        });
    }
}
