//! Public listeners of types that are not: rustc warns of the function, and that is all.
#![allow(private_interfaces)]

mod readings {
    use postrider::prelude::*;

    #[derive(Deserialize)]
    struct Reading {
        celsius: f64,
    }

    #[listener(topic = "reading.taken")]
    pub async fn store(reading: Json<Reading>) {
        println!("{}", reading.0.celsius);
    }

    #[listener(topic = "reading.taken", group = "all", batch(size = 100, wait = "50ms"))]
    pub async fn store_all(readings: Vec<Json<Reading>>) {
        println!("{}", readings.len());
    }
}

fn main() {
    let _ = postrider::listeners![readings::store, readings::store_all];
}
