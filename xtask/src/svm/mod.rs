//! `cargo xtask svm`: hardware KVM, under emulation.
//!
//! QEMU emulates AMD's virtualisation extensions well enough for Debian's kernel to load the real `kvm-amd` module, so
//! that the KVM platform can be tested as on hardware, on any machine. The kernel's package is unpacked, not
//! installed; the machine boots from an initramfs into a disk made from the host's busybox and Python, runs a list
//! of jobs there, and reports each over a serial line. What it runs: the platform's own tests, the conformance suite
//! (against the answers of the host), busybox, and Python.

mod cpio;
mod guest;
mod jobs;
mod kernel;
mod machine;

pub(crate) use guest::{Args as GuestArgs, run as run_guest};

use crate::build::Profile;
use crate::conformance::{self, Known, Program, Verdict};
use crate::report::{Tally, heading};
use crate::rootfs::{self, Kind};
use crate::{build, setup};
use anyhow::{Context, Result};
use jobs::{Answer, Job, Jobs, guest_path};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How much slower than the host the emulated machine may be.
const SLOWNESS: u64 = 12;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the KVM platform's own tests
    #[arg(long)]
    platform_tests: bool,
    /// Only the conformance suite
    #[arg(long)]
    conformance: bool,
    /// Only busybox and Python in the sandbox
    #[arg(long)]
    programs: bool,
    /// Only the conformance programs whose path contains this
    #[arg(long)]
    filter: Option<String>,
    /// Only this static program with its arguments, on the machine itself; shows what it prints
    #[arg(long, num_args = 1.., value_name = "FILE", allow_hyphen_values = true)]
    run: Vec<String>,
    /// Use the release build
    #[arg(long)]
    release: bool,
    /// The limit for the whole machine, in minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

