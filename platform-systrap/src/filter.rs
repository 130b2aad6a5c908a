//! The system call filters of a stub, as BPF programs.
//!
//! A stub's agent may make the calls that it needs, from the stub's code only. Its guest threads have a second filter on top (the
//! kernel takes the strictest answer): everything traps but `rt_sigreturn`, `futex` on the areas, and a few operations on the
//! guest's own memory (`errand.rs`), each from the one instruction that the stub has for it. What traps becomes SIGSYS, which is how a guest's system calls are seen.
//!
//! Since 6.14 Linux lets two calls pass any filter, `uretprobe` and `uprobe` (335, 336): outside of trampolines of the kernel's own
//! the former raises SIGILL (`frame.rs`) and the latter fails with ENXIO.

use crate::errand;
use crate::layout::{AREAS, AREAS_LEN, FORK_FLAGS, IMAGE, STUB_START, THREAD_FLAGS};

/// Instruction pointers behind the calls that guest threads may make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestCalls {
    pub(crate) futex: [u64; 2],
    pub(crate) sigreturn: u64,
    /// See `errand.rs`.
    pub(crate) errand: u64,
}

/// The agent's calls. `clone` is looked at more closely.
const AGENT: &[libc::c_long] = &[
    libc::SYS_futex,
    libc::SYS_pwrite64,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_getrusage,
    // Between the steps of patching code.
    libc::SYS_membarrier,
    libc::SYS_recvmsg,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    // A guest thread's, whose own filter is on top of this one.
    libc::SYS_rt_sigreturn,
    libc::SYS_seccomp,
    libc::SYS_sched_setaffinity,
    // After a fork.
    libc::SYS_prctl,
    libc::SYS_getppid,
    libc::SYS_dup2,
    libc::SYS_write,
    libc::SYS_exit_group,
];

/// `set_thread_area(2)`, which 64-bit programs have by `int $0x80` only.
pub(crate) const COMPAT_SET_THREAD_AREA: u32 = 243;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const RET_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const RET_TRAP: u32 = libc::SECCOMP_RET_TRAP;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const AT_LEAST_X: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_X) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const ADD: u16 = (libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K) as u16;
const ADD_X: u16 = (libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X) as u16;
/// A and X are the machine's registers; it has a little memory as well.
const A_TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const KEEP: u16 = libc::BPF_ST as u16;
const RECALL: u16 = (libc::BPF_LD | libc::BPF_MEM) as u16;

/// A program being written, as the bytes of `struct sock_filter`s.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    fn push(&mut self, code: u16, jump_true: u8, jump_false: u8, k: u32) -> &mut Program {
        self.0.extend_from_slice(&code.to_le_bytes());
        self.0.extend_from_slice(&[jump_true, jump_false]);
        self.0.extend_from_slice(&k.to_le_bytes());
        self
    }
    fn load(&mut self, offset: u32) -> &mut Program {
        self.push(LOAD, 0, 0, offset)
    }
    fn answer(&mut self, answer: u32) -> &mut Program {
        self.push(RETURN, 0, 0, answer)
    }
    /// Traps unless the word last loaded is `value`.
    fn require(&mut self, value: u32) -> &mut Program {
        self.push(EQUAL, 1, 0, value).answer(RET_TRAP)
    }
    /// Allows where the word last loaded is `value`.
    fn allow(&mut self, value: u32) -> &mut Program {
        self.push(EQUAL, 0, 1, value).answer(RET_ALLOW)
    }
    /// Traps unless the range that begins at the first argument, and is as long as the second, ends at or before the stub's own.
    fn only_below_stub(&mut self) -> &mut Program {
        let (high, low) = ((STUB_START >> 32) as u32, STUB_START as u32);
        let (start, len) = (argument(0), argument(1));
        // So that no sum of upper halves overflows.
        for upper in [start + 4, len + 4] {
            self.load(upper).push(AT_LEAST, 0, 1, high + 1).answer(RET_TRAP);
        }
        let sum = |p: &mut Program, half: u32| {
            p.load(start + half).push(A_TO_X, 0, 0, 0).load(len + half).push(ADD_X, 0, 0, 0);
        };
        sum(self, 0);
        // Without and with a carry.
        self.push(KEEP, 0, 0, 0).push(AT_LEAST_X, 0, 5, 0);
        sum(self, 4);
        self.push(JUMP, 0, 0, 5);
        sum(self, 4);
        self.push(ADD, 0, 0, 1);
        self.push(EQUAL, 0, 2, high);
        self.push(RECALL, 0, 0, 0).push(AT_LEAST, 1, 2, low + 1);
        self.push(AT_LEAST, 0, 1, high).answer(RET_TRAP)
    }
    /// Only calls from the stub's code; leaves the lower half of the instruction pointer loaded.
    fn only_from_stub(&mut self) -> &mut Program {
        self.load(ARCH).require(AUDIT_ARCH_X86_64);
        self.load(IP_HIGH).require((IMAGE >> 32) as u32).load(IP_LOW)
    }
}

