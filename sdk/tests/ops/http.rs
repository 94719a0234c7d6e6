//! As much of an HTTP client as these tests need.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await
}

pub(crate) async fn post(address: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n{token}\r\n");
    self::request(address, &request).await
}

pub(crate) async fn request(address: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = if head.contains("transfer-encoding: chunked") {
        body.split_once("\r\n").map_or(body, |(_, rest)| rest)
    } else {
        body
    };
    (status, body.to_owned())
}
