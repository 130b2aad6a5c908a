// Control messages of internet sockets: what sendmsg takes, refuses and passes over; what recvmsg gives for the options
// that ask for it. cmsg(3), ip(7), ipv6(7), udp(7).
#include "../check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#define A(a) (struct sockaddr *)&(a), sizeof(a)
static char data[70000];
static union { char bytes[512]; struct cmsghdr align; } ctl;
static struct iovec iov;
static struct msghdr m;

// Sends `len` bytes with one control message.
static ssize_t with(int s, int level, int type, const void *value, size_t size, size_t len) {
    memset(&ctl, 0, sizeof ctl);
    iov = (struct iovec){data, len};
    m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    *h = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(size)};
    if (size) memcpy(CMSG_DATA(h), value, size);
    return sendmsg(s, &m, MSG_NOSIGNAL);
}
static ssize_t receive(int s, int flags) {
    struct pollfd p = {s, POLLIN, 0};
    if (!(flags & MSG_ERRQUEUE)) MUST(poll(&p, 1, -1));
    memset(&ctl, 0, sizeof ctl);
    iov = (struct iovec){data, sizeof data};
    m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl};
    return recvmsg(s, &m, flags);
}
// Level, type and length of each control message that came.
static void came(const char *name) {
    char out[256] = "";
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        snprintf(out + strlen(out), sizeof out - strlen(out), " %d:%d+%zu", h->cmsg_level, h->cmsg_type, h->cmsg_len - CMSG_LEN(0));
    val(name, "flags %#x%s", m.msg_flags, out);
}
static void *find(int level, int type) {
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == level && h->cmsg_type == type) return CMSG_DATA(h);
    return NULL;
}

