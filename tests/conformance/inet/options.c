// Socket options on TCP and UDP sockets: defaults, round trips, errnos; address reuse; interface ioctls and
// getifaddrs(3). socket(7), ip(7), tcp(7), netdevice(7).
#include "../check.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void get(const char *name, int s, int level, int opt) {
    int v = -1;
    socklen_t l = sizeof v;
    if (getsockopt(s, level, opt, &v, &l)) val(name, "-1 %s", ename(errno));
    else val(name, "%d len %u", v, l);
}
static void round_trip(const char *what, int s, int level, int opt, int v) {
    char name[80];
    snprintf(name, sizeof name, "%s.set", what);
    RET(name, setsockopt(s, level, opt, &v, sizeof v));
    snprintf(name, sizeof name, "%s.get", what);
    get(name, s, level, opt);
}
static struct sockaddr_in lo(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
#define A(a) (struct sockaddr *)&(a), sizeof(a)

int main(void) {
    int t = MUST(socket(AF_INET, SOCK_STREAM, 0)), u = MUST(socket(AF_INET, SOCK_DGRAM, 0)), one = 1;
    get("tcp.type", t, SOL_SOCKET, SO_TYPE);
    get("tcp.domain", t, SOL_SOCKET, SO_DOMAIN);
    get("tcp.protocol", t, SOL_SOCKET, SO_PROTOCOL);
    get("udp.protocol", u, SOL_SOCKET, SO_PROTOCOL);
    get("tcp.error", t, SOL_SOCKET, SO_ERROR);
    get("tcp.acceptconn", t, SOL_SOCKET, SO_ACCEPTCONN);
    get("tcp.reuseaddr", t, SOL_SOCKET, SO_REUSEADDR);
    get("tcp.keepalive", t, SOL_SOCKET, SO_KEEPALIVE);
    get("tcp.broadcast", t, SOL_SOCKET, SO_BROADCAST);
    get("tcp.nodelay", t, IPPROTO_TCP, TCP_NODELAY);
    get("tcp.cork", t, IPPROTO_TCP, TCP_CORK);
    get("tcp.ttl", t, IPPROTO_IP, IP_TTL);
    get("tcp.tos", t, IPPROTO_IP, IP_TOS);
    get("udp.multicast_ttl", u, IPPROTO_IP, IP_MULTICAST_TTL);
    get("udp.multicast_loop", u, IPPROTO_IP, IP_MULTICAST_LOOP);
    get("udp.nodelay", u, IPPROTO_TCP, TCP_NODELAY);
    round_trip("reuseaddr", t, SOL_SOCKET, SO_REUSEADDR, 1);
    round_trip("reuseport", t, SOL_SOCKET, SO_REUSEPORT, 1);
    round_trip("keepalive", t, SOL_SOCKET, SO_KEEPALIVE, 1);
    round_trip("broadcast", u, SOL_SOCKET, SO_BROADCAST, 1);
    round_trip("oobinline", t, SOL_SOCKET, SO_OOBINLINE, 1);
    round_trip("sndbuf", t, SOL_SOCKET, SO_SNDBUF, 30000);
    round_trip("rcvbuf", t, SOL_SOCKET, SO_RCVBUF, 30000);
    round_trip("rcvlowat", t, SOL_SOCKET, SO_RCVLOWAT, 5);
    round_trip("nodelay", t, IPPROTO_TCP, TCP_NODELAY, 1);
    round_trip("cork", t, IPPROTO_TCP, TCP_CORK, 1);
    round_trip("keepidle", t, IPPROTO_TCP, TCP_KEEPIDLE, 77);
    round_trip("keepintvl", t, IPPROTO_TCP, TCP_KEEPINTVL, 11);
    round_trip("keepcnt", t, IPPROTO_TCP, TCP_KEEPCNT, 4);
    round_trip("keepcnt_bad", t, IPPROTO_TCP, TCP_KEEPCNT, 0);
    round_trip("user_timeout", t, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234);
    round_trip("defer_accept", t, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
    round_trip("ttl", t, IPPROTO_IP, IP_TTL, 42);
    round_trip("ttl_bad", t, IPPROTO_IP, IP_TTL, 256);
    round_trip("ttl_zero", t, IPPROTO_IP, IP_TTL, 0);
    round_trip("tos", t, IPPROTO_IP, IP_TOS, 0x10);
    round_trip("mtu_discover", u, IPPROTO_IP, IP_MTU_DISCOVER, 2);
    round_trip("unknown", t, SOL_SOCKET, 9999, 1);
    round_trip("unknown_tcp", t, IPPROTO_TCP, 9999, 1);
    round_trip("unknown_level", t, 9999, 1, 1);
    round_trip("unknown_level_udp", u, 9999, 1, 1);
    int t6 = MUST(socket(AF_INET6, SOCK_STREAM, 0)), u6 = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    round_trip("unknown_level_tcp6", t6, 9999, 1, 1);
    round_trip("unknown_level_udp6", u6, 9999, 1, 1);
    round_trip("tcp_level_on_udp", u, IPPROTO_TCP, 9999, 1);
    round_trip("udp_level_on_tcp", t, IPPROTO_UDP, 9999, 1);
    round_trip("udp_level_on_udp", u, IPPROTO_UDP, 9999, 1);
    round_trip("ipv6_level_on_ipv4", t, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    round_trip("ipv6_unknown", t6, IPPROTO_IPV6, 9999, 1);
    round_trip("ip_unknown", t, IPPROTO_IP, 9999, 1);
    close(t6), close(u6);
    RET("set.short", setsockopt(t, SOL_SOCKET, SO_KEEPALIVE, &one, 3));
    RET("set.byte_for_ip", setsockopt(t, IPPROTO_IP, IP_TTL, "\x20", 1));
    get("set.byte_for_ip_get", t, IPPROTO_IP, IP_TTL);
    struct linger lg = {1, 3}, lb = {0};
    socklen_t l = sizeof lb;
    RET("linger.set", setsockopt(t, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    getsockopt(t, SOL_SOCKET, SO_LINGER, &lb, &l);
    val("linger.get", "%d %d", lb.l_onoff, lb.l_linger);
    struct tcp_info ti = {0};
    l = sizeof ti;
    RET("tcp_info", getsockopt(t, IPPROTO_TCP, TCP_INFO, &ti, &l));
    val("tcp_info.state", "%d", ti.tcpi_state);
    l = sizeof ti;
    RET("tcp_info.udp", getsockopt(u, IPPROTO_TCP, TCP_INFO, &ti, &l));

    // Address reuse.
    struct sockaddr_in a = lo(0);
    int p = MUST(socket(AF_INET, SOCK_STREAM, 0)), q;
    setsockopt(p, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    MUST(bind(p, A(a)));
    l = sizeof a;
    getsockname(p, (void *)&a, &l);
    q = MUST(socket(AF_INET, SOCK_STREAM, 0));
    RET("reuse.only_one_side", bind(q, A(a)));
    setsockopt(q, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    RET("reuse.both_bind", bind(q, A(a)));
    RET("reuse.first_listens", listen(p, 1));
    RET("reuse.second_listens", listen(q, 1));
    close(q);
    get("listening.acceptconn", p, SOL_SOCKET, SO_ACCEPTCONN);
    q = MUST(socket(AF_INET, SOCK_STREAM, 0));
    setsockopt(q, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    RET("reuse.bind_while_listening", bind(q, A(a)));
    // With a connection in TIME_WAIT: reuse is what makes a restart of a server possible.
    int c = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(c, A(a)));
    int s = MUST(accept(p, NULL, NULL));
    close(s);
    struct pollfd pf = {c, POLLIN, 0};
    poll(&pf, 1, -1);
    close(c);
    close(p);
    RET("time_wait.bind_without", ({ int x = socket(AF_INET, SOCK_STREAM, 0), r = bind(x, A(a)); close(x); r; }));
    RET("time_wait.bind_with_reuse", bind(q, A(a)));
    RET("time_wait.listen", listen(q, 1));
    // SO_REUSEPORT: two listeners.
    int r1 = MUST(socket(AF_INET, SOCK_STREAM, 0)), r2 = MUST(socket(AF_INET, SOCK_STREAM, 0));
    setsockopt(r1, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    setsockopt(r2, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    a = lo(0);
    MUST(bind(r1, A(a)));
    l = sizeof a;
    getsockname(r1, (void *)&a, &l);
    RET("reuseport.bind", bind(r2, A(a)));
    RET("reuseport.listen_one", listen(r1, 1));
    RET("reuseport.listen_two", listen(r2, 1));

    // Interfaces.
    struct ifreq ifr = {0};
    strcpy(ifr.ifr_name, "lo");
    RET("ifindex", ioctl(u, SIOCGIFINDEX, &ifr));
    val("ifindex.value", "%d", ifr.ifr_ifindex);
    RET("ifflags", ioctl(u, SIOCGIFFLAGS, &ifr));
    val("ifflags.value", "up %d loopback %d running %d", !!(ifr.ifr_flags & IFF_UP), !!(ifr.ifr_flags & IFF_LOOPBACK), !!(ifr.ifr_flags & IFF_RUNNING));
    RET("ifaddr", ioctl(u, SIOCGIFADDR, &ifr));
    val("ifaddr.value", "%s", inet_ntoa(((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr));
    RET("ifnetmask", ioctl(u, SIOCGIFNETMASK, &ifr));
    val("ifnetmask.value", "%s", inet_ntoa(((struct sockaddr_in *)&ifr.ifr_netmask)->sin_addr));
    RET("ifmtu", ioctl(u, SIOCGIFMTU, &ifr));
    val("ifmtu.value", "%d", ifr.ifr_mtu);
    RET("ifhwaddr", ioctl(u, SIOCGIFHWADDR, &ifr));
    val("ifhwaddr.family", "%d", ifr.ifr_hwaddr.sa_family);
    memset(&ifr, 0, sizeof ifr);
    strcpy(ifr.ifr_name, "nosuch0");
    RET("ifindex.unknown", ioctl(u, SIOCGIFINDEX, &ifr));
    ifr.ifr_ifindex = 1;
    RET("ifname", ioctl(u, SIOCGIFNAME, &ifr));
    val("ifname.value", "%s", ifr.ifr_name);
    char buf[4096];
    struct ifconf ifc = {.ifc_len = sizeof buf, .ifc_buf = buf};
    RET("ifconf", ioctl(u, SIOCGIFCONF, &ifc));
    int has_lo = 0;
    for (int i = 0; i < ifc.ifc_len / (int)sizeof(struct ifreq); i++) has_lo |= !strcmp(ifc.ifc_req[i].ifr_name, "lo");
    YES("ifconf.lo", has_lo);
    struct ifaddrs *ifa, *i;
    RET("getifaddrs", getifaddrs(&ifa));
    int v4 = 0;
    for (i = ifa; i; i = i->ifa_next)
        if (!strcmp(i->ifa_name, "lo") && i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
            v4 = ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
    YES("getifaddrs.lo", v4);
    val("if_nametoindex", "%u", if_nametoindex("lo"));
    val("if_indextoname", "%s", if_indextoname(1, buf) ? buf : "none");
    YES("if_nameindex", ({ struct if_nameindex *n = if_nameindex(); n && n[0].if_index == 1 && !strcmp(n[0].if_name, "lo"); }));
    // What a driver would have to answer, and what nobody knows.
    memset(&ifr, 0, sizeof ifr);
    strcpy(ifr.ifr_name, "lo");
    RET("private_ioctl", ioctl(u, 0x89f0, &ifr));
    RET("mii", ioctl(u, 0x8947, &ifr));
    RET("private_ioctl.fault", ioctl(u, 0x89f0, 8));
    strcpy(ifr.ifr_name, "nosuch0");
    RET("private_ioctl.unknown", ioctl(u, 0x89f0, &ifr));
    RET("mii.unknown", ioctl(u, 0x8947, &ifr));
    strcpy(ifr.ifr_name, "lo");
    RET("unknown_ioctl", ioctl(u, 0x8900, &ifr));
    RET("bad_ioctl", ioctl(u, 0x89ff, &ifr));
    RET("ioctl.fionbio", ioctl(u, FIONBIO, &one));
    RET("ioctl.fionbio_flag", fcntl(u, F_GETFL) & O_NONBLOCK);
    RET("ioctl.fioclex", ioctl(u, FIOCLEX));
    RET("ioctl.fioclex_flag", fcntl(u, F_GETFD));
    RET("ioctl.tty_on_socket", ioctl(u, TCGETS, buf));
    return 0;
}
