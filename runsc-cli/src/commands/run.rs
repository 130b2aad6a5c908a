//! `run`: create, start, wait, delete.

use super::create::{self, bundle_dir, write_pid_file};
use super::{foreground, stdio};
use crate::cli::{Global, RunArgs};
use crate::error::Result;
use crate::hooks;
use crate::launch::Plan;
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
    let signals = (!args.detach).then(super::signals::take).transpose()?;
    let streams = stdio::for_process(&process, args.create.console_socket.as_deref(), args.detach)?;
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
        start: true,
        begun_ns: started_ns,
        timeline,
    };
    let mut launched = plan.launch()?;
    if let (Some(format), Some(report)) = (args.stats, &mut launched.restored) {
        report.count_pages(launched.child.pid);
        crate::error::complain(format_args!("{}", report.show(format)?));
    }
    if let Some(path) = &args.create.pid_file
        && let Err(e) = write_pid_file(path, launched.child.pid)
    {
        crate::launch::kill(&launched.child);
        crate::launch::wait(&launched.child);
        launched.container.remove()?;
        return Err(e);
    }
    let Some(signals) = signals else {
        if let Some(recorder) = launched.recorder.take() {
            launched.container.unlock();
            recorder.wait(launched.child.pid);
        }
        return Ok(0);
    };
    let end = foreground::wait(&mut launched, streams.master, &signals)?;
    launched.container.relock();
    let state = launched.container.state.to_oci();
    if !args.keep {
        launched.container.remove()?;
        hooks::run_lenient("poststop", &hooks.poststop, &state);
    }
    foreground::exit_code(end)
}
