//! `vmnet up`: holds a named network in the foreground.

use crate::args::Up;
use crate::control::folder::{self, Lock, SocketFile};
use crate::control::protocol::AttachKind;
use crate::control::server::{self, Served};
use crate::network;
use crate::port_spec::{ParsePortError, PortSpec};
use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;
use vmnet_linux::lane::{self, Forward, ForwardGuest};
use vmnet_linux::sys::signal::{self, Signals};

/// What ends a verb that waits in the foreground.
pub(crate) const ENDING_SIGNALS: [i32; 3] = [signal::HUP, signal::INT, signal::TERM];

/// `[ADDR:]HOSTPORT[-END]:GUEST-ADDRESS:GUESTPORT[-END][/tcp|/udp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressedPort {
    spec: PortSpec,
    guest: Ipv4Addr,
}

/// A text is no port with a guest address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseAddressedPortError {
    #[error("say HOSTPORT:GUEST-ADDRESS:GUESTPORT, like 8080:192.168.64.2:80")]
    NoGuest,
    #[error(transparent)]
    Port(#[from] ParsePortError),
}

impl FromStr for AddressedPort {
    type Err = ParseAddressedPortError;

    fn from_str(text: &str) -> Result<Self, ParseAddressedPortError> {
        let (rest, guest_port) = text
            .rsplit_once(':')
            .ok_or(ParseAddressedPortError::NoGuest)?;
        let (host, guest) = rest
            .rsplit_once(':')
            .ok_or(ParseAddressedPortError::NoGuest)?;
        let guest = guest
            .parse()
            .map_err(|_| ParseAddressedPortError::NoGuest)?;
        let spec = format!("{host}:{guest_port}").parse()?;
        Ok(Self { spec, guest })
    }
}

/// Holds the network until a signal ends it.
pub(crate) fn run(up: Up) -> Result<(), Box<dyn Error>> {
    // Before any thread, so that none of them takes the signals.
    let (signals, _) = Signals::open(&ENDING_SIGNALS)?;
    let folder = folder::folder()?;
    let _lock = Lock::take(&folder, &up.name)?;
    let settings = network::settings(up.name.as_str(), &up.making)?;
    let (ipv4, mtu) = (settings.ipv4, settings.mtu);
    let subnet = ipv4.map(|ipv4| ipv4.subnet().to_string());
    let subnet = subnet.unwrap_or_else(|| "no subnet".to_owned());
    let path = folder::socket_path(&folder, &up.name);
    let (listener, _socket) = folder::listen_stream(&path)?;
    let handle = lane::start(settings)?;
    let served = Arc::new(Served::new(
        handle,
        up.name.to_string(),
        subnet.clone(),
        mtu,
    ));
    let mut said = format!("network {} is up: {subnet}, MTU {mtu}\n", up.name);
    let _sockets = attach_paths(&up, &served, &mut said)?;
    for port in &up.publish {
        forward(port, &served)?;
        said.push_str(&format!("  port {} of {}\n", port.spec, port.guest));
    }
    server::serve(listener, served)?;
    said.push_str(&format!(
        "join it with `vmnet run --network {} -- COMMAND`; Ctrl-C ends it\n",
        up.name
    ));
    crate::status::print(&said)?;
    wait_for_end(&signals)?;
    // The process ends now; the kernel closes what its threads hold. Sockets and lock are removed on return.
    Ok(())
}

/// Sleeps until one of the signals came.
fn wait_for_end(signals: &Signals) -> Result<(), Box<dyn Error>> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(signal) = signals.next() {
            tracing::info!(signal.number, "ending");
            return Ok(());
        }
    }
}

fn attach_paths(
    up: &Up,
    served: &Served,
    said: &mut String,
) -> Result<Vec<SocketFile>, Box<dyn Error>> {
    let mut files = Vec::new();
    let attach = |kind, descriptor: OwnedFd| {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        served.attach(kind, descriptor, None, None, pid)
    };
    for path in &up.stream {
        let (listener, file) = folder::listen_stream(path)?;
        files.push(file);
        attach(AttachKind::StreamListener, listener.into())?;
        said.push_str(&format!(
            "  stream {0}: qemu -netdev stream,id=n0,server=off,addr.type=unix,addr.path={0}\n",
            path.display()
        ));
    }
    for path in &up.dgram {
        let (socket, file) = folder::bind_dgram(path)?;
        files.push(file);
        attach(AttachKind::DgramListener, socket.into())?;
        said.push_str(&format!("  dgram {}\n", path.display()));
    }
    Ok(files)
}

fn forward(port: &AddressedPort, served: &Served) -> Result<(), String> {
    for (listen, guest_port) in port.spec.pairs() {
        let forward = Forward {
            protocol: port.spec.protocol,
            listen,
            guest: ForwardGuest::Address(port.guest),
            guest_port,
        };
        served
            .handle()
            .forward(forward)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_with_a_guest_address() {
        let port: AddressedPort = "127.0.0.1:8080:192.168.64.2:80/udp".parse().unwrap();
        assert_eq!(port.guest, Ipv4Addr::new(192, 168, 64, 2));
        assert_eq!(port.spec, "127.0.0.1:8080:80/udp".parse().unwrap());
        let port: AddressedPort = "[::1]:8080-8081:192.168.64.2:80-81".parse().unwrap();
        assert_eq!(port.spec, "[::1]:8080-8081:80-81".parse().unwrap());
        for bad in ["8080:80", "8080", "8080:guest:80"] {
            assert_eq!(
                bad.parse::<AddressedPort>(),
                Err(ParseAddressedPortError::NoGuest),
                "{bad}"
            );
        }
        assert_eq!(
            "0:192.168.64.2:80".parse::<AddressedPort>(),
            Err(ParsePortError::Port("0".into()).into())
        );
    }
}
