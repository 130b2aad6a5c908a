// SIGIO and SIGURG of sockets: who is told, when, and what the signal says; owners by fcntl and ioctl; connecting and
// room to write; Unix sockets and pipes. fcntl(2), socket(7), tcp(7), sigaction(2).
#include "../check.h"
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define A(a) (struct sockaddr *)&(a), sizeof(a)
static sigset_t all;
// Waits for one signal, and says what it is about.
static void expect(const char *name, int fd) {
    siginfo_t si;
    int sig = sigwaitinfo(&all, &si);
    if (sig >= 40) val(name, "%s code %d fd %d band %#lx", sname(sig), si.si_code, si.si_fd == fd, si.si_band);
    else val(name, "%s code %s", sname(sig), si.si_code == SI_KERNEL ? "kernel" : "other");
}
static void none(const char *name) {
    siginfo_t si;
    int sig = sigtimedwait(&all, &si, &(struct timespec){0});
    val(name, "%s", sig == -1 && errno == EAGAIN ? "none" : sname(sig));
}
static void drop_pending(void) {
    siginfo_t si;
    while (sigtimedwait(&all, &si, &(struct timespec){0}) > 0)
        ;
}
static void until(int fd, short events) {
    struct pollfd p = {fd, events, 0};
    MUST(poll(&p, 1, -1));
}
static void async(int fd, int sig) {
    MUST(fcntl(fd, F_SETOWN, getpid()));
    MUST(fcntl(fd, F_SETSIG, sig));
    MUST(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
}

int main(void) {
    sigemptyset(&all);
    sigaddset(&all, SIGIO);
    sigaddset(&all, SIGURG);
    sigaddset(&all, 40);
    sigaddset(&all, 41);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGPIPE, SIG_IGN);
    char b[65536] = {0};

    // Owners.
    int s = MUST(socket(AF_INET, SOCK_STREAM, 0)), one = 1, pid;
    RET("owner.none", fcntl(s, F_GETOWN));
    RET("owner.unknown", fcntl(s, F_SETOWN, 0x3ffffff));
    RET("owner.self", fcntl(s, F_SETOWN, getpid()));
    YES("owner.read_back", fcntl(s, F_GETOWN) == getpid());
    pid = -1;
    RET("owner.fiogetown", ioctl(s, FIOGETOWN, &pid));
    YES("owner.fiogetown_value", pid == getpid());
    pid = 0;
    RET("owner.fiosetown", ioctl(s, FIOSETOWN, &pid));
    RET("owner.cleared", fcntl(s, F_GETOWN));
    pid = getpid();
    RET("owner.siocspgrp", ioctl(s, SIOCSPGRP, &pid));
    pid = 0;
    RET("owner.siocgpgrp", ioctl(s, SIOCGPGRP, &pid));
    YES("owner.siocgpgrp_value", pid == getpid());
    pid = 0x3ffffff;
    RET("owner.siocspgrp_unknown", ioctl(s, SIOCSPGRP, &pid));
    RET("owner.fault", ioctl(s, FIOSETOWN, 8));
    RET("owner.group", fcntl(s, F_SETOWN, -getpgrp()));
    struct f_owner_ex ex = {F_OWNER_TID, gettid()};
    RET("owner.thread", fcntl(s, F_SETOWN_EX, &ex));
    ex = (struct f_owner_ex){0};
    RET("owner.get_ex", fcntl(s, F_GETOWN_EX, &ex));
    val("owner.get_ex_value", "%d %d", ex.type, ex.pid == gettid());
    RET("signal.bad", fcntl(s, F_SETSIG, 65));
    RET("signal.negative", fcntl(s, F_SETSIG, -1));
    RET("signal.set", fcntl(s, F_SETSIG, 41));
    RET("signal.get", fcntl(s, F_GETSIG));
    RET("fioasync", ioctl(s, FIOASYNC, &one));
    RET("fioasync.flag", !!(fcntl(s, F_GETFL) & O_ASYNC));
    none("fresh.silent");
    close(s);

    // A listener, and a connection.
    int l = MUST(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    MUST(bind(l, A(a)));
    getsockname(l, (void *)&a, &n);
    MUST(listen(l, 4));
    async(l, 40);
    none("listener.silent");
    int c = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(c, A(a)));
    expect("listener.connection", l);
    s = MUST(accept(l, NULL, NULL));
    none("listener.accepted");

    // Data: a signal for each arrival, none for what is there already.
    write(c, "early", 5);
    until(s, POLLIN);
    async(s, 40);
    none("data.early_is_silent");
    write(c, "1", 1);
    expect("data.first", s);
    write(c, "2", 1);
    expect("data.second", s);
    read(s, b, 10);
    none("data.read_is_silent");
    write(s, "back", 4);
    until(c, POLLIN);
    none("data.write_is_silent");
    // The descriptor is the one that the flag was set by.
    int d = MUST(dup(s));
    write(c, "3", 1);
    expect("data.duplicate_told_by_first", s);
    close(d);
    read(s, b, 10);
    // Without an owner nobody is told.
    MUST(fcntl(s, F_SETOWN, 0));
    write(c, "4", 1);
    until(s, POLLIN);
    none("data.no_owner");
    read(s, b, 10);
    // SIGIO says no more than that.
    MUST(fcntl(s, F_SETSIG, 0));
    MUST(fcntl(s, F_SETOWN, getpid()));
    write(c, "5", 1);
    expect("data.sigio", s);
    read(s, b, 10);
    // To a thread.
    ex = (struct f_owner_ex){F_OWNER_TID, gettid()};
    MUST(fcntl(s, F_SETOWN_EX, &ex));
    write(c, "6", 1);
    expect("data.to_thread", s);
    read(s, b, 10);
    // To a process group.
    ex = (struct f_owner_ex){F_OWNER_PGRP, getpgrp()};
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        s = MUST(accept(l, NULL, NULL));
        drop_pending();
        MUST(fcntl(s, F_SETOWN, -getpid()));
        MUST(fcntl(s, F_SETFL, O_ASYNC));
        write(s, "r", 1);
        expect("data.to_group", s);
        _exit(0);
    }
    int g = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(g, A(a)));
    read(g, b, 1);
    write(g, "7", 1);
    val("data.to_group_child", "%s", wname(wait_for(child)));
    close(g);
    drop_pending();

    // Room to write: only for whom it was refused.
    MUST(fcntl(s, F_SETOWN, getpid()));
    MUST(fcntl(s, F_SETSIG, 41));
    MUST(fcntl(s, F_SETFL, O_ASYNC | O_NONBLOCK));
    MUST(fcntl(c, F_SETFL, O_NONBLOCK));
    while (write(s, b, sizeof b) > 0)
        ;
    val("room.full", "%s", ename(errno));
    drop_pending();
    for (;;) {
        while (read(c, b, sizeof b) > 0)
            ;
        struct pollfd p = {s, POLLOUT, 0};
        if (poll(&p, 1, 0) == 1) break;
    }
    expect("room.again", s);
    drop_pending();

    // Urgent data needs an owner only.
    MUST(fcntl(s, F_SETFL, 0));
    send(c, "U", 1, MSG_OOB);
    expect("urgent.first", s);
    until(s, POLLPRI);
    none("urgent.once");
    RET("urgent.read", recv(s, b, 1, MSG_OOB));
    send(c, "V", 1, MSG_OOB);
    expect("urgent.second", s);
    drop_pending();

    // The end.
    MUST(fcntl(s, F_SETFL, O_ASYNC | O_NONBLOCK));
    while (recv(s, b, sizeof b, 0) > 0)
        ;
    drop_pending();
    shutdown(c, SHUT_WR);
    expect("end.half_closed", s);
    close(s);
    close(c);
    drop_pending();

    // Connecting without waiting.
    MUST(fcntl(l, F_SETFL, 0));
    c = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    async(c, 41);
    connect(c, A(a));
    until(c, POLLOUT);
    expect("connect.done", c);
    close(c);
    drop_pending();

    // UDP.
    int u = MUST(socket(AF_INET, SOCK_DGRAM, 0)), v = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in ua = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MUST(bind(u, A(ua)));
    n = sizeof ua;
    getsockname(u, (void *)&ua, &n);
    async(u, 40);
    sendto(v, "x", 1, 0, A(ua));
    expect("udp.first", u);
    sendto(v, "y", 1, 0, A(ua));
    expect("udp.second", u);
    close(u);
    close(v);
    drop_pending();

    // Unix sockets.
    int sv[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    async(sv[0], 40);
    none("unix.silent");
    write(sv[1], "x", 1);
    expect("unix.data", sv[0]);
    write(sv[0], "x", 1);
    none("unix.write_is_silent");
    read(sv[1], b, 1);
    none("unix.peer_read_is_silent");
    close(sv[0]);
    close(sv[1]);
    drop_pending();

    // Pipes: either end.
    int p[2];
    MUST(pipe2(p, O_NONBLOCK));
    async(p[0], 40);
    write(p[1], "x", 1);
    expect("pipe.data", p[0]);
    read(p[0], b, 1);
    none("pipe.read_is_silent");
    async(p[1], 41);
    while (write(p[1], b, 4096) > 0)
        ;
    drop_pending();
    read(p[0], b, sizeof b);
    expect("pipe.room", p[1]);
    drop_pending();
    close(p[1]);
    expect("pipe.end", p[0]);
    return 0;
}