/// How one answer is judged.
enum Judge {
    /// A Rust test binary: its summary is counted.
    Libtest,
    /// A conformance program: the host's answer.
    Oracle(conformance::Outcome),
    /// Must print exactly this and exit with 0.
    Prints(&'static str),
    /// Shown, not judged, but for its exit status.
    Shown,
}

struct Plan {
    jobs: Vec<Job>,
    judges: BTreeMap<String, Judge>,
    /// What cannot be run there.
    skipped: Tally,
}

impl Plan {
    fn add(&mut self, name: &str, argv: Vec<String>, limit_s: u64, alone: bool, judge: Judge) {
        self.jobs.push(Job { name: name.to_owned(), argv, limit_s, alone });
        self.judges.insert(name.to_owned(), judge);
    }
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let tally = tally(args)?;
    println!("\n{tally}");
    Ok(tally.ok())
}

pub(crate) fn tally(args: &Args) -> Result<Tally> {
    setup::ensure(&[setup::BUILD, setup::EMULATION, rootfs::NEEDS])?;
    let cache = setup::work_dir("svm")?;
    let kernel = kernel::get(&cache)?;
    let root = cache.join("root");
    rootfs::make(&root, if args.run.is_empty() { Kind::Python } else { Kind::Busybox })?;
    let folder = root.join(jobs::FOLDER.trim_start_matches('/'));
    fs::create_dir_all(&folder)?;

    let plan = plan(args, &folder)?;
    if plan.jobs.is_empty() {
        println!("NOT RUN: nothing was chosen");
        return Ok(Tally::skipped());
    }
    start_script(&root, &folder, &plan)?;
    let (initramfs, disk) = (cache.join("initramfs"), cache.join("disk.img"));
    machine::initramfs(&kernel, &initramfs)?;
    machine::disk(&root, &disk)?;

    heading(&format!("Linux {} with kvm-amd, under emulation: {} jobs", kernel.release, plan.jobs.len()));
    let limit = Duration::from_secs(args.minutes * 60);
    let machine =
        machine::Machine { kernel: &kernel, initramfs: &initramfs, disk: &disk, out: &cache, limit };
    let known = Known::read()?;
    let started = Instant::now();
    let mut tally = plan.skipped;
    let mut open = plan.judges;
    let ended = machine.run(|line| match serde_json::from_str::<Answer>(line) {
        Ok(answer) => {
            if let Some(judge) = open.remove(&answer.name) {
                tally += judge_answer(&answer, &judge, &known);
            }
        }
        Err(error) => println!("the machine sent no answer but {line:?} ({error})"),
    });
    if let Err(error) = &ended {
        println!("FAILED: {error:#}");
        tally += Tally::failed();
    }
    for name in open.keys() {
        println!("NO ANSWER: {name}");
        tally += Tally::failed();
    }
    if !open.is_empty() && ended.is_ok() {
        println!("the machine last said:\n{}", machine::tail(&machine.console()));
    }
    println!("{tally} in {:.0} s", started.elapsed().as_secs_f64());
    Ok(tally)
}

fn judge_answer(answer: &Answer, judge: &Judge, known: &Known) -> Tally {
    let outcome = answer.outcome();
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let (tally, complaint) = match judge {
        Judge::Libtest => {
            let mut tally = Tally::default();
            for line in text.lines() {
                tally += crate::test::count_summary(line);
            }
            if outcome.code != Some(0) && tally.failed == 0 {
                tally += Tally::failed();
            }
            (tally, if tally.failed > 0 { text } else { String::new() })
        }
        Judge::Oracle(expected) => {
            let verdict = Verdict::new(expected, &outcome, &known.of(&answer.name), &answer.stderr_tail);
            (verdict.tally, verdict.text)
        }
        Judge::Prints(expected) => {
            let ok = outcome.code == Some(0) && text == *expected;
            let complaint = format!(
                "  exit {:?}, printed {text:?}, expected {expected:?}\n{}",
                outcome.code, answer.stderr_tail
            );
            (Tally::of(ok), if ok { String::new() } else { complaint })
        }
        Judge::Shown => {
            println!("{text}{}", answer.stderr_tail);
            (Tally::of(outcome.code == Some(0)), String::new())
        }
    };
    let word = if tally.failed > 0 { "FAILED" } else { "ok" };
    println!("{word:<7} {} ({:.1} s)", answer.name, Duration::from_millis(answer.elapsed_ms).as_secs_f64());
    if !complaint.is_empty() {
        println!("{}", complaint.trim_end());
    }
    tally
}

/// Chooses the jobs, and copies what they need into the machine's disk.
fn plan(args: &Args, folder: &Path) -> Result<Plan> {
    let mut plan = Plan { jobs: Vec::new(), judges: BTreeMap::new(), skipped: Tally::default() };
    if let Some((program, rest)) = args.run.split_first() {
        rootfs::copy(Path::new(program), &folder.join("program"))?;
        let argv = std::iter::once(guest_path("program")).chain(rest.iter().cloned()).collect();
        // It is to be over before the machine is, so that what it said is seen.
        plan.add("program", argv, (args.minutes * 60).saturating_sub(60).max(30), true, Judge::Shown);
        return Ok(plan);
    }
    let all = !(args.platform_tests || args.conformance || args.programs);
    if args.platform_tests || all {
        platform_tests(&mut plan, folder)?;
    }
    if args.conformance || args.programs || all {
        let profile = if args.release { Profile::Release } else { Profile::Debug };
        rootfs::copy(&build::quicksand(profile)?, &folder.join("quicksand"))?;
    }
    if args.programs || all {
        programs(&mut plan);
    }
    if args.conformance || all {
        conformance_programs(&mut plan, folder, args)?;
    }
    Ok(plan)
}

fn platform_tests(plan: &mut Plan, folder: &Path) -> Result<()> {
    for binary in build::test_binaries("quicksand-platform-kvm")? {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        rootfs::copy(&binary, &folder.join(&name))?;
        // Cargo's suffix changes with every build and says nothing.
        let plain = name.rsplit_once('-').map_or(name.as_str(), |(plain, _)| plain);
        let argv = vec![guest_path(&name), "--test-threads=2".to_owned()];
        plan.add(&format!("platform-kvm/{plain}"), argv, 1200, true, Judge::Libtest);
    }
    Ok(())
}

/// `quicksand do …` in the machine.
fn in_sandbox(argv: &[&str]) -> Vec<String> {
    let quicksand = guest_path("quicksand");
    let prefix = [quicksand.as_str(), "--root", "/run/quicksand", "--platform", "kvm", "do"];
    prefix.iter().chain(argv).map(ToString::to_string).collect()
}

fn programs(plan: &mut Plan) {
    let echo = in_sandbox(&["/bin/busybox", "echo", "hello from the sandbox"]);
    plan.add("programs/busybox-echo", echo, 120, true, Judge::Prints("hello from the sandbox\n"));
    let pipeline = "for i in 3 1 2; do echo $i; done | sort | tr '\\n' ' '; echo; ls /proc/self/fd >/dev/null && echo ok";
    let pipeline = in_sandbox(&["/bin/sh", "-c", pipeline]);
    plan.add("programs/busybox-sh", pipeline, 240, true, Judge::Prints("1 2 3 \nok\n"));
    let python = in_sandbox(&["/usr/bin/python3", "-c", "print(sum(range(10)))"]);
    plan.add("programs/python", python, 600, true, Judge::Prints("45\n"));
    let imports = "import json, re, os, http.server, threading, subprocess\n\
                   t = threading.Thread(target=lambda: print(json.dumps({'thread': True})))\n\
                   t.start(); t.join()\n\
                   print(subprocess.run(['/bin/echo', 'child'], capture_output=True, text=True).stdout, end='')";
    let imports = in_sandbox(&["/usr/bin/python3", "-c", imports]);
    plan.add("programs/python-imports", imports, 900, true, Judge::Prints("{\"thread\": true}\nchild\n"));
}

/// The suite's programs, and what each says on the host.
fn conformance_programs(plan: &mut Plan, folder: &Path, args: &Args) -> Result<()> {
    let out = setup::work_dir("conformance")?;
    let mut programs = conformance::programs(args.filter.as_deref())?;
    for program in programs.extract_if(.., |program| program.real_processor) {
        println!("NOT RUN: {}: it needs a real processor", program.name);
        plan.skipped += Tally::skipped();
    }
    fs::create_dir_all(folder.join("conformance"))?;
    let prepare = |program: &Program| -> Result<conformance::Outcome> {
        let binary = program.compile(&out)?;
        conformance::on_host(program, &binary, &out)
    };
    let expected = conformance::in_parallel(&programs, prepare);
    for (program, expected) in programs.iter().zip(expected) {
        let expected = expected.with_context(|| program.name.clone())?;
        let place = format!("conformance/{}", program.file_stem());
        rootfs::copy(&program.compile(&out)?, &folder.join(&place))?;
        let limit_s = program.limit.as_secs() * SLOWNESS;
        plan.add(&program.name, in_sandbox(&[&guest_path(&place)]), limit_s, false, Judge::Oracle(expected));
    }
    Ok(())
}

/// The machine's second script, and the jobs beside it.
fn start_script(root: &Path, folder: &Path, plan: &Plan) -> Result<()> {
    let ourselves = std::env::current_exe().context("our own binary")?;
    rootfs::copy(&ourselves, &folder.join("xtask"))?;
    fs::write(folder.join("jobs.json"), serde_json::to_vec(&Jobs { jobs: plan.jobs.clone() })?)?;
    let script = format!(
        "#!/bin/sh\n\
         export PATH=/usr/sbin:/usr/bin\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t cgroup2 cgroup /sys/fs/cgroup\n\
         mkdir -p /dev/pts /dev/shm\n\
         mount -t devpts -o ptmxmode=0666 devpts /dev/pts\n\
         mount -t tmpfs tmpfs /dev/shm\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t tmpfs tmpfs /tmp\n\
         hostname emulated\n\
         ip link set lo up\n\
         stty -F /dev/ttyS1 raw -echo\n\
         ls -l /dev/kvm\n\
         {xtask} svm-guest {jobs} /dev/ttyS1\n\
         echo \"the jobs ended with $?\"\n\
         poweroff -f\n",
        xtask = guest_path("xtask"),
        jobs = guest_path("jobs.json"),
    );
    let start = root.join("usr/sbin/start");
    fs::write(&start, script)?;
    rootfs::set_mode(&start, 0o755)
}
