//! A call, encoded once.

use super::frames::{DATA, END_HEADERS, END_STREAM, FRAME_HEADER, HEADERS, frame, set_length};

/// A request, encoded once: both frames, with room for the stream's id.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) headers: Vec<u8>,
    pub(super) data: Vec<u8>,
}

impl Request {
    /// A unary call of `path` with one message.
    pub(crate) fn new(secure: bool, authority: &str, path: &str, message: &[u8]) -> Self {
        // :method POST and :scheme, from the static table.
        let mut block = vec![0x83, if secure { 0x87 } else { 0x86 }];
        literal(&mut block, &[0x04], path.as_bytes());
        literal(&mut block, &[0x01], authority.as_bytes());
        // content-type is number 31 of the static table.
        literal(&mut block, &[0x0f, 31 - 15], b"application/grpc");
        let mut te = vec![0x00];
        text(&mut te, b"te");
        literal(&mut block, &te, b"trailers");
        let mut data = vec![];
        frame(&mut data, DATA, END_STREAM, 0, &[]);
        let length = u32::try_from(message.len()).expect("a request has less than 4 GiB");
        data.push(0);
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(message);
        set_length(&mut data);
        let mut headers = vec![];
        frame(&mut headers, HEADERS, END_HEADERS, 0, &block);
        Self { headers, data }
    }

    /// The message with its gRPC frame around it.
    pub(crate) fn body(&self) -> &[u8] {
        &self.data[FRAME_HEADER..]
    }

    pub(super) fn body_bytes(&self) -> i64 {
        self.body().len() as i64
    }
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.extend_from_slice(name);
    text(block, value);
}

/// A string (RFC 7541 section 5.2), not Huffman-coded.
pub(super) fn text(block: &mut Vec<u8>, value: &[u8]) {
    let mut length = value.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(value);
}
