//! Copies that survive a bad page.
//!
//! A page of guest memory may be backed by a host file that has been truncated, or be read-only for a moment while
//! translations are dropped (see `window.rs`). Touching it then raises SIGSEGV or SIGBUS in the Sentry. Guest memory
//! is therefore touched by the few instructions below only; the handler recognises them by address and
//! resumes at their fix-up, as the kernel's `copy_from_user` does with its exception table. Any other fault is passed on
//! to whoever handled it before.

use std::arch::global_asm;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

global_asm!(
    ".pushsection .text.quicksand_kvm_copy, \"ax\", @progbits",
    // (rdi to, rsi from, rdx len) -> bytes not copied. `rep movsb` keeps RCX exact at a fault.
    ".globl quicksand_kvm_copy",
    "quicksand_kvm_copy:",
    "mov rcx, rdx",
    ".globl quicksand_kvm_copy_access",
    "quicksand_kvm_copy_access:",
    "rep movsb",
    ".globl quicksand_kvm_copy_fixup",
    "quicksand_kvm_copy_fixup:",
    "mov rax, rcx",
    "ret",
    // (rdi word) -> value, or u64::MAX.
    ".globl quicksand_kvm_load",
    "quicksand_kvm_load:",
    "mov eax, dword ptr [rdi]",
    "ret",
    // (rdi word, esi current, edx new) -> value found, or u64::MAX.
    ".globl quicksand_kvm_cmpxchg",
    "quicksand_kvm_cmpxchg:",
    "mov eax, esi",
    ".globl quicksand_kvm_cmpxchg_access",
    "quicksand_kvm_cmpxchg_access:",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov eax, eax",
    "ret",
    ".globl quicksand_kvm_word_fixup",
    "quicksand_kvm_word_fixup:",
    "mov rax, -1",
    "ret",
    ".popsection",
);

unsafe extern "sysv64" {
    fn quicksand_kvm_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn quicksand_kvm_load(word: *const u32) -> u64;
    fn quicksand_kvm_cmpxchg(word: *mut u32, current: u32, new: u32) -> u64;
    safe static quicksand_kvm_copy_access: u8;
    safe static quicksand_kvm_copy_fixup: u8;
    safe static quicksand_kvm_cmpxchg_access: u8;
    safe static quicksand_kvm_word_fixup: u8;
}

/// A host access that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPage;

/// Copies `len` bytes; returns how many were *not* copied because a page could not be reached.
///
/// # Safety
/// Each side must be either memory that the caller may access so, or inside the window (where a fault is caught).
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: the routine touches just these ranges; a fault in it resumes at its fix-up.
    unsafe { quicksand_kvm_copy(to, from, len) }
}

/// Atomically loads an aligned word.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn load(word: *const u32) -> Result<u32, BadPage> {
    // SAFETY: one aligned load, which x86 makes atomic; a fault resumes at the fix-up.
    u32::try_from(unsafe { quicksand_kvm_load(word) }).map_err(|_| BadPage)
}

/// Atomically replaces an aligned word if it is `current`; returns what was found.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn compare_exchange(word: *mut u32, current: u32, new: u32) -> Result<u32, BadPage> {
    // SAFETY: one locked exchange; a fault resumes at the fix-up.
    u32::try_from(unsafe { quicksand_kvm_cmpxchg(word, current, new) }).map_err(|_| BadPage)
}

static OLD_SEGV: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
static OLD_BUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// Installs the handler, once per process.
pub(crate) fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (signal, old) in [(libc::SIGSEGV, &OLD_SEGV), (libc::SIGBUS, &OLD_BUS)] {
            // SAFETY: zero is a valid `sigaction`; the previous one is queried before the new one is installed, so
            // that the handler always finds it. It is leaked because a handler may run at any later time.
            unsafe {
                let mut previous: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut previous);
                old.store(Box::into_raw(Box::new(previous)), Ordering::Release);
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction =
                    on_fault as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    });
}

/// Where to go on when the instruction at `rip` faulted.
fn fixup(rip: u64) -> Option<u64> {
    let address = |symbol: &u8| std::ptr::from_ref(symbol) as u64;
    if rip == address(&quicksand_kvm_copy_access) {
        Some(address(&quicksand_kvm_copy_fixup))
    } else if rip == address(&quicksand_kvm_cmpxchg_access) || rip == quicksand_kvm_load as *const () as u64 {
        Some(address(&quicksand_kvm_word_fixup))
    } else {
        None
    }
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a `ucontext_t` that is ours to change until we return. Nothing here
    // allocates or locks, so running at any point of the program is fine.
    unsafe {
        let ucontext = &mut *context.cast::<libc::ucontext_t>();
        let rip = &mut ucontext.uc_mcontext.gregs[libc::REG_RIP as usize];
        if let Some(target) = fixup(*rip as u64) {
            *rip = target as i64;
            return;
        }
        let old = if signal == libc::SIGSEGV { &OLD_SEGV } else { &OLD_BUS }.load(Ordering::Acquire);
        let Some(old) = old.as_ref() else { libc::abort() };
        match old.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // Back to the default, and the faulting instruction runs again and kills the process as it should.
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
            handler if old.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_page_stops_a_copy_exactly() {
        install_handler();
        // SAFETY: two fresh pages of our own, the second of which is made inaccessible.
        unsafe {
            use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            let pages =
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), 8192, flags, MapFlags::PRIVATE).unwrap();
            rustix::mm::mprotect(pages.byte_add(4096), 4096, MprotectFlags::empty()).unwrap();
            let mut buf = [1u8; 100];
            assert_eq!(copy(buf.as_mut_ptr(), pages.byte_add(4096 - 30).cast(), 100), 70);
            assert_eq!((buf[29], buf[30]), (0, 1));
            assert_eq!(copy(pages.byte_add(4096 - 30).cast(), buf.as_ptr(), 100), 70);
            assert_eq!(load(pages.byte_add(4096).cast()), Err(BadPage));
            assert_eq!(compare_exchange(pages.byte_add(4096).cast(), 0, 1), Err(BadPage));
            assert_eq!(compare_exchange(pages.cast(), 0, u32::MAX), Ok(0));
            assert_eq!(load(pages.cast()), Ok(u32::MAX));
        }
    }
}
