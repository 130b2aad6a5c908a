// prctl(2), getrlimit and prlimit(2), priorities and scheduling, affinity, personality(2), getcpu(2), orphans and
// sub-reapers, parent death signals, getpid and friends.
#include "../check.h"
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>

static void limit(const char *name, int which, rlim_t cur, rlim_t max) {
    struct rlimit rl = {cur, max};
    char n[64];
    RET(name, setrlimit(which, &rl));
    snprintf(n, sizeof n, "%s.get", name);
    getrlimit(which, &rl);
    val(n, "%lld %lld", (long long)rl.rlim_cur, (long long)rl.rlim_max);
}

int main(void) {
    char name[32] = {0};
    // prctl
    RET("name.set", prctl(PR_SET_NAME, "a-name-of-twenty-chars"));
    RET("name.get", prctl(PR_GET_NAME, name));
    val("name", "%s", name);
    RET("name.bad", prctl(PR_SET_NAME, 8));
    RET("dumpable", prctl(PR_GET_DUMPABLE));
    RET("dumpable.bad", prctl(PR_SET_DUMPABLE, 2));
    RET("dumpable.off", prctl(PR_SET_DUMPABLE, 0));
    RET("dumpable.now", prctl(PR_GET_DUMPABLE));
    RET("dumpable.on", prctl(PR_SET_DUMPABLE, 1));
    RET("pdeathsig.bad", prctl(PR_SET_PDEATHSIG, 65));
    RET("pdeathsig.get", ({ int s = -1; prctl(PR_GET_PDEATHSIG, &s); s; }));
    CHILD(RET("no_new_privs.set", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); RET("no_new_privs.unset", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)); RET("no_new_privs.extra", prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
          RET("no_new_privs.get", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); CHILD(RET("no_new_privs.inherited", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))));
    RET("keepcaps.bad", prctl(PR_SET_KEEPCAPS, 2));
    RET("securebits", prctl(PR_GET_SECUREBITS));
    RET("timerslack", prctl(PR_SET_TIMERSLACK, 77777));
    RET("timerslack.get", prctl(PR_GET_TIMERSLACK));
    RET("timerslack.reset", prctl(PR_SET_TIMERSLACK, 0));
    RET("timing", prctl(PR_GET_TIMING));
    RET("subreaper.get", ({ int s = -1; prctl(PR_GET_CHILD_SUBREAPER, &s); s; }));
    RET("unknown", prctl(9999, 0, 0, 0, 0));
    RET("tid_address", ({ int *p = NULL; prctl(PR_GET_TID_ADDRESS, &p) == 0 || errno == EINVAL ? 0 : -1; }));
    // Limits.
    CHILD(limit("nofile", RLIMIT_NOFILE, 100, 200); limit("nofile.raise_soft", RLIMIT_NOFILE, 200, 200); limit("soft_above_hard", RLIMIT_NOFILE, 300, 200); limit("core", RLIMIT_CORE, 0, 0);
          limit("cpu_infinity", RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY); limit("stack_huge", RLIMIT_STACK, 1UL << 40, 1UL << 41); limit("nofile.beyond_nr_open", RLIMIT_NOFILE, 1, RLIM_INFINITY));
    RET("rlimit.bad", syscall(SYS_getrlimit, 16, &(struct rlimit){0}));
    RET("rlimit.bad_pointer", syscall(SYS_getrlimit, 0, 8));
    CHILD(struct rlimit o = {0}; struct rlimit nw = {50, 60}; RET("prlimit", prlimit(0, RLIMIT_NOFILE, &nw, NULL)); RET("prlimit.get", prlimit(getpid(), RLIMIT_NOFILE, NULL, &o)); val("prlimit.value", "%ld %ld", (long)o.rlim_cur, (long)o.rlim_max);
          RET("prlimit.bad", prlimit(0, 16, NULL, &o)); RET("prlimit.no_process", prlimit(1 << 22, RLIMIT_NOFILE, NULL, &o)); RET("prlimit.soft_above_hard", prlimit(0, RLIMIT_NOFILE, &(struct rlimit){70, 60}, &o)));
    CHILD(setrlimit(RLIMIT_NOFILE, &(struct rlimit){50, 60}); MUST(setresuid(1000, 1000, 1000)); RET("user.raise_hard", setrlimit(RLIMIT_NOFILE, &(struct rlimit){50, 61})); RET("user.raise_soft", setrlimit(RLIMIT_NOFILE, &(struct rlimit){60, 60}));
          RET("user.lower_hard", setrlimit(RLIMIT_NOFILE, &(struct rlimit){40, 40})));
    pid_t me = getpid();
    int st = CHILD(setrlimit(RLIMIT_NOFILE, &(struct rlimit){33, 44}); CHILD(struct rlimit o; getrlimit(RLIMIT_NOFILE, &o); val("rlimit.inherited", "%ld %ld", (long)o.rlim_cur, (long)o.rlim_max);
                   RET("prlimit.parent", prlimit(getppid(), RLIMIT_NOFILE, NULL, &o)); val("prlimit.parent_value", "%ld", (long)o.rlim_cur)));
    val("rlimit.child", "%s", wname(st));
    val("rlimit_cpu", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); setrlimit(RLIMIT_CPU, &(struct rlimit){0, 1}); signal(SIGXCPU, SIG_DFL); for (;;) ;)));
    CHILD(setrlimit(RLIMIT_NPROC, &(struct rlimit){1, 1}); MUST(setresuid(54321, 54321, 54321)); pid_t k = fork(); if (k == 0) _exit(0); val("nproc.fork", "%s", k < 0 ? ename(errno) : "ok"));
    // Priorities.
    RET("getpriority", getpriority(PRIO_PROCESS, 0));
    RET("getpriority.raw", syscall(SYS_getpriority, PRIO_PROCESS, 0));
    CHILD(RET("setpriority", setpriority(PRIO_PROCESS, 0, 7)); RET("getpriority.seven", getpriority(PRIO_PROCESS, 0)); RET("nice", ({ nice(2); getpriority(PRIO_PROCESS, 0); })); RET("setpriority.clamped", ({ setpriority(PRIO_PROCESS, 0, 100); getpriority(PRIO_PROCESS, 0); }));
          CHILD(RET("priority.inherited", getpriority(PRIO_PROCESS, 0))); MUST(setresuid(1000, 1000, 1000)); RET("setpriority.user_lower", setpriority(PRIO_PROCESS, 0, 3)););
    RET("getpriority.bad_which", getpriority(9, 0));
    RET("getpriority.no_process", getpriority(PRIO_PROCESS, 1 << 22));
    RET("setpriority.no_process", setpriority(PRIO_PROCESS, 1 << 22, 0));
    struct sched_param sp = {-1};
    RET("scheduler", sched_getscheduler(0));
    RET("scheduler.param", sched_getparam(0, &sp));
    val("scheduler.priority", "%d", sp.sched_priority);
    RET("scheduler.batch", CHILD(_exit(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) == 0 && sched_getscheduler(0) == SCHED_BATCH ? 0 : 1)));
    RET("scheduler.other_with_priority", sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){1}));
    RET("scheduler.bad", sched_setscheduler(0, 99, &(struct sched_param){0}));
    RET("scheduler.no_process", sched_getscheduler(1 << 22));
    RET("scheduler.negative", sched_getscheduler(-1));
    val("priority_range", "%d %d %d %d", sched_get_priority_min(SCHED_FIFO), sched_get_priority_max(SCHED_FIFO), sched_get_priority_min(SCHED_OTHER), sched_get_priority_max(SCHED_OTHER));
    RET("priority_range.bad", sched_get_priority_max(99));
    RET("sched_yield", sched_yield());
    struct timespec ts;
    RET("rr_interval", sched_rr_get_interval(0, &ts));
    RET("rr_interval.no_process", sched_rr_get_interval(1 << 22, &ts));
    // Affinity.
    cpu_set_t set, one;
    CPU_ZERO(&set);
    RET("affinity", sched_getaffinity(0, sizeof set, &set));
    YES("affinity.count", CPU_COUNT(&set) >= 1);
    YES("affinity.raw_returns_size", ({ long r = syscall(SYS_sched_getaffinity, 0, sizeof set, &set); r >= 8 && r % 8 == 0 && r <= (long)sizeof set; }));
    RET("affinity.small", syscall(SYS_sched_getaffinity, 0, 4, &set));
    RET("affinity.odd", syscall(SYS_sched_getaffinity, 0, 129, &set));
    RET("affinity.no_process", sched_getaffinity(1 << 22, sizeof set, &set));
    RET("affinity.bad_pointer", syscall(SYS_sched_getaffinity, 0, 128, 8));
    CPU_ZERO(&one);
    RET("affinity.set_empty", sched_setaffinity(0, sizeof one, &one));
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) {
            CPU_SET(i, &one);
            break;
        }
    CHILD(RET("affinity.set_one", sched_setaffinity(0, sizeof one, &one)); cpu_set_t now; sched_getaffinity(0, sizeof now, &now); val("affinity.one", "%d same %d", CPU_COUNT(&now), CPU_EQUAL(&now, &one));
          unsigned cpu = 99; unsigned node; getcpu(&cpu, &node); val("affinity.getcpu", "%d", CPU_ISSET(cpu, &one) != 0); CHILD(sched_getaffinity(0, sizeof now, &now); val("affinity.inherited", "%d", CPU_COUNT(&now))));
    RET("getcpu.bad", syscall(SYS_getcpu, 8, 8, NULL));
    RET("getcpu.nulls", syscall(SYS_getcpu, NULL, NULL, NULL));
    // Personality.
    RET("personality", personality(0xffffffff));
    CHILD(RET("personality.set", personality(ADDR_NO_RANDOMIZE)); RET("personality.get", personality(0xffffffff)));
    // Orphans.
    baton b = baton_new();
    int up[2];
    MUST(pipe(up));
    st = CHILD(
        RET("subreaper.set", prctl(PR_SET_CHILD_SUBREAPER, 1)); pid_t self = getpid(); pid_t k = fork();
        if (k == 0) {
            if (fork() == 0) {
                // The orphan: waits until its parent is gone.
                while (getppid() != self) sched_yield();
                _exit(42);
            }
            _exit(7);
        } val("subreaper.child", "%s", wname(wait_for(k))); int s2; YES("subreaper.adopted", waitpid(-1, &s2, 0) > 0); val("subreaper.orphan", "%s", wname(s2)); RET("subreaper.no_more", waitpid(-1, &s2, 0));
        CHILD(RET("subreaper.not_inherited", ({ int v = -1; prctl(PR_GET_CHILD_SUBREAPER, &v); v; }))));
    val("subreaper", "%s", wname(st));
    // Parent death signal.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t mid = fork();
    if (mid == 0) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGUSR1);
            baton_pass(&b);
            for (;;) pause();
        }
        baton_take(&b);
        _exit(0);
    }
    wait_for(mid);
    YES("pdeathsig.orphan", waitpid(-1, &st, 0) > 0);
    val("pdeathsig", "%s", wname(st));
    CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR1); CHILD(RET("pdeathsig.fork_clears", ({ int s = -1; prctl(PR_GET_PDEATHSIG, &s); s; }))));
    CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR1); MUST(setresuid(1000, 1000, 1000)); RET("pdeathsig.id_change_clears", ({ int s = -1; prctl(PR_GET_PDEATHSIG, &s); s; })));
    // Sessions and groups.
    CHILD(YES("setsid", setsid() == getpid()); RET("setsid.again", setsid()); YES("getsid", getsid(0) == getpid() && getpgid(0) == getpid()); RET("setpgid.session_leader", setpgid(0, 0));
          CHILD(YES("session.inherited", getsid(0) == getppid() && getpgrp() == getppid()); RET("setpgid.new", setpgid(0, 0)); YES("setpgid.is_leader", getpgrp() == getpid()); RET("setsid.as_group_leader", setsid())));
    CHILD(pid_t k = fork(); if (k == 0) { setsid(); baton_pass(&b); for (;;) pause(); } baton_take(&b); RET("setpgid.other_session", setpgid(k, k)); RET("setpgid.into_other_session", setpgid(0, k)); kill(k, SIGKILL); wait_for(k));
    RET("getpgid.negative", getpgid(-1));
    RET("getsid.negative", getsid(-1));
    YES("getpgid.self", getpgid(0) == getpgrp() && getpgid(me) == getpgrp());
    YES("getppid.of_child", ({ int p[2]; pipe(p); pid_t k = fork(), seen = 0; if (k == 0) { seen = getppid(); write(p[1], &seen, sizeof seen); _exit(0); } wait_for(k); read(p[0], &seen, sizeof seen); seen == me; }));
    // Calls that do not exist.
    RET("unknown_syscall", syscall(1000, 0, 0, 0));
    RET("unknown_syscall.negative", syscall(-1));
    RET("unknown_syscall.removed", syscall(SYS_uselib, "x"));
    RET("membarrier.query", syscall(SYS_membarrier, 0, 0, 0) > 0 ? 0 : -1);
    RET("membarrier.bad", syscall(SYS_membarrier, 1 << 20, 0, 0));
    RET("kcmp_or_absent", ({ long r = syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0); r == 0 || errno == ENOSYS || errno == EPERM ? 0 : -1; }));
    RET("arch_prctl.get_fs", ({ unsigned long f = 0; syscall(SYS_arch_prctl, 0x1003, &f) == 0 && f != 0 ? 0 : -1; }));
    RET("arch_prctl.gs", ({ unsigned long g = 0; syscall(SYS_arch_prctl, 0x1001, 0x123456000UL); syscall(SYS_arch_prctl, 0x1004, &g); g == 0x123456000UL ? 0 : -1; }));
    RET("arch_prctl.bad_base", syscall(SYS_arch_prctl, 0x1001, 1UL << 57));
    RET("arch_prctl.unknown", syscall(SYS_arch_prctl, 0x9999, 0));
    return 0;
}
