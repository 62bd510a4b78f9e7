//! The few kernel settings that are read or written.

use std::io;
use std::path::PathBuf;

/// The value of a setting by its dotted name, without the final newline; `None` if this kernel does not have it.
#[must_use]
pub fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name))
        .ok()
        .map(|text| text.trim_end().to_owned())
}

/// Sets a setting by its dotted name.
///
/// # Errors
///
/// What the write says: `EROFS` in containers, `EINVAL` for a value the kernel refuses.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(name), value)
}

/// Sets an IPv6 setting of an interface.
///
/// # Errors
///
/// What the write says.
pub fn write_ipv6(interface: &str, setting: &str, value: &str) -> io::Result<()> {
    std::fs::write(ipv6_path(interface, setting), value)
}

/// An IPv6 setting of an interface, without the final newline; `None` if this kernel knows no IPv6.
#[must_use]
pub fn read_ipv6(interface: &str, setting: &str) -> Option<String> {
    std::fs::read_to_string(ipv6_path(interface, setting))
        .ok()
        .map(|text| text.trim_end().to_owned())
}

fn ipv6_path(interface: &str, setting: &str) -> PathBuf {
    interface_path("ipv6", interface, setting)
}

/// The file of a setting of an interface, of the family `ipv4` or `ipv6`.
#[must_use]
pub fn interface_path(family: &str, interface: &str, setting: &str) -> PathBuf {
    // A name may hold dots.
    PathBuf::from("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(setting)
}

/// Why this kernel refused a user namespace, and what opens them; for the end of an error message.
#[must_use]
pub fn user_namespace_remedy() -> String {
    let is = |name: &str, value: &str| read(name).is_some_and(|text| text == value);
    if is("kernel.unprivileged_userns_clone", "0") {
        return "the host closes them to ordinary users: `sysctl kernel.unprivileged_userns_clone=1` (as root)".into();
    }
    if is("user.max_user_namespaces", "0") {
        return "the host allows none: `sysctl user.max_user_namespaces=15000` (as root)".into();
    }
    if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor closes them to programs without a profile: \
                `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (as root), or a profile for vmnet with `userns,`"
            .into();
    }
    "a container or a security policy may forbid them; `unshare --user --net true` shows whether it does".into()
}

/// The first port that may be listened on without privileges.
#[must_use]
pub fn first_unprivileged_port() -> u16 {
    read("net.ipv4.ip_unprivileged_port_start")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1024)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_file() {
        assert_eq!(
            path("net.ipv4.ip_forward"),
            PathBuf::from("/proc/sys/net/ipv4/ip_forward")
        );
        assert!(read("kernel.ostype").is_some_and(|text| text == "Linux"));
        assert_eq!(read("kernel.no_such_setting"), None);
    }
}
