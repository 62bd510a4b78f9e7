//! A child that was forked has everything of its parent's, and must touch nothing of it.

mod world;

use openvmnet::client::Client;
use openvmnet::{
    Interface, InterfaceConfiguration, Network, NetworkConfiguration, NetworkMode, Status,
};
use world::{frame, inside, read_numbers};

#[test]
fn calls_fail_in_a_child_and_the_parent_does_not_notice() {
    inside(
        "calls_fail_in_a_child_and_the_parent_does_not_notice",
        || {
            let host =
                || Interface::start(&InterfaceConfiguration::host().build().unwrap()).unwrap();
            let (one, other) = (host(), host());
            let network = Network::create(&NetworkConfiguration::new(NetworkMode::Host)).unwrap();
            let on = InterfaceConfiguration::on_network().build().unwrap();
            one.write_packet(&frame(1, 60)).unwrap();
            assert_eq!(read_numbers(&other, 1), [1]);
            // SAFETY: the child calls what is to be tested, which allocates at most what this one thread may, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let fails = |status: Option<Status>| status == Some(Status::SetupIncomplete);
                let all = [
                    one.write_packet(&frame(2, 60)).err(),
                    other.read_packet(&mut [0; 100]).err(),
                    other.wait(None).err(),
                    other.stop().err(),
                    other.set_event_callback(None::<fn(openvmnet::Event)>).err(),
                    Interface::start_on(&network, &on).err(),
                ];
                let all = all.map(|error| fails(error.map(|error| error.status())));
                drop((one, other, network));
                let code = i32::from(all.contains(&false));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) };
            }
            let pid = rustix::process::Pid::from_raw(child).unwrap();
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let (_, status) = ended.unwrap().unwrap();
            assert_eq!(
                status.exit_status(),
                Some(0),
                "something was done in the child"
            );
            for number in 3..100 {
                one.write_packet(&frame(number, 60)).unwrap();
            }
            assert!(read_numbers(&other, 97).into_iter().eq(3..100));
            let mut client = Client::connect_running().unwrap();
            assert_eq!(client.list_interfaces(None).unwrap().interfaces.len(), 2);
            drop(Interface::start_on(&network, &on).unwrap());
        },
    );
}
