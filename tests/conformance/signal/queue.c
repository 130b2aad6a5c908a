// Queueing and order of pending signals, sigtimedwait(2), sigsuspend(2), sigpending(2), masks over fork and threads,
// kill(2) targets and errnos.
#include "../check.h"

static int order[16], values[16], n;
static void record(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    order[n] = sig;
    values[n++] = si->si_value.sival_int;
}
static void *blocked_here(void *arg) {
    sigset_t s, p;
    sigprocmask(SIG_BLOCK, NULL, &s);
    val("thread.inherits_mask", "%d", sigismember(&s, SIGUSR1));
    sigpending(&p);
    val("thread.pending", "process %d thread %d", sigismember(&p, SIGUSR1), sigismember(&p, SIGUSR2));
    return arg;
}
static volatile sig_atomic_t hit;
static void on_hit(int sig) { hit = sig; }

int main(void) {
    const int rt = 40;
    sigset_t all, one, pend;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    struct sigaction sa = {.sa_sigaction = record, .sa_flags = SA_SIGINFO};
    sigfillset(&sa.sa_mask);
    for (int s = rt; s < rt + 3; s++) sigaction(s, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGUSR2, &sa, NULL);
    // Real-time signals queue in order; the lower number is delivered first; standard ones merge.
    for (int i = 0; i < 3; i++) sigqueue(getpid(), rt + 1, (union sigval){.sival_int = 10 + i});
    for (int i = 0; i < 2; i++) sigqueue(getpid(), rt, (union sigval){.sival_int = 20 + i});
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 30 + i});
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    val("delivered", "%d", n);
    for (int i = 0; i < n; i++) val("delivered.item", "%s %d", sname(order[i]), values[i]);
    sigprocmask(SIG_SETMASK, &all, NULL);
    // The thread's own queue comes before the process's.
    n = 0;
    kill(getpid(), SIGUSR1);
    raise(SIGUSR2);
    sigprocmask(SIG_SETMASK, &none, NULL);
    val("thread_queue_first", "%s %s", sname(order[0]), sname(order[1]));
    sigprocmask(SIG_SETMASK, &all, NULL);

    // sigtimedwait.
    siginfo_t si;
    struct timespec zero = {0}, ms1 = {0, 1000000}, bad = {0, -1};
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigaddset(&one, rt);
    RET("timedwait.none", sigtimedwait(&one, &si, &zero));
    RET("timedwait.timeout", sigtimedwait(&one, &si, &ms1));
    RET("timedwait.bad_timeout", sigtimedwait(&one, &si, &bad));
    RET("timedwait.bad_size", syscall(SYS_rt_sigtimedwait, &one, &si, &zero, 4));
    RET("timedwait.bad_set", syscall(SYS_rt_sigtimedwait, 8, &si, &zero, 8));
    sigqueue(getpid(), rt, (union sigval){.sival_int = 1});
    sigqueue(getpid(), rt, (union sigval){.sival_int = 2});
    kill(getpid(), SIGUSR1);
    RET("timedwait.lowest_first", sigtimedwait(&one, &si, &zero));
    RET("timedwait.then", sigtimedwait(&one, &si, &zero));
    val("timedwait.value", "%d code %d", si.si_value.sival_int, si.si_code);
    sigpending(&pend);
    val("timedwait.still_pending", "%d", sigismember(&pend, rt));
    RET("timedwait.null_info", sigtimedwait(&one, NULL, &zero));
    RET("timedwait.empty", sigtimedwait(&one, &si, &zero));
    // A signal outside the set interrupts.
    sigset_t not_usr2 = all;
    sigdelset(&not_usr2, SIGUSR2);
    baton b = baton_new();
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        kill(me, SIGUSR2);
        _exit(0);
    }
    sigprocmask(SIG_SETMASK, &not_usr2, NULL);
    RET("timedwait.interrupted", sigtimedwait(&one, &si, NULL));
    sigprocmask(SIG_SETMASK, &all, NULL);
    wait_for(pid);
    // A waiter is woken by a signal that is blocked.
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        kill(me, SIGUSR1);
        _exit(0);
    }
    RET("timedwait.woken", sigtimedwait(&one, &si, NULL));
    wait_for(pid);
    (void)b;

    // sigsuspend.
    signal(SIGUSR1, on_hit);
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        kill(me, SIGUSR1);
        _exit(0);
    }
    sigset_t not_usr1 = all;
    sigdelset(&not_usr1, SIGUSR1);
    RET("suspend", sigsuspend(&not_usr1));
    val("suspend.handled", "%d", hit);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    val("suspend.mask_restored", "%d", sigismember(&now, SIGUSR1));
    wait_for(pid);
    hit = 0;
    kill(me, SIGUSR1);
    RET("suspend.already_pending", sigsuspend(&not_usr1));
    val("suspend.already_handled", "%d", hit);
    RET("suspend.bad_size", syscall(SYS_rt_sigsuspend, &all, 4));

    // Masks.
    RET("mask.bad_how", syscall(SYS_rt_sigprocmask, 9, &one, NULL, 8));
    RET("mask.bad_how_null_set", syscall(SYS_rt_sigprocmask, 9, NULL, NULL, 8));
    RET("mask.bad_size", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &one, NULL, 16));
    RET("mask.bad_pointer", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, NULL, 8));
    uint64_t m = ~0UL, back = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &back, 8);
    val("mask.kill_stop_never", "%#lx", ~back);
    kill(me, SIGUSR1);
    raise(SIGUSR2);
    int st = CHILD(sigset_t s; sigprocmask(SIG_BLOCK, NULL, &s); sigpending(&pend);
                   val("fork.mask_inherited", "%d", sigismember(&s, SIGUSR1));
                   val("fork.pending_not", "%d %d", sigismember(&pend, SIGUSR1), sigismember(&pend, SIGUSR2)));
    pthread_t t;
    pthread_create(&t, NULL, blocked_here, NULL);
    pthread_join(t, NULL);
    sigpending(&pend);
    val("pending", "%d %d %s", sigismember(&pend, SIGUSR1), sigismember(&pend, SIGUSR2), wname(st));
    sigtimedwait(&all, &si, &zero);
    sigtimedwait(&all, &si, &zero);
    RET("sigpending.bad_size", syscall(SYS_rt_sigpending, &pend, 16));
    RET("sigpending.bad_pointer", syscall(SYS_rt_sigpending, 8, 8));

    // kill.
    RET("kill.zero_signal", kill(me, 0));
    RET("kill.no_process", kill(1 << 22, SIGTERM));
    RET("kill.no_group", kill(-(1 << 22), SIGTERM));
    RET("kill.bad_signal", kill(me, 65));
    RET("kill.negative_signal", kill(me, -1));
    RET("kill.int_min", kill(INT_MIN, SIGTERM));
    RET("tkill.bad_tid", syscall(SYS_tkill, 0, SIGTERM));
    RET("tkill.negative", syscall(SYS_tkill, -1, SIGTERM));
    RET("tgkill.bad_tgid", syscall(SYS_tgkill, 0, me, SIGTERM));
    RET("tgkill.no_thread", syscall(SYS_tgkill, me, 1 << 22, SIGTERM));
    pid = fork();
    if (pid == 0) _exit(0);
    waitid(P_PID, pid, &si, WEXITED | WNOWAIT);
    RET("kill.zombie", kill(pid, SIGTERM));
    wait_for(pid);
    RET("kill.reaped", kill(pid, SIGTERM));
    // A group of one's own: every member gets it.
    st = CHILD(
        setpgid(0, 0); sigprocmask(SIG_SETMASK, &none, NULL); baton bb = baton_new(); pid_t k[2];
        for (int i = 0; i < 2; i++) if (!(k[i] = fork())) { signal(SIGUSR1, SIG_DFL); baton_pass(&bb); for (;;) pause(); }
        baton_take(&bb); baton_take(&bb); signal(SIGUSR1, SIG_IGN); RET("kill.group", kill(0, SIGUSR1));
        val("kill.group_members", "%s %s", wname(wait_for(k[0])), wname(wait_for(k[1])));
        RET("kill.group_by_number", kill(-getpid(), 0)));
    val("kill.group_leader", "%s", wname(st));
    // RLIMIT_SIGPENDING bounds queued real-time signals, not kill().
    CHILD(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){0, 0}); RET("limit.sigqueue", sigqueue(getpid(), rt, (union sigval){0}));
          RET("limit.kill_rt", kill(getpid(), rt + 1)); RET("limit.kill", kill(getpid(), SIGUSR1)); sigpending(&pend);
          val("limit.pending", "%d %d %d", sigismember(&pend, rt), sigismember(&pend, rt + 1), sigismember(&pend, SIGUSR1)));
    return 0;
}
