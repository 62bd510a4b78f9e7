//! From what a guest calls itself to one DNS label (RFC 1123 §2.1).

/// Names no guest gets: they mean something else to every resolver.
const TAKEN: [&str; 2] = ["localhost", "gateway"];
/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// The label in a host name (option 12): its part before the first dot, in lower case, with `_` and
/// spaces as hyphens and everything else that is not a letter, digit or hyphen left out.
pub(in crate::gateway) fn label(host_name: &[u8]) -> Option<String> {
    let first = host_name.split(|b| *b == b'.' || *b == 0).next()?;
    let kept = first.iter().filter_map(|byte| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => Some(char::from(*byte)),
        b'A'..=b'Z' => Some(char::from(byte.to_ascii_lowercase())),
        b'_' | b' ' => Some('-'),
        _ => None,
    });
    let text: String = kept.skip_while(|c| *c == '-').take(MAX_LABEL).collect();
    let text = text.trim_end_matches('-');
    (!text.is_empty() && !TAKEN.contains(&text)).then(|| text.to_owned())
}

/// The label in a fully qualified name (option 81, RFC 4702 §2): flags, two old result codes, then the
/// name in DNS wire format if flag E is set, else as text.
pub(in crate::gateway) fn label_of_fqdn(option: &[u8]) -> Option<String> {
    const E: u8 = 0x04;
    let (flags, rest) = option.split_first()?;
    let name = rest.get(2..)?;
    if flags & E == 0 {
        return label(name);
    }
    label_of_wire_name(name)
}

/// The first label of a name in DNS wire format (RFC 1035 §3.1), whole or not.
pub(in crate::gateway) fn label_of_wire_name(name: &[u8]) -> Option<String> {
    let (length, rest) = name.split_first()?;
    label(rest.get(..usize::from(*length))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let long = "a".repeat(80);
        for (told, expected) in [
            ("debian", Some("debian")),
            ("Web_Server 1.example.org", Some("web-server-1")),
            ("--x--", Some("x")),
            ("käse\0", Some("kse")),
            ("a\0b", Some("a")),
            ("", None),
            (".local", None),
            ("---", None),
            ("LOCALHOST", None),
            ("gateway", None),
            ("42", Some("42")),
            (long.as_str(), Some(&long[..63])),
        ] {
            assert_eq!(label(told.as_bytes()).as_deref(), expected, "{told}");
        }
    }

    #[test]
    fn no_label_ends_with_a_hyphen_after_the_cut() {
        let told = format!("{}-tail", "b".repeat(62));
        assert_eq!(label(told.as_bytes()), Some("b".repeat(62)));
    }

    #[test]
    fn fully_qualified() {
        assert_eq!(
            label_of_fqdn(b"\x01\0\0web.example.").as_deref(),
            Some("web")
        );
        assert_eq!(
            label_of_fqdn(b"\x05\0\0\x03web\x07example\0").as_deref(),
            Some("web")
        );
        assert_eq!(label_of_fqdn(b"\x05\0\0\x09web").as_deref(), None);
        assert_eq!(label_of_fqdn(b"\x05\0\0"), None);
        assert_eq!(label_of_fqdn(b"\x05"), None);
    }
}
