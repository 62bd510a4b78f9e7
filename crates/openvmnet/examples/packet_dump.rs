//! Shows the packets that a network sends to everybody, one line for each.
//!
//! ```text
//! cargo run -p openvmnet --example packet_dump -- shared 10
//! ```

use std::process::ExitCode;
use std::time::Duration;

use openvmnet::{Interface, InterfaceConfiguration, Mac};

fn main() -> ExitCode {
    let Err(error) = dump() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("packet_dump: {error}");
    ExitCode::FAILURE
}

fn dump() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let configuration = match arguments.next().as_deref() {
        None | Some("shared") => InterfaceConfiguration::shared().build()?,
        Some("host") => InterfaceConfiguration::host().build()?,
        Some(other) => return Err(format!("`{other}` is no mode: use shared or host").into()),
    };
    let most: u64 = arguments
        .next()
        .map_or(Ok(u64::MAX), |count| count.parse())?;
    let interface = Interface::start(&configuration)?;
    let parameters = interface.parameters();
    if let (Some(mac), Some(host)) = (parameters.mac_address, parameters.start_address) {
        println!("{mac} on the network of {host}");
    }
    let mut buffer = vec![0; usize::try_from(parameters.max_packet_size)?];
    let mut seen = 0;
    while seen < most {
        interface.wait(Some(Duration::from_secs(1)))?;
        while let Some(len) = interface.read_packet(&mut buffer)? {
            println!("{}", describe(buffer.get(..len).unwrap_or_default()));
            seen += 1;
        }
    }
    interface.stop()?;
    Ok(())
}

/// Who sends to whom, of what type, and how much.
fn describe(frame: &[u8]) -> String {
    let Some((addresses, rest)) = frame.split_first_chunk::<12>() else {
        return format!("{} bytes, which are no frame", frame.len());
    };
    let (to, from) = addresses.split_at(6);
    let mac = |bytes: &[u8]| bytes.try_into().map(Mac).map(|mac| mac.to_string());
    let (to, from) = (mac(to).unwrap_or_default(), mac(from).unwrap_or_default());
    let kind = match rest.get(..2) {
        Some([0x08, 0x00]) => "IPv4".to_owned(),
        Some([0x08, 0x06]) => "ARP".to_owned(),
        Some([0x86, 0xdd]) => "IPv6".to_owned(),
        Some([high, low]) => format!("type {high:02x}{low:02x}"),
        _ => "no type".to_owned(),
    };
    format!("{from} > {to}, {kind}, {} bytes", frame.len())
}
