//! `--version` and `features`, in the forms that engines parse.

use crate::error::{Context, Result};
use crate::spec::{CAPABILITIES, OCI_VERSION};

/// `runc`'s form: a name and version, then the spec's.
pub fn version() -> Result<()> {
    crate::say!("quicksand version {}", env!("CARGO_PKG_VERSION"));
    crate::say!("spec: {OCI_VERSION}");
    Ok(())
}

pub fn run() -> Result<u8> {
    let caps: Vec<String> = CAPABILITIES.iter().map(|c| format!("CAP_{c}")).collect();
    let value = serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "poststart", "poststop"],
        "mountOptions": [
            "atime", "bind", "defaults", "dev", "exec", "noatime", "nodev", "noexec", "nosuid", "private", "rbind",
            "relatime", "ro", "rprivate", "rshared", "rslave", "rw", "shared", "slave", "suid",
        ],
        "linux": {
            "namespaces": ["ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": caps,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
        },
        "annotations": { "dev.quicksand.version": env!("CARGO_PKG_VERSION") },
    });
    crate::say!("{}", serde_json::to_string_pretty(&value).context("features")?);
    Ok(0)
}
