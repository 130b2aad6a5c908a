//! OCI bundles for benchmarks and tests: the same configuration for every runtime.

use crate::rootfs;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A configuration that runs `argv` in `root`, with every namespace of its own and a container's default capabilities.
pub(crate) fn spec(root: &Path, argv: &[&str]) -> Value {
    let namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({ "type": kind })).collect();
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": argv,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": false },
        "hostname": "bundle",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
        ],
        "linux": { "namespaces": namespaces },
    })
}

/// Writes a bundle with this configuration.
pub(crate) fn write(dir: &Path, spec: &Value) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(spec)?)?;
    Ok(dir.to_path_buf())
}

/// A root file system with one more program in it, in a folder of its own.
pub(crate) fn root_with(program: &Path, dir: &Path) -> Result<PathBuf> {
    rootfs::make(dir, rootfs::Kind::Busybox)?;
    let name = program.file_name().unwrap_or_default();
    rootfs::copy(program, &dir.join("usr/bin").join(name))?;
    Ok(dir.to_path_buf())
}
