//! `run`: create, start, wait, delete.

use super::create::{self, bundle_dir, write_pid_file};
use super::entry::{self, Outcome, Watch};
use super::{foreground, invoke, stdio};
use crate::cli::{EntryArgs, Global, RunArgs};
use crate::error::Result;
use crate::fail;
use crate::hooks;
use crate::launch::{Launched, Plan};
use crate::spec::Spec;
use crate::timeline::Timeline;

pub fn run(global: &Global, args: RunArgs, started_ns: u64) -> Result<u8> {
    let bundle = bundle_dir(&args.create.bundle)?;
    let spec = Spec::load(&bundle)?;
    let global = &global.with_annotations(&spec.annotations)?;
    create::check_preserved(args.create.preserve_fds)?;
    let mut timeline = Timeline::new(global.timeline_fd)?;
    timeline.event("process_start", started_ns);
    let process = spec.process.clone().unwrap_or_default();
    let watched = args.entry.checkpoint_at.is_some();
    Watch::check(&args.entry)?;
    let event = args.event.invoke.as_deref().map(invoke::read_event).transpose()?;
    if event.is_some() && (args.detach || process.terminal || watched) {
        fail!("--invoke prints a response and ends: it goes with no terminal, --detach or --checkpoint-at");
    }
    let signals = (!args.detach).then(super::signals::take).transpose()?;
    let mut streams = stdio::for_process(&process, args.create.console_socket.as_deref(), args.detach)?;
    if event.is_some() {
        streams.keep_output()?;
    }
    let hooks = spec.hooks.clone();
    let plan = Plan {
        global,
        id: args.create.id,
        bundle,
        spec,
        stdio: streams.stdio,
        image: args.image,
        record: args.record,
        controls_terminal: streams.terminal,
        foreground: !args.detach,
        start: !watched,
        begun_ns: started_ns,
        timeline,
    };
    let mut launched = plan.launch()?;
    if let (Some(format), Some(report)) = (args.stats, &mut launched.restored) {
        report.count_pages(launched.child.pid);
        crate::error::complain(format_args!("{}", report.show(format)?));
    }
    let written =
        args.create.pid_file.as_ref().map_or(Ok(()), |path| write_pid_file(path, launched.child.pid));
    let watch = written.and_then(|()| begin(&args.entry, &mut launched));
    let watch = match watch {
        Ok(watch) => watch,
        Err(e) => {
            crate::launch::kill(&launched.child);
            crate::launch::wait(&launched.child);
            launched.container.remove()?;
            return Err(e);
        }
    };
    let Some(signals) = signals else {
        launched.container.unlock();
        if let Some(recorder) = launched.recorder.take() {
            recorder.wait(launched.child.pid);
        }
        return match watch.map(Watch::wait).transpose()? {
            None | Some(Outcome::Taken) => Ok(0),
            Some(Outcome::NotReached(words)) => {
                entry::not_reached(&words);
                Ok(entry::NOT_REACHED)
            }
        };
    };
    let watch = watch.map(Watch::spawn).transpose()?;
    let invocation = event.map(|event| {
        invoke::spawn_and_end(&launched.container.control_socket(), event, args.event.invoke_timeout)
    });
    let invocation = invocation.transpose()?;
    let end = foreground::wait(&mut launched, streams.master, &signals)?;
    launched.container.relock();
    let state = launched.container.state.to_oci();
    let invoked = invocation.map(invoke::exit_code);
    let code = entry::exit_code(watch, args.entry.leave_running, foreground::exit_code(end));
    if !args.keep {
        launched.container.remove()?;
        hooks::run_lenient("poststop", &hooks.poststop, &state);
    }
    invoked.unwrap_or(code)
}

/// Begins to watch, where that is wanted, and starts what is watched.
pub fn begin(args: &EntryArgs, launched: &mut Launched) -> Result<Option<Watch>> {
    let watch = Watch::begin(args, &launched.container)?;
    if watch.is_some() {
        launched.start()?;
    }
    Ok(watch)
}
