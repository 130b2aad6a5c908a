//! OCI bundles for the benchmarks: the same configuration for every runtime.

use crate::rootfs;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a bundle that runs `argv` in `root`, read and write, with a network namespace of its own.
pub(crate) fn write(dir: &Path, root: &Path, argv: &[&str]) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({ "type": kind })).collect();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": argv,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": false },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
        ],
        "linux": { "namespaces": namespaces },
    });
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    Ok(dir.to_path_buf())
}

/// A root file system with one more program in it, in a folder of its own.
pub(super) fn root_with(program: &Path, dir: &Path) -> Result<PathBuf> {
    rootfs::make(dir, rootfs::Kind::Busybox)?;
    let name = program.file_name().unwrap_or_default();
    rootfs::copy(program, &dir.join("usr/bin").join(name))?;
    Ok(dir.to_path_buf())
}
