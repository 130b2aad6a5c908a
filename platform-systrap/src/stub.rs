//! The code of a stub: the signal handler of guest threads, and the agent. It is written in assembly because it runs in a
//! process that has nothing but guest memory and the few pages of `layout.rs`: no stack of its own, no library.
//!
//! It is copied to a fixed address (`image`), and jumps only within itself. Invariants:
//!
//! - The agent keeps everything in registers, and takes orders from pages that guest code cannot write. It reads guest-writable
//!   memory only where an operation is about just that; it never returns through a signal frame.
//! - A guest thread has its own filter before it can take a signal, so that nothing a guest does to a signal frame
//!   reaches a thread that may still make system calls.
//! - Any jump of guest code into here does nothing that guest code could not do by itself: the system calls below fail
//!   for guest threads, but `futex` on the areas, `rt_sigreturn`, and errands (`errand.rs`).
//! - Between a slot and `.Lqs_committed` a kick is put off: the thread is about to stop anyway, or is made to. From there
//!   until guest code runs again it counts only when it is the guest's turn; the registers are then what the Sentry gave.

use std::arch::global_asm;

use crate::layout::{
    self, AREA_LEN, AREAS, AREAS_LEN, CONSTANTS, CONSTANTS_OFFSET, DESCRIPTOR_LEN, DESCRIPTORS,
    DESCRIPTORS_COUNT, FORK_FLAGS, GLOBALS, GLOBALS_LEN, IMAGE, IMAGE_LEN, KICK_SIGNAL, NUMBER_SLOTS,
    RECEIVED_FD, RECORD_LEN, RECORDS, RECORDS_LEN, REQUEST, REQUEST_FD, REQUEST_LEN, SELECTOR, SLOT_LEN,
    SLOTS, SLOTS_COUNT, SLOTS_OFFSET, SOCKET_FD, STUB_END, TABLE, TABLE_LEN, agent, area, constants, globals,
    register, request, special, state,
};
use crate::{filter, frame};

const PROT_R: i32 = libc::PROT_READ;
const PROT_RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PROT_RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
const FIXED: i32 = libc::MAP_FIXED;
/// Descriptors of the pristine stub besides those that all have: areas and globals.
pub(crate) const AREAS_FD: i32 = 2;
pub(crate) const GLOBALS_FD: i32 = 3;

