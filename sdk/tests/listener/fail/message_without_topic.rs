use postrider::prelude::*;

#[derive(Message, Serialize)]
struct Bare;

#[derive(Message, Serialize)]
#[message(version = 1)]
struct OnlyAVersion;

#[derive(Message, Serialize)]
#[message = "order.created"]
struct WrongShape;

fn needs(_: &impl Message) {}

fn main() {
    needs(&Bare);
    needs(&OnlyAVersion);
    needs(&WrongShape);
}
