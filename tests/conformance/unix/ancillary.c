// Descriptors and credentials over AF_UNIX: SCM_RIGHTS, MSG_CTRUNC, cleanup, SCM_CREDENTIALS, SO_PASSCRED, SO_PEERCRED.
// unix(7), cmsg(3).
#include "../check.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static char ctl[1024];

static ssize_t send_fds(int s, const int *fds, int n, const char *data, size_t len) {
    struct iovec iov = {(void *)data, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    static char c[8192];
    memset(c, 0, sizeof c);
    m.msg_control = c;
    m.msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(h), fds, n * sizeof(int));
    return sendmsg(s, &m, MSG_NOSIGNAL);
}
static struct msghdr got;
static char data[64];
static struct iovec giov;
static ssize_t receive(int s, size_t space, int flags) {
    memset(ctl, 0, sizeof ctl);
    giov = (struct iovec){data, sizeof data};
    got = (struct msghdr){.msg_iov = &giov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = space};
    return recvmsg(s, &got, flags);
}
static int fds_of(int *out) {
    int n = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&got); h; h = CMSG_NXTHDR(&got, h))
        if (h->cmsg_type == SCM_RIGHTS) {
            int k = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (int i = 0; i < k; i++) out[n++] = ((int *)CMSG_DATA(h))[i];
        }
    return n;
}
static void show(const char *name, ssize_t r) {
    int f[16];
    val(name, "%zd flags %#x fds %d control %zu", r, got.msg_flags, fds_of(f), (size_t)got.msg_controllen);
}
static const struct ucred *cred(void) {
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&got); h; h = CMSG_NXTHDR(&got, h))
        if (h->cmsg_type == SCM_CREDENTIALS) return (void *)CMSG_DATA(h);
    return NULL;
}
static void show_cred(const char *name) {
    const struct ucred *c = cred();
    if (!c) val(name, "none");
    else val(name, "pid %s uid %d gid %d", c->pid == getpid() ? "self" : c->pid == 0 ? "0" : "other", (int)c->uid, (int)c->gid);
}

