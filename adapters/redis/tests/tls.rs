//! TLS: what is trusted connects, everything else is refused, and nothing ever falls back to plaintext.
#![cfg(feature = "tls")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::own::Own;
use common::*;
use postrider_contract::ErrorKind;
use postrider_own_broker::Port;

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output();
    let output = output.expect("openssl is installed: this test makes certificates with it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority, and a certificate by it for this host.
fn certificates(directory: &Path, host: &str, days: i32) {
    std::fs::create_dir_all(directory).unwrap();
    openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=test -days 2",
    );
    openssl(
        directory,
        "req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=server",
    );
    std::fs::write(directory.join("names"), format!("subjectAltName={host}\n")).unwrap();
    openssl(
        directory,
        &format!(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -extfile names -days {days}"
        ),
    );
}

fn serve(directory: &Path) -> (Own, Port) {
    let port = Port::free();
    let file = |name: &str| directory.join(name).display().to_string();
    let own = Own::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("cert.pem"),
        "--tls-key-file",
        &file("key.pem"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "optional",
    ]);
    (own, port)
}

fn directory() -> std::path::PathBuf {
    std::env::temp_dir().join(unique("postrider-redis-tls").as_ref())
}

#[tokio::test]
async fn a_trusted_server_works_over_both_transports() {
    let directory = directory();
    certificates(&directory, "IP:127.0.0.1", 1);
    let (_own, port) = serve(&directory);
    let ca = directory.join("ca.pem");
    for scheme in ["rediss", "rediss+pubsub"] {
        for own in ["", "&cert_file=DIR/cert.pem&key_file=DIR/key.pem"] {
            let own = own.replace("DIR", &directory.display().to_string());
            let url = format!("{scheme}://127.0.0.1:{port}?ca_file={}{own}", ca.display());
            let broker = connect(&url, "a").await;
            let topic = unique("tls");
            let mut open = open(&broker, spec(&topic, "g")).await;
            publish(&broker, &topic, ["x".into()]).await;
            assert_eq!(texts(&open.receive(1).await), ["x"]);
            broker.close(SOON).await.unwrap();
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn what_is_not_trusted_is_refused_at_once() {
    let (right, other, host, past) = (directory(), directory(), directory(), directory());
    certificates(&right, "IP:127.0.0.1", 1);
    certificates(&other, "IP:127.0.0.1", 1);
    certificates(&host, "DNS:elsewhere.example", 1);
    certificates(&past, "IP:127.0.0.1", -1);
    for (served, trusted) in [(&right, &other), (&host, &host), (&past, &past)] {
        let (_own, port) = serve(served);
        let url = format!(
            "rediss://127.0.0.1:{port}?ca_file={}",
            trusted.join("ca.pem").display()
        );
        let begun = Instant::now();
        let error = try_connect(&url, "a").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3));
        println!("{error}");
    }
    // The system's own roots do not know it either.
    let (own, port) = serve(&right);
    let error = try_connect(&format!("rediss://127.0.0.1:{port}"), "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    // Plaintext where TLS was asked for, and TLS where plaintext was.
    let ca = right.join("ca.pem").display().to_string();
    let url = own.url("rediss", "", &format!("?ca_file={ca}&connect_timeout=2s"));
    let error = try_connect(&url, "a").await.err().unwrap();
    println!("{error}");
    assert!(
        matches!(error.kind(), ErrorKind::Config | ErrorKind::Unavailable),
        "{error}"
    );
    let error = try_connect(&format!("redis://127.0.0.1:{port}?connect_timeout=1s"), "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = try_connect(&format!("rediss://127.0.0.1:{port}?ca_file=/nowhere"), "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for directory in [right, other, host, past] {
        std::fs::remove_dir_all(directory).unwrap();
    }
}
