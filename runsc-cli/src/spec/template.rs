//! The spec that `quicksand spec` writes: a shell in `rootfs`, with what every Linux program expects to find.

use super::{Capabilities, Linux, Mount, Namespace, OCI_VERSION, Process, Rlimit, Root, Spec};

/// A fresh spec that runs `args`.
pub fn template(args: Vec<String>, terminal: bool) -> Spec {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let caps = strings(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: kind.into(),
        options: strings(options),
    };
    let namespaces = ["pid", "network", "ipc", "uts", "mount"];
    Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(Process {
            terminal,
            args,
            env: strings(&[
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ]),
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: caps.clone(),
                effective: caps.clone(),
                permitted: caps,
                ..Capabilities::default()
            }),
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 1024, hard: 1024 }],
            no_new_privileges: true,
            ..Process::default()
        }),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        hostname: "quicksand".into(),
        mounts: vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        linux: Linux {
            namespaces: namespaces
                .iter()
                .map(|kind| Namespace { kind: (*kind).into(), path: String::new() })
                .collect(),
            masked_paths: strings(&["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"]),
            readonly_paths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]),
            ..Linux::default()
        },
        ..Spec::default()
    }
}