int main(void) {
    tmp_enter();
    int sv[2], p[2], f[300];
    char c;
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    MUST(pipe(p));
    RET("rights.send", send_fds(sv[0], p, 2, "x", 1));
    ssize_t r = receive(sv[1], sizeof ctl, 0);
    show("rights.receive", r);
    int n = fds_of(f);
    YES("rights.new_numbers", n == 2 && f[0] != p[0] && f[1] != p[1]);
    write(f[1], "!", 1);
    RET("rights.same_pipe", read(p[0], &c, 1));
    RET("rights.no_cloexec", fcntl(f[0], F_GETFD));
    close(f[0]), close(f[1]);
    send_fds(sv[0], p, 1, "x", 1);
    receive(sv[1], sizeof ctl, MSG_CMSG_CLOEXEC);
    fds_of(f);
    RET("rights.cmsg_cloexec", fcntl(f[0], F_GETFD));
    close(f[0]);
    // The file position is shared: it is the same open file description.
    put_file("f", "0123456789", 0600);
    int fd = MUST(open("f", O_RDONLY));
    send_fds(sv[0], &fd, 1, "x", 1);
    receive(sv[1], sizeof ctl, 0);
    fds_of(f);
    read(fd, data, 4);
    RET("rights.shared_offset", lseek(f[0], 0, SEEK_CUR));
    close(f[0]);
    RET("rights.bad_fd", send_fds(sv[0], (int[]){999}, 1, "x", 1));
    RET("rights.negative_fd", send_fds(sv[0], (int[]){-1}, 1, "x", 1));
    for (int i = 0; i < 300; i++) f[i] = p[0];
    RET("rights.254", send_fds(sv[0], f, 254, "x", 1));
    RET("rights.253", send_fds(sv[0], f, 253, "x", 1));
    r = read(sv[1], data, 10); // without a control buffer the descriptors are dropped
    val("rights.plain_read", "%zd", r);
    // Too small a control buffer.
    send_fds(sv[0], (int[]){p[0], p[1], fd}, 3, "x", 1);
    r = receive(sv[1], CMSG_SPACE(sizeof(int)), 0);
    show("ctrunc.some", r);
    n = fds_of(f);
    for (int i = 0; i < n; i++) close(f[i]);
    send_fds(sv[0], p, 2, "x", 1);
    r = receive(sv[1], 0, 0);
    show("ctrunc.none", r);
    send_fds(sv[0], p, 2, "x", 1);
    r = receive(sv[1], 4, 0);
    show("ctrunc.less_than_header", r);
    // Peeking installs descriptors too.
    send_fds(sv[0], p, 1, "x", 1);
    r = receive(sv[1], sizeof ctl, MSG_PEEK);
    show("peek", r);
    r = receive(sv[1], sizeof ctl, 0);
    show("peek.then", r);
    // On a stream a read stops at a message with descriptors.
    write(sv[0], "aa", 2);
    send_fds(sv[0], p, 1, "bb", 2);
    write(sv[0], "cc", 2);
    r = receive(sv[1], sizeof ctl, 0);
    show("barrier.first", r);
    r = receive(sv[1], sizeof ctl, 0);
    show("barrier.second", r);
    r = receive(sv[1], sizeof ctl, MSG_DONTWAIT);
    show("barrier.third", r);
    RET("rights.without_data", send_fds(sv[0], p, 1, "", 0));
    // RLIMIT_NOFILE at the receiver.
    send_fds(sv[0], p, 2, "x", 1);
    CHILD(int top = dup(0); setrlimit(RLIMIT_NOFILE, &(struct rlimit){top + 1, top + 1}); close(top);
          r = receive(sv[1], sizeof ctl, 0); show("nofile", r));
    // A descriptor that only sits in a socket keeps its file open; when the socket goes, it is closed.
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    int q[2];
    MUST(pipe2(q, O_NONBLOCK));
    send_fds(sv[0], &q[1], 1, "x", 1);
    close(q[1]);
    RET("in_flight.open", read(q[0], &c, 1));
    close(sv[0]), close(sv[1]);
    RET("in_flight.closed", read(q[0], &c, 1));
    // A socket sent over itself, then closed: a cycle that the kernel has to collect at some time; only the calls are checked.
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    RET("cycle.send", send_fds(sv[0], &sv[1], 1, "x", 1));
    RET("cycle.close", close(sv[1]));
    RET("cycle.close_other", close(sv[0]));
    // Bad control data.
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    struct iovec iov = {"x", 1};
    struct { struct cmsghdr h; int fd[2]; } bad = {{sizeof bad, SOL_SOCKET, 99}, {0}};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &bad, .msg_controllen = sizeof bad};
    RET("bad.type", sendmsg(sv[0], &m, 0));
    bad.h.cmsg_type = SCM_RIGHTS;
    bad.h.cmsg_len = 4;
    RET("bad.length_short", sendmsg(sv[0], &m, 0));
    bad.h.cmsg_len = 4096;
    RET("bad.length_long", sendmsg(sv[0], &m, 0));
    bad.h.cmsg_len = sizeof bad;
    bad.h.cmsg_level = 6;
    RET("bad.other_level_is_ignored", sendmsg(sv[0], &m, 0));
    m.msg_controllen = 1 << 30;
    RET("bad.huge", sendmsg(sv[0], &m, 0));

    // Credentials.
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    int one = 1;
    write(sv[0], "a", 1);
    receive(sv[1], sizeof ctl, 0);
    show_cred("cred.not_asked");
    RET("cred.passcred", setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
    write(sv[0], "a", 1);
    r = receive(sv[1], sizeof ctl, 0);
    show_cred("cred.automatic");
    val("cred.control", "%zu flags %#x", (size_t)got.msg_controllen, got.msg_flags);
    struct { struct cmsghdr h; struct ucred u; } cm = {{CMSG_LEN(sizeof(struct ucred)), SOL_SOCKET, SCM_CREDENTIALS}, {getpid(), 0, 0}};
    m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &cm, .msg_controllen = sizeof cm};
    RET("cred.send", sendmsg(sv[0], &m, 0));
    receive(sv[1], sizeof ctl, 0);
    show_cred("cred.explicit");
    cm.u.uid = cm.u.gid = 12345;
    RET("cred.send_other_uid_as_root", sendmsg(sv[0], &m, 0));
    receive(sv[1], sizeof ctl, 0);
    show_cred("cred.explicit_uid");
    while (recv(sv[1], data, 10, MSG_DONTWAIT) > 0)
        ;
    int st = CHILD(if (setresuid(1000, 1000, 1000)) _exit(9); cm.u = (struct ucred){getpid(), 0, 0};
                   RET("cred.unprivileged_lie", sendmsg(sv[0], &m, 0)); cm.u.uid = 1000; RET("cred.unprivileged_truth", sendmsg(sv[0], &m, 0)));
    receive(sv[1], sizeof ctl, MSG_DONTWAIT);
    show_cred("cred.from_child");
    val("cred.child", "%s", wname(st));
    // SO_PEERCRED is taken when the pair is made, or at connect and listen.
    struct ucred u;
    socklen_t ul = sizeof u;
    RET("peercred", getsockopt(sv[0], SOL_SOCKET, SO_PEERCRED, &u, &ul));
    val("peercred.value", "self %d uid %d gid %d len %u", u.pid == getpid(), (int)u.uid, (int)u.gid, ul);
    CHILD(ul = sizeof u; getsockopt(sv[0], SOL_SOCKET, SO_PEERCRED, &u, &ul); val("peercred.child_sees_maker", "%d", u.pid == getppid()));
    int l = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    ul = sizeof u;
    getsockopt(l, SOL_SOCKET, SO_PEERCRED, &u, &ul);
    val("peercred.unconnected", "%d %d %d", u.pid, (int)u.uid, (int)u.gid);
    struct sockaddr_un a = {AF_UNIX, "sock"};
    MUST(bind(l, (void *)&a, sizeof a));
    MUST(chmod("sock", 0777));
    MUST(listen(l, 1));
    pid_t pid = fork();
    if (pid == 0) {
        if (setresgid(77, 77, 77) || setresuid(1000, 1000, 1000)) _exit(9);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(s, (void *)&a, sizeof a)) _exit(8);
        ul = sizeof u;
        getsockopt(s, SOL_SOCKET, SO_PEERCRED, &u, &ul);
        _exit(u.pid == getppid() && u.uid == 0 ? read(s, &c, 1) : 7);
    }
    int s = MUST(accept(l, NULL, NULL));
    ul = sizeof u;
    getsockopt(s, SOL_SOCKET, SO_PEERCRED, &u, &ul);
    val("peercred.connected", "child %d uid %d gid %d", u.pid == pid, (int)u.uid, (int)u.gid);
    close(s);
    val("peercred.client", "%s", wname(wait_for(pid)));
    RET("peercred.set", setsockopt(l, SOL_SOCKET, SO_PEERCRED, &u, sizeof u));
    return 0;
}
