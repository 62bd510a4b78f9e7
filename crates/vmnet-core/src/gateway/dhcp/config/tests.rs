use super::*;

fn good() -> Config {
    Config {
        gateway: Ipv4Addr::new(192, 168, 64, 1),
        prefix_len: 24,
        first: Ipv4Addr::new(192, 168, 64, 2),
        last: Ipv4Addr::new(192, 168, 64, 254),
        lease_time: Duration::from_secs(3600),
        mtu: 1500,
        domain: "vmnet.internal".into(),
        search: vec!["vmnet.internal".into()],
        resolvers: vec![Ipv4Addr::new(192, 168, 64, 1)],
        router: Some(Ipv4Addr::new(192, 168, 64, 1)),
        routes: Vec::new(),
    }
}

#[test]
fn subnet_arithmetic() {
    let config = Config {
        prefix_len: 22,
        ..good()
    };
    assert_eq!(config.mask(), Ipv4Addr::new(255, 255, 252, 0));
    assert_eq!(config.network(), Ipv4Addr::new(192, 168, 64, 0));
    assert_eq!(config.broadcast(), Ipv4Addr::new(192, 168, 67, 255));
    let register = register::Register::new(config.range());
    assert!(register.is_guest_address(Ipv4Addr::new(192, 168, 65, 0)));
    assert!(!register.is_guest_address(Ipv4Addr::new(192, 168, 68, 0)));
    assert!(!register.is_guest_address(config.gateway));
}

const fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

/// What is wrong after a change to a good configuration.
fn fault(change: impl FnOnce(&mut Config)) -> ConfigError {
    let mut config = good();
    change(&mut config);
    config.check().unwrap_err()
}

#[test]
fn faults_of_the_subnet_and_the_pool() {
    for prefix_len in [0, 7, 31, 32, 200] {
        assert_eq!(
            fault(|c| c.prefix_len = prefix_len),
            ConfigError::PrefixLength(prefix_len)
        );
    }
    assert_eq!(fault(|c| c.gateway = ip(0)), ConfigError::Gateway(ip(0)));
    assert_eq!(
        fault(|c| c.gateway = ip(255)),
        ConfigError::Gateway(ip(255))
    );
    let far = Ipv4Addr::new(192, 169, 0, 0);
    for (first, last) in [(ip(9), ip(7)), (ip(9), far), (Ipv4Addr::UNSPECIFIED, ip(9))] {
        let error = fault(|c| (c.first, c.last) = (first, last));
        assert_eq!(
            error,
            ConfigError::Pool {
                first,
                last,
                gateway: ip(1),
                prefix_len: 24
            }
        );
    }
    // Reservations may be all that there is.
    for (first, last) in [(0, 0), (0, 1), (1, 1), (1, 0), (255, 254), (9, 8)] {
        let (first, last) = (ip(first), ip(last));
        let config = Config {
            first,
            last,
            ..good()
        };
        assert_eq!(config.check(), Ok(()), "{first} to {last}");
    }
    let large = Ipv4Addr::new(192, 169, 64, 2);
    assert_eq!(
        fault(|c| (c.prefix_len, c.last) = (8, large)),
        ConfigError::PoolTooLarge(65537)
    );
}

#[test]
fn faults_of_the_options() {
    for time in [Duration::ZERO, Duration::from_secs(59), Duration::MAX] {
        assert_eq!(fault(|c| c.lease_time = time), ConfigError::LeaseTime(time));
    }
    assert_eq!(fault(|c| c.mtu = 67), ConfigError::Mtu(67));
    for bad in ["a..b", ".", "a b", &"x".repeat(64), &"x.".repeat(130)] {
        assert_eq!(
            fault(|c| c.domain = bad.into()),
            ConfigError::Domain(bad.into())
        );
        assert_eq!(
            fault(|c| c.search.push(bad.into())),
            ConfigError::Domain(bad.into())
        );
    }
    assert_eq!(
        fault(|c| c.search.push(String::new())),
        ConfigError::Domain(String::new())
    );
    assert_eq!(
        fault(|c| c.resolvers = vec![ip(1); 17]),
        ConfigError::TooManyResolvers(17)
    );
    assert_eq!(
        fault(|c| c.routes.push((ip(0), 33, ip(1)))),
        ConfigError::Route(ip(0), 33)
    );
    assert_eq!(good().check(), Ok(()));
    assert_eq!(
        Config {
            domain: String::new(),
            ..good()
        }
        .check(),
        Ok(())
    );
}
