//! Redis for Postrider: Streams and Pub/Sub, through redis.
