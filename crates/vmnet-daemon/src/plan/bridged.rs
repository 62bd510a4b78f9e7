//! Networks in mode bridged: which interface of the host, and by which method.

use super::{Occupied, Plan, invalid, uuid_of};
use openvmnet::service::{BridgeMethod, Datapath, Mode, NetworkConfiguration, ServiceError};
use vmnet_linux::kernel::nics::{Method, Nic};
use vmnet_linux::lane::{MTU_MAX, MTU_MIN};

/// The LAN that guests are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridged {
    /// The interface as it was when this was decided.
    pub(crate) nic: Nic,
    /// How guests get onto its LAN.
    pub(crate) method: Method,
    /// It was asked for by name.
    asked: bool,
}

/// A method in the service's words.
pub(crate) fn shown(method: Method) -> BridgeMethod {
    match method {
        Method::Bridge => BridgeMethod::Bridge,
        Method::Macvtap => BridgeMethod::Macvtap,
        Method::Packet => BridgeMethod::Packet,
    }
}

/// Decides what a bridged network is.
///
/// # Errors
/// What of it cannot be.
pub(super) fn plan(
    asked: &NetworkConfiguration,
    occupied: &Occupied,
) -> Result<Plan, ServiceError> {
    check(asked)?;
    let name = asked.external_interface.as_deref().ok_or_else(|| {
        invalid(
            "a bridged network needs the host's interface whose LAN it is: `vmnet network bridgeable` shows them",
        )
    })?;
    let nic = occupied.nics.iter().find(|nic| nic.name == name);
    let nic = nic.ok_or_else(|| no_nic(name, occupied))?;
    let method = match asked.bridge_method {
        Some(BridgeMethod::Bridge) => Method::Bridge,
        Some(BridgeMethod::Macvtap) => Method::Macvtap,
        Some(BridgeMethod::Packet) => Method::Packet,
        // If none is usable, each says why.
        None => nic.best().unwrap_or(Method::Packet),
    };
    if let Some(reason) = nic.refuses(method) {
        return Err(invalid(reason));
    }
    let mtu = u16::try_from(nic.mtu).unwrap_or(u16::MAX).min(MTU_MAX);
    if mtu < MTU_MIN {
        return Err(invalid(format!(
            "the MTU of {name} is {mtu}; it must be {MTU_MIN} at least"
        )));
    }
    Ok(Plan {
        uuid: uuid_of(asked)?,
        name: asked.name.clone(),
        mode: Mode::Bridged,
        ipv4: None,
        dhcp: None,
        mtu,
        dns_proxy: false,
        nat44: false,
        ipv6: None,
        nat66: false,
        router_advertisement: false,
        dhcp6: false,
        external_interface: Some(name.to_owned()),
        bridged: Some(Bridged {
            nic: nic.clone(),
            method,
            asked: asked.bridge_method.is_some(),
        }),
        domain: super::DOMAIN.to_owned(),
        resolvers: None,
        datapath: Datapath::User,
        lease_seconds: super::LEASE_SECONDS,
        isolation: asked.isolation.unwrap_or(false),
        host_loopback: false,
        private: false,
    })
}

fn no_nic(name: &str, occupied: &Occupied) -> ServiceError {
    let names: Vec<&str> = occupied.nics.iter().map(|nic| &*nic.name).collect();
    let names = match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    invalid(format!(
        "{name} is no interface that guests can be bridged to; there is {names}"
    ))
}

/// The LAN has addresses, names and an MTU of its own.
pub(super) fn check(asked: &NetworkConfiguration) -> Result<(), ServiceError> {
    if asked.mtu.is_some() {
        return Err(invalid(
            "a bridged network has the MTU of the host's interface: leave the MTU out",
        ));
    }
    macro_rules! refuse {
        ($($field:ident),*) => {$(
            if asked.$field.is_some() {
                return Err(invalid(format!(
                    "guests of a bridged network have addresses and names of the LAN: leave {} out",
                    stringify!($field).replace('_', "-")
                )));
            }
        )*};
    }
    refuse!(
        subnet,
        dhcp_first,
        dhcp_last,
        dhcp,
        dns_proxy,
        nat44,
        ipv6,
        ipv6_prefix,
        nat66,
        router_advertisement,
        dhcp6,
        domain,
        resolvers,
        lease_seconds,
        host_loopback,
        private
    );
    Ok(())
}

