// I/O priorities: classes, levels, whom a call means. ioprio_set(2), ioprio_get(2).
#include "../check.h"

#define PRIO(class, level) ((class) << 13 | (level))
static long get(int which, int who) { return syscall(SYS_ioprio_get, which, who); }
static long set(int which, int who, int prio) { return syscall(SYS_ioprio_set, which, who, prio); }

int main(void) {
    setpgid(0, 0);
    RET("fresh", get(1, 0));
    for (int level = 0; level < 8; level += 7) {
        char name[64];
        snprintf(name, sizeof name, "best_effort.%d", level);
        RET(name, set(1, 0, PRIO(2, level)));
        RET(name, get(1, 0));
        snprintf(name, sizeof name, "idle.%d", level);
        RET(name, set(1, 0, PRIO(3, level)));
        RET(name, get(1, 0));
        snprintf(name, sizeof name, "none.%d", level);
        RET(name, set(1, 0, PRIO(0, level)));
    }
    RET("class_4", set(1, 0, PRIO(4, 0)));
    RET("class_7", set(1, 0, PRIO(7, 0)));
    RET("set", set(1, 0, PRIO(2, 3)));
    RET("by_pid", get(1, getpid()));
    val("inherited", "%s", wname(CHILD({ RET("child", get(1, 0)); })));
    RET("pgrp.own", get(2, 0));
    RET("pgrp.by_number", get(2, getpgrp()));
    baton b = baton_new();
    pid_t child = MUST(fork());
    if (child == 0) {
        baton_take(&b);
        _exit(get(1, 0) == PRIO(2, 1) ? 0 : 1);
    }
    RET("set.other", set(1, child, PRIO(2, 1)));
    RET("pgrp.highest", get(2, 0));
    RET("other", get(1, child));
    RET("pgrp.set", set(2, 0, PRIO(2, 1)));
    RET("pgrp.set_self", get(1, 0));
    baton_pass(&b);
    val("child", "%s", wname(wait_for(child)));
    RET("none", set(1, 0, 0));
    RET("none", get(1, 0));
    setpriority(PRIO_PROCESS, 0, 10);
    RET("none.by_nice", get(2, 0));
    RET("which_0", get(0, 0));
    RET("which_4", get(4, 0));
    RET("set.which_0", set(0, 0, PRIO(2, 0)));
    RET("nobody", get(1, 0x3fffffff));
    RET("negative", get(1, -1));
    RET("pgrp.nobody", get(2, 0x3fffffff));
    RET("user.nobody", get(3, 54321));
    RET("set.nobody", set(1, 0x3fffffff, PRIO(2, 0)));
    val("unprivileged", "%s", wname(CHILD({
        MUST(setgid(65534));
        MUST(setuid(65534));
        RET("unprivileged.real_time", set(1, 0, PRIO(1, 0)));
        RET("unprivileged.best_effort", set(1, 0, PRIO(2, 0)));
        RET("unprivileged.other", set(1, getppid(), PRIO(2, 0)));
    })));
    return 0;
}