global_asm!(
    ".pushsection .text.quicksand_stub, \"ax\", @progbits",
    ".balign 64",
    ".globl quicksand_stub_start",
    "quicksand_stub_start:",
    //
    // The handler of all signals. RDX: the ucontext. It runs with all signals blocked, on the alternate stack, whose
    // address says whose it is.
    ".globl quicksand_stub_handler",
    "quicksand_stub_handler:",
    "mov r12, rsp",
    "and r12, -{AREA_LEN}",
    "movabs rax, {AREAS}",
    "cmp r12, rax",
    "je .Lqs_agent_fault",
    "cmp edi, {KICK_SIGNAL}",
    "je .Lqs_kick",
    ".Lqs_stop:",
    "mov r14, rdx",
    "mov dword ptr [r12 + {SIGNAL}], edi",
    "mov qword ptr [r12 + {FRAME}], rdx",
    "rdfsbase rax",
    "mov qword ptr [r12 + {FS_BASE}], rax",
    "rdgsbase rax",
    "mov qword ptr [r12 + {GS_BASE}], rax",
    "mov eax, {EVENT}",
    // A full barrier: the flag of the Sentry's is looked at only after the word is out.
    "xchg dword ptr [r12 + {STATE}], eax",
    "jmp .Lqs_committed",
    //
    // A kick. RDX: the ucontext. R12: the area. In the code for patched calls it is dealt with here.
    ".Lqs_kick:",
    "mov rax, qword ptr [rdx + {FRAME_RIP}]",
    "movabs rcx, {SLOTS}",
    "mov rsi, rax",
    "sub rsi, rcx",
    "cmp rsi, {SLOTS_LEN}",
    "jb .Lqs_kick_put_off",
    "lea rcx, [rip + .Lqs_entry]",
    "cmp rax, rcx",
    "jb .Lqs_stop",
    "lea rcx, [rip + .Lqs_committed]",
    "cmp rax, rcx",
    "jb .Lqs_kick_put_off",
    "lea rcx, [rip + .Lqs_patched_end]",
    "cmp rax, rcx",
    "jae .Lqs_stop",
    // It has stopped, and the Sentry knows (and may have it run an errand); or it is about to go on, and stops.
    "cmp dword ptr [r12 + {STATE}], {STATE_ERRAND}",
    "je .Lqs_go_back",
    "cmp dword ptr [r12 + {STATE}], {EVENT}",
    "jne .Lqs_stop",
    ".Lqs_go_back:",
    "mov r14, rdx",
    "jmp .Lqs_sigreturn",
    ".Lqs_kick_put_off:",
    "mov dword ptr [r12 + {FORCE}], 1",
    "lea rcx, [rip + .Lqs_answer_here]",
    "cmp rax, rcx",
    "jb .Lqs_go_back",
    "lea rcx, [rip + .Lqs_answered]",
    "cmp rax, rcx",
    "jae .Lqs_go_back",
    // It may have looked at FORCE already.
    "mov qword ptr [rdx + {FRAME_R11}], r12",
    "lea rcx, [rip + .Lqs_hand_over]",
    "mov qword ptr [rdx + {FRAME_RIP}], rcx",
    "jmp .Lqs_go_back",
    //
    // A patched call, from its slot. RCX: 16 times the slot's number, plus 8 times the guest's ZF. Of the guest's
    // registers, only RCX and R11 may be changed, and no flag but ZF, until there is a place to put them; its stack is not
    // ours to use. The limit of a descriptor says whose thread this is: with 4 KiB pages, 8 of them an area.
    ".globl quicksand_stub_entry",
    "quicksand_stub_entry:",
    ".Lqs_entry:",
    "mov r11d, {SELECTOR}",
    "lsl r11d, r11d",
    "jnz .Lqs_stranger",
    "lea r11, [r11 + rcx]",
    "movabs rcx, {AREAS} - 0xfff",
    "lea rcx, [rcx + r11]",
    "mov qword ptr [rcx + {ZONE}], rsp",
    "lea rsp, [rcx + {ZONE}]",
    "pushfq",
    "mov r11, rcx",
    "and r11, -{AREA_LEN}",
    "sub ecx, r11d",
    "mov qword ptr [r11 + {RAX}], rax",
    "mov rax, qword ptr [rsp + 8]",
    "mov qword ptr [r11 + {RSP}], rax",
    "mov eax, dword ptr [rsp]",
    "and eax, -65", // ZF
    "shr ecx, 4",
    "jnc 2f",
    "or eax, 64",
    "2:",
    "mov qword ptr [rsp], rax",
    "mov qword ptr [r11 + {EFLAGS}], rax",
    "shl ecx, 4",
    "movabs rax, {RECORDS}",
    "add rax, rcx",
    "cmp ecx, {NUMBER_SLOTS} * {RECORD_LEN}",
    "mov rcx, qword ptr [rax]",
    "mov qword ptr [r11 + {RIP}], rcx",
    "jae 3f",
    "mov rax, qword ptr [rax + 8]",
    "mov qword ptr [r11 + {RAX}], rax",
    "jmp .Lqs_answer_here",
    "3:",
    "mov rax, qword ptr [r11 + {RAX}]",
    // What the Sentry has left an answer for. R11: the area. RAX: the number. RSP: where the flags are.
    ".Lqs_answer_here:",
    "cmp dword ptr [r11 + {FORCE}], 0",
    "jne .Lqs_hand_over",
    "cmp eax, 255",
    "ja .Lqs_hand_over",
    "mov eax, eax",
    "movabs rcx, {ANSWER_INDEX}",
    "movzx ecx, byte ptr [rcx + rax]",
    "test ecx, ecx",
    "jz .Lqs_hand_over",
    "mov rax, qword ptr [r11 + 8 * rcx + {ANSWERS}]",
    "btr rax, 63",
    "jnc .Lqs_hand_over",
    "popfq",
    "mov rsp, qword ptr [r11 + {RSP}]",
    "mov rcx, qword ptr [r11 + {RIP}]",
    "mov r11, qword ptr [r11 + {EFLAGS}]",
    "jmp rcx",
    ".Lqs_answered:",
    // A thread without a descriptor. The Sentry knows the place, and makes it a call.
    ".globl quicksand_stub_stranger",
    "quicksand_stub_stranger:",
    ".Lqs_stranger:",
    "ud2",
    // R11: the area, in which RAX, RSP, RIP and EFLAGS are already.
    ".Lqs_hand_over:",
    "mov qword ptr [r11 + {R8}], r8",
    "mov qword ptr [r11 + {R9}], r9",
    "mov qword ptr [r11 + {R10}], r10",
    "mov qword ptr [r11 + {R12}], r12",
    "mov qword ptr [r11 + {R13}], r13",
    "mov qword ptr [r11 + {R14}], r14",
    "mov qword ptr [r11 + {R15}], r15",
    "mov qword ptr [r11 + {RDI}], rdi",
    "mov qword ptr [r11 + {RSI}], rsi",
    "mov qword ptr [r11 + {RBP}], rbp",
    "mov qword ptr [r11 + {RBX}], rbx",
    "mov qword ptr [r11 + {RDX}], rdx",
    "mov r12, r11",
    "mov dword ptr [r12 + {FORCE}], 0",
    "mov dword ptr [r12 + {SIGNAL}], 0",
    "rdfsbase rax",
    "mov qword ptr [r12 + {FS_BASE}], rax",
    "rdgsbase rax",
    "mov qword ptr [r12 + {GS_BASE}], rax",
    "xor r14d, r14d",
    "mov eax, {EVENT}",
    "xchg dword ptr [r12 + {STATE}], eax",
    //
    // The Sentry's turn. R12: the area. R14: the ucontext; 0: a patched call.
    ".Lqs_committed:",
    "cmp dword ptr [r12 + {SENTRY_SLEEPS}], 0",
    "je .Lqs_wait",
    "lea rdi, [r12 + {STATE}]",
    "mov esi, {FUTEX_WAKE}",
    "mov edx, 1",
    "mov eax, {SYS_futex}",
    "syscall",
    ".globl quicksand_stub_after_wake",
    "quicksand_stub_after_wake:",
    //
    // Waits for the Sentry. R12 and R14 as above.
    ".Lqs_wait:",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov r13, rax",
    "2:",
    "cmp dword ptr [r12 + {STATE}], {EVENT}",
    "jne 5f",
    "pause",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "sub rax, r13",
    "cmp rax, qword ptr [r12 + {SPIN_CYCLES}]",
    "jb 2b",
    "3:",
    "mov eax, 1",
    "xchg dword ptr [r12 + {STUB_SLEEPS}], eax",
    "cmp dword ptr [r12 + {STATE}], {EVENT}",
    "jne 4f",
    "lea rdi, [r12 + {STATE}]",
    "xor esi, esi", // FUTEX_WAIT
    "mov edx, {EVENT}",
    "xor r10d, r10d",
    "mov eax, {SYS_futex}",
    "syscall",
    ".globl quicksand_stub_after_sleep",
    "quicksand_stub_after_sleep:",
    "jmp 3b",
    "4:",
    "mov dword ptr [r12 + {STUB_SLEEPS}], 0",
    "5:",
    "cmp dword ptr [r12 + {STATE}], {STATE_ERRAND}",
    "je .Lqs_errand",
    "test r14, r14",
    "jz .Lqs_patched",
    "mov rax, qword ptr [r12 + {FS_BASE}]",
    "wrfsbase rax",
    "mov rax, qword ptr [r12 + {GS_BASE}]",
    "wrgsbase rax",
    ".Lqs_sigreturn:",
    "mov rsp, r14",
    "mov eax, {SYS_rt_sigreturn}",
    "syscall",
    ".globl quicksand_stub_after_sigreturn",
    "quicksand_stub_after_sigreturn:",
    "ud2",
    // Back from a patched call, as `sysret` would.
    ".Lqs_patched:",
    "cmp dword ptr [r12 + {STATE}], {TAKE_SIGNAL}",
    "je 7f",
    "rdfsbase rax",
    "mov rcx, qword ptr [r12 + {FS_BASE}]",
    "cmp rax, rcx",
    "je 6f",
    "wrfsbase rcx",
    "6:",
    "rdgsbase rax",
    "mov rcx, qword ptr [r12 + {GS_BASE}]",
    "cmp rax, rcx",
    "je 6f",
    "wrgsbase rcx",
    "6:",
    "lea rsp, [r12 + {ZONE}]",
    "push qword ptr [r12 + {EFLAGS}]",
    "popfq",
    "mov r8, qword ptr [r12 + {R8}]",
    "mov r9, qword ptr [r12 + {R9}]",
    "mov r10, qword ptr [r12 + {R10}]",
    "mov r13, qword ptr [r12 + {R13}]",
    "mov r14, qword ptr [r12 + {R14}]",
    "mov r15, qword ptr [r12 + {R15}]",
    "mov rdi, qword ptr [r12 + {RDI}]",
    "mov rsi, qword ptr [r12 + {RSI}]",
    "mov rbp, qword ptr [r12 + {RBP}]",
    "mov rbx, qword ptr [r12 + {RBX}]",
    "mov rdx, qword ptr [r12 + {RDX}]",
    "mov rax, qword ptr [r12 + {RAX}]",
    "mov rsp, qword ptr [r12 + {RSP}]",
    "mov rcx, qword ptr [r12 + {RIP}]",
    "mov r11, r12",
    "mov r12, qword ptr [r11 + {R12}]",
    "mov r11, qword ptr [r11 + {EFLAGS}]",
    "jmp rcx",
    // Traps, like all calls that are not for guest threads.
    "7:",
    "mov eax, -1",
    "syscall",
    "ud2",
    //
    // Runs an errand, and waits again. The filter looks at its arguments; they lie where guest code can write.
    ".Lqs_errand:",
    "mov rax, qword ptr [r12 + {ERRAND}]",
    "mov rdi, qword ptr [r12 + {ERRAND} + 8]",
    "mov rsi, qword ptr [r12 + {ERRAND} + 16]",
    "mov rdx, qword ptr [r12 + {ERRAND} + 24]",
    "mov r10, qword ptr [r12 + {ERRAND} + 32]",
    "mov r8, qword ptr [r12 + {ERRAND} + 40]",
    "mov r9, qword ptr [r12 + {ERRAND} + 48]",
    "syscall",
    ".globl quicksand_stub_after_errand",
    "quicksand_stub_after_errand:",
    "mov qword ptr [r12 + {ERRAND_RESULT}], rax",
    "mov eax, {EVENT}",
    "xchg dword ptr [r12 + {STATE}], eax",
    "jmp .Lqs_committed",
    ".Lqs_patched_end:",
    //
    // A new guest thread, as its maker's clone returns in it. All signals are blocked. R9: its area. A start without
    // the filter is none.
    ".Lqs_thread:",
    "mov r12, r9",
    // Not where the agent happens to be.
    "xor edi, edi",
    "mov esi, {PROCESSORS_LEN}",
    "movabs rdx, {PROCESSORS}",
    "mov eax, {SYS_sched_setaffinity}",
    "syscall",
    "lea rdi, [r12 + {ALT_STACK}]",
    "xor esi, esi",
    "mov eax, {SYS_sigaltstack}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    // Its descriptor, by the only way there is to set one. Where that fails, patched calls of this thread trap.
    "movabs rax, {COMPAT_CALLS}",
    "cmp byte ptr [rax], 0",
    "je 9f",
    "mov rbx, r12",
    "movabs rax, {AREAS}",
    "sub rbx, rax",
    "shr rbx, {AREA_SHIFT}",
    "cmp ebx, {DESCRIPTORS_COUNT}",
    "jae 9f",
    "imul ebx, ebx, {DESCRIPTOR_LEN}",
    "add ebx, {DESCRIPTORS}",
    "mov eax, {COMPAT_SET_THREAD_AREA}",
    "int 0x80",
    ".globl quicksand_stub_after_descriptor",
    "quicksand_stub_after_descriptor:",
    "9:",
    "mov edi, 1", // SECCOMP_SET_MODE_FILTER
    "xor esi, esi",
    "movabs rdx, {GUEST_FILTER}",
    "mov eax, {SYS_seccomp}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "mov r14, qword ptr [r12 + {FRAME}]",
    "jmp .Lqs_wait",
    //
    // The agent. RBX: the request pages. R15: the last request that was carried out.
    ".Lqs_agent:",
    "movabs rbx, {REQUEST}",
    ".Lqs_agent_wait:",
    "mov eax, dword ptr [rbx + {SEQUENCE}]",
    "cmp eax, r15d",
    "jne .Lqs_agent_work",
    "mov rdi, rbx", // SEQUENCE is the first field
    "xor esi, esi",
    "mov edx, r15d",
    "xor r10d, r10d",
    "mov eax, {SYS_futex}",
    "syscall",
    "jmp .Lqs_agent_wait",
    ".Lqs_agent_work:",
    "mov r15d, eax",
    "mov r13d, dword ptr [rbx + {COUNT}]",
    "lea r14, [rbx + {OPERATIONS}]",
    "movabs rbp, {RESULTS}",
    "xor r12d, r12d",
    ".Lqs_operation:",
    "test r13d, r13d",
    "jz .Lqs_answer",
    "mov rax, qword ptr [r14]",
    "mov rdi, qword ptr [r14 + 8]",
    "mov rsi, qword ptr [r14 + 16]",
    "mov rdx, qword ptr [r14 + 24]",
    "mov r10, qword ptr [r14 + 32]",
    "mov r8, qword ptr [r14 + 40]",
    "mov r9, qword ptr [r14 + 48]",
    "cmp rax, {SPECIAL}",
    "jae .Lqs_special",
    "syscall",
    ".Lqs_result:",
    "mov qword ptr [rbp], rax",
    "cmp rax, -4095",
    "jb 6f",
    "test dword ptr [r14 + {FLAGS}], {MAY_FAIL}",
    "jnz 6f",
    "mov r12d, 1",
    "6:",
    "add r14, {OPERATION_LEN}",
    "add rbp, 8",
    "dec r13d",
    "jmp .Lqs_operation",
    // The answer goes through a descriptor: what says that the work is done is not for guest code to write.
    ".Lqs_answer:",
    "mov edi, {REQUEST_FD}",
    "lea rsi, [rbx + r12 + {ANSWER}]",
    "mov edx, 1",
    "mov r10d, {ACK}",
    "mov eax, {SYS_pwrite64}",
    "syscall",
    "cmp dword ptr [rbx + {REQUEST_SENTRY_SLEEPS}], 0",
    "je .Lqs_agent_wait",
    "lea rdi, [rbx + {ACK}]",
    "mov esi, {FUTEX_WAKE}",
    "mov edx, 1",
    "mov eax, {SYS_futex}",
    "syscall",
    "jmp .Lqs_agent_wait",
    ".Lqs_special:",
    "cmp rax, {COMPARE_EXCHANGE}",
    "je .Lqs_compare_exchange",
    "cmp rax, {FORK}",
    "je .Lqs_fork",
    "cmp rax, {STORE}",
    "je .Lqs_store",
    // THREAD: RDI flags, RSI area.
    "mov r9, rsi",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {SYS_clone}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_result",
    "jmp .Lqs_thread",
    // STORE: RDI address, SIL value. May fault.
    ".Lqs_store:",
    "mov byte ptr [rdi], sil",
    "xor eax, eax",
    "jmp .Lqs_result",
    // COMPARE_EXCHANGE: RDI address, ESI expected, EDX new. May fault.
    ".Lqs_compare_exchange:",
    "mov eax, esi",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov eax, eax",
    "jmp .Lqs_result",
    // The handler was called for the agent. Registers are as they were but for RAX, RDI, RSI, RDX, RSP; all signals are
    // blocked.
    ".Lqs_agent_fault:",
    "movabs rbx, {REQUEST}",
    "xor esp, esp",
    "mov edi, 2", // SIG_SETMASK
    "movabs rsi, {AGENT_SIGNALS}",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, {SYS_rt_sigprocmask}",
    "syscall",
    "mov rax, -14", // EFAULT
    "xor r12d, r12d",
    "jmp .Lqs_result",
    // FORK: what the child is to have was received before.
    ".Lqs_fork:",
    "mov edi, {FORK_FLAGS}",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {SYS_clone}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_result",
    // In the child: end with the Sentry, and not go on if it has ended already.
    "mov edi, {PR_SET_PDEATHSIG}",
    "mov esi, 9",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {SYS_prctl}",
    "syscall",
    "mov eax, {SYS_getppid}",
    "syscall",
    "movabs rdx, {GLOBALS}",
    "cmp eax, dword ptr [rdx + {SENTRY_PID}]",
    "jne .Lqs_die",
    // Its own descriptors: socket, request pages; and, for a moment, areas.
    "mov edi, {RECEIVED_FD}",
    "mov esi, {SOCKET_FD}",
    "mov eax, {SYS_dup2}",
    "syscall",
    "test rax, rax",
    "js .Lqs_die",
    // That it is there; the kernel tells the Sentry who sends this. Its first order is waiting for it.
    "mov edi, {SOCKET_FD}",
    "movabs rsi, {IMAGE}",
    "mov edx, 1",
    "mov eax, {SYS_write}",
    "syscall",
    "mov edi, {RECEIVED_FD} + 1",
    "mov esi, {REQUEST_FD}",
    "mov eax, {SYS_dup2}",
    "syscall",
    "test rax, rax",
    "js .Lqs_die",
    "mov r13d, {RECEIVED_FD} + 2",
    "jmp .Lqs_map_own",
    //
    // The first stub, right after `quicksand_stub_enter`: leaves everything that it inherited. Registers as well: a fault of the
    // agent's puts them where guest code can read them.
    "quicksand_stub_pristine:",
    "xor esp, esp",
    "xor eax, eax",
    "wrfsbase rax",
    "wrgsbase rax",
    "mov eax, -1",
    "mov edx, -1",
    "movabs rdi, {CLEAN_STATE}",
    "xrstor64 [rdi]",
    "xor edi, edi",
    "movabs rsi, {IMAGE}",
    "mov eax, {SYS_munmap}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "movabs rdi, {IMAGE_END}",
    "movabs rsi, {STUB_END}",
    "sub rsi, rdi",
    "mov eax, {SYS_munmap}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "movabs rdi, {GLOBALS}",
    "mov esi, {GLOBALS_LEN}",
    "mov edx, {PROT_R}",
    "mov r10d, {SHARED_FIXED}",
    "mov r8d, {GLOBALS_FD}",
    "xor r9d, r9d",
    "mov eax, {SYS_mmap}",
    "syscall",
    "cmp rax, rdi",
    "jne .Lqs_die",
    "movabs rdi, {RECORDS}",
    "mov esi, {RECORDS_LEN}",
    "mov edx, {PROT_RW}",
    "mov r10d, {PRIVATE_FIXED}",
    "mov r8d, -1",
    "xor r9d, r9d",
    "mov eax, {SYS_mmap}",
    "syscall",
    "cmp rax, rdi",
    "jne .Lqs_die",
    // The table. It is done without where the host does not allow that address.
    "mov edi, {TABLE}",
    "mov esi, {TABLE_LEN}",
    "mov edx, {PROT_R}",
    "mov r10d, {SHARED_FIXED}",
    "mov r8d, {GLOBALS_FD}",
    "mov r9d, {GLOBALS_LEN}",
    "mov eax, {SYS_mmap}",
    "syscall",
    "mov r13d, {AREAS_FD}",
    // R13: a descriptor of the areas.
    ".Lqs_map_own:",
    "movabs rdi, {REQUEST}",
    "mov esi, {REQUEST_LEN}",
    "mov edx, {PROT_R}",
    "mov r10d, {SHARED_FIXED}",
    "mov r8d, {REQUEST_FD}",
    "xor r9d, r9d",
    "mov eax, {SYS_mmap}",
    "syscall",
    "cmp rax, rdi",
    "jne .Lqs_die",
    "movabs rdi, {AREAS}",
    "mov esi, {AREAS_LEN}",
    "mov edx, {PROT_RW}",
    "mov r10d, {SHARED_FIXED}",
    "mov r8d, r13d",
    "xor r9d, r9d",
    "mov eax, {SYS_mmap}",
    "syscall",
    "cmp rax, rdi",
    "jne .Lqs_die",
    "mov edi, {RECEIVED_FD}",
    "mov esi, -1",
    "xor edx, edx",
    "mov eax, {SYS_close_range}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "movabs rdi, {AGENT_STACK}",
    "xor esi, esi",
    "mov eax, {SYS_sigaltstack}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    // Only the first has no filter yet: a stub that came here by a fork gets the same once more, which costs a little time
    // at each of its calls; so it does not.
    "cmp r13d, {AREAS_FD}",
    "jne 7f",
    "mov edi, 2",
    "movabs rsi, {AGENT_SIGNALS}",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, {SYS_rt_sigprocmask}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "mov edi, 1",
    "xor esi, esi",
    "movabs rdx, {AGENT_FILTER}",
    "mov eax, {SYS_seccomp}",
    "syscall",
    "test rax, rax",
    "jnz .Lqs_die",
    "mov edi, {SOCKET_FD}",
    "movabs rsi, {IMAGE}",
    "mov edx, 1",
    "mov eax, {SYS_write}",
    "syscall",
    "7:",
    "xor r15d, r15d",
    "jmp .Lqs_agent",
    ".Lqs_die:",
    "mov edi, 1",
    "mov eax, {SYS_exit_group}",
    "syscall",
    "ud2",
    ".globl quicksand_stub_end",
    "quicksand_stub_end:",
    //
    // Not part of the image: (rdi: an image) puts it where it belongs and goes there. Does not return. Needs no stack, since
    // ours may be just where the image goes.
    ".globl quicksand_stub_enter",
    "quicksand_stub_enter:",
    "mov rbp, rdi",
    "movabs rdi, {IMAGE}",
    "mov esi, {IMAGE_LEN}",
    "mov edx, {PROT_RW}",
    "mov r10d, {PRIVATE_FIXED}",
    "mov r8d, -1",
    "xor r9d, r9d",
    "mov eax, {SYS_mmap}",
    "syscall",
    "cmp rax, rdi",
    "jne 8f",
    "mov rsi, rbp",
    "mov ecx, {IMAGE_LEN}",
    "cld",
    "rep movsb",
    "movabs rdi, {IMAGE}",
    "mov esi, {IMAGE_LEN}",
    "mov edx, {PROT_RX}",
    "mov eax, {SYS_mprotect}",
    "syscall",
    "test rax, rax",
    "jnz 8f",
    "lea rax, [rip + quicksand_stub_pristine]",
    "lea rcx, [rip + quicksand_stub_start]",
    "sub rax, rcx",
    "movabs rcx, {IMAGE}",
    "add rax, rcx",
    "jmp rax",
    "8:",
    "mov edi, 1",
    "mov eax, {SYS_exit_group}",
    "syscall",
    "ud2",
    ".popsection",
    AREA_LEN = const AREA_LEN,
    AREAS = const AREAS,
    SIGNAL = const area::SIGNAL,
    FRAME = const area::FRAME,
    FS_BASE = const area::FS_BASE,
    GS_BASE = const area::GS_BASE,
    STATE = const area::STATE,
    SENTRY_SLEEPS = const area::SENTRY_SLEEPS,
    STUB_SLEEPS = const area::STUB_SLEEPS,
    ALT_STACK = const area::ALT_STACK,
    ERRAND = const area::ERRAND,
    ERRAND_RESULT = const area::ERRAND_RESULT,
    STATE_ERRAND = const state::ERRAND,
    FORCE = const area::FORCE,
    ANSWERS = const area::ANSWERS,
    ZONE = const area::ZONE,
    R8 = const area::REGISTERS + 8 * register::R8,
    R9 = const area::REGISTERS + 8 * register::R9,
    R10 = const area::REGISTERS + 8 * register::R10,
    R12 = const area::REGISTERS + 8 * register::R12,
    R13 = const area::REGISTERS + 8 * register::R13,
    R14 = const area::REGISTERS + 8 * register::R14,
    R15 = const area::REGISTERS + 8 * register::R15,
    RDI = const area::REGISTERS + 8 * register::RDI,
    RSI = const area::REGISTERS + 8 * register::RSI,
    RBP = const area::REGISTERS + 8 * register::RBP,
    RBX = const area::REGISTERS + 8 * register::RBX,
    RDX = const area::REGISTERS + 8 * register::RDX,
    RAX = const area::REGISTERS + 8 * register::RAX,
    RSP = const area::REGISTERS + 8 * register::RSP,
    RIP = const area::REGISTERS + 8 * register::RIP,
    EFLAGS = const area::REGISTERS + 8 * register::EFLAGS,
    FRAME_R11 = const frame::offset::REGISTERS + 8 * frame::index::R11,
    FRAME_RIP = const frame::offset::REGISTERS + 8 * register::RIP,
    KICK_SIGNAL = const KICK_SIGNAL,
    SLOTS = const SLOTS,
    SLOTS_LEN = const SLOTS_COUNT * SLOT_LEN,
    NUMBER_SLOTS = const NUMBER_SLOTS,
    RECORDS = const RECORDS,
    RECORDS_LEN = const RECORDS_LEN,
    RECORD_LEN = const RECORD_LEN,
    TABLE = const TABLE,
    TABLE_LEN = const TABLE_LEN,
    DESCRIPTORS = const TABLE + DESCRIPTORS as u64,
    DESCRIPTORS_COUNT = const DESCRIPTORS_COUNT,
    DESCRIPTOR_LEN = const DESCRIPTOR_LEN,
    SELECTOR = const SELECTOR,
    COMPAT_CALLS = const CONSTANTS + constants::COMPAT_CALLS as u64,
    COMPAT_SET_THREAD_AREA = const filter::COMPAT_SET_THREAD_AREA,
    AREA_SHIFT = const AREA_LEN.trailing_zeros(),
    ANSWER_INDEX = const CONSTANTS + constants::ANSWER_INDEX as u64,
    EVENT = const state::EVENT,
    TAKE_SIGNAL = const state::TAKE_SIGNAL,
    GLOBALS = const GLOBALS,
    SPIN_CYCLES = const area::SPIN_CYCLES,
    SENTRY_PID = const globals::SENTRY_PID,
    GUEST_FILTER = const CONSTANTS + constants::GUEST_FILTER as u64,
    AGENT_FILTER = const CONSTANTS + constants::AGENT_FILTER as u64,
    AGENT_SIGNALS = const CONSTANTS + constants::AGENT_SIGNALS as u64,
    AGENT_STACK = const CONSTANTS + constants::AGENT_STACK as u64,
    CLEAN_STATE = const CONSTANTS + constants::CLEAN_STATE as u64,
    REQUEST = const REQUEST,
    SEQUENCE = const request::SEQUENCE,
    COUNT = const request::COUNT,
    OPERATIONS = const request::OPERATIONS,
    OPERATION_LEN = const request::OPERATION_LEN,
    FLAGS = const request::FLAGS,
    MAY_FAIL = const request::MAY_FAIL,
    ANSWER = const request::ANSWER,
    ACK = const request::ACK,
    PROCESSORS = const GLOBALS + globals::PROCESSORS as u64,
    PROCESSORS_LEN = const globals::PROCESSORS_LEN,
    SYS_sched_setaffinity = const libc::SYS_sched_setaffinity,
    REQUEST_SENTRY_SLEEPS = const request::SENTRY_SLEEPS,
    RESULTS = const AREAS + agent::RESULTS as u64,
    SPECIAL = const special::FIRST,
    COMPARE_EXCHANGE = const special::COMPARE_EXCHANGE,
    FORK = const special::FORK,
    STORE = const special::STORE,
    FORK_FLAGS = const FORK_FLAGS,
    IMAGE = const IMAGE,
    IMAGE_END = const IMAGE + IMAGE_LEN as u64,
    IMAGE_LEN = const IMAGE_LEN,
    STUB_END = const STUB_END,
    GLOBALS_LEN = const GLOBALS_LEN,
    REQUEST_LEN = const REQUEST_LEN,
    AREAS_LEN = const AREAS_LEN,
    SOCKET_FD = const SOCKET_FD,
    REQUEST_FD = const REQUEST_FD,
    RECEIVED_FD = const RECEIVED_FD,
    AREAS_FD = const AREAS_FD,
    GLOBALS_FD = const GLOBALS_FD,
    PROT_R = const PROT_R,
    PROT_RW = const PROT_RW,
    PROT_RX = const PROT_RX,
    SHARED_FIXED = const libc::MAP_SHARED | FIXED,
    PRIVATE_FIXED = const libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | FIXED,
    PR_SET_PDEATHSIG = const libc::PR_SET_PDEATHSIG,
    FUTEX_WAKE = const libc::FUTEX_WAKE,
    SYS_futex = const libc::SYS_futex,
    SYS_rt_sigreturn = const libc::SYS_rt_sigreturn,
    SYS_sigaltstack = const libc::SYS_sigaltstack,
    SYS_seccomp = const libc::SYS_seccomp,
    SYS_pwrite64 = const libc::SYS_pwrite64,
    SYS_clone = const libc::SYS_clone,
    SYS_rt_sigprocmask = const libc::SYS_rt_sigprocmask,
    SYS_prctl = const libc::SYS_prctl,
    SYS_getppid = const libc::SYS_getppid,
    SYS_dup2 = const libc::SYS_dup2,
    SYS_munmap = const libc::SYS_munmap,
    SYS_mmap = const libc::SYS_mmap,
    SYS_mprotect = const libc::SYS_mprotect,
    SYS_close_range = const libc::SYS_close_range,
    SYS_write = const libc::SYS_write,
    SYS_exit_group = const libc::SYS_exit_group,
);

