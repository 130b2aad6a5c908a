// Vector and floating-point state: initial values after execve, kept over system calls, faults, switches between threads,
// fork and signals; the FPU part of the signal frame. Also what a system call does to the general registers. syscall(2).
#include "../check.h"
#include <cpuid.h>
#include <immintrin.h>
#include <ucontext.h>

static bool has_avx(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX)) return false;
    unsigned lo, hi;
    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (lo & 6) == 6;
}
static unsigned mxcsr(void) { unsigned v; asm volatile("stmxcsr %0" : "=m"(v)); return v; }
static unsigned short fcw(void) { unsigned short v; asm volatile("fnstcw %0" : "=m"(v)); return v; }
static unsigned start_mxcsr;
static unsigned short start_fcw;

// Loads 16 xmm registers with a pattern, does n rounds of calls, and counts registers that have changed.
static long xmm_rounds(uint64_t seed, int n, long nr) {
    uint64_t in[32], out[32];
    long wrong = 0;
    for (int r = 0; r < n; r++) {
        for (int i = 0; i < 32; i++) in[i] = seed * 0x9e3779b97f4a7c15 + r * 1000 + i;
#define LD(k) "movdqu " #k "*16(%[in]), %%xmm" #k "\n"
#define ST(k) "movdqu %%xmm" #k ", " #k "*16(%[out])\n"
        asm volatile(LD(0) LD(1) LD(2) LD(3) LD(4) LD(5) LD(6) LD(7) LD(8) LD(9) LD(10) LD(11) LD(12) LD(13) LD(14) LD(15)
                     "movq %[nr], %%rax\n syscall\n"
                     ST(0) ST(1) ST(2) ST(3) ST(4) ST(5) ST(6) ST(7) ST(8) ST(9) ST(10) ST(11) ST(12) ST(13) ST(14) ST(15)
                     ::[in] "r"(in), [out] "r"(out), [nr] "r"(nr)
                     : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
        for (int i = 0; i < 32; i++) wrong += in[i] != out[i];
    }
    return wrong;
}
__attribute__((target("avx"))) static long ymm_rounds(uint64_t seed, int n) {
    long wrong = 0;
    uint64_t in[8], out[8];
    for (int r = 0; r < n; r++) {
        for (int i = 0; i < 8; i++) in[i] = seed * 77 + r * 13 + i;
        asm volatile("vmovdqu (%[in]), %%ymm5\n vmovdqu 32(%[in]), %%ymm13\n movl $24, %%eax\n syscall\n vmovdqu %%ymm5, (%[out])\n vmovdqu %%ymm13, 32(%[out])\n vzeroupper" // sched_yield
                     ::[in] "r"(in), [out] "r"(out) : "rax", "rcx", "r11", "memory", "xmm5", "xmm13");
        for (int i = 0; i < 8; i++) wrong += in[i] != out[i];
    }
    return wrong;
}
static void *xmm_thread(void *arg) {
    return (void *)xmm_rounds((uint64_t)arg, 300, SYS_sched_yield);
}
static void *ymm_thread(void *arg) {
    return (void *)ymm_rounds((uint64_t)arg, 300);
}
static void *control_thread(void *arg) {
    unsigned m = mxcsr();
    unsigned short f = fcw();
    *(unsigned *)arg = m << 16 | f;
    return NULL;
}
static volatile int in_handler;
static unsigned handler_mxcsr;
static unsigned short handler_fcw;
static volatile uint64_t frame_xmm2;
static void handler(int sig, siginfo_t *si, void *p) {
    ucontext_t *uc = p;
    (void)sig;
    (void)si;
    in_handler++;
    handler_mxcsr = mxcsr();
    handler_fcw = fcw();
    frame_xmm2 = uc->uc_mcontext.fpregs ? *(uint64_t *)uc->uc_mcontext.fpregs->_xmm[2].element : 0;
    unsigned other = 0x1f80 | 0x6000;
    unsigned short cw = 0x27f;
    asm volatile("ldmxcsr %0\n fldcw %1" ::"m"(other), "m"(cw));
    asm volatile("pcmpeqd %%xmm2, %%xmm2\n pcmpeqd %%xmm9, %%xmm9" ::: "xmm2", "xmm9");
}

__attribute__((constructor)) static void first(void) {
    start_mxcsr = mxcsr();
    start_fcw = fcw();
}

int main(void) {
    val("start.mxcsr", "%#x", start_mxcsr);
    val("start.fcw", "%#x", start_fcw);
    val("xmm.getpid", "%ld", xmm_rounds(1, 50, SYS_getpid));
    val("xmm.yield", "%ld", xmm_rounds(2, 50, SYS_sched_yield));
    val("xmm.unknown_syscall", "%ld", xmm_rounds(3, 20, 5000));
    pthread_t t[6];
    void *r;
    long wrong = 0;
    for (long i = 0; i < 6; i++) pthread_create(&t[i], NULL, xmm_thread, (void *)(i + 1));
    for (int i = 0; i < 6; i++) {
        pthread_join(t[i], &r);
        wrong += (long)r;
    }
    val("xmm.threads", "%ld", wrong);
    wrong = 0;
    if (has_avx()) {
        for (long i = 0; i < 6; i++) pthread_create(&t[i], NULL, ymm_thread, (void *)(i + 1));
        for (int i = 0; i < 6; i++) {
            pthread_join(t[i], &r);
            wrong += (long)r;
        }
    }
    val("ymm.threads", "%ld", wrong);
    // Control words are a thread's own, inherited when it is made; a system call and a fault leave them.
    unsigned odd = 0x1f80 | 0x2000, seen = 0;
    unsigned short cw = 0x77f;
    asm volatile("ldmxcsr %0\n fldcw %1" ::"m"(odd), "m"(cw));
    getppid();
    *(volatile char *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
    val("control.kept", "%#x %#x", mxcsr(), fcw());
    pthread_create(&t[0], NULL, control_thread, &seen);
    pthread_join(t[0], NULL);
    val("control.new_thread", "%#x %#x", seen >> 16, seen & 0xffff);
    val("control.fork", "%s", wname(CHILD(_exit(mxcsr() == odd && fcw() == cw ? 0 : 1))));
    // In a handler: the default environment, and the interrupted one in the frame and back afterwards.
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &sa, NULL);
    uint64_t x2 = 0x1234567890abcdef, x9 = 0xfedcba, o2, o9;
    long pid = getpid();
    asm volatile("movq %[a], %%xmm2\n movq %[b], %%xmm9\n movl $62, %%eax\n movq %[pid], %%rdi\n movl $10, %%esi\n syscall\n movq %%xmm2, %[o2]\n movq %%xmm9, %[o9]\n"
                 : [o2] "=&r"(o2), [o9] "=&r"(o9) : [a] "r"(x2), [b] "r"(x9), [pid] "r"(pid) : "rax", "rdi", "rsi", "rcx", "r11", "xmm2", "xmm9", "memory");
    val("handler.calls", "%d", in_handler);
    val("handler.environment", "%#x %#x", handler_mxcsr, handler_fcw);
    YES("handler.frame_has_xmm", frame_xmm2 == x2);
    YES("handler.xmm_restored", o2 == x2 && o9 == x9);
    val("handler.control_restored", "%#x %#x", mxcsr(), fcw());
    asm volatile("ldmxcsr %0\n fninit" ::"m"(start_mxcsr));
    // x87: the stack survives a system call and a switch.
    long double st;
    asm volatile("fninit\n fld1\n fldpi\n faddp\n movl $24, %%eax\n syscall\n fstpt %0" : "=m"(st)::"rax", "rcx", "r11", "memory");
    val("x87.kept", "%.6Lf", st);
    // General registers over a system call: everything but rax, rcx and r11 is kept.
    static struct { uint64_t in[11], out[11], rcx, r11, flags, next, rbx, rbp; } g;
    register void *base asm("r15") = &g;
    for (int i = 0; i < 11; i++) g.in[i] = 0x1000000000000000 + i * 0x123456789;
    asm volatile("movq %%rbx, 208(%%r15)\n movq %%rbp, 216(%%r15)\n"
                 "movq (%%r15), %%rbx\n movq 8(%%r15), %%rbp\n movq 16(%%r15), %%rdx\n movq 24(%%r15), %%rsi\n movq 32(%%r15), %%rdi\n movq 40(%%r15), %%r8\n"
                 "movq 48(%%r15), %%r9\n movq 56(%%r15), %%r10\n movq 64(%%r15), %%r12\n movq 72(%%r15), %%r13\n movq 80(%%r15), %%r14\n"
                 "movl $39, %%eax\n stc\n syscall\n1:\n"
                 "movq %%rcx, 176(%%r15)\n movq %%r11, 184(%%r15)\n leaq -128(%%rsp), %%rsp\n pushfq\n popq 192(%%r15)\n leaq 128(%%rsp), %%rsp\n leaq 1b(%%rip), %%rcx\n movq %%rcx, 200(%%r15)\n"
                 "movq %%rbx, 88(%%r15)\n movq %%rbp, 96(%%r15)\n movq %%rdx, 104(%%r15)\n movq %%rsi, 112(%%r15)\n movq %%rdi, 120(%%r15)\n movq %%r8, 128(%%r15)\n"
                 "movq %%r9, 136(%%r15)\n movq %%r10, 144(%%r15)\n movq %%r12, 152(%%r15)\n movq %%r13, 160(%%r15)\n movq %%r14, 168(%%r15)\n"
                 "movq 208(%%r15), %%rbx\n movq 216(%%r15), %%rbp\n"
                 ::"r"(base) : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "memory", "cc");
    YES("registers.kept", !memcmp(g.in, g.out, sizeof g.in));
    YES("registers.rcx_is_next", g.rcx == g.next);
    YES("registers.r11_is_flags", (g.r11 & 0x8d5) == (g.flags & 0x8d5));
    val("registers.carry_kept", "%d", (int)(g.flags & 1));
    // The high half of the number's register counts: only the low 32 bits are looked at.
    long low;
    asm volatile("movq $0x100000027, %%rax\n syscall" : "=a"(low)::"rcx", "r11", "memory");
    val("number.high_bits", "%s", low == pid ? "ignored" : low == -ENOSYS ? "ENOSYS" : "other");
    return 0;
}
