//! Real DHCPv6 clients take addresses from our server: ISC's, dhcpcd, WIDE's, systemd's and busybox's.

use openvmnet::service::LeaseState;
use vmnet_lab::prerequisite::find_program;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

use super::{SOON, restart, service_of, stage};

const PREFIX: &str = "fd12:3456:789a:1::/64";
/// How the addresses begin that the server gives.
const GIVEN: &str = "inet6 fd12:3456:789a:1::d:";

/// What every client begins and ends with: places it may write to, the interface, and what it got.
///
/// `--root` makes the user root of a user namespace, so he may mount.
fn story(client: &str) -> String {
    format!(
        "set -e
         for folder in /run /var/lib/dhcpcd /var/lib/dhcp /var/lib/dhcpv6; do
             [ ! -d $folder ] || mount -t tmpfs none $folder
         done
         cp /etc/resolv.conf $HOME/resolv.conf
         mount --bind $HOME/resolv.conf /etc/resolv.conf
         interface=$(ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\)[:@].*/\\1/p' | grep -v '^lo$' | head -n 1)
         ip link set $interface up
         # A client needs an address of the link, which takes a moment.
         until ip -6 -o address show dev $interface scope link | grep -q -v tentative; do sleep 0.1; done
         given() {{ ip -6 -o address show dev $interface scope global | grep -v tentative | grep ' {GIVEN}'; }}
         wait_given() {{ for i in $(seq 100); do given && break; sleep 0.1; done; }}
         {client}
         wait_given
         ip -6 route"
    )
}

/// Runs `client` (a shell line that sets up `$interface`) and looks at what it got.
fn takes_an_address(stage: &Stage, client: &str) -> String {
    let command = stage.run(
        &["--root", "--no-dhcp", "--ipv6-prefix", PREFIX],
        &["unshare", "-m", "sh", "-c", &story(client)],
    );
    let said = Process::run(command, SOON).success();
    println!("{said}");
    assert!(said.contains(GIVEN), "{said}");
    assert!(said.contains("default via fe80::"), "{said}");
    said
}

const DHCLIENT: &str = "
    # Its script makes files in /etc, which this user may not do in the real one.
    mkdir $HOME/etc
    cp -rL /etc/. $HOME/etc 2>/dev/null || [ -e $HOME/etc/resolv.conf ]
    mount --bind $HOME/etc /etc
    dhclient -6 -1 -v -cf /dev/null -lf $HOME/dhclient6.leases -pf $HOME/dhclient6.pid $interface";

#[test]
fn dhclient_takes_an_address() {
    let Some(stage) = stage(&["dhclient", "unshare"]) else {
        return;
    };
    let client = format!("{DHCLIENT}\n cat $HOME/dhclient6.leases");
    let said = takes_an_address(&stage, &client);
    for wanted in [
        "option dhcp6.name-servers fd12:3456:789a:1::1;",
        "option dhcp6.domain-search \"vmnet.internal.\";",
    ] {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
}

#[test]
fn dhcpcd_takes_an_address_and_a_name() {
    let Some(stage) = stage(&["dhcpcd", "dig", "unshare"]) else {
        return;
    };
    // Without its own user in /etc/passwd it does not separate privileges, which a user namespace has no ids for.
    let said = takes_an_address(
        &stage,
        "echo 'root:x:0:0::/:/bin/sh' >$HOME/passwd
         mount --bind $HOME/passwd /etc/passwd
         printf '%s\\n' 'hostname six' duid noipv6rs 'ia_na 1' 'option fqdn' 'fqdn both' \
             'option dhcp6_name_servers, dhcp6_domain_search' >$HOME/dhcpcd.conf
         dhcpcd -f $HOME/dhcpcd.conf -6 -1 -t 20 $interface
         wait_given
         named=$(dig +short @fd12:3456:789a:1::1 AAAA six.vmnet.internal)
         echo named: $named
         dig +short @fd12:3456:789a:1::1 -x $named",
    );
    assert!(said.contains("named: fd12:3456:789a:1::d:"), "{said}");
    assert!(said.contains("\nsix.vmnet.internal.\n"), "{said}");
}

#[test]
fn wide_dhcp6c_takes_an_address_at_once() {
    let Some(stage) = stage(&["dhcp6c", "unshare"]) else {
        return;
    };
    // A group of options in its file is one line to the shell.
    takes_an_address(
        &stage,
        "[ -d /var/lib/dhcpv6 ] || { echo 'no /var/lib/dhcpv6'; exit 1; }
         echo \"interface $interface { send ia-na 7; send rapid-commit;
             request domain-name-servers; request domain-name; }; id-assoc na 7 { };\" >$HOME/dhcp6c.conf
         dhcp6c -c $HOME/dhcp6c.conf -p $HOME/dhcp6c.pid $interface",
    );
}

