//! What a guest boots: Debian's cloud kernel and a first file system made of the machine's own parts.
//!
//! The archive holds busybox, the virtio drivers with what they depend on, `iperf3`, `rdisc6` if the machine has it, and
//! `vmnet-lab-client` with their libraries, and an `/init` that takes commands from the serial console (the protocol is in [`crate::qemu`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Archive;
use crate::prerequisite::find_program;

/// The drivers a guest needs, and VLANs; what they depend on comes along.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_net", "8021q"];

/// Sets what a lease says, for busybox' `udhcpc`. Also fit for a namespace.
pub const UDHCPC_SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig)
    ip address flush dev "$interface"
    ip link set "$interface" up
    ;;
bound|renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip address flush dev "$interface"
    ip address add "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route add default via "${router%% *}"
    {
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do echo "nameserver $server"; done
    } >/etc/resolv.conf
    ;;
esac
"#;

const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
echo 1 >/proc/sys/kernel/printk
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr
echo "@@READY"
while read -r number line; do
    echo "@@BEGIN $number"
    ( eval "$line" ) </dev/null
    status=$?
    echo
    echo "@@END $number $status"
done
"#;

/// The newest readable cloud kernel whose modules are installed, and their folder.
///
/// # Errors
/// Why there is none, with the remedy.
pub fn kernel() -> Result<(PathBuf, PathBuf), String> {
    let remedy = "install linux-image-cloud-amd64, or run scripts/test";
    let entries = fs::read_dir("/boot").map_err(|error| format!("/boot: {error}; {remedy}"))?;
    let mut found: Vec<(PathBuf, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("vmlinuz-")?;
            let modules = Path::new("/lib/modules").join(version);
            let fits = version.ends_with("-cloud-amd64")
                && modules.join("modules.dep").exists()
                && fs::File::open(entry.path()).is_ok();
            fits.then(|| (entry.path(), modules))
        })
        .collect();
    found.sort();
    found
        .pop()
        .ok_or_else(|| format!("no readable kernel /boot/vmlinuz-*-cloud-amd64: {remedy}"))
}

/// Builds the archive; `client` is the path of `vmnet-lab-client`.
///
/// # Panics
/// If a part is missing that [`crate::prerequisite`] would have named.
#[must_use]
pub fn build(modules: &Path, client: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in [
        "bin", "dev", "etc", "lib", "lib64", "modules", "proc", "sys", "tmp", "usr", "usr/lib",
    ] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", INIT.as_bytes(), true);
    archive.file("etc/udhcpc.sh", UDHCPC_SCRIPT.as_bytes(), true);
    archive.file("etc/resolv.conf", b"", false);
    archive.file("etc/hosts", b"127.0.0.1 localhost\n", false);
    archive.file("bin/busybox", &read(&program("busybox")), true);
    let mut libraries = Vec::new();
    let also = find_program("rdisc6");
    for path in [program("iperf3"), client.to_owned()]
        .into_iter()
        .chain(also)
    {
        let name = path.file_name().and_then(|it| it.to_str());
        archive.file(
            &format!("bin/{}", name.expect("a name")),
            &read(&path),
            true,
        );
        libraries.extend(libraries_of(&path));
    }
    libraries.sort();
    libraries.dedup();
    for library in libraries {
        add_with_folders(&mut archive, &library);
    }
    for (number, module) in modules_in_order(modules).into_iter().enumerate() {
        let content = decompressed(&modules.join(&module));
        let name = Path::new(&module).file_name().and_then(|it| it.to_str());
        let name = name.expect("a module has a name").split('.').next();
        let name = name.expect("split has a first part");
        archive.file(&format!("modules/{number:02}-{name}.ko"), &content, false);
    }
    archive.finish()
}

fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| panic!("{name} is not installed: run scripts/test"))
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The libraries and the loader of a program, by the loader's own word (`ldd`).
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .expect("start ldd");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| PathBuf::from(word.trim_end_matches(':')))
        .filter(|path| path != program)
        .collect()
}

fn add_with_folders(archive: &mut Archive, path: &Path) {
    let inside = path
        .to_str()
        .expect("a path of ASCII")
        .trim_start_matches('/');
    for (at, _) in inside.match_indices('/') {
        // A folder that is there already is no error for the kernel.
        archive.folder(&inside[..at]);
    }
    archive.file(inside, &read(path), true);
}

/// The files of the drivers, each after those it depends on; as `modules.dep` names them.
fn modules_in_order(modules: &Path) -> Vec<String> {
    let listing = String::from_utf8_lossy(&read(&modules.join("modules.dep"))).into_owned();
    let mut ordered: Vec<String> = Vec::new();
    for driver in DRIVERS {
        let line = listing.lines().find(|line| is_module(line, driver));
        let Some((file, needs)) = line.and_then(|line| line.split_once(':')) else {
            // It is part of the kernel itself.
            continue;
        };
        // modules.dep lists the nearest first; what is needed first stands last.
        let needs = needs.split_whitespace().rev().map(str::to_owned);
        for file in needs.chain([file.to_owned()]) {
            if !ordered.contains(&file) {
                ordered.push(file);
            }
        }
    }
    ordered
}

fn is_module(line: &str, driver: &str) -> bool {
    let file = line.split(':').next().unwrap_or_default();
    let name = file.rsplit('/').next().unwrap_or_default();
    name.split('.').next() == Some(driver)
}

/// The content of a module, which distributions may compress.
fn decompressed(path: &Path) -> Vec<u8> {
    let tool = match path.extension().and_then(|it| it.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return read(path),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .unwrap_or_else(|error| panic!("start {tool}: {error}"));
    assert!(output.status.success(), "{tool} -dc {}", path.display());
    output.stdout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("modules.dep"),
            "k/virtio_net.ko.xz: k/net_failover.ko.xz k/failover.ko.xz k/virtio.ko k/virtio_ring.ko\n\
             k/virtio_pci.ko: k/virtio.ko k/virtio_ring.ko\nk/virtio.ko: k/virtio_ring.ko\n",
        )
        .unwrap();
        assert_eq!(
            modules_in_order(folder.path()),
            [
                "k/virtio_ring.ko",
                "k/virtio.ko",
                "k/virtio_pci.ko",
                "k/failover.ko.xz",
                "k/net_failover.ko.xz",
                "k/virtio_net.ko.xz"
            ]
        );
    }

    #[test]
    fn ldd_names_the_loader_and_the_library() {
        let libraries = libraries_of(Path::new("/bin/sh"));
        assert!(
            libraries
                .iter()
                .any(|it| it.to_string_lossy().contains("libc.so"))
        );
        assert!(
            libraries
                .iter()
                .any(|it| it.to_string_lossy().contains("ld-linux"))
        );
    }
}
