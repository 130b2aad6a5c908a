// flock(2), POSIX and open-file-description record locks: conflicts, F_GETLK, splitting, inheritance, release, deadlock.
// fcntl(2).
#include "../check.h"
#include <sys/file.h>

static int set(int fd, int cmd, int type, off_t start, off_t len) {
    struct flock f = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, cmd, &f);
}
static pid_t me;
static void get(const char *name, int fd, int cmd, int type, off_t start, off_t len) {
    struct flock f = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    if (fcntl(fd, cmd, &f)) val(name, "-1 %s", ename(errno));
    else if (f.l_type == F_UNLCK) val(name, "free");
    else val(name, "%s %ld+%ld by %s", f.l_type == F_RDLCK ? "read" : "write", (long)f.l_start, (long)f.l_len,
             f.l_pid == me ? "parent" : f.l_pid == -1 ? "-1" : "other");
}

int main(void) {
    tmp_enter();
    put_file("f", "0123456789", 0666);
    me = getpid();
    int a = MUST(open("f", O_RDWR)), b = MUST(open("f", O_RDWR)), ro = MUST(open("f", O_RDONLY)), wo = MUST(open("f", O_WRONLY));
    // flock: by open file description.
    RET("flock.ex", flock(a, LOCK_EX));
    RET("flock.other_description", flock(b, LOCK_EX | LOCK_NB));
    RET("flock.other_shared", flock(b, LOCK_SH | LOCK_NB));
    RET("flock.dup_shares", flock(dup(a), LOCK_EX | LOCK_NB));
    RET("flock.downgrade", flock(a, LOCK_SH));
    RET("flock.shared_now", flock(b, LOCK_SH | LOCK_NB));
    RET("flock.upgrade_blocked", flock(a, LOCK_EX | LOCK_NB));
    RET("flock.upgrade_lost_the_lock", flock(b, LOCK_EX | LOCK_NB));
    RET("flock.unlock", flock(b, LOCK_UN));
    RET("flock.unlock_again", flock(b, LOCK_UN));
    RET("flock.bad_op", flock(a, 0));
    RET("flock.two_ops", flock(a, LOCK_SH | LOCK_EX));
    RET("flock.bad_fd", flock(999, LOCK_EX));
    RET("flock.readonly_ex", flock(ro, LOCK_EX | LOCK_NB));
    flock(ro, LOCK_UN);
    flock(a, LOCK_UN);
    RET("flock.directory", flock(MUST(open(".", O_RDONLY)), LOCK_EX | LOCK_NB));
    RET("flock.independent_of_posix", ({ set(a, F_SETLK, F_WRLCK, 0, 0); flock(b, LOCK_EX | LOCK_NB); }));
    set(a, F_SETLK, F_UNLCK, 0, 0);
    flock(b, LOCK_UN);
    // The lock goes with the last descriptor.
    int c = MUST(open("f", O_RDWR)), c2 = dup(c);
    flock(c, LOCK_EX);
    close(c);
    RET("flock.dup_holds", flock(a, LOCK_EX | LOCK_NB));
    close(c2);
    RET("flock.last_close", flock(a, LOCK_EX | LOCK_NB));
    CHILD(RET("flock.child_shares", flock(a, LOCK_EX | LOCK_NB)); RET("flock.child_unlocks", flock(a, LOCK_UN)));
    RET("flock.parent_lost_it", flock(b, LOCK_EX | LOCK_NB));
    flock(b, LOCK_UN);
    // A blocked one is woken.
    flock(a, LOCK_EX);
    pid_t pid = fork();
    if (pid == 0) _exit(flock(open("f", O_RDWR), LOCK_EX) == 0 ? 0 : 1);
    wait_blocked(pid, pid);
    flock(a, LOCK_UN);
    val("flock.woken", "%s", wname(wait_for(pid)));

    // POSIX: by process.
    RET("posix.write", set(a, F_SETLK, F_WRLCK, 2, 4));
    RET("posix.same_process_other_fd", set(b, F_SETLK, F_WRLCK, 2, 4));
    get("posix.getlk_self", a, F_GETLK, F_WRLCK, 0, 0);
    CHILD(get("posix.getlk_child", a, F_GETLK, F_WRLCK, 0, 0); get("posix.getlk_before", a, F_GETLK, F_WRLCK, 0, 2);
          get("posix.getlk_after", a, F_GETLK, F_WRLCK, 6, 0); get("posix.getlk_read", a, F_GETLK, F_RDLCK, 5, 1);
          RET("posix.child_conflict", set(a, F_SETLK, F_RDLCK, 5, 1)); RET("posix.child_beside", set(a, F_SETLK, F_WRLCK, 6, 2)));
    RET("posix.child_exit_released", set(a, F_SETLK, F_WRLCK, 6, 2));
    get("posix.getlk_unlck", a, F_GETLK, F_UNLCK, 0, 0);
    // Splitting and merging.
    set(a, F_SETLK, F_UNLCK, 0, 0);
    set(a, F_SETLK, F_WRLCK, 0, 10);
    RET("split.unlock_middle", set(a, F_SETLK, F_UNLCK, 4, 2));
    CHILD(get("split.first", a, F_GETLK, F_WRLCK, 0, 0); get("split.hole", a, F_GETLK, F_WRLCK, 4, 2); get("split.second", a, F_GETLK, F_WRLCK, 5, 0));
    RET("split.read_in_write", set(a, F_SETLK, F_RDLCK, 7, 1));
    CHILD(get("split.read_shared", a, F_GETLK, F_RDLCK, 7, 1); get("split.write_seen", a, F_GETLK, F_RDLCK, 6, 4));
    set(a, F_SETLK, F_RDLCK, 0, 0);
    CHILD(get("merge.all_read", a, F_GETLK, F_WRLCK, 100, 5));
    // Any close of the file by the process releases its locks.
    close(MUST(open("f", O_RDONLY)));
    CHILD(get("posix.close_releases", a, F_GETLK, F_WRLCK, 0, 0));
    // Whence, negative lengths, errnos.
    struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -3, .l_len = 2};
    RET("whence.end", fcntl(a, F_SETLK, &f));
    CHILD(get("whence.end_where", a, F_GETLK, F_WRLCK, 0, 0));
    f = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = -3};
    RET("negative_length", fcntl(b, F_SETLK, &f));
    CHILD(get("negative_length.where", a, F_GETLK, F_WRLCK, 0, 7));
    f.l_start = 1;
    RET("negative_length.before_start", fcntl(b, F_SETLK, &f));
    f = (struct flock){.l_type = F_WRLCK, .l_whence = 9};
    RET("bad_whence", fcntl(a, F_SETLK, &f));
    f = (struct flock){.l_type = 9};
    RET("bad_type", fcntl(a, F_SETLK, &f));
    f = (struct flock){.l_type = F_WRLCK, .l_start = 0x7fffffffffffffff, .l_len = 10};
    RET("overflow", fcntl(a, F_SETLK, &f));
    RET("read_lock_needs_reading", set(wo, F_SETLK, F_RDLCK, 0, 1));
    RET("write_lock_needs_writing", set(ro, F_SETLK, F_WRLCK, 0, 1));
    RET("bad_pointer", fcntl(a, F_SETLK, 8));
    int p[2];
    MUST(pipe(p));
    RET("pipe", set(p[0], F_SETLK, F_RDLCK, 0, 0) == 0 ? 0 : -1);
    set(a, F_SETLK, F_UNLCK, 0, 0);
    // Waiting, and a deadlock between two processes.
    set(a, F_SETLK, F_WRLCK, 0, 1);
    baton bt = baton_new();
    pid = fork();
    if (pid == 0) {
        set(a, F_SETLK, F_WRLCK, 1, 1);
        baton_pass(&bt);
        _exit(set(a, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : errno == EDEADLK ? 2 : 1);
    }
    baton_take(&bt);
    wait_blocked(pid, pid);
    RET("deadlock", set(a, F_SETLKW, F_WRLCK, 1, 1));
    set(a, F_SETLK, F_UNLCK, 0, 1);
    val("deadlock.other_goes_on", "%s", wname(wait_for(pid)));

    // Open file description locks.
    RET("ofd.write", set(a, F_OFD_SETLK, F_WRLCK, 0, 5));
    RET("ofd.other_description", set(b, F_OFD_SETLK, F_WRLCK, 0, 5));
    RET("ofd.posix_conflicts", set(b, F_SETLK, F_WRLCK, 0, 5));
    get("ofd.getlk", b, F_OFD_GETLK, F_WRLCK, 0, 0);
    get("ofd.getlk_posix", b, F_GETLK, F_WRLCK, 0, 0);
    RET("ofd.dup_is_same", set(dup(a), F_OFD_SETLK, F_WRLCK, 0, 10));
    CHILD(RET("ofd.child_is_same", set(a, F_OFD_SETLK, F_RDLCK, 0, 10)));
    RET("ofd.now_read", set(b, F_OFD_SETLK, F_RDLCK, 0, 10));
    close(MUST(open("f", O_RDONLY)));
    RET("ofd.close_of_another_keeps", set(b, F_OFD_SETLK, F_WRLCK, 0, 10));
    f = (struct flock){.l_type = F_WRLCK, .l_pid = 5};
    RET("ofd.pid_must_be_zero", fcntl(a, F_OFD_SETLK, &f));
    set(b, F_OFD_SETLK, F_UNLCK, 0, 0);
    pid = fork();
    if (pid == 0) _exit(set(open("f", O_RDWR), F_OFD_SETLKW, F_WRLCK, 0, 0) == 0 ? 0 : 1);
    wait_blocked(pid, pid);
    set(a, F_OFD_SETLK, F_UNLCK, 0, 0);
    val("ofd.woken", "%s", wname(wait_for(pid)));
    // exec keeps POSIX locks, fork does not give them.
    set(a, F_SETLK, F_WRLCK, 0, 0);
    CHILD(RET("fork.no_lock", set(a, F_SETLK, F_WRLCK, 0, 0)));
    return 0;
}
