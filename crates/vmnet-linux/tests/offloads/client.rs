//! The client of a port: it wraps and unwraps frames as was agreed, and checks what it is given.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use vmnet_linux::lane::{Attachment, Handle, PortId, PortOffload, PortOptions};
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::{segment, unfinished};

pub(crate) const MTU: usize = 1500;

#[derive(Debug)]
enum Socket {
    Stream(UnixStream),
    Dgram(UnixDatagram),
}

/// Our end of a port's socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
    pub(crate) agreed: PortOffload,
    pub(crate) id: PortId,
    /// Frames that were larger than the MTU.
    pub(crate) large: usize,
}

impl Client {
    pub(crate) fn join(handle: &Handle, stream: bool, agreed: PortOffload) -> Self {
        let options = PortOptions {
            offload: agreed,
            ..PortOptions::default()
        };
        let wait = Some(Duration::from_millis(2));
        let (socket, attachment) = if stream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_read_timeout(wait).unwrap();
            (Socket::Stream(ours), Attachment::Stream(theirs.into()))
        } else {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            ours.set_read_timeout(wait).unwrap();
            (Socket::Dgram(ours), Attachment::Dgram(theirs.into()))
        };
        let id = handle.attach(attachment, options).unwrap();
        Self {
            socket,
            agreed,
            id,
            large: 0,
        }
    }

    /// It may send frames larger than the MTU.
    pub(crate) fn sends_large(&self) -> bool {
        self.agreed.tso || self.agreed.virtio_header
    }

    /// Writes frames that have their lengths before them, all at once.
    pub(crate) fn send_framed(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Stream(stream) => stream.write_all(bytes).unwrap(),
            Socket::Dgram(_) => panic!("datagrams have no lengths before them"),
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Stream(stream) => {
                let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length, bytes].concat()).unwrap();
            }
            Socket::Dgram(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
        }
    }

    /// Sends a frame whose sums are empty, IPv4's included, doing as much of the work as was not left to the network.
    pub(crate) fn send(&mut self, mut frame: Vec<u8>) {
        if self.agreed.checksum {
            return self.send_raw(&frame);
        }
        let sums = unfinished::Leaves {
            sums: true,
            cutting_to: None,
        };
        let left = unfinished::leave(&mut frame, sums);
        if !self.agreed.virtio_header {
            if let Some((offload, _)) = left {
                segment::complete(&mut frame, &[], offload.checksum);
            }
            return self.send_raw(&frame);
        }
        let (mut offload, headers) = left.map_or((Offload::NONE, 0), |(offload, _)| (offload, 54));
        if frame.len() > MTU + 14 {
            offload.segmentation = Some(Segmentation {
                kind: Kind::Tcp4,
                size: 1460,
                ecn: false,
            });
        }
        self.send_raw(&[&offload.write(headers)[..], &frame].concat());
    }

    fn receive_raw(&mut self) -> Option<Vec<u8>> {
        match &mut self.socket {
            Socket::Stream(stream) => {
                let mut length = [0; 4];
                stream.read_exact(&mut length).ok()?;
                let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
                let mut filled = 0;
                while filled < bytes.len() {
                    filled += stream.read(&mut bytes[filled..]).unwrap_or(0);
                }
                Some(bytes)
            }
            Socket::Dgram(socket) => {
                let mut bytes = vec![0; 70_000];
                let len = socket.recv(&mut bytes).ok()?;
                bytes.truncate(len);
                Some(bytes)
            }
        }
    }

    /// The next frame, whole: what was left to us is done, and what was promised is checked.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.receive_raw()?;
        if self.agreed.virtio_header {
            let header: [u8; 12] = bytes[..12].try_into().unwrap();
            let offload = Offload::read(&header).expect("a header of a known kind");
            bytes.drain(..12);
            assert!(unfinished::is_sound(&bytes, &offload), "{offload:?}");
            if matches!(offload.checksum, Checksum::Partial { .. }) {
                segment::complete(&mut bytes, &[], offload.checksum);
            }
        }
        assert!(bytes.len() <= 65_550);
        if bytes.len() > MTU + 14 {
            assert!(self.agreed.tso, "a large frame came unasked");
            self.large += 1;
        }
        assert!(segment::verify(&bytes), "{:?}: a wrong sum", self.agreed);
        Some(bytes)
    }
}