/// The agent's program: `code_len` is how far its code goes, `descriptor_call` the place behind the one compatibility call,
/// which threads make before they get their own filter.
pub(crate) fn agent(code_len: u32, descriptor_call: u64) -> Vec<u8> {
    let mut program = Program::default();
    let start = IMAGE as u32;
    program.load(ARCH).push(EQUAL, 0, 10, AUDIT_ARCH_I386);
    program.load(NUMBER).require(COMPAT_SET_THREAD_AREA);
    program.load(IP_HIGH).require((descriptor_call >> 32) as u32);
    program.load(IP_LOW).allow(descriptor_call as u32).answer(RET_TRAP);
    program.only_from_stub();
    program.push(AT_LEAST, 1, 0, start).answer(RET_TRAP);
    program.push(AT_LEAST, 0, 1, start + code_len + 1).answer(RET_TRAP);
    program.load(NUMBER);
    for call in AGENT {
        program.allow(*call as u32);
    }
    program.require(libc::SYS_clone as u32).load(argument(0));
    program.allow(THREAD_FLAGS as u32).allow(FORK_FLAGS as u32).answer(RET_TRAP);
    program.0
}

/// The guest threads' program.
pub(crate) fn guest(calls: &GuestCalls) -> Vec<u8> {
    let mut program = Program::default();
    program.only_from_stub();
    // Each test skips to the next where the instruction is another.
    program.push(EQUAL, 0, 3, calls.sigreturn as u32);
    program.load(NUMBER).push(EQUAL, 0, 1, libc::SYS_rt_sigreturn as u32).answer(RET_ALLOW);
    let errands = errands();
    program.push(EQUAL, 0, (errands.0.len() / 8) as u8, calls.errand as u32);
    program.0.extend_from_slice(&errands.0);
    program.push(EQUAL, 1, 0, calls.futex[0] as u32);
    program.push(EQUAL, 0, 11, calls.futex[1] as u32);
    program.load(NUMBER).require(libc::SYS_futex as u32);
    program.load(argument(0) + 4).require((AREAS >> 32) as u32);
    program.load(argument(0)).push(AT_LEAST, 0, 3, AREAS as u32);
    program.push(AT_LEAST, 2, 0, (AREAS + AREAS_LEN as u64) as u32);
    // FUTEX_WAIT and FUTEX_WAKE.
    program.load(argument(1)).push(AT_LEAST, 0, 1, 2);
    program.answer(RET_TRAP);
    program.answer(RET_ALLOW);
    program.0
}

