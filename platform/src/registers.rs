//! General-purpose registers of a guest thread, named and ordered as `struct user_regs_struct`.

/// The EFLAGS bits that user code may hold: CF PF AF ZF SF TF DF OF NT AC ID, plus the always-set bits 1 and 9 (IF).
pub const EFLAGS_USER_MASK: u64 = 0x0024_4dd5;

/// A guest thread's integer state. `cs` and `ss` are always the 64-bit user selectors (0x33, 0x2b): what a guest or an
/// image puts there is ignored by the platform, as are EFLAGS bits outside [`EFLAGS_USER_MASK`] (IF is always set) and
/// non-canonical `fs_base`/`gs_base` (the Sentry refuses those before they get here).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call number while one is being handled, else `u64::MAX`.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

impl Registers {
    /// The six system call arguments, in order.
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}

impl Default for Registers {
    fn default() -> Registers {
        Registers {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: u64::MAX,
            rip: 0,
            cs: 0x33,
            eflags: 0x202,
            rsp: 0,
            ss: 0x2b,
            fs_base: 0,
            gs_base: 0,
        }
    }
}
