//! One guest thread with some memory, and short ways to run it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quicksand_abi::{PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{
    Access, AddressSpace, Backing, Context, Exit, Fault, FaultCause, Platform, Prot, Registers,
};

use crate::code::Code;

/// Where test programs lie.
pub(crate) const TEXT: u64 = 0x40_0000;
/// Where test data lies.
pub(crate) const DATA: u64 = 0x10_0000_0000;
pub(crate) const PAGE: u64 = PAGE_SIZE;

pub(crate) fn range(start: u64, len: u64) -> UserRange {
    UserRange::new(UserAddr(start), len).expect("a range of the test's own")
}

/// A guest thread.
pub(crate) struct Guest {
    pub(crate) space: Arc<dyn AddressSpace>,
    pub(crate) context: Box<dyn Context>,
    pub(crate) regs: Registers,
}

impl Guest {
    /// A thread about to run `code` in a space of its own, with nothing else mapped.
    pub(crate) fn new(platform: &dyn Platform, code: &Code) -> Guest {
        let space = platform.address_space().expect("an address space");
        load(&*space, code);
        Guest::in_space(platform, &space)
    }

    /// Another thread in `space`, at the start of its program.
    pub(crate) fn in_space(platform: &dyn Platform, space: &Arc<dyn AddressSpace>) -> Guest {
        let context = platform.context().expect("a context");
        Guest { space: Arc::clone(space), context, regs: Registers { rip: TEXT, ..Registers::default() } }
    }

    pub(crate) fn map(&self, start: u64, len: u64, prot: Prot) {
        self.space.map(range(start, len), prot, Backing::Anonymous).expect("map");
    }

    pub(crate) fn run(&mut self) -> Exit {
        self.context.run(&self.space, &mut self.regs).expect("run")
    }

    /// Runs to a system call and returns its number.
    pub(crate) fn syscall(&mut self) -> u64 {
        assert_eq!(self.run(), Exit::Syscall, "{:x?}", self.regs);
        assert_eq!(self.regs.rax, self.regs.orig_rax);
        self.regs.rax
    }

    /// Runs to a fault that is to be at `addr`.
    pub(crate) fn fault(&mut self, addr: u64, access: Access, cause: FaultCause) -> Fault {
        let exit = self.run();
        let Exit::Fault(fault) = exit else {
            panic!("{exit:x?} instead of a fault at {addr:#x}: {:x?}", self.regs)
        };
        assert_eq!((fault.addr, fault.access, fault.cause), (UserAddr(addr), access, cause));
        fault
    }

    pub(crate) fn peek(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        self.space.read(UserAddr(addr), &mut bytes).expect("read");
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn poke(&self, addr: u64, value: u64) {
        self.space.write(UserAddr(addr), &value.to_le_bytes()).expect("write");
    }

    /// Starts over.
    pub(crate) fn restart(&mut self) {
        self.regs.rip = TEXT;
    }
}

/// Puts a program into a space.
pub(crate) fn load(space: &dyn AddressSpace, code: &Code) {
    let len = (code.bytes().len() as u64).next_multiple_of(PAGE);
    space.map(range(TEXT, len), Prot::RX, Backing::Anonymous).expect("map text");
    space.write_forced(UserAddr(TEXT), code.bytes()).expect("write text");
}

/// Reads 8 bytes at RBX into RDX, then makes system call 1.
pub(crate) fn reader() -> Code {
    use crate::code::Reg::Rax;
    Code::new().load_rdx_from_rbx().mov(Rax, 1).syscall()
}

/// Writes RDX to the 8 bytes at RBX, then makes system call 2.
pub(crate) fn writer() -> Code {
    use crate::code::Reg::Rax;
    Code::new().store_rdx_to_rbx().mov(Rax, 2).syscall()
}

/// A memfd of `pages` pages, each filled with its number plus one.
pub(crate) fn numbered_file(pages: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("conformance", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    for page in 0..pages {
        let bytes = [page as u8 + 1; PAGE as usize];
        let mut done = 0;
        while done < bytes.len() {
            done += rustix::io::pwrite(&fd, &bytes[done..], page * PAGE + done as u64).expect("pwrite");
        }
    }
    fd
}

pub(crate) fn file_byte(fd: &OwnedFd, at: u64) -> u8 {
    let mut byte = [0u8];
    rustix::io::pread(fd, &mut byte, at).expect("pread");
    byte[0]
}

pub(crate) fn private(fd: &OwnedFd, offset: u64) -> Backing<'_> {
    Backing::PrivateFile { fd: fd.as_fd(), offset }
}

pub(crate) fn shared(fd: &OwnedFd, offset: u64, writable: bool) -> Backing<'_> {
    Backing::SharedFile { fd: fd.as_fd(), offset, writable }
}

/// Whether QEMU emulates this processor, which gets some faults wrong.
pub(crate) fn is_emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}
