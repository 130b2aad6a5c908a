// What /proc/self/fd says of every kind of descriptor, fdinfo of the special ones, and other processes' directories under
// the rights of an ordinary user. proc(5).
#include "../check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static void target(const char *name, int fd) {
    char path[64], t[256] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, t, sizeof t - 1);
    if (n < 0) {
        val(name, "-1 %s", ename(errno));
        return;
    }
    t[n] = 0;
    // Inode numbers vary.
    char *d = strpbrk(t, "0123456789");
    if (d && strchr(t, ':') && d > strchr(t, ':')) strcpy(d, strchr(d, ']') ? "N]" : "N");
    struct stat st;
    lstat(path, &st);
    int type = 0;
    if (stat(path, &st) == 0) type = st.st_mode & S_IFMT;
    val(name, "%s type %o", t, type);
}
static void info(const char *name, int fd, const char *key) {
    char path[64], b[4096];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    char *t = get_file(path, b, sizeof b), *p = t ? strstr(t, key) : NULL;
    if (!p) val(name, "%s", t ? "no such key" : ename(errno));
    else val(name, "%.*s", (int)strcspn(p, "\n"), p);
}

int main(void) {
    tmp_enter();
    int p[2], sv[2];
    MUST(pipe(p));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    int e = eventfd(5, 0), t = timerfd_create(CLOCK_MONOTONIC, 0), ep = epoll_create1(0);
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    int sf = signalfd(-1, &s, 0), m = memfd_create("mem", 0), pf = syscall(SYS_pidfd_open, getpid(), 0);
    target("pipe.read", p[0]);
    target("pipe.write", p[1]);
    target("socket", sv[0]);
    target("inet", socket(AF_INET, SOCK_DGRAM, 0));
    target("eventfd", e);
    target("timerfd", t);
    target("epoll", ep);
    target("signalfd", sf);
    target("memfd", m);
    YES("pidfd", ({ char path[64], b[64] = ""; snprintf(path, sizeof path, "/proc/self/fd/%d", pf); readlink(path, b, 63); !strcmp(b, "anon_inode:[pidfd]") || !strncmp(b, "pidfd:[", 7); }));
    target("dev_null", open("/dev/null", O_RDONLY));
    target("root", open("/", O_RDONLY));
    target("proc_file", open("/proc/uptime", O_RDONLY));
    mkfifo("fifo", 0600);
    int f = open("fifo", O_RDWR);
    struct stat st;
    fstat(f, &st);
    val("fifo", "%o", st.st_mode & S_IFMT);
    info("eventfd.count", e, "eventfd-count:");
    info("signalfd.mask", sf, "sigmask:");
    timerfd_settime(t, 0, &(struct itimerspec){{7, 0}, {1000, 0}}, NULL);
    info("timerfd.clockid", t, "clockid:");
    info("timerfd.interval", t, "it_interval:");
    epoll_ctl(ep, EPOLL_CTL_ADD, e, &(struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 0x1234});
    char ei[64], eb[4096];
    snprintf(ei, sizeof ei, "/proc/self/fdinfo/%d", ep);
    YES("epoll.target", get_file(ei, eb, sizeof eb) && strstr(eb, " events: 80000019 data:             1234 "));
    info("pipe.flags", p[1], "flags:");
    info("socket.flags", sv[0], "flags:");
    info("closed", 999, "flags:");

    // Another process, seen by an ordinary user.
    baton b = baton_new(), up = baton_new();
    pid_t pid = fork();
    if (pid == 0) {
        baton_pass(&up);
        baton_take(&b);
        _exit(0);
    }
    baton_take(&up);
    char path[128], text[4096];
#define OTHER(name, file) CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(setresuid(1000, 1000, 1000)); snprintf(path, sizeof path, "/proc/%d/%s", pid, file); RET(name, open(path, O_RDONLY) >= 0 ? 0 : -1))
    OTHER("user.stat", "stat");
    OTHER("user.status", "status");
    OTHER("user.cmdline", "cmdline");
    OTHER("user.environ", "environ");
    OTHER("user.maps", "maps");
    OTHER("user.fd", "fd");
    OTHER("user.comm", "comm");
    OTHER("user.limits", "limits");
    OTHER("user.mem", "mem");
    CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(setresuid(1000, 1000, 1000)); snprintf(path, sizeof path, "/proc/%d/exe", pid); RET("user.exe", readlink(path, text, 100) > 0 ? 0 : -1);
          snprintf(path, sizeof path, "/proc/%d/cwd", pid); RET("user.cwd", readlink(path, text, 100) > 0 ? 0 : -1); snprintf(path, sizeof path, "/proc/%d", pid); stat(path, &st); val("user.owner", "%d %o", (int)st.st_uid, st.st_mode);
          stat("/proc/self", &st); val("self.directory_owner", "%d", (int)st.st_uid); RET("self.environ_not_dumpable", open("/proc/self/environ", O_RDONLY) >= 0 ? 0 : -1);
          prctl(PR_SET_DUMPABLE, 1); stat("/proc/self/stat", &st); val("self.file_owner_dumpable", "%d", (int)st.st_uid));
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    RET("root.other_comm_write", ({ int w = open(path, O_WRONLY); w < 0 ? -1 : write(w, "z", 1); }));
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    RET("root.other_cwd", stat(path, &st));
    snprintf(path, sizeof path, "/proc/%d/root/dev/null", pid);
    RET("root.through_root_link", stat(path, &st));
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, e);
    int other = OK("root.open_other_eventfd", open(path, O_RDWR) >= 0 ? 0 : -1);
    (void)other;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, p[1]);
    RET("root.open_other_pipe", ({ int w = open(path, O_WRONLY); w < 0 ? -1 : write(w, "through", 7); }));
    RET("root.other_pipe_data", read(p[0], text, 100));
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, sv[0]);
    RET("root.open_other_socket", open(path, O_RDWR));
    baton_pass(&b);
    wait_for(pid);
    return 0;
}
