//! Streams of bytes, cut anyhow, and what is read of them.

use std::iter;

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64 * 1024;

/// Writes a client's frame; the first bits are those of the last part, and reserved ones.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x00, 0xff, 0x5a];
    let mut frame = vec![first_byte];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Reads a stream that comes in pieces of at most so many bytes; the messages, and how it ends.
fn read(stream: &[u8], piece_bytes: usize) -> (Vec<Incoming>, Option<CloseCode>) {
    let mut reader = Reader::new(&[], LIMIT);
    let mut messages = Vec::new();
    for piece in iter::once(&[][..]).chain(stream.chunks(piece_bytes)) {
        let mut taken = reader.take_in(piece);
        while let Ok(Some(message)) = taken {
            messages.push(message);
            taken = reader.take_in(&[]);
        }
        if let Err(code) = taken {
            return (messages, Some(code));
        }
    }
    (messages, None)
}

fn check(stream: &[u8], messages: &[Incoming], end: Option<CloseCode>) {
    for piece_bytes in [1, 2, 3, 7, 13, 1000, usize::MAX] {
        assert_eq!(read(stream, piece_bytes), (messages.to_vec(), end), "{piece_bytes}");
    }
}

fn refused(stream: &[u8], code: CloseCode) {
    check(stream, &[], Some(code));
}

fn text(text: &str) -> Incoming {
    Incoming::Text(text.into())
}

#[test]
fn a_message_may_come_in_parts_with_control_frames_between_them() {
    let stream = [
        frame(0x01, "gr".as_bytes()),
        frame(0x89, b"?"),
        frame(0x00, &[0xc3]),
        frame(0x8a, b"!"),
        frame(0x80, &[0xbc, b'n']),
        frame(0x82, &[0xff; 300]),
        frame(0x81, b""),
        frame(0x88, b"\x03\xe8bye"),
    ];
    let messages = [
        Incoming::Ping(b"?".to_vec()),
        Incoming::Pong,
        text("grün"),
        Incoming::Binary(vec![0xff; 300]),
        text(""),
        Incoming::Close(b"\x03\xe8bye".to_vec()),
    ];
    check(&stream.concat(), &messages, None);
}

#[test]
fn each_form_of_a_length_has_its_range() {
    for size in [0, 125, 126, 65_535, 65_536] {
        check(&frame(0x82, &vec![7; size]), &[Incoming::Binary(vec![7; size])], None);
    }
    let padded = [&b"\x82\xfe\0\x7d"[..], &b"\x82\xff\0\0\0\0\0\0\xff\xff"[..]];
    padded.into_iter().for_each(|stream| refused(stream, CloseCode::Protocol));
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let odd = [
        frame(0x83, b"unknown"),
        frame(0x8b, b"unknown"),
        frame(0xc1, b"reserved bit"),
        frame(0x09, b"a ping in parts"),
        frame(0x89, &[0; 126]),
        frame(0x80, b"nothing to go on with"),
        [frame(0x01, b""), frame(0x81, b"a message within a message")].concat(),
        b"\x81\x05hello".to_vec(),
        frame(0x88, b"\x03"),
        frame(0x88, b"\x03\xed"),
        frame(0x88, b"\x13\x88"),
    ];
    odd.into_iter().for_each(|stream| refused(&stream, CloseCode::Protocol));
    refused(&frame(0x88, b"\x03\xe8\xff"), CloseCode::NotUtf8);
}

#[test]
fn what_is_no_utf8_is_refused_before_it_is_whole() {
    refused(&frame(0x81, b"a\xff"), CloseCode::NotUtf8);
    refused(&frame(0x81, b"a\xc3"), CloseCode::NotUtf8);
    refused(&frame(0x01, b"a\xff"), CloseCode::NotUtf8);
    let whole = frame(0x81, b"a\xf4\x90\x80\x80 and more");
    refused(whole.get(..10).unwrap(), CloseCode::NotUtf8);
}

#[test]
fn what_is_too_big_is_refused_by_its_header() {
    let header = |first_byte, size| frame(first_byte, &vec![0; size]).into_iter().take(14);
    refused(&header(0x82, LIMIT + 1).collect::<Vec<_>>(), CloseCode::TooBig);
    let mut parts = frame(0x02, &[0; 5000]);
    parts.extend(header(0x80, LIMIT - 4999));
    refused(&parts, CloseCode::TooBig);
    let huge = [&b"\x82\xff"[..], &[0xff; 8], &[0; 4]].concat();
    refused(&huge, CloseCode::TooBig);
}

#[test]
fn nothing_is_kept_between_messages() {
    let mut reader = Reader::new(&frame(0x81, &[b'x'; 100]), LIMIT);
    assert!(reader.take_in(&[]).unwrap().is_some());
    assert_eq!(reader.take_in(&frame(0x89, b"?")).unwrap(), Some(Incoming::Ping(b"?".to_vec())));
    let kept = reader.rest.capacity() + reader.message.capacity() + reader.control.capacity();
    assert_eq!(kept, 0);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_read_the_same(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..6),
        junk in prop::collection::vec(any::<u8>(), 0..20),
        piece_bytes in 1..40_usize,
    ) {
        let opcode = |byte: u8| [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, byte][byte as usize % 10];
        let frames = frames.into_iter().map(|(first, payload)| frame(opcode(first), &payload));
        let stream = [frames.collect::<Vec<_>>().concat(), junk].concat();
        prop_assert_eq!(read(&stream, piece_bytes), read(&stream, usize::MAX));
    }
}
