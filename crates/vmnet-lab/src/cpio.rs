//! Writes the archive that Linux unpacks as its first file system: cpio, "newc" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel). Several archives may follow each other.

/// An archive in memory. Parents must be added before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, &[], (0, 0));
    }

    /// Adds a file that everybody may read, and execute if `executable`.
    pub fn file(&mut self, path: &str, content: &[u8], executable: bool) {
        let mode = if executable { 0o755 } else { 0o644 };
        self.entry(path, FILE | mode, content, (0, 0));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, target.as_bytes(), (0, 0));
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, &[], (major, minor));
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of an archive is below 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a short path");
        // inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::prerequisite::{Prerequisite, all_present};

    #[test]
    fn busybox_unpacks_it() {
        if !all_present(&[Prerequisite::Program("busybox")]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", b"hello", true);
        archive.link("c", "a/b");
        let mut child = Command::new("busybox")
            .args(["cpio", "-i"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&archive.finish())
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("c")).unwrap(), b"hello");
    }
}
