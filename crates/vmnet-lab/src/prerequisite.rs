//! What a test needs of the machine it runs on.
//!
//! A developer without root or QEMU sees the reason and a skipped test. In CI (`CI=true`) a skip would hide that
//! nothing was tested, so there it is a failure.

use std::path::{Path, PathBuf};

/// One thing that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisite {
    /// The rights to make network namespaces.
    Root,
    /// `/dev/net/tun`, open to everybody.
    Tun,
    /// User namespaces for users without rights.
    UserNamespaces,
    /// A program by its name.
    Program(&'static str),
    /// A readable cloud kernel of Debian with its modules.
    GuestKernel,
}

impl Prerequisite {
    /// Why the machine does not have it, with the remedy; `None` if it does.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| {
                "needs root to make network namespaces: run it through scripts/test".to_owned()
            }),
            Self::Tun => tun_is_closed(),
            Self::UserNamespaces => {
                let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
                limit.is_ok_and(|limit| limit.trim() == "0").then(|| {
                    "user namespaces are off: sysctl user.max_user_namespaces=10000".to_owned()
                })
            }
            Self::Program(name) => find_program(name)
                .is_none()
                .then(|| format!("the program {name} is not installed: run scripts/test")),
            Self::GuestKernel => crate::guest_image::kernel().err(),
        }
    }
}

fn tun_is_closed() -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let path = Path::new("/dev/net/tun");
    match path.metadata() {
        Ok(metadata) if metadata.permissions().mode() & 0o006 == 0o006 => None,
        Ok(_) => Some("/dev/net/tun is closed to users: chmod 0666 /dev/net/tun".to_owned()),
        Err(error) => Some(format!("no /dev/net/tun ({error}): modprobe tun")),
    }
}

/// The path of a program, as a shell of the administrator would find it; before that in the folder
/// `VMNET_LAB_PROGRAMS`, where `scripts/test` builds what no package has.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let built = std::env::var("VMNET_LAB_PROGRAMS").unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    [built.as_str()]
        .into_iter()
        .chain(path.split(':'))
        .filter(|folder| !folder.is_empty())
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.is_file())
}

/// Says whether `wanted` is all there. If not, the reason goes to standard error.
///
/// # Panics
/// If something is missing while `CI=true`.
#[must_use]
pub fn all_present(wanted: &[Prerequisite]) -> bool {
    let missing: Vec<String> = wanted.iter().filter_map(|it| it.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let reasons = missing.join("; ");
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "in CI nothing is skipped: {reasons}"
    );
    eprintln!("SKIPPED: {reasons}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let reason = Prerequisite::Program("no-such-program-here")
            .missing()
            .unwrap();
        assert!(reason.contains("no-such-program-here") && reason.contains("scripts/test"));
        assert_eq!(Prerequisite::Program("sh").missing(), None);
    }
}
