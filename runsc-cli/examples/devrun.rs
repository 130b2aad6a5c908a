use quicksand_sentry::boot::*;
use quicksand_sentry::kernel::*;
use quicksand_sentry::task::credentials::Caps;
use quicksand_sentry::task::{ExitStatus, Rlimits};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut args: Vec<Vec<u8>> =
        std::env::args_os().skip(1).map(|a| std::os::unix::ffi::OsStringExt::into_vec(a)).collect();
    let mut uid = 0;
    if args[0].starts_with(b"-u") {
        args.remove(0);
        uid = 1000;
    }
    let platform = Arc::new(quicksand_platform_kvm::KvmPlatform::new(None).unwrap());
    let kernel = Kernel::new(KernelConfig { platform, strace: std::env::var("STRACE").is_ok() });
    let root: OwnedFd = std::fs::File::open("/").unwrap().into();
    let tmp = |d: &str, kind: MountKind| MountConfig {
        destination: d.into(),
        kind,
        flags: quicksand_sentry::vfs::MountFlags::empty(),
        source: b"tmpfs".to_vec(),
        data: vec![],
    };
    let container = kernel
        .create_container(ContainerConfig {
            id: "dev".into(),
            hostname: b"dev".to_vec(),
            domainname: b"(none)".to_vec(),
            root: RootConfig { source: RootSource::Directfs(root), readonly: false, overlay: true },
            mounts: vec![
                tmp("/tmp", MountKind::Tmpfs),
                tmp("/proc", MountKind::Proc),
                tmp("/sys", MountKind::Sysfs),
                tmp("/dev", MountKind::Dev),
                tmp("/dev/pts", MountKind::Devpts),
                tmp("/dev/shm", MountKind::Shm),
            ],
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            pids_limit: Some(2000),
        })
        .unwrap();
    let caps = if uid == 0 { Caps::all() } else { Caps::empty() };
    let dup = |f: std::os::fd::BorrowedFd<'_>| f.try_clone_to_owned().unwrap();
    let envp = std::env::vars()
        .filter(|v| v.0 != "LD_LIBRARY_PATH")
        .map(|(k, v)| format!("{k}={v}").into_bytes())
        .collect();
    let group = container
        .start(ProcessConfig {
            argv: args,
            envp,
            cwd: b"/tmp".to_vec(),
            uid,
            gid: uid,
            groups: vec![],
            umask: 0o22,
            caps: CapSets {
                permitted: caps,
                effective: caps,
                inheritable: Caps::empty(),
                bounding: caps,
                ambient: Caps::empty(),
            },
            rlimits: Rlimits::default(),
            no_new_privs: false,
            stdio: [
                dup(std::io::stdin().as_fd()),
                dup(std::io::stdout().as_fd()),
                dup(std::io::stderr().as_fd()),
            ],
            terminal: false,
        })
        .unwrap_or_else(|e| {
            eprintln!("{e}");
            std::process::exit(128)
        });
    let code = match group.wait_host() {
        ExitStatus::Code(c) => i32::from(c),
        ExitStatus::Signal { signal, .. } => {
            eprintln!("killed by {signal}");
            128 + signal
        }
    };
    std::process::exit(code);
}
