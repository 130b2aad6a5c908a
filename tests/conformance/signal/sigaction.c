// rt_sigaction(2): errnos, what comes back, SA_RESETHAND, SA_NODEFER, sa_mask, SA_SIGINFO, signals that cannot be caught.
#include "../check.h"

struct ksigaction { void *handler; unsigned long flags; void *restorer; unsigned long mask; };

static volatile int depth, max_depth, calls;
static volatile int blocked[65];

static void note_mask(int sig) {
    sigset_t set;
    (void)sig;
    sigprocmask(SIG_BLOCK, NULL, &set);
    for (int i = 1; i < 65; i++) blocked[i] = sigismember(&set, i) == 1;
    calls++;
}
static void recursive(int sig) {
    depth++;
    calls++;
    if (depth > max_depth) max_depth = depth;
    if (calls < 3) raise(sig);
    depth--;
}
static void first_then_second(int sig) {
    static int order[4], n;
    order[n++] = sig;
    if (n == 2) val("order", "%s %s", sname(order[0]), sname(order[1]));
}

int main(void) {
    struct sigaction sa = {.sa_handler = SIG_IGN}, old;
    RET("bad_signal.0", sigaction(0, &sa, NULL));
    RET("bad_signal.65", sigaction(65, &sa, NULL));
    RET("bad_signal.negative", sigaction(-1, &sa, NULL));
    RET("kill.set", sigaction(SIGKILL, &sa, NULL));
    RET("stop.set", sigaction(SIGSTOP, &sa, NULL));
    RET("kill.get", sigaction(SIGKILL, NULL, &old));
    RET("raw.bad_size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    RET("raw.bad_new", syscall(SYS_rt_sigaction, SIGUSR1, 8, NULL, 8));
    RET("raw.bad_old", syscall(SYS_rt_sigaction, SIGUSR1, NULL, 8, 8));
    RET("raw.get", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 8));
    struct ksigaction k = {.handler = (void *)0x1234, .flags = 0x10000000 | 0x04000000, .restorer = (void *)0x5678, .mask = ~0UL}, kold;
    RET("raw.set", syscall(SYS_rt_sigaction, SIGUSR1, &k, NULL, 8));
    RET("raw.get_back", syscall(SYS_rt_sigaction, SIGUSR1, NULL, &kold, 8));
    val("raw.value", "handler %p restorer %p flags %#lx mask %#lx", kold.handler, kold.restorer, kold.flags, kold.mask);
    // Flags that the kernel does not know are cleared, so that a program can find out what it supports.
    k.flags = 0x04000000 | 0x00800000 | 0x400 | 0x800;
    syscall(SYS_rt_sigaction, SIGUSR1, &k, NULL, 8);
    syscall(SYS_rt_sigaction, SIGUSR1, NULL, &kold, 8);
    val("raw.flags_support", "%#lx", kold.flags);
    signal(SIGUSR1, SIG_DFL);

    sa = (struct sigaction){.sa_handler = note_mask};
    sigaddset(&sa.sa_mask, SIGUSR2);
    sigaddset(&sa.sa_mask, SIGKILL);
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    val("mask.in_handler", "USR1 %d USR2 %d HUP %d KILL %d", blocked[SIGUSR1], blocked[SIGUSR2], blocked[SIGHUP], blocked[SIGKILL]);
    note_mask(0);
    val("mask.after", "USR1 %d USR2 %d", blocked[SIGUSR1], blocked[SIGUSR2]);
    sa.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    val("nodefer.in_handler", "USR1 %d USR2 %d", blocked[SIGUSR1], blocked[SIGUSR2]);

    calls = max_depth = 0;
    sa = (struct sigaction){.sa_handler = recursive};
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    val("recursive.deferred", "calls %d depth %d", calls, max_depth);
    calls = max_depth = 0;
    sa.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    val("recursive.nodefer", "calls %d depth %d", calls, max_depth);

    sa = (struct sigaction){.sa_handler = note_mask, .sa_flags = SA_RESETHAND};
    sigaction(SIGUSR1, &sa, NULL);
    calls = 0;
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &old);
    val("resethand", "calls %d now %s USR1 %d", calls, old.sa_handler == SIG_DFL ? "default" : "kept", blocked[SIGUSR1]);
    val("resethand.second_kills", "%s", wname(CHILD(sigaction(SIGUSR1, &sa, NULL); raise(SIGUSR1); raise(SIGUSR1))));
    sa.sa_flags = SA_RESETHAND | SA_NODEFER | SA_RESTART | SA_NOCLDSTOP;
    sigaction(SIGUSR1, &sa, &old);
    sigaction(SIGUSR1, NULL, &old);
    val("flags.get_back", "%#x", old.sa_flags & ~0x04000000);

    // Ignoring a pending signal drops it; the default action of SIGCHLD and SIGWINCH too.
    sigset_t set, pend;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGURG);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR1, SIG_DFL);
    raise(SIGUSR1);
    raise(SIGCHLD);
    sigpending(&pend);
    val("pending", "USR1 %d CHLD %d", sigismember(&pend, SIGUSR1), sigismember(&pend, SIGCHLD));
    signal(SIGUSR1, SIG_IGN);
    sigpending(&pend);
    val("pending.ignored_now", "USR1 %d", sigismember(&pend, SIGUSR1));
    raise(SIGUSR1);
    sigpending(&pend);
    val("pending.ignored_while_blocked", "USR1 %d", sigismember(&pend, SIGUSR1));
    signal(SIGCHLD, SIG_DFL);
    sigpending(&pend);
    val("pending.set_default", "CHLD %d", sigismember(&pend, SIGCHLD));

    // Two pending signals: the lower number's handler is entered last, thus runs first when masks do not stop it.
    sa = (struct sigaction){.sa_handler = first_then_second};
    sigfillset(&sa.sa_mask);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGUSR2, &sa, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    raise(SIGHUP);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    // Stopping signals and SIGCONT throw each other out of the queue.
    int st = CHILD(
        sigset_t s; sigfillset(&s); sigprocmask(SIG_SETMASK, &s, NULL); signal(SIGTSTP, SIG_DFL); raise(SIGTSTP); raise(SIGTTIN);
        sigpending(&pend); val("stop_pending", "TSTP %d TTIN %d CONT %d", sigismember(&pend, SIGTSTP), sigismember(&pend, SIGTTIN), sigismember(&pend, SIGCONT));
        raise(SIGCONT); sigpending(&pend);
        val("cont_drops_stop", "TSTP %d TTIN %d CONT %d", sigismember(&pend, SIGTSTP), sigismember(&pend, SIGTTIN), sigismember(&pend, SIGCONT));
        raise(SIGTSTP); sigpending(&pend);
        val("stop_drops_cont", "TSTP %d TTIN %d CONT %d", sigismember(&pend, SIGTSTP), sigismember(&pend, SIGTTIN), sigismember(&pend, SIGCONT)));
    val("child", "%s", wname(st));
    return 0;
}
