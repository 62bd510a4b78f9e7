use super::*;
use proptest::prelude::*;

fn rule(text: &str) -> ForwardRule {
    text.parse::<ForwardSpec>().unwrap().rule(&[]).unwrap()
}

/// What is printed, without numbers.
fn shown(text: &str) -> String {
    let rule = rule(text);
    format!("{} {} {}", listen(&rule), target(&rule), protocol(&rule))
}

#[test]
fn each_kind_of_guest() {
    for (text, meaning) in [
        ("8080:web:80", "[::]:8080 web:80 tcp"),
        ("8080:WEB-1:80", "[::]:8080 web-1:80 tcp"),
        (
            "127.0.0.1:53:192.168.64.2:5353/udp",
            "127.0.0.1:53 192.168.64.2:5353 udp",
        ),
        ("[::1]:8000-8009:web:80-89", "[::1]:8000-8009 web:80-89 tcp"),
        (
            "8080:52:54:00:12:34:56:80",
            "[::]:8080 [52:54:00:12:34:56]:80 tcp",
        ),
        (
            "10.0.0.1:80:52:54:00:AB:cd:ef:80",
            "10.0.0.1:80 [52:54:00:ab:cd:ef]:80 tcp",
        ),
        (
            "[fd00::1]:80:[52:54:00:12:34:56]:80/udp",
            "[fd00::1]:80 [52:54:00:12:34:56]:80 udp",
        ),
        ("8080:[fd00::9]:80", "[::]:8080 [fd00::9]:80 tcp"),
        (
            "[::1]:80-81:[FD00:0::9]:90-91/udp",
            "[::1]:80-81 [fd00::9]:90-91 udp",
        ),
        // All of these are numbers, and still no MAC.
        ("[::]:10:web:11", "[::]:10 web:11 tcp"),
    ] {
        assert_eq!(shown(text), meaning, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let refused = |text: &str| text.parse::<ForwardSpec>().unwrap_err();
    for text in [
        "",
        "80",
        "80:80",
        "web:80",
        "52:54:00:12:34:56:80",
        "[::1]:80",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, ParseForwardError::Form | ParseForwardError::Port(_)),
            "{text}: {error}"
        );
    }
    for text in [
        "80:80:80",
        "80:web.vmnet.internal:80",
        "80:192.168.64.300:80",
        "80:-web:80",
        "80::80",
        "80:[]:80",
        "80:[52:54]:80",
        "80:[web]:80",
        "80:[192.168.64.2]:80",
    ] {
        assert!(
            matches!(refused(text), ParseForwardError::Guest(_)),
            "{text}: {}",
            refused(text)
        );
    }
    for text in [
        "0:web:80",
        "80:web:0",
        "80:web:80/sctp",
        "90-80:web:80-90",
        "80-81:web:80",
        "65535:web:65536",
        "::1:80:web:80",
        "300.0.0.1:80:web:80",
    ] {
        assert!(
            matches!(refused(text), ParseForwardError::Port(_)),
            "{text}: {}",
            refused(text)
        );
    }
}

#[test]
fn exceptions_are_of_the_range() {
    let spec: ForwardSpec = "8000-8009:web:80-89".parse().unwrap();
    let except: Vec<PortRange> = ["8001", "8008-9000", "1"]
        .map(|s| s.parse().unwrap())
        .into();
    let rule = spec.rule(&except).unwrap();
    assert_eq!(rule.except, [8001, 8008, 8009]);
    assert_eq!(exceptions(&rule), "8001,8008-8009");
    assert!(spec.meets(&except[1]) && !spec.meets(&except[2]));
    let all: PortRange = "8000-8009".parse().unwrap();
    let error = spec.rule(&[all]).unwrap_err();
    assert!(error.to_string().contains("8000-8009"), "{error}");
}

#[test]
fn rules_are_known_by_their_ports() {
    let rule = rule("127.0.0.1:8000-8009:web:80-89");
    let is = |text: &str| text.parse::<HostPorts>().unwrap().is(&rule);
    let meets = |text: &str| text.parse::<HostPorts>().unwrap().meets(&rule);
    assert!(is("8000-8009") && is("8000-8009/tcp") && is("127.0.0.1:8000-8009"));
    assert!(!is("8000") && !is("8000-8009/udp") && !is("[::1]:8000-8009"));
    assert!(meets("8000") && meets("8009-9000") && !meets("7999") && !meets("8010"));
    for text in ["8080/tcp", "127.0.0.1:1-2/udp", "[::1]:1/tcp"] {
        assert_eq!(text.parse::<HostPorts>().unwrap().to_string(), text);
    }
    for bad in ["", "web", "1.2.3.4", "8080/", "::1:80"] {
        assert!(bad.parse::<HostPorts>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _either = text.parse::<ForwardSpec>();
        let _either = text.parse::<HostPorts>();
    }

    #[test]
    fn what_looks_nearly_right_is_read_or_refused(text in "[0-9a-f:.\\[\\]/-]{0,40}") {
        let _either = text.parse::<ForwardSpec>();
        let _either = text.parse::<HostPorts>();
    }

    /// What is listed can be typed again.
    #[test]
    fn what_is_shown_is_read_again(
        address in prop_oneof![
            any::<[u8; 4]>().prop_map(|a| IpAddr::from(a).to_string()),
            any::<[u16; 8]>().prop_map(|a| format!("[{}]", IpAddr::from(a))),
        ],
        first in 1..=u16::MAX, length in 0..100_u16, guest_port in 1..=u16::MAX,
        guest in prop_oneof![
            Just("web".to_owned()),
            any::<[u8; 4]>().prop_map(|a| IpAddr::from(a).to_string()),
            any::<[u16; 8]>().prop_map(|a| format!("[{}]", IpAddr::from(a))),
            any::<[u8; 6]>().prop_map(|m| Mac(m).to_string()),
        ],
    ) {
        let length = length.min(u16::MAX - first).min(u16::MAX - guest_port);
        let text = format!(
            "{address}:{first}-{}:{guest}:{guest_port}-{}/udp",
            first + length,
            guest_port + length
        );
        let one = rule(&text);
        let again = format!("{}:{}/{}", listen(&one), target(&one), protocol(&one));
        prop_assert_eq!(&one, &rule(&again));
        let ports: HostPorts = format!("{}/{}", listen(&one), protocol(&one)).parse().unwrap();
        prop_assert!(ports.is(&one));
    }
}
