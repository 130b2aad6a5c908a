// IPv6 over the loopback: TCP and UDP on ::1, dual-stack listeners, IPV6_V6ONLY, mapped addresses. ipv6(7).
#include "../check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define A(a) (struct sockaddr *)&(a), sizeof(a)
static struct sockaddr_in6 name_of(int s) {
    struct sockaddr_in6 a = {0};
    socklen_t l = sizeof a;
    MUST(getsockname(s, (void *)&a, &l));
    return a;
}
static const char *text(const struct sockaddr_in6 *a) {
    static char b[INET6_ADDRSTRLEN];
    return inet_ntop(AF_INET6, &a->sin6_addr, b, sizeof b);
}
static int opt(int s, int o) {
    int v = -1;
    socklen_t l = sizeof v;
    return getsockopt(s, IPPROTO_IPV6, o, &v, &l) ? -1 : v;
}

int main(void) {
    struct sockaddr_in6 lo6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, a, peer;
    socklen_t pl = sizeof peer;
    char b[64];
    int one = 1, zero = 0;
    int l = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    RET("bind", bind(l, A(lo6)));
    a = name_of(l);
    val("bind.name", "%s family %d scope %u", text(&a), a.sin6_family, a.sin6_scope_id);
    RET("listen", listen(l, 2));
    int c = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    RET("connect", connect(c, A(a)));
    int s = OK("accept", accept(l, (void *)&peer, &pl));
    val("accept.peer", "%s len %u", text(&peer), pl);
    write(c, "six", 3);
    RET("recv", recv(s, b, 3, MSG_WAITALL));
    RET("connect.ipv4_socket", ({ int x = socket(AF_INET, SOCK_STREAM, 0); connect(x, A(a)); }));
    RET("bind.short", bind(socket(AF_INET6, SOCK_STREAM, 0), (void *)&lo6, 16));
    RET("unicast_hops", opt(l, IPV6_UNICAST_HOPS));
    // Dual stack.
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    int d = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    RET("v6only.clear", setsockopt(d, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero));
    RET("dual.bind", bind(d, A(any)));
    RET("dual.v6only_after_bind", setsockopt(d, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
    RET("dual.listen", listen(d, 2));
    a = name_of(d);
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = a.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int f = MUST(socket(AF_INET, SOCK_STREAM, 0));
    RET("dual.connect_v4", connect(f, A(four)));
    pl = sizeof peer;
    s = OK("dual.accept_v4", accept(d, (void *)&peer, &pl));
    val("dual.peer_is_mapped", "%s", text(&peer));
    a = name_of(s);
    val("dual.name_is_mapped", "%s", text(&a));
    RET("dual.v4_port_taken", bind(socket(AF_INET, SOCK_STREAM, 0), A(four)));
    // A v6 socket connects to a mapped address.
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = four.sin_port};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    int mc = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    RET("mapped.connect", connect(mc, A(mapped)));
    a = name_of(mc);
    val("mapped.name", "%s", text(&a));
    close(accept(d, NULL, NULL));
    int vo = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    setsockopt(vo, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    RET("v6only.mapped_connect", connect(vo, A(mapped)));
    RET("v6only.mapped_bind", ({ mapped.sin6_port = 0; bind(vo, A(mapped)); }));
    // A v6-only listener leaves the v4 port free.
    int o = MUST(socket(AF_INET6, SOCK_STREAM, 0));
    setsockopt(o, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    MUST(bind(o, A(any)));
    MUST(listen(o, 1));
    a = name_of(o);
    four.sin_port = a.sin6_port;
    RET("v6only.v4_connect", connect(socket(AF_INET, SOCK_STREAM, 0), A(four)));
    RET("v6only.v4_bind", bind(socket(AF_INET, SOCK_STREAM, 0), A(four)));
    // UDP.
    int u = MUST(socket(AF_INET6, SOCK_DGRAM, 0)), v = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    MUST(bind(u, A(lo6)));
    a = name_of(u);
    RET("udp.sendto", sendto(v, "dgram", 5, 0, A(a)));
    pl = sizeof peer;
    RET("udp.recvfrom", recvfrom(u, b, sizeof b, 0, (void *)&peer, &pl));
    val("udp.peer", "%s", text(&peer));
    struct sockaddr_in6 dead = name_of(u);
    close(u);
    RET("udp.dead_connect", connect(v, A(dead)));
    send(v, "x", 1, 0);
    struct pollfd p = {v, POLLIN, 0};
    poll(&p, 1, -1);
    RET("udp.dead_recv", recv(v, b, 1, 0));
    return 0;
}
