// TCP over the loopback: connect, accept, names, data, shutdown, reset, non-blocking connect, errnos. tcp(7), ip(7).
#include "../check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

static struct sockaddr_in lo(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
#define A(a) (struct sockaddr *)&(a), sizeof(a)
static int tcp(int flags) { return MUST(socket(AF_INET, SOCK_STREAM | flags, 0)); }
static struct sockaddr_in name_of(int s) {
    struct sockaddr_in a = {0};
    socklen_t l = sizeof a;
    MUST(getsockname(s, (void *)&a, &l));
    return a;
}
static void connected(int l, int *c, int *s) {
    struct sockaddr_in a = name_of(l);
    *c = tcp(0);
    MUST(connect(*c, A(a)));
    *s = MUST(accept(l, NULL, NULL));
}
static int so_error(int s) {
    int v = -1;
    socklen_t l = sizeof v;
    getsockopt(s, SOL_SOCKET, SO_ERROR, &v, &l);
    return v;
}
static void wait_in(int s) {
    struct pollfd p = {s, POLLIN, 0};
    MUST(poll(&p, 1, -1));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    char b[256];
    static char big[1 << 20];
    // Creation and binding.
    RET("socket.bad_protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    OK("socket.tcp_protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
    RET("socket.seqpacket", socket(AF_INET, SOCK_SEQPACKET, 0));
    int l = tcp(0);
    struct sockaddr_in any = lo(0), a;
    RET("bind.port_zero", bind(l, A(any)));
    a = name_of(l);
    YES("bind.port_given", a.sin_port != 0);
    val("bind.name", "%s family %d", inet_ntoa(a.sin_addr), a.sin_family);
    RET("bind.again", bind(l, A(any)));
    RET("bind.in_use", bind(tcp(0), A(a)));
    RET("bind.not_local", ({ struct sockaddr_in x = lo(0); x.sin_addr.s_addr = htonl(0xc0000201); bind(tcp(0), A(x)); }));
    RET("bind.short", bind(tcp(0), (void *)&any, 8));
    RET("bind.wrong_family", ({ struct sockaddr_in x = lo(0); x.sin_family = 99; bind(tcp(0), A(x)); }));
    RET("bind.unspec_any", ({ struct sockaddr_in x = {0}; bind(tcp(0), A(x)); }));
    RET("bind.any_port_conflict", ({ struct sockaddr_in x = {.sin_family = AF_INET, .sin_port = a.sin_port}; bind(tcp(0), A(x)); }));
    RET("bind.other_loopback_address", ({ struct sockaddr_in x = lo(a.sin_port); x.sin_addr.s_addr = htonl(0x7f000002); bind(tcp(0), A(x)); }));
    RET("connect.not_listening_yet", connect(tcp(0), A(a)));
    RET("accept.not_listening", accept(l, NULL, NULL));
    RET("getpeername.unconnected", ({ socklen_t n = sizeof a; struct sockaddr_in x; getpeername(l, (void *)&x, &n); }));
    RET("send.unconnected", send(tcp(0), "x", 1, 0));
    RET("recv.unconnected", recv(tcp(0), b, 1, 0));
    RET("shutdown.unconnected", shutdown(tcp(0), SHUT_RDWR));
    RET("listen", listen(l, 5));
    RET("listen.connected_name", ({ int x = tcp(0); listen(x, 1) ? -1 : name_of(x).sin_port != 0; }));
    // Connecting.
    int c, s;
    c = tcp(0);
    RET("connect", connect(c, A(a)));
    RET("connect.again", connect(c, A(a)));
    struct sockaddr_in peer = {0}, mine = name_of(c);
    socklen_t pl = sizeof peer;
    s = OK("accept", accept4(l, (void *)&peer, &pl, SOCK_CLOEXEC));
    RET("accept.cloexec", fcntl(s, F_GETFD));
    YES("accept.peer_is_client", peer.sin_port == mine.sin_port && peer.sin_addr.s_addr == mine.sin_addr.s_addr && pl == sizeof peer);
    pl = sizeof peer;
    RET("getpeername", getpeername(c, (void *)&peer, &pl));
    YES("getpeername.is_listener", peer.sin_port == a.sin_port);
    YES("accepted.name", name_of(s).sin_port == a.sin_port);
    RET("listen.on_connected", listen(c, 1));
    RET("connect.listener", connect(l, A(a)));
    RET("connect.any_means_loopback", ({ struct sockaddr_in x = {.sin_family = AF_INET, .sin_port = a.sin_port}; int y = tcp(0), r = connect(y, A(x)); close(accept(l, NULL, NULL)); close(y); r; }));
    RET("connect.wrong_family", ({ struct sockaddr_in x = a; x.sin_family = AF_INET6; connect(tcp(0), A(x)); }));
    RET("connect.short", connect(tcp(0), (void *)&a, 4));
    int closed_port;
    {
        int t = tcp(0);
        MUST(bind(t, A(any)));
        closed_port = name_of(t).sin_port;
        close(t);
    }
    struct sockaddr_in dead = lo(closed_port);
    RET("connect.refused", connect(tcp(0), A(dead)));
    // Data.
    RET("send", send(c, "hello", 5, 0));
    wait_in(s);
    RET("recv.peek", recv(s, b, 3, MSG_PEEK));
    RET("fionread", ({ int n = -1; ioctl(s, FIONREAD, &n); n; }));
    RET("recv", recv(s, b, sizeof b, 0));
    val("recv.content", "%.5s", b);
    RET("recv.dontwait", recv(s, b, 1, MSG_DONTWAIT));
    RET("send.zero", send(s, b, 0, 0));
    struct iovec v[2] = {{"ab", 2}, {"cde", 3}};
    RET("writev", writev(s, v, 2));
    RET("recv.waitall", recv(c, b, 5, MSG_WAITALL));
    write(s, "truncate", 8);
    wait_in(c);
    RET("recv.trunc_discards", recv(c, NULL, 4, MSG_TRUNC));
    RET("recv.after_discard", recv(c, b, 10, 0));
    val("recv.after_discard_content", "%.4s", b);
    RET("sockatmark", ({ int m = -1; ioctl(c, 0x8905, &m); m; }));
    pl = sizeof peer;
    write(s, "x", 1);
    RET("recvfrom.gives_no_address", recvfrom(c, b, 1, 0, (void *)&peer, &pl));
    val("recvfrom.address_length", "%u", pl);
    RET("sendto.address_is_ignored_when_connected", sendto(s, "y", 1, 0, A(dead)));
    wait_in(c);
    read(c, b, 1);
    // A bulk transfer in both processes.
    pid_t pid = fork();
    if (pid == 0) {
        for (size_t i = 0; i < sizeof big; i++) big[i] = i % 253;
        for (size_t done = 0; done < 3 * sizeof big;) {
            size_t at = done % sizeof big;
            ssize_t w = write(c, big + at, sizeof big - at);
            if (w <= 0) _exit(1);
            done += w;
        }
        _exit(0);
    }
    unsigned long sum = 0, total = 0;
    while (total < 3 * sizeof big) {
        ssize_t r = read(s, big, 60000);
        if (r <= 0) break;
        for (ssize_t i = 0; i < r; i++) sum += (unsigned char)big[i] * (1 + (total + i) % sizeof big % 7);
        total += r;
    }
    val("bulk", "%lu sum %lu %s", total, sum, wname(wait_for(pid)));
    // sendfile to a socket.
    int m = MUST(memfd_create("f", 0));
    MUST(write(m, "0123456789", 10));
    RET("sendfile", ({ off_t off = 2; sendfile(s, m, &off, 6); }));
    RET("sendfile.received", recv(c, b, 6, MSG_WAITALL));
    val("sendfile.content", "%.6s", b);
    // Half close.
    RET("shutdown.wr", shutdown(c, SHUT_WR));
    RET("shutdown.send", send(c, "x", 1, 0));
    wait_in(s);
    RET("shutdown.peer_end", recv(s, b, 1, 0));
    RET("shutdown.peer_sends", send(s, "still", 5, 0));
    wait_in(c);
    RET("shutdown.received", recv(c, b, 10, 0));
    struct pollfd p = {s, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    val("shutdown.peer_poll", "%#x", p.revents);
    RET("shutdown.rd", shutdown(s, SHUT_RD));
    RET("shutdown.bad", shutdown(s, 7));
    close(c), close(s);
    // The peer closes.
    connected(l, &c, &s);
    close(s);
    wait_in(c);
    RET("closed.recv", recv(c, b, 1, 0));
    p = (struct pollfd){c, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    val("closed.poll", "%#x", p.revents);
    RET("closed.first_send", send(c, "x", 1, 0));
    p.events = 0;
    poll(&p, 1, -1); // until the reset has come
    val("closed.poll_after_send", "%#x", p.revents);
    RET("closed.second_send", send(c, "x", 1, 0));
    close(c);
    // A reset: closed with unread data, or with linger zero.
    connected(l, &c, &s);
    write(c, "unread", 6);
    wait_in(s);
    close(s);
    p = (struct pollfd){c, 0, 0};
    poll(&p, 1, -1);
    val("reset.poll", "%#x", p.revents);
    RET("reset.recv", recv(c, b, 1, 0));
    RET("reset.recv_again", recv(c, b, 1, 0));
    RET("reset.send", send(c, "x", 1, 0));
    close(c);
    connected(l, &c, &s);
    setsockopt(s, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(s);
    p = (struct pollfd){c, 0, 0};
    poll(&p, 1, -1);
    RET("linger_zero.so_error", so_error(c) == ECONNRESET ? 1 : 0);
    RET("linger_zero.so_error_is_cleared", so_error(c));
    RET("linger_zero.recv", recv(c, b, 1, 0));
    close(c);
    // Non-blocking.
    fcntl(l, F_SETFL, O_NONBLOCK);
    RET("nonblock.accept", accept(l, NULL, NULL));
    c = tcp(SOCK_NONBLOCK);
    int r = connect(c, A(a));
    YES("nonblock.connect", r == 0 || errno == EINPROGRESS);
    p = (struct pollfd){c, POLLOUT, 0};
    RET("nonblock.poll", poll(&p, 1, -1));
    val("nonblock.revents", "%#x so_error %d", p.revents, so_error(c));
    wait_in(l);
    s = OK("nonblock.accept_ready", accept(l, NULL, NULL));
    RET("nonblock.not_inherited", fcntl(s, F_GETFL) & O_NONBLOCK);
    RET("nonblock.recv", recv(c, b, 1, 0));
    ssize_t n = 0, w;
    while ((w = write(c, big, sizeof big)) > 0) n += w;
    val("nonblock.full", "%s", ename(errno));
    YES("nonblock.some", n > 0);
    for (ssize_t got = 0; got < n;) got += MUST(read(s, big, sizeof big));
    p = (struct pollfd){c, POLLOUT, 0};
    RET("nonblock.writable_again", poll(&p, 1, -1));
    int d = tcp(SOCK_NONBLOCK);
    r = connect(d, A(dead));
    YES("nonblock.refused", r == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    if (errno == EINPROGRESS) {
        p = (struct pollfd){d, POLLOUT, 0};
        poll(&p, 1, -1);
        val("nonblock.refused_error", "%s", ename(so_error(d)));
    } else val("nonblock.refused_error", "%s", ename(errno));
    // Reading to the end while the connection waits in the queue, and disconnecting with AF_UNSPEC.
    close(c), close(s);
    connected(l, &c, &s);
    RET("unspec.connect", connect(c, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
    RET("unspec.send", send(c, "x", 1, 0));
    RET("unspec.connect_again", connect(c, A(a)));
    // shutdown on a listener wakes accept.
    fcntl(l, F_SETFL, 0);
    close(accept(l, NULL, NULL));
    pid_t me = getpid();
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        shutdown(l, SHUT_RDWR);
        _exit(0);
    }
    RET("listener.shutdown_wakes_accept", accept(l, NULL, NULL));
    wait_for(pid);
    RET("listener.connect_after_shutdown", connect(tcp(0), A(a)));
    // A time-out.
    l = tcp(0);
    MUST(bind(l, A(any)));
    MUST(listen(l, 1));
    connected(l, &c, &s);
    setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 20000}, sizeof(struct timeval));
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    RET("rcvtimeo", recv(c, b, 1, 0));
    YES("rcvtimeo.waited", now_ns(CLOCK_MONOTONIC) - t0 >= 19000000);
    setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 20000}, sizeof(struct timeval));
    RET("rcvtimeo.accept", accept(l, NULL, NULL));
    return 0;
}
