// AF_UNIX datagram sockets: sendto and recvfrom addresses, connect and disconnect, truncation, limits, sendmmsg and
// recvmmsg, errnos. unix(7), recv(2).
#include "../check.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un at(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, path);
    return a;
}
#define A(path) (struct sockaddr *)&(struct sockaddr_un[1]){at(path)}, sizeof(struct sockaddr_un)

int main(void) {
    tmp_enter();
    signal(SIGPIPE, SIG_IGN);
    char buf[256] = {0};
    struct sockaddr_un from;
    socklen_t fl = sizeof from;
    int a = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), b = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), c = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    RET("bind.a", bind(a, A("a")));
    RET("bind.b", bind(b, A("b")));
    RET("sendto", sendto(b, "hello", 5, 0, A("a")));
    RET("recvfrom", recvfrom(a, buf, sizeof buf, 0, (void *)&from, &fl));
    val("recvfrom.from", "%s len %u", from.sun_path, fl);
    RET("sendto.unnamed_sender", sendto(c, "anon", 4, 0, A("a")));
    fl = sizeof from;
    RET("recvfrom.unnamed", recvfrom(a, buf, sizeof buf, 0, (void *)&from, &fl));
    val("recvfrom.unnamed_length", "%u", fl);
    RET("send.unconnected", send(c, "x", 1, 0));
    RET("sendto.missing", sendto(c, "x", 1, 0, A("nothing")));
    RET("sendto.no_receiver", ({ int d = socket(AF_UNIX, SOCK_DGRAM, 0); bind(d, A("dead")); close(d); sendto(c, "x", 1, 0, A("dead")); }));
    RET("listen", listen(a, 1));
    RET("accept", accept(a, NULL, NULL));
    RET("connect", connect(c, A("a")));
    RET("send.connected", send(c, "conn", 4, 0));
    RET("recv.connected", recv(a, buf, sizeof buf, 0));
    RET("sendto.while_connected", sendto(c, "other", 5, 0, A("b")));
    RET("recv.other", recv(b, buf, sizeof buf, MSG_DONTWAIT));
    RET("connect.elsewhere", connect(c, A("b")));
    RET("send.elsewhere", send(c, "b", 1, 0));
    RET("recv.elsewhere", recv(b, buf, sizeof buf, MSG_DONTWAIT));
    // A socket that is connected elsewhere refuses strangers.
    RET("connect.b_to_a", connect(b, A("a")));
    RET("send.refused_by_filter", send(c, "x", 1, 0));
    RET("disconnect", connect(b, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
    RET("send.after_disconnect", send(b, "x", 1, 0));
    RET("send.accepted_again", send(c, "x", 1, 0));
    RET("recv.accepted_again", recv(b, buf, 10, 0));

    // Sizes and flags.
    RET("send.empty", send(c, "", 0, 0));
    RET("recv.empty", recv(b, buf, 10, 0));
    send(c, "truncate me", 11, 0);
    RET("recv.peek", recv(b, buf, 4, MSG_PEEK));
    RET("recv.peek_trunc", recv(b, buf, 4, MSG_PEEK | MSG_TRUNC));
    struct iovec iov = {buf, 4};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = sizeof from};
    RET("recvmsg.cut", recvmsg(b, &m, 0));
    val("recvmsg.flags", "%#x namelen %u", m.msg_flags, m.msg_namelen);
    RET("recv.rest_is_lost", recv(b, buf, 10, MSG_DONTWAIT));
    static char big[1 << 20];
    RET("send.too_big", send(c, big, sizeof big, 0));
    RET("send.oob", send(c, "x", 1, MSG_OOB));
    RET("recv.oob", recv(b, buf, 1, MSG_OOB));
    // The receiver's queue is bounded.
    int n = 0;
    while (send(c, "q", 1, MSG_DONTWAIT) == 1) n++;
    val("queue.full", "%s", ename(errno));
    YES("queue.some", n > 0);
    while (recv(b, buf, 10, MSG_DONTWAIT) >= 0) n--;
    val("queue.balance", "%d", n);
    close(b);
    RET("send.peer_closed", send(c, "x", 1, 0));
    RET("send.peer_closed_again", send(c, "x", 1, 0));
    RET("getpeername.peer_closed", getpeername(c, (void *)&from, &fl));

    int sv[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    RET("pair.write", write(sv[0], "packet", 6));
    RET("pair.read_short", read(sv[1], buf, 3));
    RET("pair.read_next", recv(sv[1], buf, 3, MSG_DONTWAIT));
    RET("shutdown.wr", shutdown(sv[0], SHUT_WR));
    RET("shutdown.send", send(sv[0], "x", 1, 0));
    RET("shutdown.peer_recv", recv(sv[1], buf, 1, MSG_DONTWAIT));
    RET("shutdown.rd", shutdown(sv[0], SHUT_RD));
    RET("shutdown.recv", recv(sv[0], buf, 1, 0));
    RET("shutdown.peer_send", send(sv[1], "x", 1, 0));

    // Many at once.
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    struct iovec v[3] = {{"1", 1}, {"22", 2}, {"333", 3}};
    struct mmsghdr mm[3] = {{.msg_hdr = {.msg_iov = v, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = v + 1, .msg_iovlen = 2}}, {.msg_hdr = {.msg_iov = v + 2, .msg_iovlen = 1}}};
    RET("sendmmsg", sendmmsg(sv[0], mm, 3, 0));
    val("sendmmsg.lengths", "%u %u %u", mm[0].msg_len, mm[1].msg_len, mm[2].msg_len);
    char rb[4][8];
    struct iovec rv[4] = {{rb[0], 8}, {rb[1], 8}, {rb[2], 8}, {rb[3], 8}};
    struct mmsghdr rm[4] = {0};
    for (int i = 0; i < 4; i++) rm[i].msg_hdr = (struct msghdr){.msg_iov = rv + i, .msg_iovlen = 1};
    RET("recvmmsg", recvmmsg(sv[1], rm, 2, 0, NULL));
    val("recvmmsg.lengths", "%u %u", rm[0].msg_len, rm[1].msg_len);
    RET("recvmmsg.dontwait", recvmmsg(sv[1], rm, 4, MSG_DONTWAIT, NULL));
    RET("recvmmsg.none", recvmmsg(sv[1], rm, 4, MSG_DONTWAIT, NULL));
    write(sv[0], "w", 1);
    RET("recvmmsg.waitforone", recvmmsg(sv[1], rm, 4, MSG_WAITFORONE, NULL));
    RET("recvmmsg.zero", recvmmsg(sv[1], rm, 0, 0, NULL));
    RET("recvmmsg.bad_timeout", recvmmsg(sv[1], rm, 4, 0, &(struct timespec){0, -1}));
    RET("sendmmsg.zero", sendmmsg(sv[0], mm, 0, 0));
    RET("sendmmsg.bad_pointer", syscall(SYS_sendmmsg, sv[0], 8, 1, 0));
    close(sv[1]);
    RET("sendmmsg.peer_closed", sendmmsg(sv[0], mm, 3, 0));
    // Vectors and errnos.
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    m = (struct msghdr){.msg_iov = v, .msg_iovlen = 3};
    RET("sendmsg.gather", sendmsg(sv[0], &m, 0));
    m = (struct msghdr){.msg_iov = rv, .msg_iovlen = 4};
    rv[0].iov_len = 2;
    RET("recvmsg.scatter", recvmsg(sv[1], &m, 0));
    val("recvmsg.scatter_content", "%.2s|%.4s", rb[0], rb[1]);
    m = (struct msghdr){.msg_iov = v, .msg_iovlen = 2000};
    RET("sendmsg.too_many_iov", sendmsg(sv[0], &m, 0));
    RET("sendmsg.bad_pointer", syscall(SYS_sendmsg, sv[0], 8, 0));
    RET("sendmsg.not_socket", sendmsg(0, &m, 0));
    RET("send.bad_buffer", syscall(SYS_sendto, sv[0], 8, 4, 0, NULL, 0));
    write(sv[0], "lost", 4);
    RET("recv.bad_buffer", syscall(SYS_recvfrom, sv[1], 8, 4, 0, NULL, NULL));
    return 0;
}
