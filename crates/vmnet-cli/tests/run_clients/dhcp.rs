//! Real DHCP clients take a lease from our server.

use openvmnet::service::LeaseState;
use vmnet_lab::guest_image::UDHCPC_SCRIPT;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

use super::{SOON, service_of, stage};

/// What every client begins and ends with: places it may write to, the interface, and what it got.
///
/// `--root` makes the user root of a user namespace, so he may mount; the files below belong to nobody he knows.
fn story(client: &str) -> String {
    format!(
        "set -e
         for folder in /run /var/lib/dhcpcd /var/lib/dhcp; do
             [ ! -d $folder ] || mount -t tmpfs none $folder
         done
         cp /etc/resolv.conf $HOME/resolv.conf
         mount --bind $HOME/resolv.conf /etc/resolv.conf
         interface=$(ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\)[:@].*/\\1/p' | grep -v '^lo$' | head -n 1)
         ip link set $interface up
         {client}
         ip -4 -o address show dev $interface scope global
         ip route
         $CLIENT get 198.51.100.1:80 1000000"
    )
}

/// Runs `client` (a shell line that sets up `$interface`) and looks at what it got.
fn takes_a_lease(stage: &Stage, client: &str) -> String {
    let script = format!("CLIENT={}\n{}", stage.client_path(), story(client));
    let command = stage.run(
        &["--root", "--no-dhcp", "--subnet", "10.77.5.0/24"],
        &["unshare", "-m", "sh", "-c", &script],
    );
    let said = Process::run(command, SOON).success();
    println!("{said}");
    if std::env::var_os("VMNET_LAB_SUBJECT").is_none() {
        assert!(said.contains("inet 10.77.5."), "{said}");
        assert!(said.contains("default via 10.77.5.1 "), "{said}");
    }
    assert!(
        said.lines()
            .last()
            .is_some_and(|line| line.starts_with("ok ")),
        "{said}"
    );
    said
}

#[test]
fn dhclient_takes_a_lease() {
    let Some(stage) = stage(&["dhclient", "unshare"]) else {
        return;
    };
    takes_a_lease(
        &stage,
        // Its script makes files in /etc, which this user may not do in the real one.
        "mkdir $HOME/etc
         cp -rL /etc/. $HOME/etc 2>/dev/null || [ -e $HOME/etc/resolv.conf ]
         mount --bind $HOME/etc /etc
         dhclient -1 -v -cf /dev/null -lf $HOME/dhclient.leases -pf $HOME/dhclient.pid $interface
         grep 'option subnet-mask 255.255.255.0' $HOME/dhclient.leases",
    );
}

#[test]
fn dhcpcd_takes_a_lease() {
    let Some(stage) = stage(&["dhcpcd", "unshare"]) else {
        return;
    };
    // Without its own user in /etc/passwd it does not separate privileges, which a user namespace has no ids for.
    takes_a_lease(
        &stage,
        "echo 'root:x:0:0::/:/bin/sh' >$HOME/passwd
         mount --bind $HOME/passwd /etc/passwd
         echo 'hostname' >$HOME/dhcpcd.conf
         dhcpcd -f $HOME/dhcpcd.conf -4 -1 -t 20 --noipv4ll $interface",
    );
}

#[test]
fn udhcpc_takes_a_lease() {
    let Some(stage) = stage(&["busybox", "unshare"]) else {
        return;
    };
    let script = stage.world.home().join("udhcpc.sh");
    std::fs::write(&script, UDHCPC_SCRIPT).expect("write the script of udhcpc");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    let said = takes_a_lease(
        &stage,
        "busybox udhcpc -i $interface -n -q -t 20 -T 1 -s $HOME/udhcpc.sh -O mtu -x hostname:busy
         cat /etc/resolv.conf",
    );
    if std::env::var_os("VMNET_LAB_SUBJECT").is_none() {
        assert!(said.contains("nameserver 10.77.5.1"), "{said}");
    }
}

#[test]
fn our_own_client_sets_address_route_and_resolver() {
    let Some(stage) = stage(&[]) else { return };
    let script =
        "ip -4 -o address show scope global; ip route; cat /etc/resolv.conf; id -u; ip -o link";
    let said = Process::run(stage.shell(&["--subnet", "10.77.5.0/24"], script), SOON).success();
    for wanted in [
        "inet 10.77.5.",
        "default via 10.77.5.1 ",
        "nameserver 10.77.5.1",
        "mtu 1500",
        &format!("{}", stage.world.user().id()),
    ] {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
}

#[test]
fn the_mtu_is_told_by_the_lease() {
    let Some(stage) = stage(&[]) else { return };
    let said = Process::run(stage.shell(&["--mtu", "9000"], "ip -o link"), SOON).success();
    assert!(said.contains("mtu 9000"), "{said}");
}

#[test]
fn a_name_keeps_its_address_and_is_listed() {
    let Some(stage) = stage(&[]) else { return };
    // The network stays while somebody is there.
    let path = stage.world.home().join("lab.stream");
    let _socket = stage.attach(
        "lab",
        &["--stream", path.to_str().expect("a path of ASCII")],
    );
    // Stays until it is told to go; answers its address.
    let guest = |name| {
        let options = ["--network", "lab", "--name", name];
        let script =
            "ip -4 -o address show scope global | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'; read line";
        let process = Process::spawn(stage.shell(&options, script));
        let address = process.wait_for_output("its address", SOON, |text| {
            text.split_once('\n').map(|(line, _)| line.to_owned())
        });
        (process, address)
    };
    let service = service_of(&stage);
    let leases = || service.leases("lab");
    let go = |mut process: Process| {
        process.write_line("go");
        process.wait(SOON).success();
    };
    let ((alpha, first), (beta, other)) = (guest("alpha"), guest("beta"));
    assert_ne!(first, other);
    for (address, name) in [(&first, "alpha"), (&other, "beta")] {
        let held = leases().into_iter().any(|lease| {
            lease.address == *address
                && lease.name.as_deref() == Some(name)
                && lease.state == LeaseState::Bound
        });
        assert!(held, "no {name} at {address} in {:?}", leases());
    }
    go(alpha);
    go(beta);
    let bound = leases()
        .into_iter()
        .filter(|lease| lease.state == LeaseState::Bound);
    assert_eq!(bound.count(), 0, "both were given back");
    let (alpha, again) = guest("alpha");
    assert_eq!(again, first);
    go(alpha);
}
