use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::ByteString;

/// What went wrong: a kind that says what to do about it, and one line that says what it was.
///
/// The line names no secret: a URL is never echoed.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    text: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    message_id: Option<ByteString>,
}

/// What can be done about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, option or setting is wrong. Found before any socket is opened.
    Config,
    /// The broker cannot do what is asked; the text names the way out.
    Unsupported,
    /// Topics, queues or groups are missing or differ.
    Topology,
    /// Credentials or permissions were refused. Trying again does not help.
    Denied,
    /// The broker cannot be reached, or is blocked, for now.
    Unavailable,
    /// A publish was sent, and no answer came that tells its fate: it may or may not be there. Send it again under the same id.
    Unconfirmed,
    /// The broker refused this message.
    Rejected,
    /// The message is over the size limit. Nothing was sent.
    TooLarge,
    /// Nobody receives this topic.
    NoReceiver,
    /// This side was closed.
    Closed,
    /// A defect in the adapter or the broker.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later, unchanged.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Unconfirmed | Self::Internal)
    }

    /// Whether the message itself is at fault: it is refused again, whatever becomes of the broker and its permissions.
    pub const fn is_of_message(self) -> bool {
        matches!(
            self,
            Self::Config | Self::Unsupported | Self::Rejected | Self::TooLarge
        )
    }

    /// A short, stable word for metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Unsupported => "unsupported",
            Self::Topology => "topology",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::NoReceiver => "no_receiver",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of this kind, told in one line.
    pub fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
            message_id: None,
        }
    }

    /// The same, caused by `source`, whose text is appended.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same, about the message with this id.
    pub fn with_message_id(mut self, id: ByteString) -> Self {
        self.message_id = Some(id);
        self
    }

    /// The message that it is about: an [`ErrorKind::Unconfirmed`] publish is tried again under this id.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

/// `main` returning an error prints its `Debug`: that is the readable line, with the kind before it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.kind.as_str())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its text is already part of ours; what it was caused by goes on.
        self.source.as_ref().and_then(|source| source.source())
    }
}
