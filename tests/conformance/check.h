// Shared by all conformance programs: each check prints one line, `name: value`, with a single write(2), so that a fork
// never duplicates buffered output. A value must be the same on every run and on every correct Linux: no addresses,
// pids, times, inode numbers or descriptor numbers. Errors are printed by name.
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HELPER static __attribute__((unused))
#define PAGE 4096UL
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

// ---- Printing ----

// One line: `name: value`, the value as printf would format it.
HELPER __attribute__((format(printf, 2, 3))) void val(const char *name, const char *fmt, ...) {
    char line[2048];
    int saved = errno;
    int n = snprintf(line, sizeof line, "%s: ", name);
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    line[n++] = '\n';
    for (int done = 0; done < n;) {
        ssize_t w = write(1, line + done, n - done);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) _exit(111);
        done += w;
    }
    errno = saved;
}

// An errno's name (`EINVAL`), `0` for none.
HELPER const char *ename(int e) {
    static __thread char buf[4][24];
    static __thread int turn;
    if (e == 0) return "0";
    const char *n = strerrorname_np(e);
    if (n) return n;
    char *b = buf[turn++ & 3];
    snprintf(b, sizeof buf[0], "E#%d", e);
    return b;
}

// A signal's name (`SIGCHLD`, `SIGRTMIN+2` counted from the kernel's 32).
HELPER const char *sname(int sig) {
    static __thread char buf[4][24];
    static __thread int turn;
    char *b = buf[turn++ & 3];
    const char *n = sig > 0 && sig < 32 ? sigabbrev_np(sig) : NULL;
    if (n) snprintf(b, sizeof buf[0], "SIG%s", n);
    else if (sig >= 32 && sig <= 64) snprintf(b, sizeof buf[0], "SIGRT+%d", sig - 32);
    else snprintf(b, sizeof buf[0], "SIG#%d", sig);
    return b;
}

// What a wait status says; the core-dump flag is left out because it depends on limits.
HELPER const char *wname(int st) {
    static __thread char buf[4][40];
    static __thread int turn;
    char *b = buf[turn++ & 3];
    if (WIFEXITED(st)) snprintf(b, sizeof buf[0], "exited %d", WEXITSTATUS(st));
    else if (WIFSIGNALED(st)) snprintf(b, sizeof buf[0], "killed %s", sname(WTERMSIG(st)));
    else if (WIFSTOPPED(st)) snprintf(b, sizeof buf[0], "stopped %s", sname(WSTOPSIG(st)));
    else if (WIFCONTINUED(st)) snprintf(b, sizeof buf[0], "continued");
    else snprintf(b, sizeof buf[0], "status %#x", st);
    return b;
}

// RET: the value a call returned, or `-1 EINVAL`. Evaluates to the value.
#define RET(name, expr)                                                                                             \
    ({                                                                                                              \
        errno = 0;                                                                                                  \
        long ret_ = (long)(expr);                                                                                   \
        if (ret_ == -1) val(name, "-1 %s", ename(errno));                                                           \
        else val(name, "%ld", ret_);                                                                                \
        ret_;                                                                                                       \
    })

// OK: `ok` for any value but -1 (descriptors, addresses, pids), else `-1 EINVAL`. Evaluates to the value.
#define OK(name, expr)                                                                                              \
    ({                                                                                                              \
        errno = 0;                                                                                                  \
        long ok_ = (long)(expr);                                                                                    \
        if (ok_ == -1) val(name, "-1 %s", ename(errno));                                                            \
        else val(name, "ok");                                                                                       \
        ok_;                                                                                                        \
    })

// YES: `yes` or `no`.
#define YES(name, cond) val(name, "%s", (cond) ? "yes" : "no")

// ERR: for calls that return the error number itself (pthread_*, posix_*).
#define ERR(name, expr) val(name, "%s", ename(expr))

