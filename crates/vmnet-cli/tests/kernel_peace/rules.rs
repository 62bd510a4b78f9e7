//! What others have in the kernel, as they write it themselves.

/// The host is made a router.
macro_rules! routes {
    () => {
        "sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
    };
}

/// The same is done by `$iptables` of both families, with what differs between them.
macro_rules! by_both {
    ($four:literal, $six:literal, $script:literal) => {
        concat!(
            "for iptables in iptables ip6tables; do\n if [ $iptables = iptables ]; then ",
            $four,
            "; else ",
            $six,
            "; fi\n",
            $script,
            "done\n"
        )
    };
}

/// `dockerd` with its default bridge, which makes the host a router and drops what is not its own, by both families.
pub(crate) const DOCKER: &str = concat!(
    routes!(),
    by_both!(
        "net=172.17.0.0/16 local=127.0.0.0/8",
        "net=fd17::/64 local=::1",
        r#"
    $iptables -t nat -N DOCKER
    $iptables -N DOCKER
    $iptables -N DOCKER-ISOLATION-STAGE-1
    $iptables -N DOCKER-ISOLATION-STAGE-2
    $iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    $iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    $iptables -t nat -I POSTROUTING -s $net ! -o docker0 -j MASQUERADE
    $iptables -t nat -I DOCKER -i docker0 -j RETURN
    $iptables -I FORWARD -i docker0 -o docker0 -j ACCEPT
    $iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
    $iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    $iptables -t nat -A OUTPUT -m addrtype --dst-type LOCAL ! --dst $local -j DOCKER
    $iptables -I FORWARD -o docker0 -j DOCKER
    $iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
    $iptables -I DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    $iptables -I DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    $iptables -P FORWARD DROP
    $iptables -N DOCKER-USER
    $iptables -A DOCKER-USER -j RETURN
    $iptables -I FORWARD -j DOCKER-USER
"#
    )
);

/// `firewalld` with all interfaces in the zone public. It replaces its table whenever it is reloaded.
pub(crate) const FIREWALLD: &str = concat!(
    routes!(),
    r#"
nft -f - <<'END'
table inet firewalld
delete table inet firewalld
table inet firewalld {
    chain mangle_PREROUTING {
        type filter hook prerouting priority mangle + 10; policy accept;
    }
    chain nat_PREROUTING {
        type nat hook prerouting priority dstnat + 10; policy accept;
    }
    chain nat_POSTROUTING {
        type nat hook postrouting priority srcnat + 10; policy accept;
    }
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-neighbor-solicit, nd-router-advert } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_OUTPUT {
        type filter hook output priority filter + 10; policy accept;
        ct state { established, related } accept
        oifname "lo" accept
    }
    chain filter_INPUT_ZONES {
        goto filter_IN_public
    }
    chain filter_FORWARD_ZONES {
        goto filter_FWD_public
    }
    chain filter_IN_public {
        tcp dport 22 accept
        ip6 daddr fe80::/64 udp dport 546 accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_FWD_public {
        iifname "public0" oifname "public0" accept
    }
}
END
"#
);

/// `ufw`, enabled on a host that routes: nothing comes in but answers, and nothing is forwarded.
pub(crate) const UFW: &str = concat!(
    routes!(),
    by_both!(
        "ufw=ufw icmp=icmp",
        "ufw=ufw6 icmp=ipv6-icmp",
        r#"
    for chain in before-logging-input before-input after-input after-logging-input reject-input track-input \
        before-logging-forward before-forward after-forward after-logging-forward reject-forward track-forward \
        before-logging-output before-output after-output after-logging-output reject-output track-output user-forward; do
        $iptables -N $ufw-$chain
    done
    for hook in input forward output; do
        upper=$(echo $hook | tr a-z A-Z)
        for chain in before-logging before after after-logging reject track; do
            $iptables -A $upper -j $ufw-$chain-$hook
        done
        $iptables -A $ufw-before-$hook -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    done
    $iptables -A $ufw-before-input -i lo -j ACCEPT
    $iptables -A $ufw-before-input -m conntrack --ctstate INVALID -j DROP
    $iptables -A $ufw-before-input -p $icmp -j ACCEPT
    $iptables -A $ufw-before-forward -j $ufw-user-forward
    $iptables -A $ufw-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT
    $iptables -A $ufw-track-output -p udp -m conntrack --ctstate NEW -j ACCEPT
    $iptables -P INPUT DROP
    $iptables -P FORWARD DROP
"#
    )
);

/// `libvirtd` with its network `default`.
pub(crate) const LIBVIRT: &str = r#"
sysctl -q net.ipv4.ip_forward=1
for chain in INP:INPUT OUT:OUTPUT FWO:FORWARD FWI:FORWARD FWX:FORWARD; do
    iptables -N LIBVIRT_${chain%:*}
    iptables -I ${chain#*:} -j LIBVIRT_${chain%:*}
done
iptables -t nat -N LIBVIRT_PRT
iptables -t nat -I POSTROUTING -j LIBVIRT_PRT
for port in udp:53 tcp:53 udp:67 tcp:67; do
    iptables -A LIBVIRT_INP -i virbr0 -p ${port%:*} --dport ${port#*:} -j ACCEPT
done
iptables -A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
iptables -A LIBVIRT_FWI -o virbr0 -d 192.168.122.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A LIBVIRT_FWI -o virbr0 -j REJECT
iptables -A LIBVIRT_FWO -i virbr0 -s 192.168.122.0/24 -j ACCEPT
iptables -A LIBVIRT_FWO -i virbr0 -j REJECT
iptables -t nat -A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
iptables -t nat -A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
iptables -t nat -A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
"#;
