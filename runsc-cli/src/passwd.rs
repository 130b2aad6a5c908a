//! The container's `/etc/passwd`: home directories.

use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Reads `/etc/passwd` below a root, whatever links lead there. The root is not ours: a file that is none, or is too long, is
/// as good as missing.
pub fn read(rootfs: &Path) -> String {
    const MAX: u64 = 1 << 20;
    let dir = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |dir| rustix::fs::openat2(dir, "etc/passwd", flags, Mode::empty(), resolve);
    let Ok(fd) = dir.and_then(open) else { return String::new() };
    let regular =
        rustix::fs::fstat(&fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if regular && std::fs::File::from(fd).take(MAX).read_to_end(&mut bytes).is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The home directory of a user; `/` where nothing is known.
pub fn home(passwd: &str, uid: u32) -> &str {
    let uid = uid.to_string();
    for line in passwd.lines() {
        // name:password:uid:gid:comment:home:shell
        let mut fields = line.split(':');
        if fields.nth(2) == Some(uid.as_str())
            && let Some(home) = fields.nth(2).filter(|home| !home.is_empty())
        {
            return home;
        }
    }
    "/"
}

#[cfg(test)]
mod tests {
    use super::home;

    #[test]
    fn homes_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nodd\nnobody:x:65534:65534::/nonexistent:/bin/false\n";
        assert_eq!(home(passwd, 0), "/root");
        assert_eq!(home(passwd, 65534), "/nonexistent");
        assert_eq!(home(passwd, 7), "/");
    }
}
