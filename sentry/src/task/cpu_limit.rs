//! RLIMIT_CPU: SIGXCPU each second from the soft limit on, SIGKILL at the hard one.
//!
//! Nothing ticks: where a process has a limit, a timer is armed for the earliest moment at which it can have used that much
//! (all processors busy with it), and armed again for what is then still missing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quicksand_abi::SigInfo;

use super::rlimit::{INFINITY, Rlimit};
use super::{Resource, ThreadGroup, sched};
use crate::kernel::Kernel;
use crate::signal::send_to_group;
use crate::time::service::Expire;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(4);

/// Watches one process.
#[derive(Debug)]
pub(super) struct CpuLimit {
    group: Weak<ThreadGroup>,
}

impl Expire for CpuLimit {
    fn expire(self: Arc<Self>, kernel: &Arc<Kernel>) {
        let Some(group) = self.group.upgrade() else { return };
        let limit = group.rlimit(Resource::Cpu);
        if limit.soft == INFINITY || group.is_dead() {
            return;
        }
        let used = group.cpu_times().total();
        if used.as_secs() >= limit.hard {
            // SIGKILL is never over a limit.
            let _ = send_to_group(&group, SigInfo::kernel(libc::SIGKILL));
            return;
        }
        if used.as_secs() >= limit.soft {
            // Neither is SIGXCPU. The next one comes a second later: the soft limit moves on.
            let _ = send_to_group(&group, SigInfo::kernel(libc::SIGXCPU));
            let next = Rlimit { soft: limit.soft.max(used.as_secs()).saturating_add(1), ..limit };
            group.state.lock().rlimits.set(Resource::Cpu, next);
        }
        arm(kernel, &group);
    }
}

/// Begins to watch where there is a limit: after `setrlimit`, `fork`, and at the start of a container's process.
pub(crate) fn arm(kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>) {
    let limit = group.rlimit(Resource::Cpu).soft;
    if limit == INFINITY {
        return;
    }
    let watch = group.cpu_limit.get_or_init(|| Arc::new(CpuLimit { group: Arc::downgrade(group) })).clone();
    let left = Duration::from_secs(limit).saturating_sub(group.cpu_times().total());
    let wait = (left / sched::cpu_count()).max(SHORTEST);
    let at = kernel.clocks.monotonic().saturating_add(wait);
    let watch: Arc<dyn Expire> = watch;
    kernel.timers.arm(kernel, at, Arc::downgrade(&watch));
}
