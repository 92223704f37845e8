//! Headers that mean much and are little (RFC 7541): what a request covers is what it sent, and not what it says.

use std::{net::SocketAddr, time::Instant};

use jeton_server::door::DoorSettings;
use tokio::task::spawn_blocking;

use crate::{
    frames::{END_HEADERS, END_STREAM, HEADERS, PING, Raw, frame, header_block, streams},
    support::{PATIENCE, open},
};

/// A field that fills most of the table.
const VALUE: usize = 3_900;

/// The headers of a call and a long field, by its value the first time and then three times by its place in the table.
fn call(stream: u32, first: bool) -> Vec<u8> {
    // The first of the table, which has 61 entries that are always there.
    const KNOWN: u8 = 0x80 | 62;
    let mut block = header_block("/test.Slow/0");
    if first {
        block.extend_from_slice(b"\x40\x01x\x7f");
        // The value's length beyond seven bits' worth (RFC 7541, 5.1).
        let rest = u16::try_from(VALUE - 127).unwrap();
        block.extend([0x80 | (rest & 0x7f) as u8, (rest >> 7) as u8]);
        block.extend(std::iter::repeat_n(b'v', VALUE));
    } else {
        block.extend([KNOWN; 3]);
    }
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// Sends as many pings as fit between what such requests say and what they are.
fn attack(address: SocketAddr) {
    let (start, mut raw) = (Instant::now(), Raw::connect(address, &[]));
    let mut reading = raw.other_end();
    let reader = std::thread::spawn(move || reading.ends());
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(2 * VALUE / 17);
    for (n, stream) in streams().enumerate() {
        if raw.send(&[call(stream, n == 0), pings.clone()].concat()).is_err() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on");
    }
    assert!(reader.join().unwrap(), "the connection is not closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_not_covered_by_headers_that_are_known_already() {
    let door = open(DoorSettings { max_idle_bytes_per_second: 65_536, ..DoorSettings::default() }).await;
    let address = door.address;
    spawn_blocking(move || attack(address)).await.unwrap();
    let stats = (door.stats)();
    assert!(stats.misused == 1, "{stats:?}");
}
