// dup(2), dup2, dup3, fcntl(2) F_DUPFD, F_GETFD, F_GETFL, F_SETFL, F_GETPIPE_SZ..., close_range(2).
#include "../check.h"
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#define CLOSE_RANGE_CLOEXEC 4
#endif

int main(void) {
    tmp_enter();
    put_file("f", "x", 0644);
    int fd = MUST(open("f", O_RDWR | O_CLOEXEC));
    RET("getfd", fcntl(fd, F_GETFD));
    int d = OK("dup", dup(fd));
    RET("dup.getfd", fcntl(d, F_GETFD));
    RET("dup.bad", dup(999));
    RET("dup2", dup2(fd, 200));
    RET("dup2.getfd", fcntl(200, F_GETFD));
    YES("dup2.same", dup2(fd, fd) == fd);
    RET("dup2.same_bad", dup2(999, 999));
    RET("dup2.bad_old", dup2(999, 201));
    RET("dup2.negative", dup2(fd, -1));
    RET("dup2.huge", dup2(fd, 1 << 30));
    RET("dup3.same", dup3(fd, fd, 0));
    RET("dup3.cloexec", dup3(fd, 202, O_CLOEXEC));
    RET("dup3.getfd", fcntl(202, F_GETFD));
    RET("dup3.bad_flag", dup3(fd, 203, O_NONBLOCK));
    RET("dupfd", fcntl(fd, F_DUPFD, 300));
    RET("dupfd.next", fcntl(fd, F_DUPFD, 300));
    RET("dupfd_cloexec", fcntl(fd, F_DUPFD_CLOEXEC, 300));
    RET("dupfd_cloexec.getfd", fcntl(302, F_GETFD));
    RET("dupfd.negative", fcntl(fd, F_DUPFD, -1));
    RET("dupfd.huge", fcntl(fd, F_DUPFD, 1 << 30));
    RET("setfd", fcntl(300, F_SETFD, FD_CLOEXEC));
    RET("setfd.get", fcntl(300, F_GETFD));
    RET("setfd.other_bits", fcntl(300, F_SETFD, 0xfe));
    RET("setfd.other_bits_get", fcntl(300, F_GETFD));
    // The large-file bit is always there on 64 bit; leave it out.
#define FL(name, f) val(name, "%#x", fcntl(f, F_GETFL) & ~0100000)
    FL("getfl", fd);
    RET("setfl.append_nonblock", fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    FL("setfl.get", fd);
    FL("setfl.dup_shares", d);
    RET("setfl.access_mode_ignored", fcntl(fd, F_SETFL, O_WRONLY | O_CREAT | O_TRUNC));
    FL("setfl.access_mode_get", fd);
    RET("setfl.noatime_as_owner", fcntl(fd, F_SETFL, O_NOATIME));
    FL("setfl.noatime_get", fd);
    fcntl(fd, F_SETFL, 0);
    int ap = MUST(open("f", O_WRONLY | O_APPEND | O_NONBLOCK | O_SYNC));
    FL("open.getfl", ap);
    FL("open.creat_flags_are_dropped", open("f", O_RDWR | O_CREAT | O_TRUNC | O_NOCTTY, 0600));
    FL("open.directory_kept", open(".", O_RDONLY | O_DIRECTORY));
    FL("open.nofollow_kept", open("f", O_RDONLY | O_NOFOLLOW));
    int p[2];
    MUST(pipe2(p, O_NONBLOCK));
    FL("pipe.read", p[0]);
    FL("pipe.write", p[1]);
    RET("bad_command", fcntl(fd, 9999, 0));
    RET("bad_fd", fcntl(999, F_GETFL));
    RET("getown", fcntl(fd, F_GETOWN));
    RET("setown", fcntl(p[0], F_SETOWN, getpid()));
    YES("setown.get", fcntl(p[0], F_GETOWN) == getpid());
    RET("setown.no_such", fcntl(p[0], F_SETOWN, 0x3fffffff));
    RET("getsig", fcntl(p[0], F_GETSIG));
    RET("setsig", fcntl(p[0], F_SETSIG, SIGUSR1));
    RET("setsig.get", fcntl(p[0], F_GETSIG));
    RET("setsig.bad", fcntl(p[0], F_SETSIG, 65));

    // close_range
    for (int i = 400; i < 410; i++) MUST(dup2(fd, i));
    RET("close_range", syscall(SYS_close_range, 402, 404, 0));
    val("close_range.left", "%d %d %d %d", fcntl(401, F_GETFD), fcntl(402, F_GETFD), fcntl(404, F_GETFD), fcntl(405, F_GETFD));
    RET("close_range.again", syscall(SYS_close_range, 402, 404, 0));
    RET("close_range.reversed", syscall(SYS_close_range, 409, 400, 0));
    RET("close_range.cloexec", syscall(SYS_close_range, 406, 407, CLOSE_RANGE_CLOEXEC));
    val("close_range.cloexec_get", "%d %d %d", fcntl(405, F_GETFD), fcntl(406, F_GETFD), fcntl(408, F_GETFD));
    RET("close_range.bad_flag", syscall(SYS_close_range, 406, 407, 1));
    RET("close_range.to_end", syscall(SYS_close_range, 408, ~0U, 0));
    RET("close_range.gone", fcntl(409, F_GETFD));
    int st = CHILD(RET("close_range.unshare", syscall(SYS_close_range, 400, ~0U, CLOSE_RANGE_UNSHARE)));
    val("close_range.parent_keeps", "%d %s", fcntl(401, F_GETFD), wname(st));

    // The last close of a pipe's writer is seen only when all duplicates are gone.
    int q[2];
    char c;
    MUST(pipe2(q, O_NONBLOCK));
    int q2 = dup(q[1]);
    close(q[1]);
    RET("pipe.dup_open", read(q[0], &c, 1));
    close(q2);
    RET("pipe.all_closed", read(q[0], &c, 1));
    return 0;
}