impl Plan {
    /// What to ask for to get the same bridged network again.
    pub(super) fn bridged_configuration(&self, bridged: &Bridged) -> NetworkConfiguration {
        NetworkConfiguration {
            name: self.name.clone(),
            uuid: Some(self.uuid.to_string()),
            external_interface: self.external_interface.clone(),
            bridge_method: bridged.asked.then(|| shown(bridged.method)),
            isolation: Some(self.isolation),
            ..NetworkConfiguration::new(Mode::Bridged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmnet_linux::kernel::nics::NicKind;

    fn nic(name: &str, kind: NicKind, bridge: Option<&str>) -> Nic {
        Nic {
            index: 2,
            name: name.to_owned(),
            kind,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 9000,
            up: true,
            bridge: bridge.map(str::to_owned),
            member_of: None,
        }
    }

    fn make(
        interface: Option<&str>,
        change: impl FnOnce(&mut NetworkConfiguration),
    ) -> Result<Plan, String> {
        let occupied = Occupied {
            nics: vec![
                nic("eth0", NicKind::Ethernet, None),
                nic("eth1", NicKind::Ethernet, Some("br0")),
                nic("wlan0", NicKind::Wifi, None),
            ],
            ..Occupied::default()
        };
        let mut asked = NetworkConfiguration::new(Mode::Bridged);
        asked.name = Some("lan".to_owned());
        asked.external_interface = interface.map(str::to_owned);
        change(&mut asked);
        Plan::make(&asked, &occupied).map_err(|error| error.reason().to_owned())
    }

    #[test]
    fn the_interface_decides_mtu_and_method() {
        let plan = make(Some("eth0"), |_| {}).unwrap();
        assert_eq!(plan.mtu, 9000);
        let method = |plan: &Plan| plan.bridged.as_ref().unwrap().method;
        assert_eq!(method(&plan), Method::Packet);
        assert_eq!(method(&make(Some("eth1"), |_| {}).unwrap()), Method::Bridge);
        let plan = make(Some("eth0"), |asked| {
            asked.bridge_method = Some(BridgeMethod::Macvtap);
        });
        assert_eq!(method(&plan.unwrap()), Method::Macvtap);
    }

    #[test]
    fn a_configuration_gives_the_same_again() {
        let plan = make(Some("eth0"), |_| {}).unwrap();
        let again = plan.configuration();
        assert_eq!((again.mtu, again.bridge_method), (None, None));
        let second = make(Some("eth0"), |asked| *asked = again.clone());
        assert_eq!(second, Ok(plan.clone()));
        assert!(plan.fits(&again).is_ok());
        let mut other = again.clone();
        other.bridge_method = Some(BridgeMethod::Packet);
        assert!(plan.fits(&other).is_ok(), "it is the one that was chosen");
        other.bridge_method = Some(BridgeMethod::Macvtap);
        let said = plan.fits(&other).unwrap_err();
        assert!(said.reason().contains("differs in: method;"), "{said}");
    }

    #[test]
    fn what_the_lan_decides_is_not_asked_for() {
        type Change = fn(&mut NetworkConfiguration);
        let cases: [(Option<&str>, Change, &str); 9] = [
            (None, |_| {}, "bridgeable"),
            (Some("eth7"), |_| {}, "eth0, eth1"),
            (Some("wlan0"), |_| {}, "one MAC"),
            (Some("eth0"), |asked| asked.mtu = Some(1500), "MTU"),
            (Some("eth0"), |asked| asked.dhcp = Some(true), "dhcp"),
            (Some("eth0"), |asked| asked.private = Some(true), "private"),
            (
                Some("eth0"),
                |asked| asked.bridge_method = Some(BridgeMethod::Bridge),
                "no bridge",
            ),
            (
                Some("eth1"),
                |asked| asked.bridge_method = Some(BridgeMethod::Packet),
                "br0",
            ),
            (
                Some("eth0"),
                |asked| {
                    asked.mode = Mode::Shared;
                    asked.bridge_method = Some(BridgeMethod::Packet);
                },
                "mode bridged",
            ),
        ];
        for (interface, change, word) in cases {
            let said = make(interface, change).unwrap_err();
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
