//! The client of a port: it wraps and unwraps frames as was agreed, and checks what it is given.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use vmnet_linux::lane::{Attachment, Handle, PortId, PortOffload, PortOptions, VhostUserSocket};
use vmnet_virtio::driver::Receive;
use vmnet_virtio::frontend::{Frontend, Plan, Queue};
use vmnet_virtio::net::Features;
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::{segment, unfinished};

pub(crate) const MTU: usize = 1500;

/// How a client's frames travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Stream,
    Dgram,
    /// By vhost-user, with these features.
    Rings(Features),
}

#[derive(Debug)]
enum Socket {
    Stream(UnixStream),
    Dgram(UnixDatagram),
    Rings(Box<Frontend>),
}

/// What a client of rings with these features agrees on.
pub(crate) fn agreed_by(features: Features) -> PortOffload {
    PortOffload {
        virtio_header: features.contains(Features::CSUM),
        tso: features.contains(Features::GUEST_TSO4),
        checksum: false,
    }
}

/// A port for a VMM, and the VMM.
pub(crate) fn vmm(handle: &Handle, plan: &Plan) -> (PortId, Frontend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmm");
    let listener = UnixListener::bind(&path).unwrap();
    let attachment = Attachment::VhostUser(VhostUserSocket::Listen(listener));
    let id = handle.attach(attachment, PortOptions::default()).unwrap();
    let stream = UnixStream::connect(&path).unwrap();
    let mut frontend = Frontend::connect(stream, plan).unwrap();
    for pair in &mut frontend.pairs {
        pair.receive.flush().unwrap();
    }
    (id, frontend)
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
    pub(crate) fn join(handle: &Handle, way: Way, agreed: PortOffload) -> Self {
        let options = PortOptions {
            offload: agreed,
            ..PortOptions::default()
        };
        let wait = Some(Duration::from_millis(2));
        let (socket, id) = match way {
            Way::Stream => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_read_timeout(wait).unwrap();
                let attachment = Attachment::Stream(theirs.into());
                let id = handle.attach(attachment, options).unwrap();
                (Socket::Stream(ours), id)
            }
            Way::Dgram => {
                let (ours, theirs) = UnixDatagram::pair().unwrap();
                ours.set_read_timeout(wait).unwrap();
                let attachment = Attachment::Dgram(theirs.into());
                let id = handle.attach(attachment, options).unwrap();
                (Socket::Dgram(ours), id)
            }
            Way::Rings(features) => {
                let mergeable = features.contains(Features::MRG_RXBUF);
                let plan = Plan {
                    features,
                    receive_buffer: if mergeable { 2048 } else { 65_562 },
                    ..Plan::new()
                };
                let (id, frontend) = vmm(handle, &plan);
                assert_eq!(frontend.features(), features);
                (Socket::Rings(Box::new(frontend)), id)
            }
        };
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
            Socket::Dgram(_) | Socket::Rings(_) => panic!("frames have no lengths before them"),
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
            Socket::Rings(frontend) => {
                let header: &[u8] = if self.agreed.virtio_header {
                    &[]
                } else {
                    &[0; 12]
                };
                let queue = &mut frontend.pairs[0].transmit;
                let end = Instant::now() + Duration::from_secs(10);
                while queue.driver.send(header, &[bytes]).is_err() {
                    assert!(Instant::now() < end, "nobody takes frames from the ring");
                    if queue.driver.reclaim().unwrap() == 0 {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
                queue.flush().unwrap();
            }
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
            Socket::Rings(frontend) => {
                let queue = &mut frontend.pairs[0].receive;
                let bytes = take(queue).or_else(|| {
                    if !queue.driver.enable_calls() {
                        queue.wait(Duration::from_millis(2)).unwrap();
                    }
                    take(queue)
                })?;
                if self.agreed.virtio_header {
                    return Some(bytes);
                }
                assert_eq!(bytes[..10], [0; 10], "nothing was agreed on");
                Some(bytes[12..].to_vec())
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

/// The next frame of a ring, with its header.
pub(crate) fn take(queue: &mut Queue<Receive>) -> Option<Vec<u8>> {
    let frame = queue.driver.receive().unwrap()?;
    let mut bytes = frame.header.0.to_vec();
    for part in frame.parts {
        let at = bytes.len();
        bytes.resize(at + part.len(), 0);
        part.copy_to(&mut bytes[at..]);
    }
    assert_eq!(bytes.len(), frame.len + 12);
    queue.flush().unwrap();
    Some(bytes)
}
