//! The little of STUN that tells sessions apart (RFC 8489).

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const USERNAME: u16 = 0x0006;

/// Our user fragment in a STUN request: the user name up to the colon. `None`: this is no STUN message with a name.
pub(super) fn ufrag(datagram: &[u8]) -> Option<&str> {
    if *datagram.first()? > 3 || datagram.get(4..8)? != COOKIE {
        return None;
    }
    let mut rest = datagram.get(HEADER..)?;
    while let [k0, k1, l0, l1, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = after.get(..length)?;
        if u16::from_be_bytes([*k0, *k1]) == USERNAME {
            let name = std::str::from_utf8(value).ok()?;
            return Some(name.split_once(':')?.0);
        }
        rest = after.get(length.next_multiple_of(4)..)?;
    }
    None
}