/// What a guest may do to its own memory: unmap it, put zeroes in its place, throw contents away; and have it counted. No
/// descriptor is used, and nothing gets a right that it had not: `mprotect` would make writable what is shared with other
/// guests.
fn errands() -> Program {
    let mut program = Program::default();
    program.load(NUMBER).push(EQUAL, 0, 4, libc::SYS_getrusage as u32);
    program.load(argument(0)).require(libc::RUSAGE_SELF as u32).answer(RET_ALLOW);
    program.only_below_stub();
    program.load(NUMBER).allow(libc::SYS_munmap as u32);
    program.push(EQUAL, 0, 7, libc::SYS_mmap as u32);
    program.load(argument(3) + 4).require(0);
    program.load(argument(3)).allow(errand::ANONYMOUS as u32).answer(RET_TRAP);
    program.require(libc::SYS_madvise as u32).load(argument(2));
    program.allow(libc::MADV_DONTNEED as u32).allow(libc::MADV_FREE as u32).answer(RET_TRAP);
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub;

    /// Runs a program as the kernel does. Arguments that are not given are zero.
    fn run(program: &[u8], number: u32, arch: u32, ip: u64, args: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&arch.to_le_bytes());
        data.extend_from_slice(&ip.to_le_bytes());
        all.iter().for_each(|a| data.extend_from_slice(&a.to_le_bytes()));
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let (mut at, mut a, mut x, mut kept) = (0usize, 0u32, 0u32, 0u32);
        loop {
            let i = &program[at * 8..at * 8 + 8];
            let (code, k) = (u16::from_le_bytes([i[0], i[1]]), word(&i[4..]));
            at += 1;
            let jump = |taken: bool| usize::from(if taken { i[2] } else { i[3] });
            match code {
                LOAD => a = word(&data[k as usize..k as usize + 4]),
                RETURN => return k,
                EQUAL => at += jump(a == k),
                AT_LEAST => at += jump(a >= k),
                AT_LEAST_X => at += jump(a >= x),
                JUMP => at += k as usize,
                ADD => a = a.wrapping_add(k),
                ADD_X => a = a.wrapping_add(x),
                A_TO_X => x = a,
                KEEP => kept = a,
                RECALL => a = kept,
                _ => panic!("code {code:#x}"),
            }
        }
    }

    #[test]
    fn guest_threads_may_do_next_to_nothing() {
        let calls = stub::guest_calls();
        let program = guest(&calls);
        let (futex, sigreturn) = (libc::SYS_futex as u32, libc::SYS_rt_sigreturn as u32);
        let ok =
            |number, ip, args: [u64; 2]| run(&program, number, AUDIT_ARCH_X86_64, ip, &args) == RET_ALLOW;
        assert!(ok(sigreturn, calls.sigreturn, [0, 0]));
        for ip in calls.futex {
            for (args, allowed) in [
                ([AREAS, 0], true),
                ([AREAS + AREAS_LEN as u64 - 4, 1], true),
                ([AREAS, 2], false),
                ([AREAS, 1 << 31], false),
                ([AREAS - 4, 0], false),
                ([AREAS + AREAS_LEN as u64, 0], false),
                ([AREAS & 0xffff_ffff, 0], false),
                ([0x40_0000, 0], false),
            ] {
                assert_eq!(ok(futex, ip, args), allowed, "{args:x?}");
            }
            assert!(!ok(sigreturn, ip, [AREAS, 0]));
            assert!(!ok(futex | 0x4000_0000, ip, [AREAS, 0]));
            assert_eq!(run(&program, futex, 0x4000_0003, ip, &[AREAS, 0]), RET_TRAP);
        }
        assert!(!ok(futex, calls.sigreturn, [AREAS, 0]));
        for ip in [0x40_0000, calls.sigreturn + 1, calls.sigreturn - 2, calls.sigreturn & 0xffff_ffff] {
            assert!(!ok(sigreturn, ip, [0, 0]) && !ok(futex, ip, [AREAS, 0]));
        }
    }

    #[test]
    fn errands_are_about_memory_of_the_guest() {
        let calls = stub::guest_calls();
        let program = guest(&calls);
        let at = |ip, number: libc::c_long, args: &[u64]| {
            run(&program, number as u32, AUDIT_ARCH_X86_64, ip, args) == RET_ALLOW
        };
        let ok = |number, args: &[u64]| at(calls.errand, number, args);
        let anonymous = errand::ANONYMOUS as u64;
        let end = STUB_START;
        for (start, len, allowed) in [
            (0x1000, 0x1000, true),
            (0, end, true),
            (0, end + 1, false),
            (end - 0x1000, 0x1000, true),
            (end - 0x1000, 0x1001, false),
            (end, 0, true),
            (end, 1, false),
            (end + 0x1000, 0x1000, false),
            (0xffff_f000, 0x1000, true),
            (0xffff_f000, 0x2000, true),
            (0x7ffe_ffff_f000, 0x2000, true),
            (0x7ffe_ffff_f000, 0xc000_1000, true),
            (0x7ffe_ffff_f000, 0xc000_1001, false),
            (0x7ffe_ffff_f000, 0x1_0000_0000, false),
            (0x7fff_0000_0000, 0xffff_ffff, false),
            (0x1000, u64::MAX, false),
            (0x1000, u64::MAX - 0xfff, false),
            (u64::MAX, 2, false),
            (u64::MAX - 0xfff, 0x2000, false),
            (1 << 63, 1 << 63, false),
            (1 << 47, 0x1000, false),
            (0, 1 << 47, false),
        ] {
            for (number, third, flags) in [
                (libc::SYS_munmap, 0, 0),
                (libc::SYS_mmap, 7, anonymous),
                (libc::SYS_madvise, libc::MADV_DONTNEED as u64, 0),
            ] {
                assert_eq!(ok(number, &[start, len, third, flags]), allowed, "{number} {start:#x} {len:#x}");
                assert!(!at(calls.errand + 1, number, &[start, len, third, flags]));
                assert!(!at(0x40_0000, number, &[start, len, third, flags]));
            }
            assert!(!ok(libc::SYS_mprotect, &[start, len, 7]) && !ok(libc::SYS_mremap, &[start, len, len]));
            assert!(!ok(libc::SYS_mincore, &[start, len, 0x1000]));
        }
        for flag in (0..64).map(|bit| 1u64 << bit) {
            assert!(!ok(libc::SYS_mmap, &[0x1000, 0x1000, 7, anonymous ^ flag]), "{flag:#x}");
        }
        for advice in 0..256 {
            let allowed = [libc::MADV_DONTNEED as u64, libc::MADV_FREE as u64].contains(&advice);
            assert_eq!(ok(libc::SYS_madvise, &[0x1000, 0x1000, advice]), allowed, "{advice}");
        }
        assert!(ok(libc::SYS_getrusage, &[0, 0x1000]) && !ok(libc::SYS_getrusage, &[u64::MAX, 0x1000]));
        let others = (0..1024).filter(|number| {
            ![libc::SYS_munmap, libc::SYS_mmap, libc::SYS_madvise, libc::SYS_getrusage].contains(number)
        });
        for number in others {
            assert!(!ok(number, &[0x1000, 0x1000, 4, anonymous]), "{number}");
        }
        assert!(!ok(0x4000_0000 | libc::SYS_munmap, &[0x1000, 0x1000]));
    }

    #[test]
    fn the_agent_makes_threads_and_forks_only() {
        let program = agent(0x800, IMAGE + 0x200);
        let ok = |number: libc::c_long, ip, args: [u64; 2]| {
            run(&program, number as u32, AUDIT_ARCH_X86_64, ip, &args) == RET_ALLOW
        };
        assert!(ok(libc::SYS_mmap, IMAGE + 0x100, [0, 0]));
        assert!(!ok(libc::SYS_mmap, IMAGE + 0x900, [0, 0]) && !ok(libc::SYS_mmap, 0x40_0000, [0, 0]));
        assert!(!ok(libc::SYS_openat, IMAGE + 0x100, [0, 0]));
        assert!(ok(libc::SYS_clone, IMAGE + 0x100, [THREAD_FLAGS, 0]));
        assert!(ok(libc::SYS_clone, IMAGE + 0x100, [FORK_FLAGS, 0]));
        assert!(!ok(libc::SYS_clone, IMAGE + 0x100, [0, 0]));
        let compat = |number, ip| run(&program, number, AUDIT_ARCH_I386, ip, &[0, 0]) == RET_ALLOW;
        assert!(compat(COMPAT_SET_THREAD_AREA, IMAGE + 0x200));
        assert!(!compat(COMPAT_SET_THREAD_AREA, IMAGE + 0x201) && !compat(1, IMAGE + 0x200));
        assert!(!compat(COMPAT_SET_THREAD_AREA, (IMAGE + 0x200) & 0xffff_ffff));
        assert!(!ok(COMPAT_SET_THREAD_AREA.into(), IMAGE + 0x200, [0, 0]));
    }
}
