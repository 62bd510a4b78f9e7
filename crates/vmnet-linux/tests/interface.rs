//! Taps, links, addresses and routes of a real kernel, in a namespace of this test's own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use vmnet_linux::kernel::route::{LinkChange, RouteError, Routes, link_index};
use vmnet_linux::kernel::tap::{self, TapError};

/// Runs `test` on a thread in a network namespace of its own; skips where that is not allowed.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY is the kernel's: a network namespace changes nothing that other threads share.
        #[expect(
            deprecated,
            reason = "a network namespace takes nothing from other threads"
        )]
        let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if let Err(error) = unshared {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "skipped: {error}"
            );
            eprintln!("skipped: no network namespace: {error}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn what_is_set_is_taken() {
    in_namespace(|| {
        let mut routes = Routes::open().unwrap();
        assert_eq!(routes.taken().unwrap(), []);
        let _tap = tap::open("eth7").unwrap();
        let index = link_index("eth7").unwrap();
        let change = LinkChange {
            up: Some(true),
            mtu: Some(9000),
            mac: Some([2, 0, 0, 0, 0, 7]),
            queue_length: Some(4096),
            ..LinkChange::default()
        };
        routes.change_link(index, change).unwrap();
        let address = Ipv4Addr::new(10, 77, 0, 2);
        let gateway = Ipv4Addr::new(10, 77, 0, 1);
        let lifetime = Some(Duration::from_secs(100));
        // Twice: a renewal sets the same again.
        for _ in 0..2 {
            routes.set_address(index, address, 24, lifetime).unwrap();
            routes
                .set_route(index, Ipv4Addr::UNSPECIFIED, 0, Some(gateway))
                .unwrap();
            routes
                .set_route(index, Ipv4Addr::new(10, 99, 0, 0), 16, Some(gateway))
                .unwrap();
        }
        let taken = routes.taken().unwrap();
        let has = |network: [u8; 4], prefix_len, is_address| {
            taken.iter().any(|taken| {
                taken.network == IpAddr::from(network)
                    && taken.prefix_len == prefix_len
                    && taken.is_address == is_address
                    && taken.interface.as_deref() == Some("eth7")
            })
        };
        assert!(has([10, 77, 0, 2], 24, true), "{taken:?}");
        assert!(
            has([10, 77, 0, 0], 24, false) && has([10, 99, 0, 0], 16, false),
            "{taken:?}"
        );
        assert!(
            !taken.iter().any(|taken| taken.prefix_len == 0),
            "the default route: {taken:?}"
        );
        routes.remove_address(index, address, 24).unwrap();
        routes.remove_address(index, address, 24).unwrap();
        assert!(
            !routes
                .taken()
                .unwrap()
                .iter()
                .any(|taken| taken.interface.as_deref() == Some("eth7") && taken.network.is_ipv4())
        );
    });
}

#[test]
fn refusals_say_what_was_asked() {
    in_namespace(|| {
        let mut routes = Routes::open().unwrap();
        let error = routes
            .set_address(4711, Ipv4Addr::new(10, 0, 0, 1), 24, None)
            .unwrap_err();
        assert!(
            matches!(&error, RouteError::Refused { what, .. } if what.contains("10.0.0.1/24")),
            "{error}"
        );
        assert!(link_index("nosuch0").is_err());
    });
}

#[test]
fn a_tap_is_held_once_and_must_have_the_header() {
    in_namespace(|| {
        let _held = tap::open("eth7").unwrap();
        assert!(matches!(tap::open("eth7"), Err(TapError::Busy(_))));
        assert!(matches!(tap::open("lo"), Err(TapError::NoTap(_))));
        assert!(tap::open("a-name-far-too-long").is_err());
        assert!(matches!(
            tap::open_existing("typo0"),
            Err(TapError::Missing(_))
        ));
        assert!(link_index("typo0").is_err(), "it was made");
        assert!(matches!(tap::open_existing("eth7"), Err(TapError::Busy(_))));
        assert!(tap::prepare(std::fs::File::open("/dev/null").unwrap()).is_err());
    });
}
