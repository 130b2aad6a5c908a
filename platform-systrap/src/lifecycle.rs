//! Ends of stubs and of the Sentry: whoever waits is told, and nothing stays behind.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use quicksand_abi::UserAddr;
use quicksand_platform::{Backing, Platform, Prot};
use quicksand_platform_conformance::code::Code;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::testing::{DATA, Guest, PAGE, assert_well, platform, range};

/// lock incq (%rbx); jmp 0
fn counting() -> Code {
    Code::new().raw(&[0xf0, 0x48, 0xff, 0x03]).jump(0)
}

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).expect("a pid"), PidfdFlags::empty()).expect("pidfd_open")
}

fn assert_ends(process: &OwnedFd) {
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)).expect("poll"), 1, "it still runs");
}

#[test]
fn whoever_waits_for_a_killed_stub_is_told() {
    let platform = platform();
    let mut first = Guest::new(&platform, &counting());
    let mut second = Guest::in_space(&platform, &first.space);
    let mut idle = Guest::in_space(&platform, &first.space);
    let space = first.space.clone();
    let process = pidfd(first.own().stub.process.pid());
    let (sender, losses) = std::sync::mpsc::channel();
    platform.on_loss(Box::new(move || sender.send(()).expect("the test waits")));
    std::thread::scope(|scope| {
        scope.spawn(|| first.run().expect_err("killed"));
        scope.spawn(|| second.run().expect_err("killed"));
        let counted = || space.load_u32(UserAddr(DATA)).expect("load");
        let start = counted();
        while counted() < start + 1000 {
            std::thread::yield_now();
        }
        pidfd_send_signal(&process, Signal::KILL).expect("kill");
    });
    losses.recv_timeout(std::time::Duration::from_secs(10)).expect("a word of it");
    assert!(space.is_lost());
    idle.run().expect_err("killed");
    assert!(space.map(range(DATA, PAGE), Prot::RW, Backing::Anonymous).is_err());
    assert!(space.read(UserAddr(DATA), &mut [0]).is_err());
    assert!(space.compare_exchange_u32(UserAddr(DATA), 0, 1).is_err());
    assert!(space.fork().is_err());
    assert_well(&platform);
    assert!(losses.try_recv().is_err(), "of those that were to end");
}

#[test]
fn without_the_first_stub_there_are_no_more() {
    let platform = platform();
    assert_well(&platform);
    let pristine = platform.shared.pristine_pid();
    pidfd_send_signal(pidfd(pristine), Signal::KILL).expect("kill");
    assert!(platform.address_space().is_err());
}

#[test]
fn dropped_spaces_end() {
    let platform = platform();
    let guest = Guest::new(&platform, &counting());
    let child = guest.space.fork().expect("fork");
    let own = pidfd(guest.own().stub.process.pid());
    drop(guest);
    assert_ends(&own);
    child.write(UserAddr(DATA), &[1]).expect("the child lives on");
    let pristine = pidfd(platform.shared.pristine_pid());
    drop(child);
    drop(platform);
    assert_ends(&pristine);
}

const HELPER: &str = "QUICKSAND_SYSTRAP_HELPER";

/// The process that is killed by the test below; by itself it does nothing.
#[test]
fn helper() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let platform = platform();
    let mut guest = Guest::new(&platform, &counting());
    let child = Guest::in_space(&platform, &guest.space.fork().expect("fork"));
    let grandchild = Guest::in_space(&platform, &child.space.fork().expect("fork"));
    println!(
        "\nstubs {} {} {} {}",
        platform.shared.pristine_pid(),
        guest.own().stub.process.pid(),
        child.own().stub.process.pid(),
        grandchild.own().stub.process.pid()
    );
    let _ = guest.run();
}

#[test]
fn a_killed_sentry_leaves_no_process() {
    for _ in 0..5 {
        let mut helper = Command::new(std::env::current_exe().expect("path"))
            .args(["--exact", "lifecycle::helper", "--nocapture"])
            .env(HELPER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the helper");
        let mut lines = BufReader::new(helper.stdout.take().expect("stdout")).lines();
        let line = lines.find_map(|line| line.ok()?.strip_prefix("stubs ").map(str::to_owned));
        let stubs: Vec<OwnedFd> =
            line.expect("pids").split(' ').map(|pid| pidfd(pid.parse().expect("a pid"))).collect();
        assert_eq!(stubs.len(), 4);
        helper.kill().expect("kill");
        stubs.iter().for_each(assert_ends);
        helper.wait().expect("wait");
    }
}

#[test]
fn many_threads_come_and_go() {
    let platform = platform();
    let first = Guest::new(&platform, &Code::new().syscall());
    for round in 0..20 {
        let mut guests: Vec<Guest> = (0..8).map(|_| Guest::in_space(&platform, &first.space)).collect();
        for guest in &mut guests {
            guest.run().unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
    let threads = platform.counters().into_iter().find(|(name, _)| *name == "stub_threads");
    assert_eq!(threads.map(|(_, n)| n), Some(8));
}
