//! The world itself, without the program under test.

use std::time::Duration;

use super::*;
use crate::prerequisite::{Prerequisite, all_present};
use crate::process::Process;

const SOON: Duration = Duration::from_secs(20);

fn shell(world: &World, script: &str) -> Process {
    let mut command = world.command("sh");
    command.args(["-c", script]);
    Process::spawn(command)
}

#[test]
fn the_user_is_on_the_host_without_rights_and_with_its_resolver() {
    if !all_present(&[Prerequisite::Root, Prerequisite::Program("ip")]) {
        return;
    }
    let world = World::new();
    let said = shell(
        &world,
        "id -u; cat /etc/resolv.conf; ip -o -4 address show uplink; pwd; touch x",
    )
    .wait(SOON)
    .success();
    assert!(said.contains(&world.user().id().to_string()), "{said}");
    assert!(said.contains("nameserver 198.51.100.53"), "{said}");
    assert!(said.contains("198.51.100.2/24"), "{said}");
    let refused = shell(&world, "ip link set uplink down").wait(SOON);
    assert!(
        !refused.status.success(),
        "a user without rights moved the uplink"
    );
}

#[test]
fn processes_of_the_user_are_seen_and_end_with_the_world() {
    if !all_present(&[Prerequisite::Root, Prerequisite::Program("ip")]) {
        return;
    }
    let world = World::new();
    let user = *world.user();
    // The grandchild leaves its parent, its session and the signal that would come with the parent's death.
    let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo started";
    shell(&world, script).wait(SOON).success();
    assert_eq!(user.processes().len(), 1, "{:?}", user.processes());
    drop(world);
    assert_eq!(user.processes(), []);
}

#[test]
fn the_folder_of_a_killed_test_is_removed() {
    // Above the highest id that Linux gives to a process.
    let stale = std::env::temp_dir().join(format!("{FOLDER}4194305-x"));
    std::fs::create_dir_all(stale.join("home")).unwrap();
    remove_stale_folders();
    assert!(!stale.exists());
}

#[test]
fn the_servers_answer() {
    if !all_present(&[Prerequisite::Root, Prerequisite::Program("ip")]) {
        return;
    }
    use crate::client;
    let world = World::new();
    let http = SocketAddr::from((SERVER, HTTP_PORT));
    let wait = Duration::from_secs(10);
    world.host().enter(|| {
        client::transfer::get(http, 5_000_000).unwrap();
        client::transfer::put(http, 5_000_000).unwrap();
        let outcome = |address: IpAddr, port| {
            client::connect::outcome(SocketAddr::from((address, port)), wait).0
        };
        for [server, far, unreachable] in [
            [SERVER, FAR, UNREACHABLE].map(IpAddr::V4),
            [SERVER6, FAR6, UNREACHABLE6].map(IpAddr::V6),
        ] {
            assert_eq!(outcome(server, ECHO_PORT), "connected");
            assert_eq!(outcome(far, ECHO_PORT), "connected");
            assert_eq!(outcome(server, REFUSED_PORT), "refused");
            assert_eq!(outcome(unreachable, 80), "unreachable");
            let echo = SocketAddr::from((far, ECHO_PORT));
            client::datagram::echo(echo, 10, 1000).unwrap();
        }
        let echo = SocketAddr::from((SERVER, ECHO_PORT));
        client::connect::at_once(echo, 200).unwrap();
        client::connect::one_after_another(echo, 100).unwrap();
        client::datagram::echo(echo, 10, 1000).unwrap();
        client::transfer::close_first(SocketAddr::from((SERVER, CLIENT_CLOSES_PORT)), 8_000_000)
            .unwrap();
        client::transfer::close_last(SocketAddr::from((SERVER, SERVER_CLOSES_PORT)), 8_000_000)
            .unwrap();
    });
    assert_eq!(world.half_close().wait(2, wait), 16_000_000);
}
