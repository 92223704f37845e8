//! Frames (RFC 9113 section 4), written and read.

use super::WireError;

pub(super) const FRAME_HEADER: usize = 9;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 0x20;

/// A frame of the input.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

/// Appends a frame.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Corrects the length of a frame that was written with another.
pub(super) fn set_length(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - FRAME_HEADER).expect("a frame is short").to_be_bytes();
    frame[..3].copy_from_slice(&length[1..]);
}

/// The first frame, if all of it is there, and its length.
pub(super) fn next_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
    let &[a, b, c, kind, flags, ref id @ ..] = header;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = rest.get(..length)?;
    let stream = u32::from_be_bytes(*id) & 0x7fff_ffff;
    Some((Frame { kind, flags, stream, payload }, FRAME_HEADER + length))
}

/// The payload without padding, and without what is to be skipped.
pub(super) fn unpadded<'a>(frame: &Frame<'a>, skip: usize) -> Result<&'a [u8], WireError> {
    let (padding, payload) = match frame.payload {
        [padding, rest @ ..] if frame.flags & PADDED != 0 => (usize::from(*padding), rest),
        payload => (0, payload),
    };
    let end = payload.len().checked_sub(padding).ok_or(WireError::Protocol("more padding than payload"))?;
    payload.get(skip..end).ok_or(WireError::Protocol("a frame that is too short"))
}

/// The number that a payload begins with.
pub(super) fn number(bytes: &[u8]) -> Result<u32, WireError> {
    let four = bytes.first_chunk::<4>().ok_or(WireError::Protocol("a frame that is too short"))?;
    Ok(u32::from_be_bytes(*four))
}