/// It runs without systemd as process 1; a read-only /sys tells it that no udev is to be waited for.
#[test]
fn systemd_networkd_takes_an_address() {
    const NETWORKD: &str = "/usr/lib/systemd/systemd-networkd";
    let Some(stage) = stage(&[NETWORKD, "unshare"]) else {
        return;
    };
    takes_an_address(
        &stage,
        &format!(
            "mount -t sysfs -o ro none /sys || mount -t tmpfs -o ro none /sys
             mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
             echo 'root:x:0:0::/:/bin/sh' >$HOME/passwd
             echo 'systemd-network:x:0:0::/:/bin/sh' >>$HOME/passwd
             mount --bind $HOME/passwd /etc/passwd
             echo 0123456789abcdef0123456789abcdef >$HOME/machine-id
             mount --bind $HOME/machine-id /etc/machine-id
             mkdir -p /run/systemd/network
             printf '%s\\n' '[Match]' Name=$interface '[Network]' DHCP=ipv6 IPv6AcceptRA=yes \
                 >/run/systemd/network/10-test.network
             SYSTEMD_LOG_TARGET=console {NETWORKD} >$HOME/networkd.log 2>&1 &
             trap \"kill $! ; cat $HOME/networkd.log\" EXIT"
        ),
    );
}

/// Debian's busybox has no such client: `scripts/udhcpc6` builds one.
#[test]
fn udhcpc6_takes_an_address() {
    let Some(stage) = stage(&["udhcpc6", "unshare"]) else {
        return;
    };
    let home = stage.world.home();
    let program = find_program("udhcpc6").expect("it was there a moment ago");
    std::fs::copy(program, home.join("udhcpc6")).expect("copy udhcpc6 to where the user can read");
    let script = home.join("udhcpc6.sh");
    let text = "#!/bin/sh\n[ \"$1\" != bound ] || ip -6 address add $ipv6/128 dev $interface\n";
    std::fs::write(&script, text).expect("write the script of udhcpc6");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    let said = takes_an_address(
        &stage,
        "$HOME/udhcpc6 -i $interface -n -q -t 20 -T 1 -s $HOME/udhcpc6.sh 2>&1",
    );
    // It was not the router's prefix alone: the client itself says what it got.
    assert!(said.contains("obtained"), "{said}");
}

/// One list of both families; a reserved address; both are there again after the service was killed.
#[test]
fn leases_of_both_families_are_listed_kept_and_released() {
    let Some(mut stage) = stage(&["dhclient", "unshare"]) else {
        return;
    };
    let vmnet = |words: &[&str]| Process::run(stage.vmnet(words), SOON);
    let mac = "52:54:00:12:34:56";
    vmnet(&["network", "create", "lab", "--ipv6-prefix", PREFIX]).success();
    let kept = "fd12:3456:789a:1::10";
    vmnet(&["lease", "reserve", "lab", kept, "--mac", mac]).success();
    // As many ways to write it as there are.
    let again = [
        "lease",
        "reserve",
        "lab",
        "fd12:3456:789a:1:0:0:0:10",
        "--name",
        "other",
    ];
    let refused = vmnet(&again);
    assert!(!refused.status.success(), "{refused:?}");

    // Its own client takes the IPv4 address, dhclient the other; it stays until it is told to go.
    let script = format!(
        "{}\n ip -6 -o address; echo ready; read line",
        story(DHCLIENT)
    );
    let options = ["--root", "--network", "lab", "--name", "six", "--mac", mac];
    let command = stage.run(&options, &["unshare", "-m", "sh", "-c", &script]);
    let mut guest = Process::spawn(command);
    let said = guest.wait_for_output("its addresses", SOON, |text| {
        text.contains("ready\n").then(|| text.to_owned())
    });
    assert!(said.contains(&format!("inet6 {kept}/")), "{said}");
    let bound = || {
        let leases = service_of(&stage).leases("lab").into_iter();
        let bound = leases.filter(|lease| lease.mac == mac && lease.state == LeaseState::Bound);
        bound.collect::<Vec<_>>()
    };
    let leases = bound();
    let [v4, v6] = leases.as_slice() else {
        panic!("{leases:?}")
    };
    assert!(!v4.address.contains(':') && !v4.reserved, "{v4:?}");
    assert_eq!((v6.address.as_str(), v6.reserved), (kept, true));
    assert!(
        v6.client_id.as_ref().is_some_and(|duid| duid.len() >= 20),
        "{v6:?}"
    );
    let table = vmnet(&["lease", "list", "lab"]).success();
    for address in [&v4.address, &v6.address] {
        assert!(table.contains(address.as_str()), "{table}");
    }

    guest.write_line("go");
    guest.wait(SOON).success();
    restart(&mut stage);
    let vmnet = |words: &[&str]| Process::run(stage.vmnet(words), SOON);
    let known = || {
        let leases = service_of(&stage).leases("lab").into_iter();
        leases.map(|lease| lease.address).collect::<Vec<_>>()
    };
    vmnet(&["network", "show", "lab"]).success();
    assert!(known().contains(&kept.to_owned()), "{:?}", known());
    vmnet(&["lease", "release", "lab", "FD12:3456:789a:1::0010"]).success();
    assert!(!known().contains(&kept.to_owned()), "{:?}", known());
    vmnet(&["lease", "unreserve", "lab", kept]).success();
    vmnet(&["network", "delete", "lab"]).success();
}
