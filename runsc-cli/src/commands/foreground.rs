//! Waiting for a container's end: signals are passed on, and the terminal is relayed.

use std::os::fd::{AsFd, OwnedFd};

use quicksand_host::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use crate::console::{self, RawMode, pump};
use crate::control::{self, Request, Target};
use crate::error::{Context, Result};
use crate::fail;
use crate::launch::{self, End, Launched};

/// Waits until the sandbox has ended.
pub fn wait(launched: &mut Launched, master: Option<OwnedFd>, signals: &SignalFd) -> Result<End> {
    launched.container.unlock();
    let (pid, mut recorder) = (launched.child.pid, launched.recorder.take());
    let first_output = recorder.as_ref().map(|recorder| recorder.first_output.try_clone());
    let first_output = first_output.transpose().context("a descriptor")?;
    let also = first_output.map(|fd| (fd, || recorder.take().into_iter().for_each(|r| r.record(pid))));
    relay(&launched.child.pidfd, master, signals, also, &mut |signal| {
        // A signal from the terminal goes to the whole foreground group, as the kernel would send it; with a terminal of its
        // own the sandbox is told by that one's line discipline, and gets here only what was meant for the container.
        let request = Request::Signal { signal, target: Target::Own };
        if let Err(e) = control::send(&launched.channel, &request, &[]) {
            tracing::debug!("passing on signal {signal}: {e}");
        }
    })?;
    Ok(launch::wait(&launched.child))
}

/// What a shell would report for a container that ended so.
pub fn exit_code(end: End) -> Result<u8> {
    match end {
        End::Code(code) => Ok(code),
        End::Killed(libc::SIGKILL) => Ok(137),
        killed => fail!("the sandbox died ({})", launch::describe(killed)),
    }
}

/// Passes signals and terminal bytes on until `end` becomes readable. Something may `also` be done once, when its descriptor
/// becomes readable.
pub fn relay(
    end: &OwnedFd,
    master: Option<OwnedFd>,
    signals: &SignalFd,
    mut also: Option<(OwnedFd, impl FnOnce())>,
    on_signal: &mut dyn FnMut(i32),
) -> Result<()> {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let raw = match &master {
        Some(_) if console::is_terminal(input.as_fd()) => Some(RawMode::enter(input.as_fd())?),
        _ => None,
    };
    let mut reads_input = master.is_some();
    loop {
        let signal_fd = signals.as_fd();
        let mut fds = vec![PollFd::new(end, PollFlags::IN), PollFd::new(&signal_fd, PollFlags::IN)];
        if let Some(master) = &master {
            fds.push(PollFd::new(master, PollFlags::IN));
        }
        if reads_input {
            fds.push(PollFd::new(&input, PollFlags::IN));
        }
        if let Some((fd, _)) = &also {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        // EINTR: nothing is ready then.
        let _ = poll(&mut fds, None);
        let is = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, signalled) = (is(0), is(1));
        let from_master = master.is_some() && is(2);
        let from_input = reads_input && is(2 + usize::from(master.is_some()));
        let from_also = also.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if let Some((_, act)) = also.take_if(|_| from_also) {
            act();
        }
        if let (true, Some(master)) = (from_master, &master) {
            let more = pump(master.as_fd(), output.as_fd());
            if more && !ended {
                continue;
            }
        }
        if ended {
            break;
        }
        if signalled {
            while let Ok(Some(taken)) = signals.take() {
                match (&master, taken.signal) {
                    (Some(master), libc::SIGWINCH) => console::copy_size(input.as_fd(), master.as_fd()),
                    (_, signal) => on_signal(signal),
                }
            }
        }
        if let (true, Some(master)) = (from_input, &master) {
            reads_input = pump(input.as_fd(), master.as_fd());
        }
    }
    if let Some(master) = &master {
        drain(master, output.as_fd());
    }
    drop(raw);
    Ok(())
}

/// What the program wrote to its terminal before it ended.
fn drain(master: &OwnedFd, output: std::os::fd::BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut fds, Some(&now)).unwrap_or(0);
        if ready == 0 || !fds[0].revents().contains(PollFlags::IN) || !pump(master.as_fd(), output) {
            return;
        }
    }
}
