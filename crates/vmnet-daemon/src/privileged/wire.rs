//! A value on the helper's socket: four bytes of length, the value as JSON, and descriptors beside them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use vmnet_linux::sys::fd_passing;

/// The longest value, in bytes: tens of thousands of links, or of ports.
pub const LENGTH_MAX: usize = 8 << 20;
/// Bytes of the length.
const HEAD: usize = 4;

/// Writes a value.
///
/// # Errors
/// What the socket says; a value that is too long is refused.
pub fn write(
    mut socket: &UnixStream,
    value: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len().saturating_sub(HEAD);
    let head = u32::try_from(length).ok().filter(|_| length <= LENGTH_MAX);
    let head = head.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is too long"))?;
    if let Some(place) = bytes.get_mut(..HEAD) {
        place.copy_from_slice(&head.to_le_bytes());
    }
    let sent = fd_passing::send(socket.as_fd(), &bytes, descriptors)?;
    socket.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Reads the bytes of a value, with the descriptors beside them; `None` at the end.
///
/// # Errors
/// What the socket says; `InvalidData` for one that is too long, `UnexpectedEof` for one that is cut off.
pub fn read(socket: &UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut descriptors = Vec::new();
    let mut head = [0; HEAD];
    if fill(socket, &mut head, &mut descriptors)? == 0 {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > LENGTH_MAX {
        let error = format!("{length} bytes are too many for one value");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let mut bytes = vec![0; length];
    if fill(socket, &mut bytes, &mut descriptors)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((bytes, descriptors)))
}

/// Fills the buffer; answers 0 if the end was there before the first byte.
fn fill(
    socket: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match fd_passing::receive(socket.as_fd(), rest, descriptors)? {
            0 if filled == 0 => return Ok(0),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => filled += more,
        }
    }
    Ok(filled)
}

/// The value that these bytes are.
///
/// # Errors
/// They are none.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privileged::request::{Answer, Request};
    use std::io::Read as _;

    #[test]
    fn what_is_written_is_read_with_its_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut left, right) = UnixStream::pair().unwrap();
        write(&ours, &Answer::Opened, &[right.as_fd()]).unwrap();
        write(&ours, &Request::LinkList, &[]).unwrap();
        drop((ours, right));
        let (bytes, mut descriptors) = read(&theirs).unwrap().unwrap();
        assert_eq!(parse::<Answer>(&bytes).unwrap(), Answer::Opened);
        let mut right = UnixStream::from(descriptors.pop().unwrap());
        right.write_all(b"here").unwrap();
        let mut here = [0; 4];
        left.read_exact(&mut here).unwrap();
        let (bytes, descriptors) = read(&theirs).unwrap().unwrap();
        assert_eq!(parse::<Request>(&bytes).unwrap(), Request::LinkList);
        assert!(descriptors.is_empty());
        assert!(read(&theirs).unwrap().is_none());
    }

    #[test]
    fn long_values_pass_and_too_long_ones_do_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let long = "x".repeat(1 << 20);
        let sent = long.clone();
        let sender = std::thread::spawn(move || write(&ours, &sent, &[]).map(|()| ours));
        let (bytes, _) = read(&theirs).unwrap().unwrap();
        assert_eq!(parse::<String>(&bytes).unwrap(), long);
        let mut ours = sender.join().unwrap().unwrap();
        assert!(write(&ours, &"x".repeat(LENGTH_MAX), &[]).is_err());
        ours.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(
            read(&theirs).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn a_value_that_is_cut_off_is_none() {
        for cut in [2, 4, 7] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let bytes = [&10_u32.to_le_bytes()[..], b"\"12345678\""].concat();
            ours.write_all(&bytes[..cut]).unwrap();
            drop(ours);
            let error = read(&theirs).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }
}
