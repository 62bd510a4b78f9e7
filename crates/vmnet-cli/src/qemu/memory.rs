//! Memory that QEMU shares with us: what is to be added to its command line, or why it cannot be.
//!
//! vhost-user needs the guest's memory in a memfd that both map. QEMU takes its memory from such a backend when the
//! machine is told so (`-machine memory-backend=`). Who says something of memory backends already has a plan of their own.

use super::values;
use std::ffi::OsString;

/// What QEMU gives a machine when nothing is said (`-m`), on the machines listed below.
const USUAL_MEBIBYTES: u64 = 128;
/// Programs whose machines have that much.
const USUAL: [&str; 4] = [
    "qemu-system-x86_64",
    "qemu-system-i386",
    "qemu-system-aarch64",
    "qemu-system-arm",
];
/// Options that decide where memory comes from.
const OWN_PLANS: [&str; 4] = ["mem-path", "mem-prealloc", "numa", "readconfig"];

/// Why the guest's memory cannot be shared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotShared {
    #[error("the machine has memory of its own making ({0})")]
    OwnPlan(String),
    #[error("how much memory the machine has is not known: say `-m`")]
    Unsized,
    #[error("`-m {0}` is no size that is understood here")]
    NoSize(String),
}

/// Arguments that let the guest's memory be shared, as a backend of this id.
pub(super) fn shared(command: &[OsString], id: &str) -> Result<[OsString; 4], NotShared> {
    for option in OWN_PLANS {
        if has(command, option) {
            return Err(NotShared::OwnPlan(format!("-{option}")));
        }
    }
    for object in values(command, &["object"]) {
        if object.contains("memory-backend-") {
            return Err(NotShared::OwnPlan(format!("-object {object}")));
        }
    }
    for machine in values(command, &["machine", "M"]) {
        if machine.contains("memory-backend=") || machine.contains("memory.") {
            return Err(NotShared::OwnPlan(format!("-machine {machine}")));
        }
    }
    let bytes = match values(command, &["m"]).pop() {
        Some(size) => bytes(&size).ok_or(NotShared::NoSize(size))?,
        None => usual(command).ok_or(NotShared::Unsized)?,
    };
    let object = format!("memory-backend-memfd,id={id},size={bytes},share=on");
    let machine = format!("memory-backend={id}");
    Ok(["-object", &object, "-machine", &machine].map(OsString::from))
}

fn usual(command: &[OsString]) -> Option<u64> {
    let program = command.first()?.to_string_lossy().into_owned();
    let is_usual = USUAL.iter().any(|usual| program.ends_with(usual));
    is_usual.then_some(USUAL_MEBIBYTES << 20)
}

/// Whether an option is there, with or without a value.
fn has(command: &[OsString], option: &str) -> bool {
    let mut words = command.iter().map(|word| word.to_string_lossy());
    words.any(|word| {
        let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        bare == Some(option)
    })
}

/// The bytes of `-m [size=]SIZE[,...]`. Without a unit, SIZE is in mebibytes; QEMU rounds up to 8 KiB.
fn bytes(option: &str) -> Option<u64> {
    let mut parts = option.split(',');
    let first = parts.next()?;
    let size = first.strip_prefix("size=").or_else(|| {
        if first.contains('=') {
            parts.find_map(|part| part.strip_prefix("size="))
        } else {
            Some(first)
        }
    })?;
    let (number, shift) = match size.char_indices().last()? {
        (at, unit) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_uppercase() {
                'B' => 0,
                'K' => 10,
                'M' => 20,
                'G' => 30,
                'T' => 40,
                _ => return None,
            };
            (size.get(..at)?, shift)
        }
        _ => (size, 20),
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    bytes
        .checked_next_multiple_of(8192)
        .filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_size_that_qemu_is_told() {
        for (text, expected) in [
            ("384", Some(384 << 20)),
            ("1G", Some(1 << 30)),
            ("2g,slots=4,maxmem=8G", Some(2 << 30)),
            ("size=512M,maxmem=1G,slots=2", Some(512 << 20)),
            ("slots=2,maxmem=1G,size=512M", Some(512 << 20)),
            ("1000001k", Some(1_000_008 << 10)),
            ("8388608B", Some(8 << 20)),
            ("maxmem=1G", None),
            ("0", None),
            ("1.5G", None),
            ("lots", None),
            ("99999999999T", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn memory_is_shared_unless_somebody_has_other_plans() {
        let added = shared(&words("qemu-system-x86_64 -m 1G"), "vmnet0m").unwrap();
        let text: Vec<_> = added.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            text,
            [
                "-object",
                "memory-backend-memfd,id=vmnet0m,size=1073741824,share=on",
                "-machine",
                "memory-backend=vmnet0m"
            ]
        );
        assert!(shared(&words("/usr/bin/qemu-system-aarch64 -M virt"), "x").is_ok());
        for line in [
            "qemu-system-ppc64 -nographic",
            "qemu -m much",
            "qemu -m 1G -mem-path /dev/hugepages",
            "qemu -m 1G --mem-prealloc",
            "qemu -m 1G -object memory-backend-ram,id=r,size=1G",
            "qemu -m 1G -M q35,memory-backend=r",
            "qemu -M q35,memory.size=2G",
            "qemu -m 1G -numa node",
        ] {
            assert!(shared(&words(line), "x").is_err(), "{line}");
        }
    }
}
