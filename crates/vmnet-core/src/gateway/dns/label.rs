//! The name of a guest: one label of DNS (RFC 1123 §2.1), lower-case, and none that means something else.

use core::fmt;
use core::str::FromStr;

use super::NameError;
use super::names::{GATEWAY, HOST};

/// Names no guest may have: ours, those every system resolves by itself, and those by which programs find
/// proxies and tunnels that they then trust.
const RESERVED: [&str; 5] = [GATEWAY, HOST, "localhost", "wpad", "isatap"];

/// The longest label (RFC 1035 §2.3.4).
const LEN_MAX: usize = 63;

/// The name of a guest, without a domain. Made by [`str::parse`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    bytes: [u8; LEN_MAX],
    len: u8,
}

impl Label {
    /// The name, lower-case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII: it was looked at when the label was made.
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        str::from_utf8(bytes).unwrap_or("")
    }
}

impl FromStr for Label {
    type Err = NameError;

    /// Of a name with dots only the first label counts.
    fn from_str(name: &str) -> Result<Self, NameError> {
        let label = first_label(name);
        let invalid = || NameError::Invalid {
            name: name.chars().take(255).collect(),
        };
        if !is_label(&label) {
            return Err(invalid());
        }
        if RESERVED.contains(&label.as_str()) {
            return Err(NameError::Reserved { name: label });
        }
        let mut bytes = [0; LEN_MAX];
        let len = u8::try_from(label.len()).map_err(|_| invalid())?;
        for (to, from) in bytes.iter_mut().zip(label.bytes()) {
            *to = from;
        }
        Ok(Self { bytes, len })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The name before the first dot, lower-case.
pub(super) fn first_label(name: &str) -> String {
    name.split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// Whether a text is a label of letters, digits, hyphens and underscores.
pub(super) fn is_label(label: &str) -> bool {
    let fits = (1..=LEN_MAX).contains(&label.len());
    let plain = label
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    fits && plain && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_texts_are_names() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        for (text, label) in [
            ("web", Some("web")),
            ("Web-2.vmnet.internal", Some("web-2")),
            ("a_b", Some("a_b")),
            (long.as_str(), Some(long.as_str())),
            (longer.as_str(), None),
            ("", None),
            (".", None),
            ("-web", None),
            ("web-", None),
            ("käse", None),
            ("gateway", None),
            ("LOCALHOST", None),
            ("wpad.vmnet.internal", None),
        ] {
            let parsed = text.parse::<Label>().ok();
            assert_eq!(parsed.as_ref().map(Label::as_str), label, "{text}");
        }
        let error = "host".parse::<Label>().unwrap_err();
        assert_eq!(
            error,
            NameError::Reserved {
                name: "host".to_owned()
            }
        );
        assert_eq!(
            format!("{0} {0:?}", "Web".parse::<Label>().unwrap()),
            "web \"web\""
        );
    }
}
