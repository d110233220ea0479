//! As much DER as certificates and private keys need.

/// Tags of the universal class.
pub(super) mod tag {
    pub(in super::super) const BOOLEAN: u8 = 0x01;
    pub(in super::super) const INTEGER: u8 = 0x02;
    pub(in super::super) const BIT_STRING: u8 = 0x03;
    pub(in super::super) const OCTET_STRING: u8 = 0x04;
    pub(in super::super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(in super::super) const UTF8_STRING: u8 = 0x0c;
    pub(in super::super) const PRINTABLE_STRING: u8 = 0x13;
    pub(in super::super) const SEQUENCE: u8 = 0x30;
    pub(in super::super) const SET: u8 = 0x31;
}

/// An element: tag, length, content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An element made of elements.
pub(super) fn constructed(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// A non-negative integer.
pub(super) fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count().min(7)..];
    // A set first bit would make it negative.
    let mut content = if significant[0] & 0x80 == 0 { Vec::new() } else { vec![0] };
    content.extend_from_slice(significant);
    element(tag::INTEGER, &content)
}

/// A bit string of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(tag::BIT_STRING, &[&[0], bytes].concat())
}

/// An object identifier from its encoded content.
pub(super) fn identifier(content: &[u8]) -> Vec<u8> {
    element(tag::OBJECT_IDENTIFIER, content)
}

/// Takes the first element: its tag, its content, and what follows.
pub(super) fn take(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (bytes, after) = rest.split_at(count);
        rest = after;
        bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// Takes the first element if it has this tag: its content and what follows.
pub(super) fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    take(input).and_then(|(tag, content, rest)| (tag == wanted).then_some((content, rest)))
}

#[cfg(test)]
mod tests {
    use super::{element, expect, integer, tag, take};

    #[test]
    fn lengths_and_signs() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(0x80), [2, 2, 0, 0x80]);
        assert_eq!(integer(u64::MAX >> 1).len(), 10);
        for length in [0, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let encoded = [element(tag::OCTET_STRING, &content), vec![9]].concat();
            assert_eq!(expect(&encoded, tag::OCTET_STRING), Some((content.as_slice(), [9].as_slice())));
        }
        assert_eq!(take(&[4, 5, 1]), None);
        assert_eq!(take(&[4, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