unsafe extern "C" {
    safe static quicksand_stub_start: u8;
    safe static quicksand_stub_handler: u8;
    safe static quicksand_stub_after_wake: u8;
    safe static quicksand_stub_after_sleep: u8;
    safe static quicksand_stub_after_sigreturn: u8;
    safe static quicksand_stub_after_errand: u8;
    safe static quicksand_stub_after_descriptor: u8;
    safe static quicksand_stub_entry: u8;
    safe static quicksand_stub_stranger: u8;
    safe static quicksand_stub_end: u8;
    /// Becomes the pristine stub; see the assembly.
    pub(crate) unsafe fn quicksand_stub_enter(image: *const u8) -> !;
}

/// Where in a stub a label of the code above is.
fn in_stub(label: &'static u8) -> u64 {
    IMAGE + (&raw const *label as u64 - &raw const quicksand_stub_start as u64)
}

/// The handler of all signals that a stub takes.
pub(crate) fn handler() -> u64 {
    in_stub(&quicksand_stub_handler)
}

/// Instruction pointers behind the system calls that guest threads may make.
pub(crate) fn guest_calls() -> filter::GuestCalls {
    filter::GuestCalls {
        futex: [in_stub(&quicksand_stub_after_wake), in_stub(&quicksand_stub_after_sleep)],
        sigreturn: in_stub(&quicksand_stub_after_sigreturn),
        errand: in_stub(&quicksand_stub_after_errand),
    }
}

