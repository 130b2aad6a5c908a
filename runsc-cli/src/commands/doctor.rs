//! `doctor`: what this machine offers, and what to do about what it lacks.

use std::fs;
use std::path::Path;

use rustix::fs::Access;
use serde::Serialize;

use crate::cli::{DoctorArgs, DoctorFormat};
use crate::costs;
use crate::error::{Context, Result};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Good,
    /// Works, with something missing.
    Limited,
    /// Sandboxes cannot run.
    Missing,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

pub fn run(args: &DoctorArgs) -> Result<u8> {
    // First, because measuring forks, which only a process with one thread may; KVM starts some in its user.
    let systrap = systrap();
    let findings =
        [kernel(), kvm(), systrap, userfaultfd(), user_namespaces(), cgroups(), rights(), descriptors()];
    match args.format {
        DoctorFormat::Json => crate::say!("{}", serde_json::to_string_pretty(&findings).context("doctor")?),
        DoctorFormat::Text => {
            for f in &findings {
                let mark = match f.verdict {
                    Verdict::Good => "ok",
                    Verdict::Limited => "limited",
                    Verdict::Missing => "MISSING",
                };
                crate::say!("{:8} {:16} {}", mark, f.name, f.found);
                if let Some(advice) = &f.advice {
                    crate::say!("{:8} {:16} -> {advice}", "", "");
                }
            }
        }
    }
    let broken = findings.iter().any(|f| f.verdict == Verdict::Missing);
    Ok(u8::from(broken))
}

fn good(name: &'static str, found: impl Into<String>) -> Finding {
    Finding { name, verdict: Verdict::Good, found: found.into(), advice: None }
}

fn bad(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: &str) -> Finding {
    Finding { name, verdict, found: found.into(), advice: Some(advice.to_owned()) }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= (5, 12) {
        true => good("Linux", release),
        false => bad(
            "Linux",
            Verdict::Missing,
            release,
            "Linux 5.12 or later is needed (mount_setattr, openat2, clone3)",
        ),
    }
}

fn kvm() -> Finding {
    match quicksand_platform_kvm::probe() {
        Ok(report) => good(
            "KVM",
            format!(
                "API {}; a system call costs {:.1} us{}, a page fault {:.1} us, a VM {:.0} us, a vCPU {:.0} us",
                report.api_version,
                report.syscall_us,
                if report.syscall_quirk { " (nested, without hardware support)" } else { "" },
                report.fault_us,
                report.create_vm_us,
                report.create_vcpu_us
            ),
        ),
        Err(e) => bad(
            "KVM",
            Verdict::Limited,
            e.to_string(),
            "load kvm_intel or kvm_amd, and give this user /dev/kvm (usually: usermod -aG kvm USER); until then systrap is used",
        ),
    }
}

fn systrap() -> Finding {
    let costs = costs::remembered();
    let chosen = if costs.prefers_kvm() { "kvm" } else { "systrap" };
    match costs.systrap_us {
        Some(us) => {
            good("systrap", format!("a system call costs {us:.1} us; --platform=auto means {chosen} here"))
        }
        None => bad(
            "systrap",
            if costs.prefers_kvm() { Verdict::Limited } else { Verdict::Missing },
            format!("does not work; --platform=auto means {chosen} here"),
            "needed where KVM is not: a processor with FSGSBASE, Linux 5.11 or later, and seccomp filters",
        ),
    }
}

fn userfaultfd() -> Finding {
    let device = rustix::fs::access("/dev/userfaultfd", Access::READ_OK | Access::WRITE_OK).is_ok();
    let open = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|s| s.trim() == "1");
    match device || open {
        true => good("userfaultfd", if device { "/dev/userfaultfd" } else { "for everybody" }),
        false => bad(
            "userfaultfd",
            Verdict::Limited,
            "not for this user",
            "images that cannot be mapped will be read as a whole; chmod 0666 /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1",
        ),
    }
}

fn user_namespaces() -> Finding {
    let max = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let max: u64 = max.ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
    let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        .is_ok_and(|s| s.trim() == "1");
    let root = rustix::process::geteuid().is_root();
    match (max > 0, restricted && !root) {
        (true, false) => good("user namespaces", format!("up to {max}")),
        (true, true) => bad(
            "user namespaces",
            Verdict::Missing,
            "AppArmor forbids them to ordinary users",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root",
        ),
        (false, _) => {
            bad("user namespaces", Verdict::Missing, "forbidden", "sysctl user.max_user_namespaces=10000")
        }
    }
}

fn cgroups() -> Finding {
    let root = Path::new("/sys/fs/cgroup");
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    if root.join("cgroup.controllers").exists() {
        return match writable(root) {
            true => good("cgroups", "version 2"),
            false => bad(
                "cgroups",
                Verdict::Limited,
                "version 2, not for this user",
                "limits are not applied; delegate a subtree, or run as root",
            ),
        };
    }
    let mounted: Vec<&str> =
        ["pids", "memory", "cpu", "freezer"].into_iter().filter(|c| writable(&root.join(c))).collect();
    match mounted.is_empty() {
        false => good("cgroups", format!("version 1: {}", mounted.join(", "))),
        true => bad(
            "cgroups",
            Verdict::Limited,
            "none to write to",
            "limits are not applied; mount the cgroup file system, or use --ignore-cgroups",
        ),
    }
}

fn rights() -> Finding {
    match rustix::process::geteuid().is_root() {
        true => good("rights", "root"),
        false => bad(
            "rights",
            Verdict::Limited,
            format!("user {}", rustix::process::geteuid().as_raw()),
            "works, in a user namespace with one id: files of other owners show as nobody's, and chown to them fails",
        ),
    }
}

fn descriptors() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.maximum {
        Some(n) if n < 65536 => bad(
            "descriptors",
            Verdict::Limited,
            format!("at most {n}"),
            "the Sentry needs one for each file that a guest has open: raise the hard RLIMIT_NOFILE",
        ),
        Some(n) => good("descriptors", format!("up to {n}")),
        None => good("descriptors", "no limit"),
    }
}
