//! RabbitMQ for Postrider, through lapin.
