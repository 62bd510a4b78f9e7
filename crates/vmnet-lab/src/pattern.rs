//! Bytes that both ends of a transfer know, so that each compares what arrives with what was sent.
//!
//! A block of pseudo-random bytes whose length is a prime repeats for ever: a byte lost, doubled or swapped anywhere
//! (short of a whole block) shows at once, and comparing runs at the speed of `memcmp` even in a debug build.

use std::io::{self, Read, Write};
use std::sync::LazyLock;

/// A prime just under one mebibyte.
const BLOCK: usize = 1_048_573;
/// How much is written or read with one call.
const CHUNK: usize = 256 * 1024;

/// Two blocks in a row, so that a chunk from any offset is one slice.
static BLOCKS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(BLOCK)
    .collect();
    block.extend_from_within(..);
    block
});

/// What stands at `offset`, for `len` bytes at most.
fn at(offset: u64, len: usize) -> &'static [u8] {
    let start = usize::try_from(offset % BLOCK as u64).expect("less than a block");
    &BLOCKS[start..start + len.min(BLOCK)]
}

/// Writes the first `len` bytes of the pattern.
///
/// # Errors
/// Those of the writer.
pub fn write(to: &mut impl Write, len: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < len {
        let chunk = at(
            offset,
            CHUNK.min(usize::try_from(len - offset).unwrap_or(CHUNK)),
        );
        to.write_all(chunk)?;
        offset += chunk.len() as u64;
    }
    to.flush()
}

/// Reads until the end of the stream, and compares every byte; the count of bytes.
///
/// # Errors
/// Those of the reader, and `InvalidData` with the offset of the first wrong chunk.
pub fn verify(from: &mut impl Read) -> io::Result<u64> {
    verify_at_most(from, u64::MAX)
}

/// As [`verify`], but reads no further than `len` bytes.
///
/// # Errors
/// As [`verify`].
pub fn verify_at_most(from: &mut impl Read, len: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < len {
        let room = CHUNK.min(usize::try_from(len - offset).unwrap_or(CHUNK));
        let count = match from.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer[..count] != *at(offset, count) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("wrong bytes between {offset} and {}", offset + count as u64),
            ));
        }
        offset += count as u64;
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_verifies_and_a_flipped_or_lost_byte_does_not() {
        let mut bytes = Vec::new();
        write(&mut bytes, 3_000_000).unwrap();
        assert_eq!(verify(&mut bytes.as_slice()).unwrap(), 3_000_000);
        assert_eq!(verify_at_most(&mut bytes.as_slice(), 10).unwrap(), 10);
        bytes[2_500_000] ^= 1;
        assert!(verify(&mut bytes.as_slice()).is_err());
        bytes[2_500_000] ^= 1;
        bytes.remove(1_234_567);
        assert!(verify(&mut bytes.as_slice()).is_err());
    }
}
