//! A guest that is a program: it has an address, answers ARP requests for it, and echo requests (ping).
//!
//! ```text
//! vmnet network create dev --subnet 192.168.64.0/24
//! cargo run -p openvmnet --example echo_guest -- dev 192.168.64.250
//! vmnet run --network dev -- ping 192.168.64.250
//! ```

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;

use openvmnet::{Event, Interface, InterfaceConfiguration, Mac, Network};

fn main() -> ExitCode {
    let Err(error) = live() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("echo_guest: {error}");
    ExitCode::FAILURE
}

fn live() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "shared".to_owned());
    let network = Network::open(&name)?;
    let configuration = InterfaceConfiguration::on_network().build()?;
    let interface = Arc::new(Interface::start_on(&network, &configuration)?);
    let mac = interface.parameters().mac_address.ok_or("it has no MAC")?;
    let (host, mask) = network.ipv4_subnet().ok_or("the network has no IPv4")?;
    let address = match arguments.next() {
        Some(text) => text.parse()?,
        None => Ipv4Addr::from_bits(host.to_bits() + 200),
    };
    if (address.to_bits() ^ host.to_bits()) & mask.to_bits() != 0 {
        return Err(format!("nobody on the network of {host} would reach {address}").into());
    }
    println!("{address} is at {mac}; end me with Ctrl-C");

    let guest = Guest { mac, address };
    let (failed, failure) = channel();
    let reader = Arc::clone(&interface);
    interface.set_event_callback(Some(move |_: Event| {
        let mut buffer = [0; 1514];
        loop {
            let answered = match reader.read_packet(&mut buffer) {
                Ok(Some(len)) => match buffer.get_mut(..len) {
                    Some(frame) => match guest.answer(frame) {
                        true => reader.write_packet(frame),
                        false => Ok(()),
                    },
                    None => Ok(()),
                },
                Ok(None) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                // Nobody listens any more if we were told before.
                let _told = failed.send(error);
                return;
            }
        }
    }))?;
    Err(failure.recv()?.into())
}

#[derive(Clone, Copy)]
struct Guest {
    mac: Mac,
    address: Ipv4Addr,
}

impl Guest {
    /// Makes an answer of the frame, in its place, if there is one.
    fn answer(self, frame: &mut [u8]) -> bool {
        match frame.get(12..14) {
            Some([0x08, 0x06]) => self.answer_arp(frame),
            Some([0x08, 0x00]) => self.answer_ping(frame),
            _ => false,
        }
    }

    /// RFC 826: a request for our address.
    fn answer_arp(self, frame: &mut [u8]) -> bool {
        let is_for_us = frame.get(20..22) == Some(&[0, 1])
            && frame.get(38..42) == Some(&self.address.octets()[..]);
        if !is_for_us || frame.len() < 42 {
            return false;
        }
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame[21] = 2;
        // Who asked is the target now.
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&self.mac.0);
        frame[28..32].copy_from_slice(&self.address.octets());
        true
    }

    /// RFC 792: an echo request to our address, without IP options.
    fn answer_ping(self, frame: &mut [u8]) -> bool {
        let is_for_us = frame.get(14) == Some(&0x45)
            && frame.get(23) == Some(&1)
            && frame.get(30..34) == Some(&self.address.octets()[..])
            && frame.get(34) == Some(&8);
        if !is_for_us {
            return false;
        }
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&self.mac.0);
        // Exchanging the addresses changes no sum.
        frame.copy_within(26..30, 30);
        frame[26..30].copy_from_slice(&self.address.octets());
        frame[34] = 0;
        // The type's 8 is gone from the checksum (RFC 1624).
        let sum = u16::from_be_bytes([frame[36], frame[37]]);
        let (sum, carry) = sum.overflowing_add(0x0800);
        frame[36..38].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
        true
    }
}
