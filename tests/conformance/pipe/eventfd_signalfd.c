// eventfd(2) and signalfd(2): counters, semaphores, overflow, blocking, contents of signalfd_siginfo, errnos.
#include "../check.h"
#include <sys/eventfd.h>
#include <sys/signalfd.h>

int main(void) {
    uint64_t v = 0;
    RET("eventfd.bad_flags", eventfd(0, 0x10));
    int e = OK("eventfd", eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
    val("eventfd.flags", "%d %#x", fcntl(e, F_GETFD), fcntl(e, F_GETFL));
    RET("read", read(e, &v, 8));
    val("read.value", "%lu", v);
    RET("read.empty", read(e, &v, 8));
    RET("read.short", read(e, &v, 7));
    RET("write.short", write(e, &v, 7));
    RET("write.max_is_refused", write(e, &(uint64_t){~0UL}, 8));
    RET("write", write(e, &(uint64_t){10}, 8));
    RET("read.long_buffer", read(e, (uint64_t[2]){0}, 16));
    RET("write.nearly_max", write(e, &(uint64_t){0xfffffffffffffffe}, 8));
    RET("write.overflow", write(e, &(uint64_t){1}, 8));
    RET("write.zero", write(e, &(uint64_t){0}, 8));
    read(e, &v, 8);
    val("read.nearly_max", "%lx", v);
    RET("lseek", lseek(e, 0, SEEK_SET));
    RET("pread", pread(e, &v, 8, 0));
    int s = MUST(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    for (int i = 0; i < 3; i++) {
        v = 0;
        RET("semaphore.read", read(s, &v, 8));
        val("semaphore.value", "%lu", v);
    }
    // Blocking, shared with a child.
    int b = MUST(eventfd(0, 0));
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        eventfd_write(b, 42);
        _exit(0);
    }
    RET("blocking.read", read(b, &v, 8));
    val("blocking.value", "%lu", v);
    wait_for(pid);
    eventfd_write(b, 0xfffffffffffffffe);
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        eventfd_read(b, &v);
        _exit(0);
    }
    RET("blocking.write", write(b, &(uint64_t){7}, 8));
    wait_for(pid);
    RET("blocking.after", read(b, &v, 8));
    val("blocking.after_value", "%lu", v);

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, 40);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct signalfd_siginfo si[3];
    val("signalfd.record", "%zu", sizeof si[0]);
    RET("signalfd.bad_flags", signalfd(-1, &set, 1));
    RET("signalfd.bad_size", syscall(SYS_signalfd4, -1, &set, 4, 0));
    RET("signalfd.bad_fd", signalfd(999, &set, 0));
    RET("signalfd.not_signalfd", signalfd(e, &set, 0));
    int f = OK("signalfd", signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    RET("signalfd.empty", read(f, si, sizeof si));
    RET("signalfd.short", read(f, si, 100));
    sigqueue(getpid(), 40, (union sigval){.sival_int = 1});
    sigqueue(getpid(), 40, (union sigval){.sival_int = 2});
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    struct pollfd p = {f, POLLIN, 0};
    RET("signalfd.poll", poll(&p, 1, 0));
    RET("signalfd.read_three", read(f, si, sizeof si));
    for (int i = 0; i < 3; i++)
        val("signalfd.item", "%s code %d value %d pid %s uid %d", sname(si[i].ssi_signo), si[i].ssi_code, si[i].ssi_int,
            (pid_t)si[i].ssi_pid == getpid() ? "self" : "other", si[i].ssi_uid == getuid() ? 0 : -1);
    RET("signalfd.poll_empty", poll(&p, 1, 0));
    pid = fork();
    if (pid == 0) _exit(9);
    RET("signalfd.child_poll", poll(&p, 1, -1));
    RET("signalfd.child_read", read(f, si, sizeof si));
    val("signalfd.child", "%s code %d status %d pid %s", sname(si[0].ssi_signo), si[0].ssi_code, si[0].ssi_status, (pid_t)si[0].ssi_pid == pid ? "child" : "other");
    wait_for(pid);
    // Changing the set of an existing one.
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGUSR1);
    YES("signalfd.change", signalfd(f, &only, 0) == f);
    raise(40);
    RET("signalfd.not_in_set", read(f, si, sizeof si));
    raise(SIGUSR1);
    RET("signalfd.in_set", read(f, si, sizeof si));
    RET("signalfd.write", write(f, si, sizeof si));
    // SIGKILL is silently left out. Blocking read.
    sigfillset(&set);
    int g = OK("signalfd.all", signalfd(-1, &set, 0));
    RET("signalfd.leftover", read(g, si, sizeof si[0]));
    val("signalfd.leftover_item", "%s", sname(si[0].ssi_signo));
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        kill(me, SIGUSR1);
        _exit(0);
    }
    RET("signalfd.blocking", read(g, si, sizeof si[0]));
    val("signalfd.blocking_item", "%s", sname(si[0].ssi_signo));
    wait_for(pid);
    // After a fork the reader sees its own signals.
    int st = CHILD(fcntl(f, F_SETFL, O_NONBLOCK); raise(SIGUSR1); _exit(read(f, si, sizeof si) == 128 ? 1 : 2));
    val("signalfd.fork", "%s", wname(st));
    return 0;
}
