//! A broker that makes a network and gives it to other programs of the same user, for as long as it runs. The example
//! `network_client` is such a program.
//!
//! ```text
//! cargo run -p openvmnet --example network_broker -- /tmp/broker.sock
//! cargo run -p openvmnet --example network_client -- /tmp/broker.sock
//! ```

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use openvmnet::{Network, NetworkConfiguration, NetworkMode};

fn main() -> ExitCode {
    let Err(error) = serve() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("network_broker: {error}");
    ExitCode::FAILURE
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("say where to listen")?;
    let network = Network::create(&NetworkConfiguration::new(NetworkMode::Shared))?;
    let serialization = network.serialize()?;
    let listener = UnixListener::bind(&path).map_err(|error| format!("{path}: {error}"))?;
    println!("the network {} is given away on {path}", network.uuid()?);
    for client in listener.incoming() {
        // Who hangs up before is not interested.
        let _sent = client?.write_all(serialization.as_bytes());
    }
    Ok(())
}
