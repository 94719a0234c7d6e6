//! Apache Kafka for Postrider, through rdkafka.
