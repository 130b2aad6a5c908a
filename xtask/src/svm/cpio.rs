//! An initramfs: a cpio archive in the `newc` form that the kernel unpacks at boot.

use std::io::{self, Write};

/// Writes entries one after the other; [`Cpio::finish`] ends the archive.
pub(super) struct Cpio<W> {
    out: W,
    next_inode: u32,
}

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl<W: Write> Cpio<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE | 0o755, (0, 0), content)
    }

    pub(super) fn character_device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    /// A header of thirteen numbers in eight hexadecimal digits, the name, the content; both padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::other("too large for an initramfs");
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        let (major, minor) = device;
        let fields = [self.next_inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.next_inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_archive_ends() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.directory("d").unwrap();
        cpio.file("d/f", b"hello").unwrap();
        let bytes = cpio.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(bytes.windows(10).filter(|window| window == b"TRAILER!!!").count(), 1);
        assert!(bytes.windows(5).any(|window| window == b"hello"));
    }
}
