// sigaltstack(2): errnos, delivery on the alternate stack, SS_ONSTACK, SS_AUTODISARM, nesting, overflow of the stack.
#include "../check.h"
#include <setjmp.h>
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static char alt[65536] __attribute__((aligned(16))), other[65536] __attribute__((aligned(16)));
static volatile int on_alt, flags_inside, change_inside, nested_on_alt;
static sigjmp_buf env;

static bool inside(const void *p) { return (char *)p >= alt && (char *)p < alt + sizeof alt; }
static void handler(int sig) {
    char here;
    stack_t ss;
    on_alt = inside(&here);
    sigaltstack(NULL, &ss);
    flags_inside = ss.ss_flags;
    ss = (stack_t){.ss_sp = other, .ss_size = sizeof other};
    errno = 0;
    change_inside = sigaltstack(&ss, NULL) ? errno : 0;
    if (!change_inside && !(flags_inside & SS_DISABLE)) {
        ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt};
        sigaltstack(&ss, NULL);
    }
    if (sig == SIGUSR1) raise(SIGUSR2);
}
static void nested(int sig) {
    char here;
    (void)sig;
    nested_on_alt = inside(&here);
}
static void overflow(int sig, siginfo_t *si, void *uc) {
    char here;
    (void)uc;
    on_alt = inside(&here);
    val("overflow.signal", "%s code %d on alternate %d", sname(sig), si->si_code, on_alt);
    siglongjmp(env, 1);
}
static volatile int sink;
static __attribute__((noinline)) int recurse(int n) {
    volatile char pad[4096];
    pad[0] = n;
    sink = pad[0];
    return n > 1 << 20 ? 0 : recurse(n + 1) + pad[0];
}

int main(void) {
    stack_t ss, old;
    RET("get", sigaltstack(NULL, &old));
    val("initial", "flags %d size %zu", old.ss_flags, old.ss_size);
    ss = (stack_t){.ss_sp = alt, .ss_size = 2047};
    RET("too_small", sigaltstack(&ss, NULL));
    ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = 4};
    RET("bad_flags", sigaltstack(&ss, NULL));
    ss.ss_flags = SS_ONSTACK;
    RET("onstack_flag_is_accepted", sigaltstack(&ss, NULL));
    RET("get_back", sigaltstack(NULL, &old));
    val("get_back.value", "flags %d size %zu same %d", old.ss_flags, old.ss_size, old.ss_sp == alt);
    ss = (stack_t){.ss_flags = SS_DISABLE, .ss_size = 1};
    RET("disable", sigaltstack(&ss, NULL));
    sigaltstack(NULL, &old);
    val("disable.value", "flags %d size %zu sp %p", old.ss_flags, old.ss_size, old.ss_sp);
    RET("bad_pointer", syscall(SYS_sigaltstack, 8, NULL));
    RET("bad_old_pointer", syscall(SYS_sigaltstack, NULL, 8));

    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGHUP, &sa, NULL);
    raise(SIGHUP);
    val("none_set", "on alternate %d", on_alt);
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt};
    sigaltstack(&ss, NULL);
    raise(SIGHUP);
    val("delivery", "on alternate %d flags %d change %s", on_alt, flags_inside, ename(change_inside));
    sigaltstack(NULL, &old);
    val("delivery.after", "flags %d", old.ss_flags);
    sa.sa_flags = 0;
    sigaction(SIGHUP, &sa, NULL);
    raise(SIGHUP);
    val("without_sa_onstack", "on alternate %d flags %d change %s", on_alt, flags_inside, ename(change_inside));
    // A second handler stays on the alternate stack; one without SA_ONSTACK too, because it uses the current stack.
    struct sigaction sb = {.sa_handler = nested};
    sigaction(SIGUSR2, &sb, NULL);
    sa.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    val("nested.plain", "on alternate %d", nested_on_alt);
    sb.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR2, &sb, NULL);
    raise(SIGUSR1);
    val("nested.onstack", "on alternate %d", nested_on_alt);
    // SS_AUTODISARM: inside the handler there is none, and it may be changed; afterwards it is back.
    ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = SS_AUTODISARM};
    RET("autodisarm", sigaltstack(&ss, NULL));
    sigaction(SIGHUP, &sa, NULL);
    raise(SIGHUP);
    val("autodisarm.inside", "on alternate %d flags %d change %s", on_alt, flags_inside, ename(change_inside));
    sigaltstack(NULL, &old);
    val("autodisarm.after", "flags %#x same %d", (unsigned)old.ss_flags, old.ss_sp == alt);
    // Fork keeps it, a new thread has none (glibc's threads share memory: CLONE_VM without CLONE_VFORK clears it).
    CHILD(sigaltstack(NULL, &old); val("fork", "same %d", old.ss_sp == alt));
    // Overflow of the main stack.
    int st = CHILD(
        setrlimit(RLIMIT_STACK, &(struct rlimit){256 << 10, 256 << 10}); ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt};
        sigaltstack(&ss, NULL); struct sigaction so = {.sa_sigaction = overflow, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigaction(SIGSEGV, &so, NULL); if (!sigsetjmp(env, 1)) recurse(0); val("overflow.recovered", "yes");
        if (!sigsetjmp(env, 1)) recurse(0); val("overflow.twice", "yes"));
    val("overflow.child", "%s", wname(st));
    st = CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); setrlimit(RLIMIT_STACK, &(struct rlimit){256 << 10, 256 << 10});
               ss = (stack_t){.ss_flags = SS_DISABLE}; sigaltstack(&ss, NULL); struct sigaction so = {.sa_sigaction = overflow, .sa_flags = SA_SIGINFO};
               sigaction(SIGSEGV, &so, NULL); recurse(0));
    val("overflow.without_altstack", "%s", wname(st));
    return 0;
}
