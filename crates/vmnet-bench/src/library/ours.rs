//! Two interfaces on a network of the service, in two processes.

use super::{Process, Receiver, Tally};
use crate::measure::Values;
use crate::service::Failure;
use crate::service::daemon::Daemon;
use crate::service::recovery::monotonic;
use openvmnet::{Event, Interface, InterfaceConfiguration, Mac, ReadPacket, WritePacket};
use std::io::{IoSlice, IoSliceMut, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::Duration;
use vmnet_wire::unfinished::{Leaves, leave};

/// Bytes of the virtio-net header, which large segments have.
pub(super) const HEADER: usize = 12;
/// The pause between two frames that are heard of: others have slept by then.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

fn interface(len: usize) -> Result<Interface, Failure> {
    let large = len > 2000;
    let configuration = InterfaceConfiguration::host()
        .tso(large)
        .virtio_header(large)
        .build()?;
    Ok(Interface::start(&configuration)?)
}

/// A TCP segment of that many bytes: a large one with the header that leaves its sums and cuts to others.
pub(super) fn frame(len: usize, to: Mac, from: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len + HEADER);
    frame.extend(to.0);
    frame.extend(from.0);
    let total = u16::try_from(len - 14).unwrap_or(u16::MAX).to_be_bytes();
    frame.extend([
        8, 0, 0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, 6, 0, 0,
    ]);
    frame.extend([10, 1, 1, 1, 10, 1, 1, 2]);
    frame.extend([0, 99, 0, 98, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]);
    frame.resize(len, 0);
    let leaves = Leaves {
        sums: true,
        cutting_to: Some(1500),
    };
    let large = len > 2000;
    if let Some((offload, _)) = leave(&mut frame, leaves)
        && large
    {
        frame.splice(0..0, offload.write(54));
    }
    frame
}

/// Frames a second.
pub(super) fn measure(of: Receiver) -> Result<f64, Failure> {
    let _daemon = Daemon::start()?;
    let interface = interface(of.len)?;
    let mut process = Process::start(of, Stdio::null())?;
    let to: Mac = process.ready.parse()?;
    let from = interface.parameters().mac_address.ok_or("no MAC")?;
    let frame = frame(of.len, to, from);
    let buffers = [IoSlice::new(&frame)];
    let packets = vec![WritePacket::new(&buffers); of.batch];
    let mut calls: u32 = 0;
    loop {
        interface.write(&packets)?;
        calls = calls.wrapping_add(1);
        if calls.is_multiple_of(256) && process.is_done()? {
            return process.rate();
        }
    }
}

/// Counts what comes.
pub(super) fn read(of: Receiver) -> Result<(), Failure> {
    let interface = interface(of.len)?;
    introduce(&interface)?;
    let room = of.len + HEADER;
    let mut memory = vec![0; room * of.batch];
    let mut buffers: Vec<_> = memory
        .chunks_mut(room)
        .map(|chunk| [IoSliceMut::new(chunk)])
        .collect();
    let mut packets: Vec<_> = buffers.iter_mut().map(|it| ReadPacket::new(it)).collect();
    let mut tally = Tally::new(of);
    loop {
        for packet in &mut packets {
            packet.size = room;
        }
        let came = interface.read(packets.as_mut_slice())?;
        if came == 0 {
            interface.wait(None)?;
        } else if let Some(rate) = tally.count(came) {
            println!("{rate}");
            return Ok(());
        }
    }
}

/// Lets the network learn where we are, and whoever started us.
fn introduce(interface: &Interface) -> Result<(), Failure> {
    let mac = interface.parameters().mac_address.ok_or("no MAC")?;
    let mut hello = vec![
        0;
        if interface.parameters().max_packet_size > 2000 {
            HEADER
        } else {
            0
        }
    ];
    hello.extend([0xff; 6]);
    hello.extend(mac.0);
    hello.extend([0x88, 0xb5, 0, 0, 0, 0]);
    interface.write_packet(&hello)?;
    println!("{mac}");
    std::io::stdout().flush()?;
    Ok(())
}

/// How soon a program hears of a frame: from before it is written until its handler runs.
pub(super) fn events(of: Receiver) -> Result<Values, Failure> {
    let _daemon = Daemon::start()?;
    let interface = interface(of.len)?;
    let mut process = Process::start(of, Stdio::null())?;
    let to: Mac = process.ready.parse()?;
    let from = interface.parameters().mac_address.ok_or("no MAC")?;
    let mut frame = frame(of.len, to, from);
    while !process.is_done()? {
        let now = monotonic().to_le_bytes();
        if let Some(place) = frame.get_mut(of.len - now.len()..) {
            place.copy_from_slice(&now);
        }
        interface.write_packet(&frame)?;
        sleep(PAUSE);
    }
    let said = process.result()?;
    let mut values = said.split_whitespace().map(str::parse::<f64>);
    let (Some(p50), Some(p99)) = (values.next(), values.next()) else {
        return Err(format!("no latencies: {said}").into());
    };
    Ok(vec![
        ("library_event_p50".to_owned(), p50?),
        ("library_event_p99".to_owned(), p99?),
    ])
}

/// Hears of frames for some time, and says how long they took.
pub(super) fn hear(of: Receiver) -> Result<(), Failure> {
    let interface = Arc::new(interface(of.len)?);
    let (tell, told) = channel();
    let reader = Arc::clone(&interface);
    interface.set_event_callback(Some(move |_: Event| {
        let now = monotonic();
        let mut buffer = [0; 2048];
        while let Ok(Some(len)) = reader.read_packet(&mut buffer) {
            let stamp = buffer.get(..len).and_then(|it| it.last_chunk());
            let sent = stamp.map(|stamp| u64::from_le_bytes(*stamp));
            if let Some(sent) = sent {
                // Nobody listens any more when it is over.
                let _counted = tell.send(now.saturating_sub(sent) as f64 / 1e3);
            }
        }
    }))?;
    introduce(&interface)?;
    let want = usize::try_from(of.millis)?.max(200) / 3;
    let all: Vec<f64> = told.iter().take(want).collect();
    let share = |share| crate::service::percentile(&all, share);
    println!("{} {}", share(50)?, share(99)?);
    Ok(())
}
