// Whom a number stands for after the end: zombies and leaders that ended before their threads can still be asked about,
// scheduled and signalled. wait(2), tgkill(2), sched_setscheduler(2), setpriority(2), prlimit(2), kcmp(2), proc(5).
#include "../check.h"
#include <sched.h>
#include <sys/uio.h>

static void ask(const char *who, pid_t pid) {
    char name[64];
    struct sched_param sp = {0};
    struct rlimit limit;
    cpu_set_t cpus;
    void *head;
    size_t len;
    struct timespec ts;
    clockid_t clock;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
#define ASK(what, expr) (snprintf(name, sizeof name, "%s.%s", who, what), RET(name, expr))
    ASK("kill_0", kill(pid, 0));
    ASK("tgkill_0", syscall(SYS_tgkill, pid, pid, 0));
    ASK("tkill_0", syscall(SYS_tkill, pid, 0));
    ASK("tgkill", syscall(SYS_tgkill, pid, pid, SIGCHLD));
    ASK("getpriority", getpriority(PRIO_PROCESS, pid));
    ASK("setpriority", setpriority(PRIO_PROCESS, pid, 1));
    ASK("getscheduler", sched_getscheduler(pid));
    ASK("setscheduler", sched_setscheduler(pid, SCHED_OTHER, &sp));
    ASK("getparam", sched_getparam(pid, &sp));
    ASK("getaffinity", sched_getaffinity(pid, sizeof cpus, &cpus));
    ASK("getpgid", getpgid(pid) == getpgid(0));
    ASK("getsid", getsid(pid) == getsid(0));
    ASK("prlimit", prlimit(pid, RLIMIT_NOFILE, NULL, &limit));
    ASK("kcmp.vm", syscall(SYS_kcmp, pid, pid, 1, 0, 0));
    ASK("kcmp.files", syscall(SYS_kcmp, pid, pid, 2, 0, 0));
    ASK("kcmp.file", syscall(SYS_kcmp, pid, pid, 0, 0, 0));
    ASK("ioprio", syscall(SYS_ioprio_get, 1, pid));
    ASK("robust_list", syscall(SYS_get_robust_list, pid, &head, &len));
    snprintf(name, sizeof name, "%s.clock", who);
    ERR(name, clock_getcpuclockid(pid, &clock));
    ASK("clock_gettime", clock_gettime((~(clockid_t)pid) << 3 | 2, &ts));
}
static void look(const char *who, pid_t pid) {
    static const char *const files[] = {"status", "stat", "cmdline", "maps", "smaps", "limits", "comm", "oom_score", "statm", "io", "cgroup"};
    static const char *const links[] = {"exe", "cwd", "root", "fd", "fdinfo", "task", "fd/0"};
    char path[64], name[64], text[512];
    for (size_t i = 0; i < COUNT(files); i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        snprintf(name, sizeof name, "%s.%s", who, files[i]);
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
        val(name, "%s", n < 0 ? ename(errno) : n ? "text" : "empty");
        if (fd >= 0) close(fd);
    }
    for (size_t i = 0; i < COUNT(links); i++) {
        struct stat st;
        snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
        snprintf(name, sizeof name, "%s.stat.%s", who, links[i]);
        RET(name, lstat(path, &st));
        snprintf(name, sizeof name, "%s.readlink.%s", who, links[i]);
        val(name, "%s", readlink(path, text, sizeof text) < 0 ? ename(errno) : "ok");
        snprintf(name, sizeof name, "%s.list.%s", who, links[i]);
        DIR *d = opendir(path);
        int n = 0;
        while (d && readdir(d)) n++;
        if (d) val(name, "%d", n), closedir(d);
        else val(name, "%s", ename(errno));
    }
}
static void *after_leader(void *arg) {
    pid_t leader = getpid();
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", leader);
    do get_file(path, text, sizeof text);
    while (strrchr(text, ')')[2] != 'Z');
    ask("leader", leader);
    snprintf(path, sizeof path, "/proc/%d/task/%d/comm", leader, leader);
    YES("leader.comm", get_file(path, text, sizeof text) && text[0]);
    OK("leader.pidfd", syscall(SYS_pidfd_open, leader, 0));
    val("leader.fork", "%s", wname(CHILD(_exit(3))));
    (void)arg;
    syscall(SYS_exit_group, 9);
    return NULL;
}

int main(void) {
    siginfo_t info;
    struct iovec iov = {&info, 8};
    unsigned long node = 1;
    pid_t pid = MUST(fork());
    if (pid == 0) _exit(3);
    MUST(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    ask("zombie", pid);
    look("zombie", pid);
    RET("zombie.kill", kill(pid, SIGKILL));
    RET("zombie.setpgid", setpgid(pid, 0));
    int pidfd = OK("zombie.pidfd", syscall(SYS_pidfd_open, pid, 0));
    RET("zombie.pidfd_signal", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    RET("zombie.pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    RET("zombie.process_vm", syscall(SYS_process_vm_readv, pid, &iov, 1, &iov, 1, 0));
    RET("zombie.move_pages", syscall(SYS_move_pages, pid, 0, NULL, NULL, NULL, 0));
    RET("zombie.migrate_pages", syscall(SYS_migrate_pages, pid, 64, &node, &node));
    val("zombie.status", "%s", wname(wait_for(pid)));
    RET("reaped.kill", kill(pid, 0));
    RET("reaped.getscheduler", sched_getscheduler(pid));
    RET("reaped.pidfd_signal", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    RET("reaped.waitid", waitid(P_PIDFD, pidfd, &info, WEXITED));
    val("leader.status", "%s", wname(CHILD({
        pthread_t t;
        pthread_create(&t, NULL, after_leader, NULL);
        syscall(SYS_exit, 0);
    })));
    return 0;
}
