// The signal frame: registers and vector state are saved and restored, a handler may change them through ucontext,
// siglongjmp and nested signals work, a handler may be left without returning. sigreturn(2), getcontext(3).
#include "../check.h"
#include <setjmp.h>
#include <ucontext.h>

static volatile int calls;
static volatile uint64_t seen_uc[2];

static void clobber(int sig) {
    (void)sig;
    calls++;
    asm volatile("pcmpeqd %%xmm0, %%xmm0\n movdqa %%xmm0, %%xmm1\n movdqa %%xmm0, %%xmm7\n movdqa %%xmm0, %%xmm8\n movdqa %%xmm0, %%xmm15\n"
                 "fninit\n fldpi\n xorl %%eax, %%eax\n xorl %%ecx, %%ecx\n xorl %%r8d, %%r8d\n xorl %%r9d, %%r9d\n xorl %%r10d, %%r10d\n"
                 ::: "rax", "rcx", "r8", "r9", "r10", "xmm0", "xmm1", "xmm7", "xmm8", "xmm15", "memory");
}
static void change(int sig, siginfo_t *si, void *p) {
    ucontext_t *uc = p;
    (void)sig;
    (void)si;
    uc->uc_mcontext.gregs[REG_RBX] = 0x1122334455667788;
    uc->uc_mcontext.gregs[REG_R12] = 42;
    if (uc->uc_mcontext.fpregs) {
        uint32_t *x = (void *)uc->uc_mcontext.fpregs->_xmm[3].element;
        x[0] = 0xabcd;
        x[1] = 0;
    }
    sigaddset(&uc->uc_sigmask, SIGHUP);
}
static void skip(int sig, siginfo_t *si, void *p) {
    ucontext_t *uc = p;
    (void)sig;
    (void)si;
    uc->uc_mcontext.gregs[REG_RIP] += 2; // past the ud2
    calls++;
}
static void mask_in_uc(int sig, siginfo_t *si, void *p) {
    ucontext_t *uc = p;
    (void)sig;
    (void)si;
    seen_uc[0] = sigismember(&uc->uc_sigmask, SIGUSR2);
    seen_uc[1] = sigismember(&uc->uc_sigmask, SIGUSR1);
}
static sigjmp_buf env;
static void jump(int sig) { siglongjmp(env, sig); }
static void inner(int sig) { (void)sig; calls += 100; }
static void outer(int sig) {
    (void)sig;
    raise(SIGUSR2);
    calls++;
}
static ucontext_t ctx_main, ctx_co;
static int co_steps;
static void coroutine(void) {
    for (int i = 0; i < 3; i++) {
        co_steps++;
        swapcontext(&ctx_co, &ctx_main);
    }
}
static void redzone_handler(int sig) { (void)sig; calls++; }

