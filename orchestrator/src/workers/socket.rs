//! The program that is built in, over WebSocket (RFC 6455): it says back each message as it comes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use livepeer_core::http::{Headers, Response, SWITCHING};

/// The protocol's name.
const PROTOCOL: &str = "websocket";

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The answer to somebody who breaks the rules of the protocol: a close frame with status 1002.
const BROKEN: [u8; 4] = [0x88, 2, 0x03, 0xea];

/// The answer that opens a socket, if a request asks for one.
pub(super) fn opening(headers: &Headers) -> Option<Response> {
    let asks = headers.get("upgrade")?.eq_ignore_ascii_case(PROTOCOL);
    let key = headers.get("sec-websocket-key").filter(|_| asks)?;
    let digest = sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let mut reply = Response::new(SWITCHING)
        .header("upgrade", PROTOCOL)
        .header("sec-websocket-accept", BASE64_STANDARD.encode(digest));
    let offered = headers.get("sec-websocket-protocol");
    if let Some(first) = offered.and_then(|all| all.split(',').next()) {
        reply = reply.header("sec-websocket-protocol", first.trim());
    }
    Some(reply)
}

/// The echo of a socket. Frames are not gathered: what is here of one goes back at once.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// The head of a frame, as far as it is here.
    head: Vec<u8>,
    /// The bytes of the frame that are still to come, their mask, and the place in it.
    left: u64,
    mask: [u8; 4],
    at: usize,
    /// The frame ends the socket.
    closes: bool,
    over: bool,
}

impl Socket {
    /// Whether nothing more is said.
    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }

    /// The peer says no more.
    pub(crate) const fn end(&mut self) {
        self.over = true;
    }

    /// The answer to bytes of the peer.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Bytes {
        let mut answer = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.over {
                break;
            }
            if self.left > 0 {
                answer.push(byte ^ self.mask[self.at % 4]);
                self.at += 1;
                self.left -= 1;
            } else {
                self.head.push(byte);
                match frame(&self.head) {
                    Ok(None) => continue,
                    Ok(Some((left, mask))) => {
                        (self.left, self.mask, self.at) = (left, mask, 0);
                        let head = std::mem::take(&mut self.head);
                        self.closes = head[0] & 0xf == CLOSE;
                        answer.push(match head[0] & 0xf {
                            PING => head[0] & 0xf0 | PONG,
                            _ => head[0],
                        });
                        answer.push(head[1] & 0x7f);
                        // The length goes back as it came, without the mask.
                        answer.extend_from_slice(&head[2..head.len() - 4]);
                    }
                    Err(()) => {
                        answer.extend_from_slice(&BROKEN);
                        self.over = true;
                    }
                }
            }
            self.over |= self.closes && self.left == 0;
        }
        answer.into()
    }
}

/// The length of a frame's bytes and their mask, if its head is complete.
fn frame(head: &[u8]) -> Result<Option<(u64, [u8; 4])>, ()> {
    let [first, second, rest @ ..] = head else {
        return Ok(None);
    };
    let (kind, short) = (first & 0xf, second & 0x7f);
    let control = kind >= CLOSE;
    let known = matches!(kind, 0..=2 | CLOSE | PING | PONG);
    let bad_control = control && (short > 125 || first & 0x80 == 0);
    // Nothing that we agreed on uses the reserved bits, and clients mask.
    if first & 0x70 != 0 || second & 0x80 == 0 || !known || bad_control {
        return Err(());
    }
    let digits = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((length, mask)) = rest.split_at_checked(digits) else {
        return Ok(None);
    };
    let Ok(mask) = mask.try_into() else {
        return Ok(None);
    };
    let long = { length.iter() }.fold(0, |all, byte| all << 8 | u64::from(*byte));
    let length = if digits == 0 { u64::from(short) } else { long };
    match length >> 63 {
        0 => Ok(Some((length, mask))),
        _ => Err(()),
    }
}

/// SHA-1, which the opening of a socket wants as a sign of understanding; nothing is safe because of it.
fn sha1(text: &[u8]) -> [u8; 20] {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - text.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for n in 16..80 {
            words[n] = (words[n - 3] ^ words[n - 8] ^ words[n - 14] ^ words[n - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (n, word) in words.into_iter().enumerate() {
            let (mixed, constant) = match n {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = { a.rotate_left(5) }
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, one) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(one);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_opens_as_the_rfc_shows_it() {
        let mut headers = Headers::new();
        headers.push("upgrade", "WebSocket");
        headers.push("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        headers.push("sec-websocket-protocol", "chat, superchat");
        let reply = opening(&headers).expect("it asks for a socket");
        let accept = reply.headers.get("sec-websocket-accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(reply.headers.get("sec-websocket-protocol"), Some("chat"));
        assert_eq!(
            hex::encode(sha1(b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        // Around the length at which another block is needed.
        for (length, digest) in [
            (55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
            (56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
            (64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
        ] {
            assert_eq!(hex::encode(sha1(&vec![b'a'; length])), digest);
        }
    }

    #[test]
    fn frames_go_back_however_they_are_cut() {
        let mask = [1, 2, 3, 4];
        let masked = |text: &[u8]| -> Vec<u8> {
            { text.iter().zip(mask.iter().cycle()) }
                .map(|(a, b)| a ^ b)
                .collect()
        };
        let long = vec![7; 300];
        let mut sent = vec![0x81, 0x85];
        sent.extend(mask);
        sent.extend(masked(b"hello"));
        sent.extend([0x89, 0x80, 1, 2, 3, 4, 0x82, 0xfe, 1, 44]);
        sent.extend(mask);
        sent.extend(masked(&long));
        sent.extend([0x88, 0x82, 1, 2, 3, 4]);
        sent.extend(masked(&[3, 0xe8]));
        sent.extend(b"whatever comes after the end");
        let mut wanted = vec![0x81, 5];
        wanted.extend(b"hello");
        wanted.extend([0x8a, 0, 0x82, 126, 1, 44]);
        wanted.extend(&long);
        wanted.extend([0x88, 2, 3, 0xe8]);
        for cut in [1, 2, 3, 7, sent.len()] {
            let mut socket = Socket::default();
            let pieces = sent.chunks(cut);
            let got: Vec<u8> = pieces.flat_map(|piece| socket.answer(piece)).collect();
            assert_eq!(got, wanted, "in pieces of {cut}");
            assert!(socket.is_over());
        }
        for bad in [
            &[0x81, 0x05][..],
            &[0x91, 0x85],
            &[0x83, 0x85],
            &[0x09, 0x80],
        ] {
            let mut socket = Socket::default();
            assert_eq!(socket.answer(bad)[..], BROKEN);
            assert!(socket.is_over());
        }
    }
}
