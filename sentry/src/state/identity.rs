//! What must differ between copies of one container, in one place. A restore goes through [`renew`]; a test proves each line.
//!
//! | what | how it differs |
//! |---|---|
//! | `getrandom(2)`, `/dev/urandom` | the host's generator is asked each time; the Sentry keeps no bytes of it |
//! | boot id | made with each kernel, never stored |
//! | CLOCK_REALTIME, CLOCK_TAI | the host's |
//! | CLOCK_MONOTONIC, CLOCK_BOOTTIME | go on from the checkpoint: never back, and deadlines keep the time they had left |
//! | AT_RANDOM | sixteen new bytes in each address space, for what reads them after the restore |
//! | host name | the new container's |
//! | host pids, descriptors, cgroup, container id, network namespace | the new container's; none of them is ever stored |
//! | TCP sequence numbers, ephemeral ports | the host's, in the new network namespace |
//! | TCP connections | are not carried over |
//! | `start_time` | begins with the restore; processor times go on |
//!
//! What a program has drawn before the checkpoint and keeps (a generator's state, keys, the layout of its memory) is in every copy.

use quicksand_abi::UserAddr;

use super::records as rec;
use crate::kernel::{Container, Kernel};
use crate::mm::MemoryManager;

/// The auxiliary vector's entry that leads to sixteen random bytes.
const AT_RANDOM: u64 = 25;

/// Gives a container that is being restored what it must not share with others. Nothing has been made from records yet.
pub(super) fn renew(container: &Container, sandbox: &rec::Sandbox) {
    let clocks = &container.kernel.clocks;
    let ahead = i128::from(sandbox.monotonic_ns) - i128::from(clocks.monotonic().0);
    // An image that claims a time that no clock can show leaves the clock as it is.
    if let Ok(ahead) = i64::try_from(ahead) {
        clocks.set_monotonic_offset_ns(ahead);
    }
    if container.names().0.is_empty() {
        container.set_hostname(sandbox.host_name.clone());
    }
    container.set_domainname(sandbox.domain_name.clone());
}

/// As [`renew`], for one address space, whose mappings are there.
pub(super) fn renew_memory(kernel: &Kernel, mm: &MemoryManager) {
    let auxv = mm.marks().auxv;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0);
    let entry = auxv.chunks_exact(16).find(|entry| word(&entry[..8]) == AT_RANDOM);
    let Some(entry) = entry else { return };
    let mut bytes = [0; 16];
    kernel.random(&mut bytes);
    // Where the program has unmapped it, nobody can read it.
    let _ = mm.space.write_forced(UserAddr(word(&entry[8..])), &bytes);
}
