//! A program that is given a network by the example `network_broker`, and sends a frame to everybody on it.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use openvmnet::{Interface, InterfaceConfiguration, Network, NetworkSerialization};

/// An Ethernet type for experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

fn main() -> ExitCode {
    let Err(error) = visit() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("network_client: {error}");
    ExitCode::FAILURE
}

fn visit() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("say where the broker is")?;
    let mut bytes = Vec::new();
    let broker = UnixStream::connect(&path).map_err(|error| format!("{path}: {error}"));
    broker?.read_to_end(&mut bytes)?;
    let network = Network::from_serialization(&NetworkSerialization::from_bytes(&bytes)?)?;
    if let Some((host, mask)) = network.ipv4_subnet() {
        println!(
            "on the network {}, host {host}, mask {mask}",
            network.uuid()?
        );
    }
    let configuration = InterfaceConfiguration::on_network().build()?;
    let interface = Interface::start_on(&network, &configuration)?;
    let mac = interface.parameters().mac_address.ok_or("it has no MAC")?;
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    frame.extend(EXPERIMENTAL);
    frame.extend(b"hello from ");
    frame.extend(mac.to_string().bytes());
    interface.write_packet(&frame)?;

    // Whoever comes later says so too.
    let mut buffer = vec![0; 1514];
    while interface.wait(Some(Duration::from_secs(2)))? {
        while let Some(len) = interface.read_packet(&mut buffer)? {
            let Some((head, text)) = buffer.get(..len).and_then(|it| it.split_at_checked(14))
            else {
                continue;
            };
            if head.ends_with(&EXPERIMENTAL) {
                println!("{}", String::from_utf8_lossy(text));
            }
        }
    }
    Ok(())
}