/// The instruction pointer behind the one compatibility call, of a thread that starts.
fn descriptor_call() -> u64 {
    in_stub(&quicksand_stub_after_descriptor)
}

/// Where a patched call of a thread without a descriptor ends.
pub(crate) fn stranger() -> u64 {
    in_stub(&quicksand_stub_stranger)
}

/// The code of a slot: what a patched site does before its system call, and the way to the common entry.
fn slot(number: usize) -> Vec<u8> {
    let mut code = Vec::with_capacity(SLOT_LEN);
    if number >= NUMBER_SLOTS {
        code.extend_from_slice(&layout::STACK_ARGUMENT); // The guest's stack may not be there: this may fault.
    }
    code.extend_from_slice(&[0x0f, 0x94, 0xc1]); // setz cl
    code.extend_from_slice(&[0x0f, 0xb6, 0xc9]); // movzx ecx, cl
    code.extend_from_slice(&[0x8d, 0x0c, 0xcd]); // lea ecx, [8 * rcx + 16 * number]
    code.extend_from_slice(&(16 * number as u32).to_le_bytes());
    code.push(0xe9); // jmp
    let next = SLOTS + (number * SLOT_LEN + code.len() + 4) as u64;
    let distance = in_stub(&quicksand_stub_entry).wrapping_sub(next) as u32;
    code.extend_from_slice(&distance.to_le_bytes());
    code
}

