//! Annotate a function, get a production-grade consumer on Kafka, RabbitMQ, Redis or an embedded broker.