// MUST: set-up that has to work; otherwise the program says where it failed and ends with 100.
#define MUST(expr)                                                                                                  \
    ({                                                                                                              \
        errno = 0;                                                                                                  \
        long must_ = (long)(expr);                                                                                  \
        if (must_ == -1) must_fail(__FILE__, __LINE__, #expr);                                                      \
        must_;                                                                                                      \
    })
HELPER void must_fail(const char *file, int line, const char *what) {
    const char *base = strrchr(file, '/');
    val("SETUP FAILED", "%s:%d %s: %s", base ? base + 1 : file, line, what, ename(errno));
    _exit(100);
}

// ---- Children ----

// Runs the statements in a forked child, which ends with 0 unless they say otherwise. Evaluates to the wait status.
#define CHILD(...)                                                                                                  \
    ({                                                                                                              \
        pid_t child_ = MUST(fork());                                                                                \
        if (child_ == 0) {                                                                                          \
            __VA_ARGS__;                                                                                            \
            _exit(0);                                                                                               \
        }                                                                                                           \
        wait_for(child_);                                                                                           \
    })
HELPER int wait_for(pid_t pid) {
    int st = -1;
    while (waitpid(pid, &st, 0) < 0)
        if (errno != EINTR) must_fail(__FILE__, __LINE__, "waitpid");
    return st;
}

// A one-way baton between processes or threads: `baton_pass` wakes one `baton_take`. Made before the fork.
typedef struct { int fd[2]; } baton;
HELPER baton baton_new(void) {
    baton b;
    MUST(pipe2(b.fd, O_CLOEXEC));
    return b;
}
HELPER void baton_pass(baton *b) { MUST(write(b->fd[1], "x", 1)); }
HELPER void baton_take(baton *b) {
    char c;
    ssize_t n;
    do n = read(b->fd[0], &c, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1) must_fail(__FILE__, __LINE__, "baton_take");
}

// Waits until the task is asleep in a call (state S in /proc/PID/stat, or the thread's when tid differs): how a test
// knows that a peer has blocked, without guessing a time.
HELPER void wait_blocked(pid_t pid, pid_t tid) {
    char path[64], buf[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    for (;;) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) must_fail(__FILE__, __LINE__, path);
        ssize_t n = read(fd, buf, sizeof buf - 1);
        close(fd);
        if (n <= 0) must_fail(__FILE__, __LINE__, path);
        buf[n] = 0;
        char *p = strrchr(buf, ')');
        if (p && p[2] == 'S') return;
        sched_yield();
    }
}

// ---- Files ----

static char tmp_path[PATH_MAX], self_buf[PATH_MAX];
static pid_t tmp_owner;

// The absolute path of this program.
HELPER const char *self_path(void) {
    if (!self_buf[0] && !realpath((const char *)getauxval(AT_EXECFN), self_buf)) must_fail(__FILE__, __LINE__, "self_path");
    return self_buf;
}

HELPER void tmp_remove_under(int dirfd, const char *name) {
    if (unlinkat(dirfd, name, 0) == 0 || (errno != EISDIR && errno != EPERM)) return;
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (d) {
        for (struct dirent *e; (e = readdir(d));)
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) tmp_remove_under(fd, e->d_name);
        closedir(d);
    }
    unlinkat(dirfd, name, AT_REMOVEDIR);
}
HELPER void tmp_leave(void) {
    if (getpid() == tmp_owner && tmp_path[0]) tmp_remove_under(AT_FDCWD, tmp_path);
}

// Makes a fresh directory under $TMPDIR or /tmp, changes into it, and removes it at exit.
HELPER const char *tmp_enter(void) {
    const char *base = getenv("TMPDIR");
    self_path();
    umask(022);
    snprintf(tmp_path, sizeof tmp_path, "%s/qs-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(tmp_path)) must_fail(__FILE__, __LINE__, "mkdtemp");
    tmp_owner = getpid();
    atexit(tmp_leave);
    MUST(chmod(tmp_path, 0755));
    MUST(chdir(tmp_path));
    return tmp_path;
}

// Writes a whole file, making it with the mode.
HELPER void put_file(const char *path, const char *text, mode_t mode) {
    int fd = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) must_fail(__FILE__, __LINE__, path);
    MUST(fchmod(fd, mode));
    close(fd);
}

// Copies a file, for programs that execute copies of themselves.
HELPER void copy_file(const char *from, const char *to, mode_t mode) {
    static char buf[65536];
    int in = MUST(open(from, O_RDONLY | O_CLOEXEC));
    int out = MUST(open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    for (ssize_t n; (n = MUST(read(in, buf, sizeof buf))) > 0;)
        if (write(out, buf, n) != n) must_fail(__FILE__, __LINE__, to);
    MUST(fchmod(out, mode));
    close(in);
    close(out);
}

// The file's text up to the buffer's size, NUL-terminated; NULL when it cannot be read.
HELPER char *get_file(const char *path, char *buf, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    size_t have = 0;
    ssize_t n;
    while (have < size - 1 && (n = read(fd, buf + have, size - 1 - have)) > 0) have += n;
    close(fd);
    buf[have] = 0;
    return buf;
}

// ---- Time ----

HELPER int64_t now_ns(clockid_t clock) {
    struct timespec ts;
    clock_gettime(clock, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}
HELPER struct timespec ms(long n) { return (struct timespec){n / 1000, n % 1000 * 1000000}; }

#endif
