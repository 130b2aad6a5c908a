// wait4(2) and waitid(2): exit codes, signals, options, which children are meant, siginfo, rusage, errnos.
#include "../check.h"

static void info(const char *name, siginfo_t *si, pid_t pid) {
    val(name, "%s code %d status %d pid %s uid %d errno %d", sname(si->si_signo), si->si_code, si->si_status,
        si->si_pid == pid ? "child" : si->si_pid ? "other" : "0", (int)si->si_uid - (int)getuid(), si->si_errno);
}

int main(void) {
    int st;
    siginfo_t si;
    static const int codes[] = {0, 1, 127, 128, 255, 256, 257, -1};
    for (size_t i = 0; i < COUNT(codes); i++) {
        char name[32];
        snprintf(name, sizeof name, "exit.%d", codes[i]);
        val(name, "%s", wname(CHILD(_exit(codes[i]))));
    }
    val("exit.raw_thread_exit", "%s", wname(CHILD(syscall(SYS_exit, 9))));
    static const int sigs[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGUSR1, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGPROF, SIGSYS, SIGIO, SIGPWR, SIGXCPU, SIGTRAP, SIGSTKFLT, 32, 34, 64};
    for (size_t i = 0; i < COUNT(sigs); i++) {
        char name[32];
        snprintf(name, sizeof name, "default.%s", sname(sigs[i]));
        // Whoever started the test may have had some of them ignored.
        val(name, "%s", wname(CHILD(signal(sigs[i], SIG_DFL); setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); syscall(SYS_kill, getpid(), sigs[i]))));
    }

    // Nothing to wait for.
    RET("none.wait4", waitpid(-1, &st, 0));
    RET("none.wnohang", waitpid(-1, &st, WNOHANG));
    RET("none.waitid", waitid(P_ALL, 0, &si, WEXITED));
    RET("none.not_a_child", waitpid(1 << 22, &st, 0));
    RET("wait4.bad_options", waitpid(-1, &st, 0x100));
    RET("wait4.int_min", waitpid(INT_MIN, &st, 0));
    RET("waitid.no_kind", waitid(P_ALL, 0, &si, 0));
    RET("waitid.only_wnohang", waitid(P_ALL, 0, &si, WNOHANG));
    RET("waitid.bad_options", waitid(P_ALL, 0, &si, WEXITED | 0x100));
    RET("waitid.bad_type", syscall(SYS_waitid, 9, 0, &si, WEXITED, NULL));
    RET("waitid.p_pid_0", waitid(P_PID, 0, &si, WEXITED));
    RET("waitid.p_pidfd_bad", waitid(P_PIDFD, 999, &si, WEXITED));

    baton b = baton_new();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        baton_take(&b);
        _exit(3);
    }
    RET("running.wnohang", waitpid(pid, &st, WNOHANG));
    memset(&si, 0xff, sizeof si);
    RET("running.waitid_wnohang", waitid(P_PID, pid, &si, WEXITED | WNOHANG));
    val("running.waitid_info", "signo %d pid %d", si.si_signo, si.si_pid);
    RET("running.not_in_group", waitpid(-(1 << 22), &st, WNOHANG));
    baton_pass(&b);
    RET("nowait", waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
    info("nowait.info", &si, pid);
    RET("nowait.again", waitid(P_ALL, 0, &si, WEXITED | WNOWAIT));
    YES("by_group", waitpid(0, &st, 0) == pid);
    val("by_group.status", "%s", wname(st));
    RET("gone", waitpid(pid, &st, 0));

    pid = MUST(fork());
    if (pid == 0) {
        raise(SIGKILL);
        _exit(0);
    }
    RET("killed", waitid(P_PGID, getpgrp(), &si, WEXITED));
    info("killed.info", &si, pid);

    // Stop and continue.
    pid = MUST(fork());
    if (pid == 0) {
        setpgid(0, 0); // a group of its own that has a parent in the session is not orphaned
        raise(SIGSTOP);
        raise(SIGTSTP);
        _exit(4);
    }
    YES("stop.wait", waitpid(pid, &st, WUNTRACED) == pid);
    val("stop.status", "%s", wname(st));
    RET("stop.once_only", waitpid(pid, &st, WUNTRACED | WNOHANG));
    RET("stop.kill_cont", kill(pid, SIGCONT));
    YES("stop.tstp", waitpid(pid, &st, WUNTRACED) == pid);
    val("stop.tstp_status", "%s", wname(st));
    RET("stop.waitid_again", waitid(P_PID, pid, &si, WSTOPPED | WNOHANG));
    kill(pid, SIGCONT);
    RET("stop.exited", waitid(P_PID, pid, &si, WEXITED));
    info("stop.exited_info", &si, pid);

    pid = MUST(fork());
    if (pid == 0) {
        for (;;) pause();
    }
    kill(pid, SIGSTOP);
    RET("cont.stopped", waitid(P_PID, pid, &si, WSTOPPED | WNOWAIT));
    info("cont.stopped_info", &si, pid);
    RET("cont.stopped_again", waitid(P_PID, pid, &si, WSTOPPED));
    kill(pid, SIGCONT);
    RET("cont.continued_nowait", waitid(P_PID, pid, &si, WCONTINUED | WNOWAIT));
    info("cont.continued_info", &si, pid);
    YES("cont.wait4", waitpid(pid, &st, WCONTINUED) == pid);
    val("cont.status", "%s raw %#x", wname(st), st);
    // In an orphaned process group the terminal's stop signals do nothing, SIGSTOP does.
    val("orphaned_group.tstp", "%s", wname(CHILD(setsid(); raise(SIGTSTP); raise(SIGTTIN); _exit(5))));
    kill(pid, SIGSTOP);
    waitpid(pid, &st, WUNTRACED);
    kill(pid, SIGKILL); // works on a stopped process
    YES("stopped.killed", waitpid(pid, &st, 0) == pid);
    val("stopped.killed_status", "%s", wname(st));

    // Kinds that are not asked for stay.
    pid = MUST(fork());
    if (pid == 0) _exit(5);
    waitid(P_PID, pid, &si, WEXITED | WNOWAIT);
    RET("kinds.stopped_only", waitid(P_PID, pid, &si, WSTOPPED | WNOHANG));
    RET("null_info", syscall(SYS_waitid, P_PID, pid, NULL, WEXITED | WNOWAIT, NULL));
    RET("null_status", syscall(SYS_wait4, pid, NULL, WNOHANG, NULL) == pid ? 0 : -2);
    pid = MUST(fork());
    if (pid == 0) _exit(5);
    RET("bad_status_pointer", syscall(SYS_wait4, pid, 8, 0, NULL));
    RET("bad_status_pointer.reaped_anyway", waitpid(pid, &st, 0));

    // SIGCHLD ignored: no zombies, and wait blocks until all are gone.
    signal(SIGCHLD, SIG_IGN);
    pid = MUST(fork());
    if (pid == 0) _exit(0);
    RET("ignored", waitpid(pid, &st, 0));
    signal(SIGCHLD, SIG_DFL);
    struct sigaction sa = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &sa, NULL);
    pid = MUST(fork());
    if (pid == 0) _exit(0);
    RET("nocldwait", waitpid(-1, &st, 0));
    signal(SIGCHLD, SIG_DFL);

    // Only one's own children; __WNOTHREAD and __WALL and __WCLONE.
    CHILD(RET("grandparent", waitpid(getppid(), &st, 0)));
    pid = syscall(SYS_clone, 0, 0, 0, 0, 0); // no exit signal
    if (pid == 0) _exit(6);
    RET("clone_child.not_by_default", waitpid(pid, &st, WNOHANG));
    YES("clone_child.wclone", waitpid(pid, &st, __WCLONE) == pid);
    val("clone_child.status", "%s", wname(st));
    pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (pid == 0) _exit(7);
    YES("clone_child.wall", waitpid(pid, &st, __WALL) == pid);

    // rusage and pidfd.
    struct rusage ru = {0};
    pid = MUST(fork());
    if (pid == 0) {
        int64_t t0 = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        while (now_ns(CLOCK_PROCESS_CPUTIME_ID) - t0 < 30000000)
            ;
        _exit(0);
    }
    wait4(pid, &st, 0, &ru);
    YES("rusage.cpu", ru.ru_utime.tv_sec * 1000000L + ru.ru_utime.tv_usec + ru.ru_stime.tv_sec * 1000000L + ru.ru_stime.tv_usec >= 20000);
    YES("rusage.maxrss", ru.ru_maxrss > 0);
    struct rusage rc = {0};
    RET("rusage.children", getrusage(RUSAGE_CHILDREN, &rc));
    YES("rusage.children_cpu", rc.ru_utime.tv_usec + rc.ru_utime.tv_sec + rc.ru_stime.tv_usec > 0);
    RET("rusage.bad", getrusage(77, &rc));
    pid = MUST(fork());
    if (pid == 0) _exit(8);
    int pfd = OK("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
    RET("pidfd.waitid", waitid(P_PIDFD, pfd, &si, WEXITED));
    info("pidfd.info", &si, pid);
    return 0;
}
