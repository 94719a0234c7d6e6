//! A handler that takes many messages at once, of which some fail: `cargo run --example batch`.

use std::time::Duration;

use postrider::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "batch.reading.taken", key = sensor)]
struct ReadingTaken {
    sensor: u32,
    celsius: f64,
}

/// One insert for up to a hundred rows; not waiting longer than 50 ms for them to come together.
#[listener(
    topic = "batch.reading.taken",
    group = "store",
    batch(size = 100, wait = "50ms")
)]
async fn store(readings: Vec<ReadingTaken>) -> Vec<Result<(), HandlerError>> {
    println!("a batch of {}", readings.len());
    let insert = |reading: ReadingTaken| {
        if reading.celsius < -273.15 {
            let text = format!(
                "sensor {}: {} °C is not possible",
                reading.sensor, reading.celsius
            );
            return Err(HandlerError::permanent(text));
        }
        Ok(())
    };
    // One result for each item: those that failed are tried again or dead-lettered alone.
    readings.into_iter().map(insert).collect()
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let running = App::from_env()?.listen(listeners![store]).start().await?;
    running.ready().await?;

    let readings: Vec<_> = (0..250)
        .map(|sensor| ReadingTaken {
            sensor,
            celsius: if sensor == 77 { -300.0 } else { 21.5 },
        })
        .collect();
    for answer in running.publisher().send_all(&readings).await {
        answer?;
    }
    loop {
        let counts = running.status()[0].counts;
        if counts.handled + counts.dead_lettered >= 250 {
            println!(
                "{} stored, {} dead-lettered",
                counts.handled, counts.dead_lettered
            );
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some(mut letters) = running.dead_letters("store") {
        for letter in letters.browse(None, 10).await? {
            let why = DeadLetter::from_message(&letter.message);
            println!("dead letter: {}", why.map(|why| why.error).unwrap_or_default());
        }
    }
    running.shutdown().await
}
