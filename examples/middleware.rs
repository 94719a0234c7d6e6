//! What stands around every handler: `cargo run --example middleware`.

use std::time::{Duration, Instant};

use postrider::{Outcome, prelude::*};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "middleware.report.requested")]
struct ReportRequested {
    title: String,
}

/// Says how long each handler took and how it ended.
struct Timed;

#[postrider::async_trait]
impl Middleware for Timed {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        let begin = Instant::now();
        let outcome = next.run(cx).await;
        let ended = match &outcome {
            Outcome::Ack { .. } => "done".to_owned(),
            Outcome::Failed(error) => format!("failed: {error}"),
            _ => "released".to_owned(),
        };
        println!(
            "{} took {} µs: {ended}",
            cx.listener(),
            begin.elapsed().as_micros()
        );
        outcome
    }
}

/// Who asked: left by [`Known`] for the handler.
#[derive(Clone)]
struct Actor(String);

/// Refuses messages of strangers without calling the handler.
struct Known(&'static [&'static str]);

#[postrider::async_trait]
impl Middleware for Known {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        let actor = cx.headers().get_str("actor").unwrap_or("nobody");
        if !self.0.contains(&actor) {
            return Outcome::Failed(HandlerError::permanent(format!(
                "{actor} may not ask for reports"
            )));
        }
        cx.insert(Actor(actor.to_owned()));
        next.run(cx).await
    }
}

#[listener(topic = "middleware.report.requested", group = "reports")]
async fn report(request: ReportRequested, Extension(actor): Extension<Actor>) {
    println!("{:?} for {}", request.title, actor.0);
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let running = App::from_env()?
        .middleware(Timed) // outermost
        .middleware(Known(&["ada", "bob"]))
        .listen(listeners![report])
        .start()
        .await?;
    running.ready().await?;

    let publisher = running.publisher();
    for actor in ["ada", "mallory", "bob"] {
        let title = format!("sales for {actor}");
        publisher
            .topic(ReportRequested::TOPIC)
            .header("actor", actor)
            .send(&ReportRequested { title })
            .await?;
    }
    loop {
        let counts = running.status()[0].counts;
        if counts.handled + counts.dead_lettered >= 3 {
            println!(
                "{} handled, {} dead-lettered",
                counts.handled, counts.dead_lettered
            );
            return running.shutdown().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
