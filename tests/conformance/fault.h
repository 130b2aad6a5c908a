// For programs that touch memory on purpose: says what a single access does, with the address relative to a base.
#ifndef FAULT_H
#define FAULT_H
#include "check.h"
#include <setjmp.h>

static sigjmp_buf fault_env;
static siginfo_t fault_info;

HELPER void fault_handler(int sig, siginfo_t *info, void *ctx) {
    (void)sig;
    (void)ctx;
    fault_info = *info;
    siglongjmp(fault_env, 1);
}

HELPER const char *fault_code(int sig, int code) {
    if (sig == SIGSEGV && code == SEGV_MAPERR) return "MAPERR";
    if (sig == SIGSEGV && code == SEGV_ACCERR) return "ACCERR";
    if (sig == SIGBUS && code == BUS_ADRERR) return "ADRERR";
    if (sig == SIGBUS && code == BUS_ADRALN) return "ADRALN";
    if (code == SI_KERNEL) return "KERNEL";
    return "other";
}

// kind: 'r' reads a byte, 'w' writes one back, 'x' calls it. Returns `ok` or e.g. `SIGSEGV ACCERR +4096`.
HELPER const char *touch(volatile char *p, char kind, const void *base) {
    static char buf[80];
    struct sigaction sa = {.sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO}, segv, bus;
    sigaction(SIGSEGV, &sa, &segv);
    sigaction(SIGBUS, &sa, &bus);
    if (sigsetjmp(fault_env, 1) == 0) {
        if (kind == 'r') (void)*p;
        else if (kind == 'w') *p = 'W';
        else ((void (*)(void))(uintptr_t)p)();
        snprintf(buf, sizeof buf, "ok");
    } else {
        snprintf(buf, sizeof buf, "%s %s %+ld", sname(fault_info.si_signo),
                 fault_code(fault_info.si_signo, fault_info.si_code),
                 (long)((char *)fault_info.si_addr - (char *)base));
    }
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGBUS, &bus, NULL);
    return buf;
}
#define TOUCH(name, p, kind, base) val(name, "%s", touch((volatile char *)(p), kind, base))

#endif
