//! What nobody can hold longer than they may.

use std::{sync::mpsc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::world::World;

const PLACES: usize = 64;

async fn connected(world: &World, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

/// A connection that stays, and on which the session was shown.
async fn entered(world: &World, cookie: &str) -> TcpStream {
    let request = format!("GET /nothing HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", world.address);
    let mut stream = connected(world, &request).await;
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    stream
}

/// The clock stands while this is held, however long the machine takes. After a real minute it jumps: what hangs fails.
fn stand_still() -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel();
    tokio::time::pause();
    // A paused clock does not go on by itself while something blocks.
    tokio::task::spawn_blocking(move || held.recv_timeout(Duration::from_secs(60)));
    hold
}

/// What comes until the console closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = vec![];
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_connection_without_a_session_makes_room() {
    let world = World::start().await;
    // Nothing is cut but for room.
    let _still = stand_still();
    let cookie = world.enter().await;
    let mut kept = entered(&world, &cookie).await;
    let mut strangers = vec![];
    for _ in 0..PLACES + 16 {
        strangers.push(connected(&world, "G").await);
    }
    let asked = Instant::now();
    assert_eq!(world.get("/", &[]).await.status, 200, "without a cookie, as the link is opened");
    assert_eq!(world.get("/api/nothing", &[("cookie", &cookie)]).await.status, 404);
    assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waited");
    assert_eq!(rest(&mut strangers[0]).await, "");
    assert_eq!(asked.elapsed(), Duration::ZERO, "the oldest was cut at once");
    let again = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", world.address);
    kept.write_all(again.as_bytes()).await.unwrap();
    assert!(rest(&mut kept).await.starts_with("HTTP/1.1 200"), "older than all, and in");
}

#[tokio::test]
async fn where_all_connections_have_the_session_the_next_one_waits_for_a_place() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let still = stand_still();
    let mut open = vec![];
    for _ in 0..PLACES {
        open.push(entered(&world, &cookie).await);
    }
    let asking = world.get("/", &[]);
    tokio::pin!(asking);
    drop(still);
    // However long that is: without a place there is no answer.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asking).await;
    assert!(early.is_err(), "one more than may was served");
    drop(open.pop());
    assert_eq!(asking.await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_waited_for_seconds() {
    let world = World::start().await;
    let began = Instant::now();
    let mut slow = connected(&world, "GET / HT").await;
    rest(&mut slow).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_seconds() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let still = stand_still();
    let began = Instant::now();
    let request = format!(
        "POST /api/explain HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\ncontent-type: application/json\r\nx-jeton-console: 1\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
        world.address
    );
    let mut slow = connected(&world, &request).await;
    let mut goes_on = [0; 25];
    slow.read_exact(&mut goes_on).await.unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n", "it waits for the body now");
    slow.write_all(b"{").await.unwrap();
    drop(still);
    let answer = rest(&mut slow).await;
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    let told: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["error"]["reason"], "DEADLINE_EXCEEDED");
    assert_eq!(world.plane.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let world = World::start().await;
    let cookie = world.enter().await;
    let still = stand_still();
    let mut deaf = entered(&world, &cookie).await;
    let request = format!("GET /page/app.js HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
    // Asks until neither side's buffers take more: the console waits for it to read.
    let asking = async { while deaf.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::pin!(asking);
    let began = Instant::now();
    drop(still);
    asking.await;
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}
