//! System calls, and what travels in registers.

use quicksand_platform::{Access, Exit, FaultCause, Platform, Registers, Trap};

use crate::code::{Code, Reg};
use crate::support::{Guest, TEXT};

/// A loop of system calls, each seen once, with RIP behind it.
pub fn syscall_round_trip(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().mov(Reg::Rax, 39).syscall().jump(0));
    for _ in 0..1000 {
        assert_eq!(guest.syscall(), 39);
        assert_eq!((guest.regs.rip, guest.regs.rcx), (TEXT + 12, TEXT + 12));
        assert_eq!(guest.regs.r11 & !1, guest.regs.eflags & !1);
        guest.regs.rax = 7;
    }
}

/// Every register keeps its value both ways, and a changed one arrives.
pub fn all_registers_travel(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().syscall().jump(0));
    let set = |salt: u64| Registers {
        r15: 15 ^ salt,
        r14: 14 ^ salt,
        r13: 13 ^ salt,
        r12: 12 ^ salt,
        rbp: 5 ^ salt,
        rbx: 3 ^ salt,
        r11: 0,
        r10: 10 ^ salt,
        r9: 9 ^ salt,
        r8: 8 ^ salt,
        rax: 1 ^ salt,
        rcx: 0,
        rdx: 2 ^ salt,
        rsi: 6 ^ salt,
        rdi: 7 ^ salt,
        rip: TEXT,
        rsp: 0xdead_0000_0000_0008 ^ salt,
        ..Registers::default()
    };
    for salt in [0, !0 << 8, 0x5555_5555_5555_5500] {
        guest.regs = set(salt);
        assert_eq!(guest.run(), Exit::Syscall);
        let expected =
            Registers { rcx: TEXT + 2, r11: guest.regs.r11, rip: TEXT + 2, orig_rax: 1 ^ salt, ..set(salt) };
        assert_eq!(guest.regs, expected);
        assert_eq!(guest.regs.r11, 0x202);
    }
}

/// User flags travel, others do not get in.
pub fn flags_travel(platform: &dyn Platform) {
    // pushfq; pop %rdx; std; stc; syscall
    let code = Code::new().raw(&[0x9c, 0x5a, 0xfd, 0xf9]).syscall();
    let mut guest = Guest::new(platform, &code);
    guest.map(0x1000, 0x1000, quicksand_platform::Prot::RW);
    guest.regs.rsp = 0x2000;
    // IOPL 3, VIF, VM and the undefined bits must not get in; carry and overflow must.
    guest.regs.eflags = !(1 << 8 | 1 << 14 | 1 << 18);
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.regs.rdx & 0x1b_3000, 0, "{:#x}", guest.regs.rdx);
    assert_eq!(guest.regs.rdx & 0xed5, 0xed5);
    assert_eq!(guest.regs.eflags & 0x401, 0x401);
}

/// FS and GS bases, set from outside and from inside.
pub fn segment_bases_travel(platform: &dyn Platform) {
    // mov %fs:0, %rdx; mov %gs:0, %rsi; syscall
    let code = Code::new()
        .raw(&[0x64, 0x48, 0x8b, 0x14, 0x25, 0, 0, 0, 0])
        .raw(&[0x65, 0x48, 0x8b, 0x34, 0x25, 0, 0, 0, 0])
        .syscall();
    // wrfsbase %rdi; wrgsbase %rbp
    let code = code.raw(&[0xf3, 0x48, 0x0f, 0xae, 0xd7, 0xf3, 0x48, 0x0f, 0xae, 0xdd]).jump(0);
    let mut guest = Guest::new(platform, &code);
    let data = 0x7000_0000;
    guest.map(data, 0x4000, quicksand_platform::Prot::RW);
    for page in 0..4 {
        guest.poke(data + page * 0x1000, 100 + page);
    }
    (guest.regs.fs_base, guest.regs.gs_base) = (data, data + 0x1000);
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!((guest.regs.rdx, guest.regs.rsi), (100, 101));
    assert_eq!((guest.regs.fs_base, guest.regs.gs_base), (data, data + 0x1000));
    (guest.regs.rdi, guest.regs.rbp) = (data + 0x2000, data + 0x3000);
    match guest.run() {
        Exit::Syscall => {
            assert_eq!((guest.regs.rdx, guest.regs.rsi), (102, 103));
            assert_eq!((guest.regs.fs_base, guest.regs.gs_base), (data + 0x2000, data + 0x3000));
        }
        // A processor without FSGSBASE.
        exit => assert_eq!(exit, Exit::Trap(Trap { vector: 6, error_code: 0, dr6: 0 })),
    }
}

/// An instruction pointer that no program can have ends in a fault or a trap, never in a host error.
pub fn bad_rip_is_refused(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().mov(Reg::Rax, 5).syscall());
    guest.regs.rip = 0x8000_0000_0000_0000;
    assert_eq!(guest.run(), Exit::Trap(Trap { vector: 13, error_code: 0, dr6: 0 }));
    for rip in
        [0, 0x1000, 0x7fff_ffff_f000, 0xffff_8000_0000_0000, 0xffff_8000_0000_0040, 0xffff_ffff_ff60_0000]
    {
        guest.regs.rip = rip;
        guest.fault(rip, Access::Execute, FaultCause::Unmapped);
        assert_eq!(guest.regs.rip, rip);
    }
    guest.restart();
    assert_eq!(guest.syscall(), 5);
}