int main(void) {
    struct sigaction sa = {.sa_handler = clobber};
    sigaction(SIGUSR1, &sa, NULL);
    uint64_t in[4] = {0x0123456789abcdef, 0xfedcba9876543210, 0x1111, 0x2222}, out[8] = {0};
    long pid = getpid(), tid = syscall(SYS_gettid);
    long double st0 = 0;
    // kill with everything live in registers: the handler runs before the system call returns to the next instruction.
    asm volatile("movdqu (%[in]), %%xmm1\n movdqu 16(%[in]), %%xmm15\n movq (%[in]), %%r8\n movq 8(%[in]), %%r9\n movq 16(%[in]), %%r10\n fldz\n fld1\n"
                 "movq %[nr], %%rax\n movq %[pid], %%rdi\n movq %[tid], %%rsi\n movq %[sig], %%rdx\n syscall\n"
                 "movdqu %%xmm1, (%[out])\n movdqu %%xmm15, 16(%[out])\n movq %%r8, 32(%[out])\n movq %%r9, 40(%[out])\n movq %%r10, 48(%[out])\n movq %%rax, 56(%[out])\n"
                 "fstpt %[st0]\n fstp %%st(0)\n"
                 : [st0] "=m"(st0)
                 : [in] "r"(in), [out] "r"(out), [nr] "i"((long)SYS_tgkill), [pid] "r"(pid), [tid] "r"(tid), [sig] "i"((long)SIGUSR1)
                 : "rax", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "xmm1", "xmm15", "memory");
    val("calls", "%d", calls);
    YES("xmm1", out[0] == in[0] && out[1] == in[1]);
    YES("xmm15", out[2] == in[2] && out[3] == in[3]);
    YES("r8_r9_r10", out[4] == in[0] && out[5] == in[1] && out[6] == in[2]);
    val("rax", "%ld", (long)out[7]);
    val("x87", "%Lg", st0);

    sa = (struct sigaction){.sa_sigaction = change, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &sa, NULL);
    uint64_t rbx, r12, x3;
    asm volatile("pxor %%xmm3, %%xmm3\n xorl %%ebx, %%ebx\n xorl %%r12d, %%r12d\n"
                 "movl %[nr], %%eax\n movq %[pid], %%rdi\n movq %[tid], %%rsi\n movl %[sig], %%edx\n syscall\n"
                 "movq %%rbx, %[rbx]\n movq %%r12, %[r12]\n movq %%xmm3, %[x3]\n"
                 : [rbx] "=&r"(rbx), [r12] "=&r"(r12), [x3] "=&r"(x3)
                 : [nr] "i"(SYS_tgkill), [pid] "r"(pid), [tid] "r"(tid), [sig] "i"(SIGUSR1)
                 : "rax", "rbx", "r12", "rdi", "rsi", "rdx", "rcx", "r11", "xmm3", "memory");
    val("changed.rbx", "%#lx", rbx);
    val("changed.r12", "%lu", r12);
    val("changed.xmm3", "%#lx", x3);
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
    val("changed.mask", "HUP %d USR1 %d", sigismember(&set, SIGHUP), sigismember(&set, SIGUSR1));
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);

    calls = 0;
    sa.sa_sigaction = skip;
    sigaction(SIGILL, &sa, NULL);
    for (int i = 0; i < 3; i++) asm volatile("ud2" ::: "memory");
    val("skipped_ud2", "%d", calls);

    sa.sa_sigaction = mask_in_uc;
    sigaction(SIGUSR1, &sa, NULL);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_SETMASK, &set, NULL);
    raise(SIGUSR1);
    val("uc_sigmask", "USR2 %lu USR1 %lu", seen_uc[0], seen_uc[1]);
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);

    signal(SIGUSR1, jump);
    int jumps = 0;
    for (int i = 0; i < 3; i++) {
        int r = sigsetjmp(env, 1);
        if (!r) raise(SIGUSR1);
        jumps += r == SIGUSR1;
    }
    val("siglongjmp", "%d", jumps);
    int r = sigsetjmp(env, 0);
    if (!r) raise(SIGUSR1);
    sigprocmask(SIG_BLOCK, NULL, &set);
    val("siglongjmp.mask_not_saved", "USR1 %d", sigismember(&set, SIGUSR1));
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);

    calls = 0;
    signal(SIGUSR1, outer);
    signal(SIGUSR2, inner);
    raise(SIGUSR1);
    val("nested", "%d", calls);

    // swapcontext, which is rt_sigprocmask and register moves.
    static char stk[65536];
    getcontext(&ctx_co);
    ctx_co.uc_stack.ss_sp = stk;
    ctx_co.uc_stack.ss_size = sizeof stk;
    ctx_co.uc_link = &ctx_main;
    makecontext(&ctx_co, coroutine, 0);
    for (int i = 0; i < 4; i++) swapcontext(&ctx_main, &ctx_co);
    val("swapcontext", "%d", co_steps);

    // The 128 bytes below the stack pointer belong to the interrupted function.
    calls = 0;
    signal(SIGILL, redzone_handler);
    sa = (struct sigaction){.sa_sigaction = skip, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &sa, NULL);
    uint64_t before, after;
    asm volatile("movq $0x5a5a5a5a, -8(%%rsp)\n movq $0x3c3c3c3c, -128(%%rsp)\n ud2\n movq -8(%%rsp), %0\n movq -128(%%rsp), %1" : "=r"(before), "=r"(after)::"memory");
    val("red_zone", "%#lx %#lx", before, after);
    // The direction flag is clear in a handler and comes back after it; arithmetic flags too.
    uint64_t flags;
    asm volatile("xorl %%eax, %%eax\n stc\n std\n ud2\n pushfq\n popq %0\n cld" : "=r"(flags)::"rax", "cc", "memory");
    val("flags", "carry %d direction %d", (int)(flags & 1), (int)(flags >> 10 & 1));
    // A frame that cannot be written kills.
    val("bad_stack", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); signal(SIGSEGV, inner);
                                       asm volatile("movq $0x1000, %%rsp\n ud2" ::: "memory"))));
    val("bad_sigreturn", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
                                           asm volatile("movq $0x1000, %%rsp\n movl $15, %%eax\n syscall" ::: "memory"))));
    val("segv_in_segv_handler", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); signal(SIGSEGV, (void (*)(int))(void *)8);
                                                  *(volatile int *)8 = 1)));
    val("segv_blocked", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); signal(SIGSEGV, inner); sigfillset(&set);
                                          sigprocmask(SIG_SETMASK, &set, NULL); *(volatile int *)8 = 1)));
    val("segv_ignored", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); signal(SIGSEGV, SIG_IGN); *(volatile int *)8 = 1)));
    return 0;
}
