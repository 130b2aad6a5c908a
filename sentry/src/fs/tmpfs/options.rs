//! Mount options of tmpfs (`tmpfs(5)`).

use std::fmt::Write;

use quicksand_abi::Errno;

use super::space::UNLIMITED;

/// Limits, and owner and mode of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `u64::MAX` for no limit.
    pub max_pages: u64,
    /// `u64::MAX` for no limit.
    pub max_inodes: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Whether a size was asked for.
    size_given: bool,
    inodes_given: bool,
}

impl Default for Options {
    /// Half of the machine's memory, a sticky directory that everybody may write to.
    fn default() -> Options {
        let info = rustix::system::sysinfo();
        let half = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 2 / 4096;
        Options {
            max_pages: half,
            max_inodes: half,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            size_given: false,
            inodes_given: false,
        }
    }
}

impl Options {
    /// Without limits; the mode of an ordinary directory.
    pub fn unlimited() -> Options {
        let given = Options::default();
        Options { max_pages: UNLIMITED, max_inodes: UNLIMITED, mode: 0o755, ..given }
    }

    /// From the data of `mount(2)`; EINVAL for what tmpfs does not know.
    pub fn parse(data: &[u8]) -> Result<Options, Errno> {
        let mut options = Options::default();
        let all = options.max_pages;
        for option in data.split(|b| *b == b',').filter(|o| !o.is_empty()) {
            let option = std::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            let (key, value) = option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v)));
            match (key, value) {
                ("size", Some(v)) => {
                    let bytes = match v.strip_suffix('%') {
                        Some(percent) => {
                            let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
                            all.saturating_mul(2).saturating_mul(percent) / 100 * 4096
                        }
                        None => with_suffix(v)?,
                    };
                    options.max_pages = no_limit_if_zero(bytes.div_ceil(4096));
                    options.size_given = true;
                }
                ("nr_blocks", Some(v)) => {
                    options.max_pages = no_limit_if_zero(with_suffix(v)?);
                    options.size_given = true;
                }
                ("nr_inodes", Some(v)) => {
                    options.max_inodes = no_limit_if_zero(with_suffix(v)?);
                    options.inodes_given = true;
                }
                ("mode", Some(v)) => {
                    options.mode = u32::from_str_radix(v, 8).map_err(|_| Errno::EINVAL)? & 0o7777;
                }
                ("uid", Some(v)) => options.uid = v.parse().map_err(|_| Errno::EINVAL)?,
                ("gid", Some(v)) => options.gid = v.parse().map_err(|_| Errno::EINVAL)?,
                ("huge" | "mpol", Some(_)) | ("noswap" | "inode32" | "inode64", None) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }

    /// As `/proc/mounts` shows them, what is not the default only.
    pub fn shown(&self) -> String {
        let mut out = Vec::new();
        if self.size_given && self.max_pages != UNLIMITED {
            out.push(format!("size={}k", self.max_pages.saturating_mul(4)));
        }
        if self.inodes_given && self.max_inodes != UNLIMITED {
            out.push(format!("nr_inodes={}", self.max_inodes));
        }
        if self.mode != 0o1777 {
            let mut mode = String::new();
            let _ = write!(mode, "mode={:03o}", self.mode);
            out.push(mode);
        }
        if self.uid != 0 {
            out.push(format!("uid={}", self.uid));
        }
        if self.gid != 0 {
            out.push(format!("gid={}", self.gid));
        }
        out.join(",")
    }
}

fn no_limit_if_zero(n: u64) -> u64 {
    if n == 0 { UNLIMITED } else { n }
}

/// A number with an optional `k`, `m`, `g` or `t` (`memparse`).
fn with_suffix(text: &str) -> Result<u64, Errno> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let n: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    n.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}
