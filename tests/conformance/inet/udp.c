// UDP over the loopback: sendto and recvfrom, connected sockets, refused ports, truncation, multi-message calls,
// errnos. udp(7).
#include "../check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct sockaddr_in lo(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
#define A(a) (struct sockaddr *)&(a), sizeof(a)
static int udp(void) { return MUST(socket(AF_INET, SOCK_DGRAM, 0)); }
static struct sockaddr_in name_of(int s) {
    struct sockaddr_in a = {0};
    socklen_t l = sizeof a;
    MUST(getsockname(s, (void *)&a, &l));
    return a;
}

int main(void) {
    char b[256] = {0};
    static char big[70000];
    struct sockaddr_in any = lo(0), from = {0};
    socklen_t fl = sizeof from;
    int s = udp(), c = udp();
    RET("bind", bind(s, A(any)));
    struct sockaddr_in a = name_of(s);
    YES("bind.port", a.sin_port != 0);
    RET("bind.in_use", bind(udp(), A(a)));
    val("unbound.name", "%s port %d", inet_ntoa(name_of(c).sin_addr), name_of(c).sin_port);
    RET("sendto", sendto(c, "hello", 5, 0, A(a)));
    YES("sendto.autobound", name_of(c).sin_port != 0);
    val("sendto.autobound_address", "%s", inet_ntoa(name_of(c).sin_addr));
    RET("recvfrom", recvfrom(s, b, sizeof b, 0, (void *)&from, &fl));
    YES("recvfrom.address", from.sin_port == name_of(c).sin_port && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK) && fl == sizeof from);
    RET("reply", sendto(s, "back", 4, 0, A(from)));
    RET("reply.recv", recv(c, b, sizeof b, 0));
    RET("send.no_destination", send(c, "x", 1, 0));
    RET("sendto.port_zero", ({ struct sockaddr_in x = lo(0); sendto(c, "x", 1, 0, A(x)); }));
    RET("sendto.short_address", sendto(c, "x", 1, 0, (void *)&a, 4));
    RET("sendto.wrong_family", ({ struct sockaddr_in x = a; x.sin_family = AF_INET6; sendto(c, "x", 1, 0, A(x)); }));
    RET("sendto.too_long", sendto(c, big, 65508, 0, A(a)));
    RET("sendto.longest", sendto(c, big, 65507, 0, A(a)));
    RET("recv.longest", recv(s, big, sizeof big, 0));
    RET("listen", listen(s, 1));
    RET("accept", accept(s, NULL, NULL));
    RET("recv.dontwait", recv(s, b, 1, MSG_DONTWAIT));
    // Empty packets and truncation.
    RET("send.empty", sendto(c, "", 0, 0, A(a)));
    RET("recv.empty", recv(s, b, 10, 0));
    sendto(c, "0123456789", 10, 0, A(a));
    RET("fionread", ({ int n; ioctl(s, FIONREAD, &n); n; }));
    RET("peek", recv(s, b, 4, MSG_PEEK));
    RET("trunc", recv(s, b, 4, MSG_TRUNC));
    RET("rest_is_lost", recv(s, b, 4, MSG_DONTWAIT));
    sendto(c, "0123456789", 10, 0, A(a));
    struct iovec iov[2] = {{b, 2}, {b + 10, 3}};
    struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = iov, .msg_iovlen = 2};
    RET("recvmsg", recvmsg(s, &m, 0));
    val("recvmsg.result", "flags %#x name %u [%.2s][%.3s]", m.msg_flags, m.msg_namelen, b, b + 10);
    RET("waitall_is_one_packet", ({ sendto(c, "abc", 3, 0, A(a)); recv(s, b, 10, MSG_WAITALL); }));
    // Connected.
    RET("connect", connect(c, A(a)));
    val("connect.name", "%s", inet_ntoa(name_of(c).sin_addr));
    RET("send", send(c, "conn", 4, 0));
    RET("recv", recv(s, b, 10, 0));
    RET("write.read", ({ write(c, "w", 1); read(s, b, 10); }));
    int other = udp();
    struct sockaddr_in ca = name_of(c);
    sendto(other, "stranger", 8, 0, A(ca));
    RET("stranger_is_filtered", recv(c, b, 10, MSG_DONTWAIT));
    RET("sendto.elsewhere", ({ struct sockaddr_in x = name_of(other); x.sin_addr.s_addr = htonl(INADDR_LOOPBACK); sendto(c, "e", 1, 0, A(x)); }));
    RET("recv.elsewhere", recv(other, b, 10, 0));
    RET("getpeername", ({ fl = sizeof from; getpeername(c, (void *)&from, &fl); }));
    RET("connect.unspec", connect(c, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
    RET("getpeername.unspec", getpeername(c, (void *)&from, &fl));
    // A port that nobody has: the ICMP error comes with the next call.
    struct sockaddr_in dead;
    {
        int t = udp();
        MUST(bind(t, A(any)));
        dead = name_of(t);
        close(t);
    }
    RET("unconnected_to_dead_port", sendto(c, "x", 1, 0, A(dead)));
    RET("unconnected_to_dead_port.again", sendto(c, "x", 1, 0, A(dead)));
    RET("dead.connect", connect(c, A(dead)));
    RET("dead.send", send(c, "x", 1, 0));
    struct pollfd p = {c, POLLIN, 0};
    RET("dead.poll", poll(&p, 1, -1));
    val("dead.revents", "%#x", p.revents);
    RET("dead.recv", recv(c, b, 1, MSG_DONTWAIT));
    RET("dead.recv_again", recv(c, b, 1, MSG_DONTWAIT));
    send(c, "x", 1, 0);
    poll(&p, 1, -1);
    RET("dead.next_send", send(c, "x", 1, 0));
    // Shutdown.
    connect(c, A(a));
    RET("shutdown.wr", shutdown(c, SHUT_WR));
    RET("shutdown.unconnected", shutdown(s, SHUT_RD));
    // Many.
    struct mmsghdr mm[3];
    struct iovec v[3] = {{"1", 1}, {"22", 2}, {"333", 3}};
    int c2 = udp();
    connect(c2, A(a));
    for (int i = 0; i < 3; i++) mm[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = v + i, .msg_iovlen = 1}};
    RET("sendmmsg", sendmmsg(c2, mm, 3, 0));
    char rb[4][8];
    struct iovec rv[4];
    struct mmsghdr rm[4];
    for (int i = 0; i < 4; i++) {
        rv[i] = (struct iovec){rb[i], 8};
        rm[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = rv + i, .msg_iovlen = 1}};
    }
    RET("recvmmsg", recvmmsg(s, rm, 4, MSG_DONTWAIT, NULL));
    val("recvmmsg.lengths", "%u %u %u", rm[0].msg_len, rm[1].msg_len, rm[2].msg_len);
    // Packet information.
    int on = 1;
    s = udp();
    MUST(bind(s, A(any)));
    a = name_of(s);
    RET("pktinfo.set", setsockopt(s, IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
    RET("recvttl.set", setsockopt(s, IPPROTO_IP, IP_RECVTTL, &on, sizeof on));
    sendto(c2 = udp(), "p", 1, 0, A(a));
    char ctl[256];
    m = (struct msghdr){.msg_iov = iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    RET("pktinfo.recv", recvmsg(s, &m, 0));
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_type == IP_PKTINFO) val("pktinfo", "%s", inet_ntoa(((struct in_pktinfo *)CMSG_DATA(h))->ipi_addr));
        if (h->cmsg_type == IP_TTL) val("ttl", "%d", *(int *)CMSG_DATA(h));
    }
    // Time-out and reuse.
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 10000}, sizeof(struct timeval));
    RET("rcvtimeo", recv(s, b, 1, 0));
    int r1 = udp(), r2 = udp();
    setsockopt(r1, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(r2, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    MUST(bind(r1, A(any)));
    a = name_of(r1);
    RET("reuseaddr.bind", bind(r2, A(a)));
    return 0;
}