/// Code and constants of a stub, as they lie in its memory.
pub(crate) fn image() -> Box<[u8]> {
    let mut image = vec![0u8; IMAGE_LEN].into_boxed_slice();
    let start = &raw const quicksand_stub_start;
    let len = &raw const quicksand_stub_end as usize - start as usize;
    assert!(len <= SLOTS_OFFSET, "the stub's code has outgrown its place");
    // SAFETY: the bytes between the two labels are code of this program, which is readable and never changes.
    image[..len].copy_from_slice(unsafe { std::slice::from_raw_parts(start, len) });

    for number in 0..SLOTS_COUNT {
        let (at, code) = (SLOTS_OFFSET + number * SLOT_LEN, slot(number));
        image[at..at + code.len()].copy_from_slice(&code);
    }

    let bit = |signal: i32| 1u64 << (signal - 1);
    let (constants, mut programs_at) = (&mut image[CONSTANTS_OFFSET..], constants::PROGRAMS);
    let mut put = |at: usize, bytes: &[u8]| constants[at..at + bytes.len()].copy_from_slice(bytes);
    put(constants::ALL_SIGNALS, &u64::MAX.to_le_bytes());
    let agent_signals = !(bit(libc::SIGSEGV) | bit(libc::SIGBUS));
    put(constants::AGENT_SIGNALS, &agent_signals.to_le_bytes());
    put(constants::AGENT_STACK, &alt_stack(AREAS));
    // FCW and MXCSR; the latter is loaded even so.
    put(constants::CLEAN_STATE, &0x37fu16.to_le_bytes());
    put(constants::CLEAN_STATE + 24, &0x1f80u32.to_le_bytes());
    for (index, number) in layout::ANSWERED.into_iter().enumerate() {
        put(constants::ANSWER_INDEX + number as usize, &[index as u8 + 1]);
    }
    for (at, program) in [
        (constants::AGENT_FILTER, filter::agent(len as u32, descriptor_call())),
        (constants::GUEST_FILTER, filter::guest(&guest_calls())),
    ] {
        let count = (program.len() / 8) as u64;
        put(at, &count.to_le_bytes());
        put(at + 8, &(CONSTANTS + programs_at as u64).to_le_bytes());
        put(programs_at, &program);
        programs_at += program.len();
    }
    image
}

/// A `stack_t` for the alternate stack in the area at `area`.
pub(crate) fn alt_stack(area: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&(area + layout::STACK as u64).to_le_bytes());
    bytes[16..].copy_from_slice(&((AREA_LEN - layout::STACK) as u64).to_le_bytes());
    bytes
}
