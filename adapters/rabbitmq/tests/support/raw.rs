//! AMQP byte by byte, for what no client library sends.

use std::io::{Read, Write};
use std::net::TcpStream;

use postrider_contract::BrokerUrl;

/// Publishes one message with this message id, UTF-8 or not, and waits until the broker has closed the connection in order,
/// which it does after everything before.
pub fn publish(url: &BrokerUrl, exchange: &str, routing_key: &str, message_id: &[u8], payload: &[u8]) {
    let (host, port) = &url.hosts[0];
    let mut socket = TcpStream::connect((host.as_str(), port.expect("a port"))).expect("connects");
    let user = url.user.as_deref().unwrap_or("guest");
    let password = url
        .password
        .as_ref()
        .map_or("guest", |password| password.expose());
    let vhost = url.path.as_deref().unwrap_or("/");

    let mut login = vec![0];
    login.extend(user.as_bytes());
    login.push(0);
    login.extend(password.as_bytes());
    let mut start_ok = method(10, 11);
    start_ok.extend([0, 0, 0, 0]);
    short(&mut start_ok, b"PLAIN");
    start_ok.extend((login.len() as u32).to_be_bytes());
    start_ok.extend(login);
    short(&mut start_ok, b"en_US");

    let mut tune_ok = method(10, 31);
    tune_ok.extend([0x07, 0xff]);
    tune_ok.extend(131_072u32.to_be_bytes());
    tune_ok.extend([0, 0]);

    let mut open = method(10, 40);
    short(&mut open, vhost.as_bytes());
    open.extend([0, 0]);

    let mut open_channel = method(20, 10);
    open_channel.push(0);

    let mut publish = method(60, 40);
    publish.extend([0, 0]);
    short(&mut publish, exchange.as_bytes());
    short(&mut publish, routing_key.as_bytes());
    publish.push(0);

    let mut header = vec![0, 60, 0, 0];
    header.extend((payload.len() as u64).to_be_bytes());
    // Delivery mode and message id.
    header.extend((1u16 << 12 | 1 << 7).to_be_bytes());
    header.push(2);
    short(&mut header, message_id);

    let mut close = method(10, 50);
    close.extend([0, 200, 0, 0, 0, 0, 0]);

    let mut all = b"AMQP\x00\x00\x09\x01".to_vec();
    for (kind, channel, content) in [
        (1, 0, start_ok),
        (1, 0, tune_ok),
        (1, 0, open),
        (1, 1, open_channel),
        (1, 1, publish),
        (2, 1, header),
        (3, 1, payload.to_vec()),
        (1, 0, close),
    ] {
        all.push(kind);
        all.extend(u16::to_be_bytes(channel));
        all.extend((content.len() as u32).to_be_bytes());
        all.extend(content);
        all.push(0xce);
    }
    socket.write_all(&all).expect("sent");
    // Until Close-Ok: the broker leaves it to this side to hang up.
    let mut answers = Vec::new();
    while !answers.ends_with(&[0, 10, 0, 51, 0xce]) {
        let mut some = [0; 4096];
        let count = socket.read(&mut some).expect("answered");
        let told = String::from_utf8_lossy(&answers).into_owned();
        assert!(count > 0, "the broker closes in order: {told:?}");
        answers.extend(&some[..count]);
    }
}

fn method(class: u16, number: u16) -> Vec<u8> {
    [class.to_be_bytes(), number.to_be_bytes()].concat()
}

fn short(into: &mut Vec<u8>, text: &[u8]) {
    into.push(text.len() as u8);
    into.extend(text);
}
