// Route netlink as getifaddrs(3), iproute2 and the JVM use it: link, address and route dumps, errors, names. netlink(7),
// rtnetlink(7).
#include "../check.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

static int nl;
static char buf[65536];
static int done_type, done_error, messages, multi, seq_ok, pid_ok;
static unsigned own;

static void request(int type, int flags, int family) {
    struct { struct nlmsghdr h; struct rtgenmsg g; char pad[3]; } r = {{0}};
    r.h = (struct nlmsghdr){NLMSG_LENGTH(sizeof r.g), type, NLM_F_REQUEST | flags, 77, 0};
    r.g.rtgen_family = family;
    MUST(send(nl, &r, r.h.nlmsg_len, 0));
}
static void collect(void (*each)(struct nlmsghdr *)) {
    messages = multi = done_type = done_error = 0;
    seq_ok = pid_ok = 1;
    for (;;) {
        ssize_t n = MUST(recv(nl, buf, sizeof buf, 0));
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            seq_ok &= h->nlmsg_seq == 77;
            pid_ok &= h->nlmsg_pid == own;
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                done_type = h->nlmsg_type;
                done_error = *(int *)NLMSG_DATA(h);
                return;
            }
            messages++;
            multi += !!(h->nlmsg_flags & NLM_F_MULTI);
            if (each) each(h);
        }
    }
}
static int lo_seen, lo_index, lo_flags, lo_mtu;
static void link_msg(struct nlmsghdr *h) {
    struct ifinfomsg *i = NLMSG_DATA(h);
    int len = IFLA_PAYLOAD(h);
    for (struct rtattr *a = IFLA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        if (a->rta_type == IFLA_IFNAME && !strcmp(RTA_DATA(a), "lo")) {
            lo_seen++;
            lo_index = i->ifi_index;
            lo_flags = i->ifi_flags;
        }
        if (a->rta_type == IFLA_MTU && i->ifi_index == 1) lo_mtu = *(int *)RTA_DATA(a);
    }
}
static int v4_lo, v4_prefix, v6_lo;
static void addr_msg(struct nlmsghdr *h) {
    struct ifaddrmsg *i = NLMSG_DATA(h);
    int len = IFA_PAYLOAD(h);
    for (struct rtattr *a = IFA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        if (a->rta_type == IFA_LOCAL && i->ifa_family == AF_INET && *(uint32_t *)RTA_DATA(a) == htonl(INADDR_LOOPBACK)) {
            v4_lo++;
            v4_prefix = i->ifa_prefixlen;
        }
        if (a->rta_type == IFA_ADDRESS && i->ifa_family == AF_INET6 && !memcmp(RTA_DATA(a), &in6addr_loopback, 16)) v6_lo++;
    }
}

