//! Mount options: words of `mount(8)` that the spec gives as a list.

/// What a list of mount options says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    /// `bind` or `rbind`.
    pub bind: bool,
    /// The rest, for the file system: `size=64m,mode=1777`.
    pub data: String,
}

/// Sorts mount options. Propagation and access-time words that mean nothing inside a sandbox are dropped.
pub fn parse_options(options: &[String]) -> MountOptions {
    let mut out = MountOptions::default();
    for option in options {
        match option.as_str() {
            "ro" | "rro" => out.readonly = true,
            "rw" | "rrw" => out.readonly = false,
            "nosuid" | "rnosuid" => out.nosuid = true,
            "suid" | "rsuid" => out.nosuid = false,
            "nodev" | "rnodev" => out.nodev = true,
            "dev" | "rdev" => out.nodev = false,
            "noexec" | "rnoexec" => out.noexec = true,
            "exec" | "rexec" => out.noexec = false,
            "noatime" | "rnoatime" => out.noatime = true,
            "atime" | "ratime" => out.noatime = false,
            "bind" | "rbind" => out.bind = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
            | "runbindable" | "relatime" | "norelatime" | "rrelatime" | "rnorelatime" | "strictatime"
            | "nostrictatime" | "rstrictatime" | "diratime" | "nodiratime" | "rnodiratime" | "async"
            | "sync" | "dirsync" | "defaults" | "lazytime" | "silent" | "loud" | "iversion"
            | "noiversion" | "tmpcopyup" | "idmap" | "ridmap" | "copy" | "nocopy" | "z" | "Z"
            | "nosymfollow" | "rnosymfollow" | "symfollow" => {}
            data => {
                if !out.data.is_empty() {
                    out.data.push(',');
                }
                out.data.push_str(data);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_into_flags_and_data() {
        let words = ["nosuid", "rbind", "ro", "rprivate", "size=64m", "mode=1777"];
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let parsed = parse_options(&words);
        assert!(parsed.nosuid && parsed.bind && parsed.readonly && !parsed.noexec);
        assert_eq!(parsed.data, "size=64m,mode=1777");
    }
}
