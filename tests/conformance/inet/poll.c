// Readiness of TCP and UDP sockets in poll, select and epoll: listening, connecting, data, half closes, resets, edge
// triggering; asynchronous SIGIO; MSG_OOB and SIGURG. tcp(7), epoll(7), fcntl(2).
#include "../check.h"
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>

static struct sockaddr_in addr;
#define A(a) (struct sockaddr *)&(a), sizeof(a)
static void ev(const char *name, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    int r = poll(&p, 1, 0);
    val(name, "%d%s%s%s%s%s%s", r, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "", p.revents & POLLPRI ? " PRI" : "",
        p.revents & POLLRDHUP ? " RDHUP" : "", p.revents & POLLERR ? " ERR" : "", p.revents & POLLHUP ? " HUP" : "");
}
static void until(int fd, short events) {
    struct pollfd p = {fd, events, 0};
    MUST(poll(&p, 1, -1));
}
static int ep;
static void edge(const char *name) {
    struct epoll_event e[4];
    int n = epoll_wait(ep, e, 4, 0);
    val(name, "%d %#x", n, n > 0 ? e[0].events : 0);
}
static volatile int sig_count, sig_fd, sig_code;
static void on_io(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    sig_count++;
    sig_fd = si->si_fd;
    sig_code = sig == SIGURG ? 0 : si->si_code;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    char b[64];
    int l = MUST(socket(AF_INET, SOCK_STREAM, 0)), c, s;
    addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ev("tcp.fresh", l);
    MUST(bind(l, A(addr)));
    socklen_t n = sizeof addr;
    getsockname(l, (void *)&addr, &n);
    ev("tcp.bound", l);
    MUST(listen(l, 4));
    ev("listener.idle", l);
    c = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(c, A(addr)));
    until(l, POLLIN);
    ev("listener.pending", l);
    ev("client.before_accept", c);
    s = MUST(accept(l, NULL, NULL));
    ev("listener.accepted", l);
    ev("connected.idle", s);
    MUST(write(c, "abc", 3));
    until(s, POLLIN);
    ev("connected.data", s);
    read(s, b, 1);
    ev("connected.part_read", s);
    read(s, b, 10);
    ev("connected.drained", s);
    // Edge triggered.
    ep = MUST(epoll_create1(0));
    MUST(epoll_ctl(ep, EPOLL_CTL_ADD, s, &(struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET}));
    edge("edge.writable");
    edge("edge.nothing_new");
    write(c, "1", 1);
    until(s, POLLIN);
    edge("edge.data");
    edge("edge.same_data");
    write(c, "2", 1);
    struct pollfd dummy = {s, POLLIN, 0};
    do { int q; ioctl(s, FIONREAD, &q); if (q == 2) break; } while (poll(&dummy, 1, 0) >= 0);
    edge("edge.more_data");
    read(s, b, 10);
    edge("edge.read_is_no_edge");
    shutdown(c, SHUT_WR);
    until(s, POLLRDHUP);
    edge("edge.half_closed");
    ev("half_closed.reader", s);
    ev("half_closed.writer", c);
    shutdown(s, SHUT_WR);
    until(c, POLLRDHUP);
    ev("both_closed.first", c);
    ev("both_closed.second", s);
    close(c);
    close(s);
    // Select.
    c = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(c, A(addr)));
    s = MUST(accept(l, NULL, NULL));
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(s, &r);
    FD_SET(s, &w);
    RET("select.writable", select(s + 1, &r, &w, NULL, &(struct timeval){0}));
    write(c, "x", 1);
    until(s, POLLIN);
    FD_SET(s, &r);
    RET("select.both", select(s + 1, &r, &w, NULL, &(struct timeval){0}));
    read(s, b, 1);
    // SO_RCVLOWAT holds readability back.
    int two = 2;
    setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &two, sizeof two);
    write(c, "1", 1);
    do { int q; ioctl(s, FIONREAD, &q); if (q == 1) break; } while (sched_yield() == 0);
    ev("rcvlowat.below", s);
    write(c, "2", 1);
    until(s, POLLIN);
    ev("rcvlowat.reached", s);
    read(s, b, 10);
    two = 1;
    setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &two, sizeof two);
    // SIGIO.
    struct sigaction sa = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO};
    sigset_t io, old;
    sigemptyset(&io);
    sigaddset(&io, SIGIO);
    sigaddset(&io, SIGURG);
    sigaddset(&io, 40);
    sigprocmask(SIG_BLOCK, &io, &old);
    sigaction(SIGIO, &sa, NULL);
    sigaction(SIGURG, &sa, NULL);
    sigaction(40, &sa, NULL);
    RET("async.owner", fcntl(s, F_SETOWN, getpid()));
    RET("async.on", fcntl(s, F_SETFL, fcntl(s, F_GETFL) | O_ASYNC));
    RET("async.flag", fcntl(s, F_GETFL) & O_ASYNC);
    write(c, "a", 1);
    siginfo_t si;
    RET("async.sigio", sigwaitinfo(&io, &si));
    val("async.info", "code %d", si.si_code == SI_KERNEL);
    read(s, b, 10);
    RET("async.setsig", fcntl(s, F_SETSIG, 40));
    write(c, "a", 1);
    RET("async.signal", sigwaitinfo(&io, &si));
    val("async.signal_info", "code %d fd %d band %#lx", si.si_code, si.si_fd == s, si.si_band & (POLLIN | POLLRDNORM));
    RET("async.off", fcntl(s, F_SETFL, fcntl(s, F_GETFL) & ~O_ASYNC));
    read(s, b, 10);
    while (sigtimedwait(&io, &si, &(struct timespec){0}) > 0)
        ;
    write(c, "a", 1);
    until(s, POLLIN);
    RET("async.silent", sigtimedwait(&io, &si, &(struct timespec){0}));
    read(s, b, 10);
    // The same for a pipe.
    int p[2];
    MUST(pipe2(p, O_NONBLOCK));
    fcntl(p[0], F_SETOWN, getpid());
    RET("pipe_async.on", fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    write(p[1], "x", 1);
    RET("pipe_async.sigio", sigwaitinfo(&io, &si));
    // Urgent data.
    fcntl(s, F_SETOWN, getpid());
    fcntl(s, F_SETSIG, 0);
    write(c, "n", 1);
    RET("oob.send", send(c, "U", 1, MSG_OOB));
    RET("oob.sigurg", sigwaitinfo(&io, &si));
    until(s, POLLPRI);
    ev("oob.poll", s);
    RET("oob.recv", recv(s, b, 1, MSG_OOB));
    val("oob.byte", "%c", b[0]);
    RET("oob.recv_again", recv(s, b, 1, MSG_OOB));
    RET("oob.normal", recv(s, b, 10, MSG_DONTWAIT));
    val("oob.normal_byte", "%c", b[0]);
    // A reset shows in every way.
    setsockopt(c, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(c);
    until(s, 0);
    ev("reset", s);
    RET("reset.read", read(s, b, 1));
    ev("reset.after_read", s);
    close(s);
    // Refused, non-blocking.
    close(l);
    c = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    connect(c, A(addr));
    until(c, POLLOUT);
    ev("refused", c);
    // UDP.
    int u = MUST(socket(AF_INET, SOCK_DGRAM, 0)), v = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in ua = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MUST(bind(u, A(ua)));
    n = sizeof ua;
    getsockname(u, (void *)&ua, &n);
    ev("udp.idle", u);
    sendto(v, "", 0, 0, A(ua));
    until(u, POLLIN);
    ev("udp.empty_packet", u);
    recv(u, b, 1, 0);
    ev("udp.drained", u);
    shutdown(u, SHUT_RD);
    connect(v, A(ua));
    close(u);
    send(v, "x", 1, 0);
    until(v, POLLIN);
    ev("udp.refused", v);
    RET("udp.refused_recv", recv(v, b, 1, MSG_DONTWAIT));
    ev("udp.refused_after", v);
    return 0;
}
