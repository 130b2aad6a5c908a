// AF_UNIX: receive flags (MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC, MSG_NOSIGNAL), socket options and time-outs.
// recv(2), socket(7).
#include "../check.h"
#include <sys/socket.h>
#include <sys/time.h>

static int get(int s, int opt) {
    int v = -99;
    socklen_t l = sizeof v;
    return getsockopt(s, SOL_SOCKET, opt, &v, &l) ? -errno : v;
}

int main(void) {
    int sv[2], v;
    char b[64];
    static char big[1 << 20];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    write(sv[0], "abcdef", 6);
    RET("peek", recv(sv[1], b, 3, MSG_PEEK));
    RET("peek.again", recv(sv[1], b, 60, MSG_PEEK));
    RET("recv", recv(sv[1], b, 2, 0));
    RET("recv.rest", recv(sv[1], b, 60, 0));
    RET("dontwait", recv(sv[1], b, 60, MSG_DONTWAIT));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        write(sv[0], "one", 3);
        wait_blocked(me, me);
        write(sv[0], "two", 3);
        _exit(0);
    }
    RET("waitall", recv(sv[1], b, 6, MSG_WAITALL));
    wait_for(pid);
    write(sv[0], "end", 3);
    shutdown(sv[0], SHUT_WR);
    RET("waitall.end", recv(sv[1], b, 10, MSG_WAITALL));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    close(sv[1]);
    RET("nosignal", send(sv[0], "x", 1, MSG_NOSIGNAL));
    val("sigpipe", "%s", wname(CHILD(send(sv[0], "x", 1, 0))));
    val("sigpipe.write", "%s", wname(CHILD(write(sv[0], "x", 1))));
    // Bounded buffers.
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    ssize_t n = write(sv[0], big, sizeof big), total = n;
    YES("partial_write", n > 0 && n < (ssize_t)sizeof big);
    RET("full", write(sv[0], big, sizeof big) > 0 ? 0 : -1);
    while ((n = read(sv[1], big, sizeof big)) > 0) total -= n;
    YES("all_came_out", total <= 0);
    struct pollfd p = {sv[0], POLLOUT, 0};
    RET("writable_again", poll(&p, 1, 0));
    // A blocked sender.
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    pid = fork();
    if (pid == 0) {
        close(sv[0]);
        wait_blocked(me, me);
        size_t have = 0;
        while (have < sizeof big && (n = read(sv[1], big, sizeof big)) > 0) have += n;
        _exit(have == sizeof big ? 0 : 1);
    }
    RET("blocked_send", write(sv[0], big, sizeof big));
    val("blocked_send.reader", "%s", wname(wait_for(pid)));

    // Options.
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    int d = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), s = sv[0];
    RET("so_type.stream", get(s, SO_TYPE));
    RET("so_type.dgram", get(d, SO_TYPE));
    RET("so_domain", get(s, SO_DOMAIN));
    RET("so_protocol", get(s, SO_PROTOCOL));
    RET("so_acceptconn", get(s, SO_ACCEPTCONN));
    RET("so_error", get(s, SO_ERROR));
    RET("so_passcred", get(s, SO_PASSCRED));
    RET("so_reuseaddr", get(s, SO_REUSEADDR));
    RET("so_keepalive", get(s, SO_KEEPALIVE));
    RET("so_broadcast", get(s, SO_BROADCAST));
    v = 1;
    RET("set.so_passcred", setsockopt(s, SOL_SOCKET, SO_PASSCRED, &v, sizeof v));
    RET("get.so_passcred", get(s, SO_PASSCRED));
    v = 7;
    RET("set.so_reuseaddr_seven", setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &v, sizeof v));
    RET("get.so_reuseaddr", get(s, SO_REUSEADDR));
    v = 10000;
    RET("set.so_sndbuf", setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    RET("get.so_sndbuf_doubled", get(s, SO_SNDBUF));
    v = 20000;
    RET("set.so_rcvbuf", setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
    RET("get.so_rcvbuf_doubled", get(s, SO_RCVBUF));
    v = 1;
    RET("set.so_type", setsockopt(s, SOL_SOCKET, SO_TYPE, &v, sizeof v));
    RET("set.unknown", setsockopt(s, SOL_SOCKET, 9999, &v, sizeof v));
    RET("get.unknown", get(s, 9999));
    RET("set.unknown_level", setsockopt(s, 77, 1, &v, sizeof v));
    RET("get.unknown_level", ({ socklen_t l = 4; getsockopt(s, 77, 1, &v, &l); }));
    RET("set.short", setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &v, 2));
    RET("set.bad_pointer", syscall(SYS_setsockopt, s, SOL_SOCKET, SO_REUSEADDR, 8, 4));
    RET("get.bad_pointer", syscall(SYS_getsockopt, s, SOL_SOCKET, SO_TYPE, 8, 8));
    RET("get.negative_length", ({ socklen_t l = -1; getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &l); }));
    RET("get.short_length", ({ socklen_t l = 2; v = 0; getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &l) ? -1 : (int)l; }));
    RET("get.not_socket", ({ socklen_t l = 4; getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &l); }));
    RET("set.not_socket", setsockopt(0, SOL_SOCKET, SO_REUSEADDR, &v, 4));
    struct linger lg = {1, 5}, lb = {0};
    socklen_t ll = sizeof lb;
    RET("set.so_linger", setsockopt(s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    getsockopt(s, SOL_SOCKET, SO_LINGER, &lb, &ll);
    val("get.so_linger", "%d %d len %u", lb.l_onoff, lb.l_linger, ll);
    // Time-outs.
    struct timeval tv = {0, 20000}, tb;
    socklen_t tl = sizeof tb;
    RET("set.so_rcvtimeo", setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tb, &tl);
    val("get.so_rcvtimeo", "%ld %ld", tb.tv_sec, tb.tv_usec);
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    RET("rcvtimeo", recv(s, b, 1, 0));
    YES("rcvtimeo.waited", now_ns(CLOCK_MONOTONIC) - t0 >= 19000000);
    RET("rcvtimeo.read", read(s, b, 1));
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    n = write(s, big, sizeof big);
    YES("sndtimeo.partial", n > 0 && n < (ssize_t)sizeof big);
    RET("sndtimeo.full", write(s, big, sizeof big));
    tv.tv_usec = 1000000;
    RET("set.so_rcvtimeo_bad", setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    tv = (struct timeval){-1, 0};
    RET("set.so_rcvtimeo_negative", setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    return 0;
}