int main(void) {
    RET("socket.bad_protocol", socket(AF_NETLINK, SOCK_RAW, 99));
    RET("socket.stream", socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE));
    OK("socket.dgram", socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE));
    nl = OK("socket", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    socklen_t l = sizeof a;
    RET("bind", bind(nl, (void *)&a, sizeof a));
    RET("getsockname", getsockname(nl, (void *)&a, &l));
    val("name", "family %d pid %d groups %u len %u", a.nl_family, a.nl_pid != 0, a.nl_groups, l);
    own = a.nl_pid;
    RET("bind.short", bind(nl, (void *)&a, 4));
    int type = 0;
    l = sizeof type;
    getsockopt(nl, SOL_SOCKET, SO_TYPE, &type, &l);
    val("so_type", "%d", type);
    l = sizeof type;
    getsockopt(nl, SOL_SOCKET, SO_PROTOCOL, &type, &l);
    val("so_protocol", "%d", type);
    RET("recv.empty", recv(nl, buf, sizeof buf, MSG_DONTWAIT));
    request(RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC);
    collect(link_msg);
    val("links", "done %d error %d all_multi %d seq %d pid %d", done_type == NLMSG_DONE, done_error, messages == multi, seq_ok, pid_ok);
    val("links.lo", "seen %d index %d up %d loopback %d mtu %d", lo_seen, lo_index, !!(lo_flags & IFF_UP), !!(lo_flags & IFF_LOOPBACK), lo_mtu);
    request(RTM_GETADDR, NLM_F_DUMP, AF_UNSPEC);
    collect(addr_msg);
    val("addresses", "done %d error %d v4 %d/%d", done_type == NLMSG_DONE, done_error, v4_lo, v4_prefix);
    v4_lo = v6_lo = 0;
    request(RTM_GETADDR, NLM_F_DUMP, AF_INET);
    collect(addr_msg);
    val("addresses.inet", "v4 %d v6 %d", v4_lo, v6_lo);
    request(RTM_GETROUTE, NLM_F_DUMP, AF_INET);
    collect(NULL);
    val("routes", "done %d error %d", done_type == NLMSG_DONE, done_error);
    // Unknown requests get an error message back, and nothing without NLM_F_REQUEST.
    request(0x3ff, 0, AF_UNSPEC);
    collect(NULL);
    val("unknown", "error %d %s", done_type == NLMSG_ERROR, ename(-done_error));
    struct nlmsghdr noop = {sizeof noop, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 77, 0};
    RET("noop.send", send(nl, &noop, sizeof noop, 0));
    collect(NULL);
    val("noop.ack", "error %d %s", done_type == NLMSG_ERROR, ename(-done_error));
    struct { struct nlmsghdr h; struct ifinfomsg i; } one = {{sizeof one, RTM_GETLINK, NLM_F_REQUEST, 77, 0}, {.ifi_index = 1}};
    MUST(send(nl, &one, sizeof one, 0));
    lo_seen = 0;
    ssize_t n = recv(nl, buf, sizeof buf, 0);
    link_msg((void *)buf);
    YES("one_link", n > 0 && lo_seen == 1 && ((struct nlmsghdr *)buf)->nlmsg_type == RTM_NEWLINK);
    one.i.ifi_index = 999999;
    MUST(send(nl, &one, sizeof one, 0));
    collect(NULL);
    val("one_link.missing", "%s", ename(-done_error));
    RET("truncated.peek", ({ request(RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC); long r = recv(nl, buf, 8, MSG_PEEK | MSG_TRUNC); r > 8 ? 1 : r; }));
    collect(NULL);
    val("truncated.whole", "done %d", done_type == NLMSG_DONE);
    struct pollfd p = {nl, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    val("poll.idle", "%#x", p.revents);
    request(RTM_GETADDR, NLM_F_DUMP, AF_INET);
    poll(&p, 1, -1);
    val("poll.ready", "%#x", p.revents);
    collect(NULL);
    RET("send.short", send(nl, "abc", 3, 0));
    RET("connect", connect(nl, (void *)&(struct sockaddr_nl){.nl_family = AF_NETLINK}, sizeof a));
    RET("listen", listen(nl, 1));
    RET("accept", accept(nl, NULL, NULL));
    struct sockaddr_nl from;
    struct iovec iov = {buf, sizeof buf};
    struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    request(RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC);
    RET("recvmsg", recvmsg(nl, &m, 0) > 0 ? 0 : -1);
    val("recvmsg.from", "family %d pid %u len %u", from.nl_family, from.nl_pid, m.msg_namelen);
    while (recv(nl, buf, sizeof buf, MSG_DONTWAIT) > 0)
        ;
    // Acknowledgements: how much of the request they repeat, and who gets none.
    struct nlmsghdr *h = (void *)buf;
    struct { struct nlmsghdr h; struct rtgenmsg g; char pad[3]; } r = {{NLMSG_LENGTH(1), RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP, 77, 0}, {0}, {0}};
    MUST(send(nl, &r, r.h.nlmsg_len, 0));
    collect(NULL);
    val("ack.dump", "done %d then %s", done_type == NLMSG_DONE, recv(nl, buf, sizeof buf, MSG_DONTWAIT) < 0 ? ename(errno) : "more");
    noop.nlmsg_flags = NLM_F_ACK;
    MUST(send(nl, &noop, sizeof noop, 0));
    val("ack.no_request", "len %zd flags %#x", recv(nl, buf, sizeof buf, MSG_DONTWAIT), h->nlmsg_flags);
    noop.nlmsg_flags = NLM_F_REQUEST;
    MUST(send(nl, &noop, sizeof noop, 0));
    RET("ack.not_asked", recv(nl, buf, sizeof buf, MSG_DONTWAIT));
    r.h = (struct nlmsghdr){NLMSG_LENGTH(1), RTM_GETLINK, NLM_F_REQUEST | NLM_F_ROOT, 77, 0};
    MUST(send(nl, &r, r.h.nlmsg_len, 0));
    collect(NULL);
    val("dump.root_is_enough", "done %d", done_type == NLMSG_DONE);
    r.h = (struct nlmsghdr){sizeof r.h, RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP, 77, 0};
    MUST(send(nl, &r, r.h.nlmsg_len, 0));
    collect(NULL);
    val("dump.no_family", "error %d %s", done_type == NLMSG_ERROR, ename(-done_error));
    one.i.ifi_index = 999999;
    one.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    MUST(send(nl, &one, sizeof one, 0));
    n = recv(nl, buf, sizeof buf, 0);
    val("error.repeats", "len %zd flags %#x %s", n, h->nlmsg_flags, ename(-*(int *)NLMSG_DATA(h)));
    int on = 1, v = -1;
    RET("cap_ack", setsockopt(nl, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on));
    l = sizeof v;
    RET("cap_ack.get", getsockopt(nl, SOL_NETLINK, NETLINK_CAP_ACK, &v, &l));
    val("cap_ack.value", "%d len %u", v, l);
    MUST(send(nl, &one, sizeof one, 0));
    n = recv(nl, buf, sizeof buf, 0);
    val("error.capped", "len %zd flags %#x %s", n, h->nlmsg_flags, ename(-*(int *)NLMSG_DATA(h)));
    // Several requests in one message.
    struct nlmsghdr two[2] = {{sizeof *two, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {sizeof *two, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 2, 0}};
    MUST(send(nl, two, sizeof two, 0));
    for (int i = 1; i <= 2; i++) {
        n = recv(nl, buf, sizeof buf, 0);
        val("several", "%d: seq %u", i, h->nlmsg_seq);
    }
    // Buffers and other options.
    v = 30000;
    RET("rcvbuf.set", setsockopt(nl, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
    l = sizeof v;
    getsockopt(nl, SOL_SOCKET, SO_RCVBUF, &v, &l);
    val("rcvbuf.get", "%d", v);
    v = 1;
    RET("sndbuf.set", setsockopt(nl, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    getsockopt(nl, SOL_SOCKET, SO_SNDBUF, &v, &l);
    val("sndbuf.get", "%d", v);
    RET("strict", setsockopt(nl, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on));
    RET("option.unknown", setsockopt(nl, SOL_NETLINK, 99, &on, sizeof on));
    RET("option.short", setsockopt(nl, SOL_NETLINK, NETLINK_CAP_ACK, &on, 2));
    // A dump of one interface's addresses only.
    struct { struct nlmsghdr h; struct ifaddrmsg i; } of = {{sizeof of, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 77, 0}, {.ifa_family = AF_INET, .ifa_index = 1}};
    MUST(send(nl, &of, sizeof of, 0));
    v4_lo = v6_lo = 0;
    collect(addr_msg);
    val("strict.index", "done %d v4 %d v6 %d of %d", done_type == NLMSG_DONE, v4_lo, v6_lo, messages);
    // A single route.
    struct { struct nlmsghdr h; struct rtmsg r; struct rtattr a; struct in_addr to; } get = {
        {sizeof get, RTM_GETROUTE, NLM_F_REQUEST, 77, 0}, {.rtm_family = AF_INET, .rtm_dst_len = 32}, {RTA_LENGTH(4), RTA_DST}, {htonl(INADDR_LOOPBACK)}};
    MUST(send(nl, &get, sizeof get, 0));
    n = recv(nl, buf, sizeof buf, 0);
    struct rtmsg *rt = NLMSG_DATA(h);
    val("route_to", "%d family %d dst_len %d type %d table %d", h->nlmsg_type == RTM_NEWROUTE, rt->rtm_family, rt->rtm_dst_len, rt->rtm_type, rt->rtm_table);
    int len = RTM_PAYLOAD(h), oif = 0, src = 0;
    for (struct rtattr *x = RTM_RTA(rt); RTA_OK(x, len); x = RTA_NEXT(x, len)) {
        if (x->rta_type == RTA_OIF) oif = *(int *)RTA_DATA(x);
        if (x->rta_type == RTA_PREFSRC) src = *(uint32_t *)RTA_DATA(x) == htonl(INADDR_LOOPBACK);
    }
    val("route_to.out", "interface %d source %d", oif, src);
    get.r.rtm_family = 77;
    MUST(send(nl, &get, sizeof get, 0));
    collect(NULL);
    val("route_to.bad_family", "error %d %s", done_type == NLMSG_ERROR, ename(-done_error));
    // Control messages on their way out.
    struct { struct cmsghdr h; int fd[2]; } bad = {{sizeof bad, SOL_SOCKET, 99}, {0}};
    iov = (struct iovec){&noop, sizeof noop};
    m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &bad, .msg_controllen = sizeof bad};
    RET("control.unknown", sendmsg(nl, &m, 0));
    bad.h.cmsg_type = SCM_RIGHTS;
    bad.h.cmsg_len = CMSG_LEN(sizeof(int));
    m.msg_controllen = CMSG_SPACE(sizeof(int));
    RET("control.rights", sendmsg(nl, &m, 0));
    bad.h.cmsg_level = 99;
    RET("control.other_level", sendmsg(nl, &m, 0));
    return 0;
}
