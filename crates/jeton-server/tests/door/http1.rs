//! The doors of HTTP/1.1: one request, and every peer is let go in time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jeton_server::door::{Authenticate, Calls, Configured, DoorSettings, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Callers, Open, PATIENCE, closes, open_for, until};

async fn open(settings: DoorSettings) -> Open {
    let somebody: Arc<dyn Authenticate> = Arc::new(Configured("spiffe://a.example/b".parse().unwrap()));
    let callers = Callers { protocol: Protocol::Http1, authenticate: Some(somebody), ..Callers::default() };
    open_for(settings, false, callers).await
}

/// What comes back until the connection ends.
async fn sent(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut all = vec![];
    let ended = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // A reset ends it too.
    let _ = ended.expect("the door does not let go");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_connection_has_one_request_and_its_caller_is_whom_the_listener_is_for() {
    let open = open(DoorSettings::default()).await;
    let two = "GET /test.Slow/now HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    let answer = sent(open.address, two.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(
        answer.contains("connection: close") && answer.contains("caller: spiffe://a.example/b"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_peer_that_has_said_everything_may_close_its_side_before_it_is_answered() {
    let open = open(DoorSettings::default()).await;
    let mut stream = TcpStream::connect(open.address).await.unwrap();
    stream.write_all(b"GET /test.Slow/200 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn peers_that_say_nothing_or_go_on_slowly_are_let_go() {
    let open = open(DoorSettings::default()).await;
    let mut silent = TcpStream::connect(open.address).await.unwrap();
    let mut slow = TcpStream::connect(open.address).await.unwrap();
    slow.write_all(b"GET /test.Slow/now HTTP/1.1\r\nHost:").await.unwrap();
    let (mut from, mut to) = slow.split();
    let dawdling = async {
        while to.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut rest = vec![];
    let gone = async {
        tokio::select! {
            () = dawdling => {}
            _ = from.read_to_end(&mut rest) => {}
        }
    };
    timeout(PATIENCE, gone).await.expect("a slow peer is let go");
    assert!(closes(&mut silent).await);
    until("both are counted", || (open.stats)().silent == 2 && (open.stats)().open == 0).await;
}

#[tokio::test]
async fn heads_have_a_bound() {
    let open = open(DoorSettings::default()).await;
    let head = |rest: String| format!("GET /test.Slow/now HTTP/1.1\r\nHost: a\r\n{rest}\r\n");
    let many: String = (0..40).map(|n| format!("a{n}: b\r\n")).collect();
    let large = format!("a: {}\r\n", "b".repeat(9_000));
    for wrong in [head(many), head(large), "NONSENSE\r\n\r\n".to_owned(), "PRI * HTTP/2.0\r\n\r\n".to_owned()]
    {
        let answer = sent(open.address, wrong.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let right = sent(open.address, head("a: b\r\n".repeat(20)).as_bytes()).await;
    assert!(right.starts_with("HTTP/1.1 200"), "{right}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_a_503_that_says_when_to_come_again() {
    let open = open(DoorSettings { request_deadline_ms: 100, ..DoorSettings::default() }).await;
    let answer = sent(open.address, b"GET /test.Slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!((open.stats)().late, 1);
}

#[tokio::test]
async fn a_drain_lets_the_request_in_flight_finish_and_cuts_what_is_stuck() {
    let open = open(DoorSettings::default()).await;
    let mut asking = TcpStream::connect(open.address).await.unwrap();
    asking.write_all(b"GET /test.Slow/300 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut stuck = TcpStream::connect(open.address).await.unwrap();
    stuck.write_all(b"GET /test.Slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until("both are in", || (open.stats)().open == 2).await;
    let (answer, ()) = tokio::join!(read(&mut asking), open.drain.drain(Duration::from_secs(3)));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(read(&mut stuck).await, "");
    open.accepting.await.unwrap();
}

#[tokio::test]
async fn requests_are_counted_by_method_and_status_whatever_a_peer_makes_up() {
    let calls = Arc::new(Calls::default());
    let somebody: Arc<dyn Authenticate> = Arc::new(Configured("spiffe://a.example/b".parse().unwrap()));
    let callers = Callers {
        protocol: Protocol::Http1,
        authenticate: Some(somebody),
        calls: Some(Arc::clone(&calls)),
        ..Callers::default()
    };
    let open = open_for(DoorSettings::default(), false, callers).await;
    for method in ["GET", "GET", "INVENTED", "ANOTHER"] {
        sent(open.address, format!("{method} /test.Slow/now HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    }
    let mut counted: Vec<_> = (calls.requests().into_iter())
        .map(|(kind, took)| (kind.method, kind.scheme, kind.status, took.counts.iter().sum::<u64>()))
        .collect();
    counted.sort();
    assert_eq!(counted, [("GET", "http", 200, 2), ("_OTHER", "http", 200, 2)]);
}