int main(void) {
    int one = 1, v;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int u = MUST(socket(AF_INET, SOCK_DGRAM, 0)), c = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(bind(u, A(a)));
    getsockname(u, (void *)&a, &n);
    MUST(connect(c, A(a)));
    // What is passed over, and what is refused.
    RET("udp.other_level", with(c, 99, 99, &one, 4, 1));
    RET("udp.socket_unknown", with(c, SOL_SOCKET, 99, &one, 4, 1));
    v = 999;
    RET("udp.rights", with(c, SOL_SOCKET, SCM_RIGHTS, &v, 4, 1));
    struct ucred bad = {1, 4711, 4711};
    RET("udp.credentials", with(c, SOL_SOCKET, SCM_CREDENTIALS, &bad, sizeof bad, 1));
    RET("udp.ip_unknown", with(c, IPPROTO_IP, 99, &one, 4, 1));
    v = 300;
    RET("udp.ttl_bad", with(c, IPPROTO_IP, IP_TTL, &v, 4, 1));
    RET("udp.ttl_short", with(c, IPPROTO_IP, IP_TTL, &v, 2, 1));
    RET("udp.pktinfo_short", with(c, IPPROTO_IP, IP_PKTINFO, &v, 4, 1));
    RET("udp.tcp_level", with(c, IPPROTO_TCP, 99, &one, 4, 1));
    while (recv(u, data, sizeof data, MSG_DONTWAIT) >= 0)
        ;
    // Options that make control messages come.
    MUST(setsockopt(u, IPPROTO_IP, IP_RECVTTL, &one, 4));
    MUST(setsockopt(u, IPPROTO_IP, IP_RECVTOS, &one, 4));
    MUST(setsockopt(u, IPPROTO_IP, IP_PKTINFO, &one, 4));
    v = 33;
    RET("udp.ttl", with(c, IPPROTO_IP, IP_TTL, &v, 4, 3));
    RET("udp.receive", receive(u, 0));
    came("udp.came");
    val("udp.came_ttl", "%d", find(IPPROTO_IP, IP_TTL) ? *(int *)find(IPPROTO_IP, IP_TTL) : -1);
    struct in_pktinfo *pi = find(IPPROTO_IP, IP_PKTINFO);
    val("udp.came_pktinfo", "%d %s", pi ? pi->ipi_ifindex : -1, pi ? inet_ntoa(pi->ipi_addr) : "");
    v = 0x10;
    RET("udp.tos", with(c, IPPROTO_IP, IP_TOS, &v, 4, 3));
    receive(u, 0);
    val("udp.came_tos", "%#x", find(IPPROTO_IP, IP_TOS) ? *(unsigned char *)find(IPPROTO_IP, IP_TOS) : -1);
    struct in_pktinfo from = {.ipi_spec_dst.s_addr = htonl(0x7f000009)};
    struct sockaddr_in any = a;
    int d = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(connect(d, A(any)));
    RET("udp.from_other_source", with(d, IPPROTO_IP, IP_PKTINFO, &from, sizeof from, 1));
    m.msg_name = &any;
    struct sockaddr_in sender = {0};
    n = sizeof sender;
    RET("udp.from_other_source_receive", recvfrom(u, data, 10, 0, (void *)&sender, &n));
    val("udp.from_other_source_value", "%s", inet_ntoa(sender.sin_addr));
    // Too small a control buffer.
    send(c, "x", 1, 0);
    struct pollfd p = {u, POLLIN, 0};
    MUST(poll(&p, 1, -1));
    m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = CMSG_SPACE(4)};
    RET("udp.ctrunc", recvmsg(u, &m, 0));
    val("udp.ctrunc_flags", "%#x control %zu", m.msg_flags, (size_t)m.msg_controllen);
    // Timestamps.
    MUST(setsockopt(u, SOL_SOCKET, SO_TIMESTAMPNS, &one, 4));
    send(c, "x", 1, 0);
    receive(u, 0);
    YES("udp.timestamp", find(SOL_SOCKET, SCM_TIMESTAMPNS) && labs(((struct timespec *)find(SOL_SOCKET, SCM_TIMESTAMPNS))->tv_sec - time(NULL)) < 5);
    // One message, several datagrams.
    uint16_t segment = 1000;
    int plain = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in pa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MUST(bind(plain, A(pa)));
    n = sizeof pa;
    getsockname(plain, (void *)&pa, &n);
    MUST(connect(d, A(pa)));
    RET("udp.segment", with(d, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment, 2500));
    for (int i = 0; i < 3; i++) RET("udp.segment_receive", receive(plain, 0));
    RET("udp.segment_unknown", with(d, SOL_UDP, 99, &one, 4, 1));
    // Errors are told apart from data.
    int e = MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(setsockopt(e, IPPROTO_IP, IP_RECVERR, &one, 4));
    close(plain);
    MUST(connect(e, A(pa)));
    send(e, "lost", 4, 0);
    p = (struct pollfd){e, 0, 0};
    MUST(poll(&p, 1, -1));
    val("error.poll", "%#x", p.revents);
    RET("error.queue", receive(e, MSG_ERRQUEUE));
    came("error.came");
    val("error.errno", "%s", find(IPPROTO_IP, IP_RECVERR) ? ename(*(int *)find(IPPROTO_IP, IP_RECVERR)) : "none");
    RET("error.queue_empty", receive(e, MSG_ERRQUEUE | MSG_DONTWAIT));
    // TCP looks at few of them.
    int l = MUST(socket(AF_INET, SOCK_STREAM, 0)), t = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(listen(l, 1));
    n = sizeof a;
    getsockname(l, (void *)&a, &n);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    MUST(connect(t, A(a)));
    RET("tcp.other_level", with(t, 99, 99, &one, 4, 1));
    RET("tcp.ip_level", with(t, IPPROTO_IP, 99, &one, 4, 1));
    RET("tcp.socket_unknown", with(t, SOL_SOCKET, 99, &one, 4, 1));
    v = 999;
    RET("tcp.rights", with(t, SOL_SOCKET, SCM_RIGHTS, &v, 4, 1));
    // IPv6.
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int u6 = MUST(socket(AF_INET6, SOCK_DGRAM, 0)), c6 = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    MUST(bind(u6, A(a6)));
    n = sizeof a6;
    getsockname(u6, (void *)&a6, &n);
    MUST(connect(c6, A(a6)));
    MUST(setsockopt(u6, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, 4));
    MUST(setsockopt(u6, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, 4));
    MUST(setsockopt(u6, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, 4));
    v = 44;
    RET("udp6.hoplimit", with(c6, IPPROTO_IPV6, IPV6_HOPLIMIT, &v, 4, 2));
    RET("udp6.receive", receive(u6, 0));
    came("udp6.came");
    val("udp6.came_hoplimit", "%d", find(IPPROTO_IPV6, IPV6_HOPLIMIT) ? *(int *)find(IPPROTO_IPV6, IPV6_HOPLIMIT) : -1);
    RET("udp6.unknown", with(c6, IPPROTO_IPV6, 99, &one, 4, 1));
    RET("udp6.other_level", with(c6, 99, 99, &one, 4, 1));
    return 0;
}
