// Exceptions of SSE: a division by zero that is not masked, and what the signal says of it. sigaction(2).
// processor: real (emulated ones raise no SSE exceptions)
#include "../check.h"
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf env;
static siginfo_t got;
static long got_trapno;

static void jumper(int sig, siginfo_t *si, void *uc) {
    (void)sig;
    got = *si;
    got_trapno = ((ucontext_t *)uc)->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(env, 1);
}

static void try(const char *name, unsigned unmasked, float a, float b) {
    unsigned mxcsr = 0x1f80 & ~unmasked, usual = 0x1f80;
    if (!sigsetjmp(env, 1)) {
        asm volatile("ldmxcsr %2\n divss %1, %0" : "+x"(a) : "x"(b), "m"(mxcsr));
        val(name, "no signal");
    } else {
        val(name, "%s code %d trapno %ld", sname(got.si_signo), got.si_code, got_trapno);
    }
    asm volatile("ldmxcsr %0" ::"m"(usual));
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = jumper, .sa_flags = SA_SIGINFO};
    sigaction(SIGFPE, &sa, NULL);
    try("masked", 0, 1, 0);
    try("divide", 0x200, 1, 0);
    try("invalid", 0x080, 0, 0);
    try("overflow", 0x400, 3e38f, 1e-3f);
    try("underflow", 0x800, 1e-38f, 1e10f);
    try("inexact", 0x1000, 1, 3);
    return 0;
}
