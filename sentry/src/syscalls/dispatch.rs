//! From a raw system call to its handler. The only place that looks into the table at run time.

use quicksand_abi::Errno;

use super::{SyscallResult, strace, table};
use crate::task::CurrentTask;

/// Calls the handler of `number`, and does what it had to put off. An unknown or unsupported number answers ENOSYS, and is
/// logged once by name.
pub fn dispatch(task: &CurrentTask, number: u64, args: &[u64; 6]) -> SyscallResult {
    let result = call(task, number, args);
    crate::sync::run_deferred();
    result
}

fn call(task: &CurrentTask, number: u64, args: &[u64; 6]) -> SyscallResult {
    let Some(call) = table::lookup(number) else {
        task.kernel().log_once(number, || format!("system call {number} is unknown; ENOSYS"));
        return Err(Errno::ENOSYS.into());
    };
    let Some(handler) = call.handler else {
        task.kernel().log_once(number, || format!("system call {} is not supported; ENOSYS", call.name));
        if task.kernel().strace() {
            task.trace(&format!("{} = -1 ENOSYS (not supported)", strace::format_call(task, call, args)));
        }
        return Err(Errno::ENOSYS.into());
    };
    if !task.kernel().strace() {
        return handler(task, args);
    }
    let shown = strace::format_call(task, call, args);
    let result = handler(task, args);
    task.trace(&format!("{shown}{}", strace::format_result(&result)));
    result
}
