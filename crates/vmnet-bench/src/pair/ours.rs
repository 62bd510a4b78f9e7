//! Two `vmnet run` on one network of a service of the bench's own.

use super::{Pair, address};
use crate::control::{Agent, Refusal};
use crate::namespace::Namespace;
use crate::options::Options;
use crate::path;
use crate::process::Guarded;
use crate::service::folders;
use crate::testbed::Testbed;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const NETWORK: &str = "pair";
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn start(
    name: &str,
    mtu: u32,
    mixed: bool,
    testbed: &Testbed,
    options: &Options,
) -> Result<Pair, Refusal> {
    let broken = |error: std::io::Error| format!("cannot prepare the service: {error}");
    path::install_ours(testbed, options)?;
    let home = folders::prepare(testbed, name).map_err(broken)?;
    let vmnet = |arguments: &[&str]| {
        let mut command = Command::new(testbed.scratch().join("vmnet"));
        command.args(arguments);
        folders::set(&mut command, &home);
        command
    };
    let daemon = vmnet(&["daemon", "--idle-timeout", "never"]);
    let daemon = testbed.start(daemon, &testbed.host, name)?;
    await_socket(&folders::socket(&home), name, testbed)?;
    let mtu = mtu.to_string();
    let run = |role: &str| -> Result<(Agent, Namespace, Guarded), Refusal> {
        let own = format!("{name}-{role}");
        let mut command = vmnet(&["run", "--network", NETWORK, "--mtu", &mtu, "--"]);
        let load = testbed.load_command(role, &own);
        command.arg(load.get_program()).args(load.get_args());
        let mut process = testbed.start(command, &testbed.host, name)?;
        let (agent, pid) = testbed.await_agent(&own, &mut process)?;
        let inside = Namespace::of(pid).map_err(|error| format!("a guest is gone: {error}"))?;
        if testbed.is_own(&inside) {
            return Err("a guest is in a namespace of the testbed".to_owned());
        }
        inside.tune()?;
        Ok((agent, inside, process))
    };
    let (server, server_inside, server_process) = run("server")?;
    let (client, client_inside, client_process) = run("client")?;
    let mut processes = vec![client_process, server_process];
    let mut third = None;
    if mixed {
        let socket = home.join("third");
        let socket_text = socket.to_str().ok_or("a path that is no text")?;
        let attach = vmnet(&["attach", NETWORK, "--stream", socket_text]);
        processes.push(testbed.start(attach, &testbed.host, name)?);
        await_socket(&socket, name, testbed)?;
        third =
            Some(UnixStream::connect(&socket).map_err(|error| format!("a third guest: {error}"))?);
    }
    let network = daemon.pid();
    processes.push(daemon);
    Ok(Pair {
        client,
        server,
        from: address(&client_inside)?,
        to: address(&server_inside)?,
        network: Some(network),
        _third: third,
        _switch: None,
        _processes: processes,
    })
}

fn await_socket(socket: &Path, name: &str, testbed: &Testbed) -> Result<(), Refusal> {
    let limit = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        if Instant::now() > limit {
            let said = testbed.last_words(name);
            return Err(format!("nobody listens at {}{said}", socket.display()));
        }
        sleep(Duration::from_millis(2));
    }
    Ok(())
}
