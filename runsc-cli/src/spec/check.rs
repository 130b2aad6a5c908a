//! Checks of a spec beyond its types. Each message names the field.

use super::{Process, Spec};
use crate::error::{Error, Result};

fn bad(field: &str, what: impl std::fmt::Display) -> Error {
    Error::new(format!("config.json: {field}: {what}"))
}

impl Spec {
    pub fn check(&self) -> Result<()> {
        match self.oci_version.split('.').next() {
            Some("1") => {}
            _ if self.oci_version.is_empty() => return Err(bad("ociVersion", "is missing")),
            _ => return Err(bad("ociVersion", format!("{:?} is not supported, 1.x is", self.oci_version))),
        }
        let root = self.root.as_ref().ok_or_else(|| bad("root", "is missing"))?;
        if root.path.is_empty() {
            return Err(bad("root.path", "is empty"));
        }
        no_nul("root.path", &root.path)?;
        let process = self.process.as_ref().ok_or_else(|| bad("process", "is missing"))?;
        process.check("process")?;
        for (i, mount) in self.mounts.iter().enumerate() {
            let field = |name: &str| format!("mounts[{i}].{name}");
            if !mount.destination.starts_with('/') {
                return Err(bad(
                    &field("destination"),
                    format!("{:?} is not an absolute path", mount.destination),
                ));
            }
            no_nul(&field("destination"), &mount.destination)?;
            if mount.destination.len() >= PATH_MAX {
                return Err(bad(&field("destination"), format!("is longer than {PATH_MAX} bytes")));
            }
            no_nul(&field("source"), &mount.source)?;
        }
        for (i, namespace) in self.linux.namespaces.iter().enumerate() {
            let known = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];
            if !known.contains(&namespace.kind.as_str()) {
                let what = format!("{:?} is no kind of namespace", namespace.kind);
                return Err(bad(&format!("linux.namespaces[{i}].type"), what));
            }
        }
        let hooks = &self.hooks;
        let kinds = [
            ("prestart", &hooks.prestart),
            ("createRuntime", &hooks.create_runtime),
            ("poststart", &hooks.poststart),
            ("poststop", &hooks.poststop),
        ];
        for (kind, list) in kinds {
            for (i, hook) in list.iter().enumerate() {
                if !hook.path.starts_with('/') {
                    let what = format!("{:?} is not an absolute path", hook.path);
                    return Err(bad(&format!("hooks.{kind}[{i}].path"), what));
                }
                for text in [&hook.path].into_iter().chain(&hook.args).chain(&hook.env) {
                    no_nul(&format!("hooks.{kind}[{i}]"), text)?;
                }
            }
        }
        if self.hostname.len() > 64 {
            return Err(bad("hostname", "is longer than 64 bytes"));
        }
        if self.domainname.len() > 64 {
            return Err(bad("domainname", "is longer than 64 bytes"));
        }
        Ok(())
    }
}

impl Process {
    /// Checks a process; `at` is where it stands in its file.
    pub fn check(&self, at: &str) -> Result<()> {
        if self.args.is_empty() {
            return Err(bad(&format!("{at}.args"), "is empty: there is nothing to run"));
        }
        for (i, arg) in self.args.iter().enumerate() {
            no_nul(&format!("{at}.args[{i}]"), arg)?;
        }
        for (i, var) in self.env.iter().enumerate() {
            no_nul(&format!("{at}.env[{i}]"), var)?;
        }
        if !self.cwd.starts_with('/') {
            return Err(bad(&format!("{at}.cwd"), format!("{:?} is not an absolute path", self.cwd)));
        }
        no_nul(&format!("{at}.cwd"), &self.cwd)?;
        if let Some(umask) = self.user.umask
            && umask > 0o777
        {
            return Err(bad(&format!("{at}.user.umask"), format!("{umask:#o} has more than 9 bits")));
        }
        let caps = self.capabilities.clone().unwrap_or_default();
        let sets = [
            ("bounding", caps.bounding),
            ("effective", caps.effective),
            ("inheritable", caps.inheritable),
            ("permitted", caps.permitted),
            ("ambient", caps.ambient),
        ];
        for (set, names) in &sets {
            for (i, name) in names.iter().enumerate() {
                if capability(name).is_none() {
                    let field = format!("{at}.capabilities.{set}[{i}]");
                    return Err(bad(&field, format!("{name:?} is no capability")));
                }
            }
        }
        for (i, limit) in self.rlimits.iter().enumerate() {
            if crate::rlimits::number(&limit.kind).is_none() {
                let what = format!("{:?} is no resource limit", limit.kind);
                return Err(bad(&format!("{at}.rlimits[{i}].type"), what));
            }
            if limit.soft > limit.hard {
                let what = format!("soft limit {} is above hard limit {}", limit.soft, limit.hard);
                return Err(bad(&format!("{at}.rlimits[{i}]"), what));
            }
        }
        Ok(())
    }
}

/// The longest path of Linux, with the NUL at its end.
const PATH_MAX: usize = 4096;

fn no_nul(field: &str, text: &str) -> Result<()> {
    match text.contains('\0') {
        true => Err(bad(field, "holds a NUL byte")),
        false => Ok(()),
    }
}

/// The bit of a capability, by its name with or without `CAP_`.
fn capability(name: &str) -> Option<usize> {
    let plain = name.strip_prefix("CAP_").unwrap_or(name);
    CAPABILITIES.iter().position(|c| *c == plain)
}

/// Capability names, which have been checked, as a set of bits.
pub fn parse_caps(names: &[String]) -> u64 {
    names.iter().filter_map(|name| capability(name)).fold(0, |set, bit| set | 1 << bit)
}

/// Capabilities by bit number, without `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
