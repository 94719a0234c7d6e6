//! What librdkafka reports, as the contract's errors.

use postrider_contract::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// An error of librdkafka, told after what was being done.
pub(crate) fn failure(what: &str, error: &KafkaError) -> Error {
    // Neither the text nor the source of a configuration error: it quotes the value, which can be a password.
    if let KafkaError::ClientConfig(_, _, key, _) = error {
        return Error::new(
            ErrorKind::Config,
            format!("{what}: the setting `{key}` has a value that librdkafka does not take"),
        );
    }
    match (code(error), error) {
        (Some(code), _) => coded(what, code),
        (None, KafkaError::ClientCreation(text)) if text.starts_with("ssl.") => Error::new(
            ErrorKind::Config,
            format!("{what}: {text}: see the options `ca`, `certificate` and `key`"),
        ),
        (None, _) => Error::new(ErrorKind::Internal, format!("{what}: {error}")),
    }
}

/// An error code of the broker or of librdkafka, told after what was being done.
pub(crate) fn coded(what: &str, code: Code) -> Error {
    Error::new(kind(code), format!("{what}: {code}"))
}

/// `rdkafka_error_code` says nothing of administration errors.
pub(crate) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// What can be done about it.
pub(crate) fn kind(code: Code) -> ErrorKind {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorKind::Denied,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => ErrorKind::TooLarge,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::PolicyViolation => ErrorKind::Topology,
        Code::InvalidMessage | Code::InvalidTimestamp | Code::InvalidRecord => ErrorKind::Rejected,
        // Sent, and then no answer, or one that says it may be there.
        Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::NotEnoughReplicasAfterAppend
        | Code::PurgeInflight => ErrorKind::Unconfirmed,
        Code::PurgeQueue
        | Code::QueueFull
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::WaitingForCoordinator
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::ReplicaNotAvailable
        | Code::OffsetNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotController
        | Code::NotEnoughReplicas
        | Code::RebalanceInProgress
        | Code::IllegalGeneration
        | Code::UnknownMemberId => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_not_quoted() {
        let made = rdkafka::ClientConfig::new()
            .set("security.protocol", "hunter2")
            .create::<rdkafka::consumer::BaseConsumer>();
        let error = failure("connecting", &made.err().unwrap());
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
