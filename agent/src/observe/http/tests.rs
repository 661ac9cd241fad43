//! Over real connections, on the loopback interface.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

/// A server for a test, which ends with it.
async fn server() -> (SocketAddr, Arc<Status>) {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(Status::new());
    tokio::spawn(serve(listener, status.clone()));
    (address, status)
}

/// All that is answered to `request`, until the server ends the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Claims the status line's code, a header line, and the body.
async fn check(address: SocketAddr, request: &str, code: &str, header: &str, body: &str) {
    let answer = ask(address, &format!("{request} HTTP/1.1\r\nHost: node\r\n\r\n")).await;
    let (head, found) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{request}: {head}");
    assert!(head.lines().any(|line| line == header), "{request}: {head}");
    assert_eq!(found, body, "{request}");
}

#[tokio::test]
async fn probes_are_answered_in_plain_words() {
    let (address, _) = server().await;
    let text = "content-type: text/plain; charset=utf-8";
    check(address, "GET /healthz", "200", text, "ok\n").await;
    check(address, "GET /healthz?verbose", "200", text, "ok\n").await;
    check(address, "GET /readyz", "503", text, "not ready:\n- the agent is starting\n").await;
    check(address, "HEAD /healthz", "200", "content-length: 3", "").await;
    check(address, "GET /", "404", text, "there are /healthz, /readyz and /metrics\n").await;
    check(address, "GET /metrics/", "404", text, "there are /healthz, /readyz and /metrics\n").await;
    check(address, "POST /metrics", "405", "allow: GET, HEAD", "only GET and HEAD\n").await;
    check(address, "DELETE /nothing", "405", "allow: GET, HEAD", "only GET and HEAD\n").await;
}

#[tokio::test]
async fn a_scrape_is_open_metrics() {
    let (address, _) = server().await;
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(answer.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_is_not_http_or_too_long_is_turned_away() {
    let (address, _) = server().await;
    assert!(ask(address, "\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let long = format!("GET /healthz HTTP/1.1\r\nLong: {}", "x".repeat(HEAD));
    assert!(ask(address, &long).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let (address, _) = server().await;
    let started = Instant::now();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty() && started.elapsed() >= PATIENCE, "{:?}", started.elapsed());
}

#[tokio::test]
async fn those_who_hold_connections_keep_no_probe_out() {
    let (address, _) = server().await;
    let mut held = Vec::new();
    for _ in 0..=MOST {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    check(address, "GET /healthz", "200", "content-length: 3", "ok\n").await;
    // The oldest had to go.
    assert_eq!(held[0].read(&mut [0]).await.unwrap(), 0);
    let newest = tokio::time::timeout(Duration::from_millis(100), held[MOST].read_u8()).await;
    assert!(newest.is_err(), "{newest:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_advice() {
    let (address, status) = server().await;
    let error = start(Listen::At(address), status).await.unwrap_err();
    assert!(error.to_string().contains("does another program have the port?"), "{error:#}");
}

#[test]
fn listen_is_an_address_with_a_port_or_none() {
    for (text, expected) in [
        ("none", Some(Listen::Nowhere)),
        ("[::]:7284", Some(Listen::At(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7284))))),
        ("127.0.0.1:1", Some(Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))))),
        ("", None),
        ("7284", None),
        ("localhost:7284", None),
    ] {
        assert_eq!(text.parse().ok(), expected, "{text:?}");
    }
}
