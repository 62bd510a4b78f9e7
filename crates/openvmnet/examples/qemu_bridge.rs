//! A bridge between QEMU and a network: it listens on a socket for `-netdev stream`, whose frames have their length in front,
//! in 4 bytes. (`vmnet attach` does the same without a program; this shows how.)
//!
//! ```text
//! cargo run -p openvmnet --example qemu_bridge -- /tmp/q.sock
//! qemu-system-x86_64 -netdev stream,id=n,addr.type=unix,addr.path=/tmp/q.sock -device virtio-net,netdev=n ...
//! ```

use std::io::{self, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use openvmnet::{Interface, InterfaceConfiguration, ReadPacket};

/// How many packets are read at once.
const BATCH: usize = 32;

fn main() -> ExitCode {
    let Err(error) = bridge() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("qemu_bridge: {error}");
    ExitCode::FAILURE
}

fn bridge() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("say where to listen")?;
    let listener = UnixListener::bind(&path).map_err(|error| format!("{path}: {error}"))?;
    println!("waiting for QEMU on {path}");
    let (guest, _) = listener.accept()?;
    std::fs::remove_file(&path)?;

    // QEMU's guest has a MAC of its own.
    let configuration = InterfaceConfiguration::shared()
        .allocate_mac_address(false)
        .build()?;
    let interface = Arc::new(Interface::start(&configuration)?);
    let to_guest = guest.try_clone()?;
    let reader = Arc::clone(&interface);
    let outward = thread::spawn(move || {
        let done = pass_to(&reader, to_guest);
        // The other direction ends with this one.
        let _stopped_before = reader.stop();
        done.map_err(|error| error.to_string())
    });
    let inward = pass_from(&interface, guest);
    let _stopped_before = interface.stop();
    outward.join().map_err(|_| "a thread panicked")??;
    inward
}

/// From the network to the guest, until either ends.
fn pass_to(interface: &Interface, mut guest: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let max = usize::try_from(interface.parameters().max_packet_size)?;
    let mut memory = vec![0; BATCH * max];
    let mut out = Vec::new();
    loop {
        let Ok(_) = interface.wait(Some(Duration::from_secs(1))) else {
            return Ok(());
        };
        let mut buffers: Vec<_> = memory
            .chunks_mut(max)
            .map(|chunk| [IoSliceMut::new(chunk)])
            .collect();
        let mut packets: Vec<_> = buffers.iter_mut().map(|it| ReadPacket::new(it)).collect();
        let Ok(count) = interface.read(packets.as_mut_slice()) else {
            return Ok(());
        };
        out.clear();
        for packet in packets.iter().take(count) {
            let frame = packet.buffers.first().and_then(|it| it.get(..packet.size));
            out.extend(u32::try_from(packet.size)?.to_be_bytes());
            out.extend_from_slice(frame.unwrap_or_default());
        }
        guest.write_all(&out)?;
    }
}

/// From the guest to the network, until the guest ends.
fn pass_from(interface: &Interface, guest: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let mut guest = BufReader::with_capacity(256 << 10, guest);
    let mut frame = Vec::new();
    loop {
        let mut len = [0; 4];
        match guest.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let len = usize::try_from(u32::from_be_bytes(len))?;
        if len > usize::try_from(interface.parameters().max_packet_size)? {
            return Err(format!("QEMU sent a frame of {len} bytes").into());
        }
        frame.resize(len, 0);
        guest.read_exact(&mut frame)?;
        let buffers = [IoSlice::new(&frame)];
        // What is no frame is the guest's fault, and dropped.
        let _written = interface.write(&[openvmnet::WritePacket::new(&buffers)]);
    }
}
