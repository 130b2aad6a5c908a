//! Processor-time clocks: until tasks count their time, there are none.

use quicksand_abi::{Errno, UserAddr};

use super::clock_id::CpuClockId;
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

pub(super) fn now_ns(_: &CurrentTask, _: CpuClockId) -> Result<i64, Errno> {
    Err(Errno::EINVAL)
}

pub(super) fn nanosleep(_: &CurrentTask, _: CpuClockId, _: bool, _: UserAddr, _: UserAddr) -> SyscallResult {
    Err(Errno::EINVAL.into())
}
