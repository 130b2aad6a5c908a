// fork(2), vfork(2), clone(2), clone3(2): what is shared and what is copied, parent and child tids, errnos.
#include "../check.h"
#include <linux/sched.h>
#include <sched.h>

static volatile int shared_word;
static char stack[65536] __attribute__((aligned(16)));

static int fn_exit(void *arg) {
    shared_word = 77;
    return (int)(long)arg;
}
static int fn_files(void *arg) {
    close(*(int *)arg);
    return 0;
}
static int fn_fs(void *arg) {
    (void)arg;
    umask(011);
    return chdir("/");
}
static int fn_handler(void *arg) {
    (void)arg;
    signal(SIGUSR1, SIG_IGN);
    return 0;
}

static const char *clone_wait(int (*fn)(void *), int flags, void *arg) {
    int st = -1;
    pid_t pid = clone(fn, stack + sizeof stack, flags | SIGCHLD, arg);
    if (pid < 0) return ename(errno);
    waitpid(pid, &st, 0);
    return wname(st);
}

int main(void) {
    tmp_enter();
    YES("fork.pid_differs", wait_for(({ pid_t me = getpid(), p = fork(); if (!p) _exit(getpid() != me && getppid() == me); p; })) == 256);
    val("vfork", "%s", ({ pid_t p = vfork(); if (!p) { shared_word = 5; _exit(1); } wname(wait_for(p)); }));
    val("vfork.shares_memory", "%d", shared_word);
    val("vfork.exec", "%s", ({ pid_t p = vfork(); if (!p) { execl("/nonexistent", "x", NULL); shared_word = errno == ENOENT ? 6 : 0; _exit(2); } wname(wait_for(p)); }));
    val("vfork.exec_failed", "%d", shared_word);

    shared_word = 0;
    val("clone.plain", "%s", clone_wait(fn_exit, 0, (void *)3));
    val("clone.plain_memory", "%d", shared_word);
    val("clone.vm", "%s", clone_wait(fn_exit, CLONE_VM, (void *)4));
    val("clone.vm_memory", "%d", shared_word);
    int fd = MUST(dup(0));
    val("clone.no_files", "%s", clone_wait(fn_files, 0, &fd));
    RET("clone.no_files_fd", fcntl(fd, F_GETFD));
    val("clone.files", "%s", clone_wait(fn_files, CLONE_FILES | CLONE_VM, &fd));
    RET("clone.files_fd", fcntl(fd, F_GETFD));
    char cwd[PATH_MAX];
    val("clone.no_fs", "%s", clone_wait(fn_fs, 0, NULL));
    val("clone.no_fs_state", "%s %o", strcmp(getcwd(cwd, sizeof cwd), "/") ? "own cwd" : "/", umask(022));
    val("clone.fs", "%s", clone_wait(fn_fs, CLONE_FS | CLONE_VM, NULL));
    val("clone.fs_state", "%s %o", strcmp(getcwd(cwd, sizeof cwd), "/") ? "own cwd" : "/", umask(022));
    chdir(tmp_path);
    struct sigaction sa;
    val("clone.sighand", "%s", clone_wait(fn_handler, CLONE_SIGHAND | CLONE_VM, NULL));
    sigaction(SIGUSR1, NULL, &sa);
    YES("clone.sighand_shared", sa.sa_handler == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    val("clone.no_sighand", "%s", clone_wait(fn_handler, CLONE_VM, NULL));
    sigaction(SIGUSR1, NULL, &sa);
    YES("clone.no_sighand_own", sa.sa_handler == SIG_DFL);

    // Errnos.
#define BAD(name, flags) RET(name, syscall(SYS_clone, flags, NULL, NULL, NULL, NULL))
    BAD("bad.sighand_without_vm", CLONE_SIGHAND | SIGCHLD);
    BAD("bad.thread_without_sighand", CLONE_THREAD | CLONE_VM);
    BAD("bad.newns_and_fs", CLONE_NEWNS | CLONE_FS | SIGCHLD);
    BAD("bad.newuser_and_fs", CLONE_NEWUSER | CLONE_FS | SIGCHLD);
    BAD("bad.newpid_and_thread", CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM);

    // Tids.
    pid_t ptid = 0, *ctid = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ctid[0] = 0;
    pid_t pid = syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL, &ptid, ctid, NULL);
    if (pid == 0) _exit(*ctid == getpid() ? 0 : 1);
    YES("parent_settid", ptid == pid);
    val("child_settid", "%s", wname(wait_for(pid)));
    ctid[0] = 12345;
    pid = clone(fn_exit, stack + sizeof stack, CLONE_CHILD_CLEARTID | CLONE_VM | SIGCHLD, NULL, NULL, NULL, ctid);
    val("child_cleartid", "%s", wname(wait_for(pid)));
    val("child_cleartid.word", "%d", ctid[0]);
    // Without another user of the memory the word is left alone.
    ctid[0] = 12345;
    pid = syscall(SYS_clone, CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, ctid, NULL);
    if (pid == 0) _exit(0);
    wait_for(pid);
    val("child_cleartid.own_memory", "%d", ctid[0]);
    // The exit signal can be another one.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid = syscall(SYS_clone, SIGUSR2, NULL, NULL, NULL, NULL);
    if (pid == 0) _exit(0);
    int st;
    YES("exit_signal.waited", waitpid(pid, &st, __WALL) == pid);
    siginfo_t si;
    RET("exit_signal", sigtimedwait(&set, &si, &(struct timespec){0}));
    val("exit_signal.info", "code %d pid %s", si.si_code, si.si_pid == pid ? "child" : "other");
    RET("exit_signal.no_sigchld", sigtimedwait(&set, &si, &(struct timespec){0}));
    // CLONE_PARENT: a sibling.
    pid = fork();
    if (pid == 0) {
        pid_t p2 = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
        if (p2 == 0) _exit(9);
        _exit(waitpid(p2, &st, 0) == -1 && errno == ECHILD ? 8 : 1);
    }
    val("clone_parent.child", "%s", wname(wait_for(pid)));
    YES("clone_parent.sibling", waitpid(-1, &st, 0) > 0);
    val("clone_parent.sibling_status", "%s", wname(st));

    // clone3
    struct clone_args ca = {.exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &ca, sizeof ca);
    if (pid == 0) _exit(4);
    val("clone3", "%s", wname(wait_for(pid)));
    RET("clone3.small", syscall(SYS_clone3, &ca, 63));
    RET("clone3.huge", syscall(SYS_clone3, &ca, 8192));
    RET("clone3.null", syscall(SYS_clone3, NULL, sizeof ca));
    static char bigger[256];
    memcpy(bigger, &ca, sizeof ca);
    pid = syscall(SYS_clone3, bigger, sizeof bigger);
    if (pid == 0) _exit(5);
    val("clone3.longer_zero", "%s", wname(wait_for(pid)));
    bigger[200] = 1;
    RET("clone3.longer_nonzero", syscall(SYS_clone3, bigger, sizeof bigger));
    ca.flags = SIGCHLD;
    RET("clone3.signal_in_flags", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.exit_signal = 65};
    RET("clone3.bad_signal", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, .exit_signal = SIGCHLD};
    RET("clone3.thread_with_signal", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.stack = (uintptr_t)stack, .exit_signal = SIGCHLD};
    RET("clone3.stack_without_size", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.stack_size = 4096, .exit_signal = SIGCHLD};
    RET("clone3.size_without_stack", syscall(SYS_clone3, &ca, sizeof ca));
    int pfd = -1;
    ca = (struct clone_args){.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pfd, .exit_signal = SIGCHLD};
    baton b = baton_new();
    pid = syscall(SYS_clone3, &ca, sizeof ca);
    if (pid == 0) {
        baton_take(&b);
        _exit(6);
    }
    YES("clone3.pidfd", pfd >= 0);
    RET("clone3.pidfd_cloexec", fcntl(pfd, F_GETFD));
    struct pollfd pf = {pfd, POLLIN, 0};
    RET("pidfd.poll_running", poll(&pf, 1, 0));
    baton_pass(&b);
    RET("pidfd.poll_exited", poll(&pf, 1, -1));
    val("pidfd.revents", "%#x", pf.revents);
    RET("pidfd.send_signal_zombie", syscall(SYS_pidfd_send_signal, pfd, 0, NULL, 0));
    wait_for(pid);
    RET("pidfd.send_signal_gone", syscall(SYS_pidfd_send_signal, pfd, 0, NULL, 0));
    RET("pidfd_open.self", syscall(SYS_pidfd_open, getpid(), 0) >= 0 ? 0 : -1);
    RET("pidfd_open.gone", syscall(SYS_pidfd_open, pid, 0));
    RET("pidfd_open.zero", syscall(SYS_pidfd_open, 0, 0));
    RET("pidfd_open.bad_flags", syscall(SYS_pidfd_open, getpid(), 1));

    // Registers survive a fork: callee-saved and vector ones.
    double acc = 1.5;
    for (int i = 0; i < 3; i++) acc *= 1.25;
    val("fpu.child", "%s", wname(CHILD(_exit(acc == 1.5 * 1.25 * 1.25 * 1.25 ? 0 : 1))));
    RET("unshare.nothing", unshare(0));
    RET("unshare.files", unshare(CLONE_FILES | CLONE_FS));
    RET("unshare.bad", unshare(1));
    return 0;
}
