// /proc/net: a program finds its own sockets in tcp, tcp6, udp, udp6 and unix, with states, queues, owners and inode
// numbers; the shape of the other files. proc_net(5).
#include "../check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define A(a) (struct sockaddr *)&(a), sizeof(a)
static char text[1 << 20];
static const char *load(const char *file) {
    char path[64];
    snprintf(path, sizeof path, "/proc/net/%s", file);
    int fd = open(path, O_RDONLY);
    ssize_t n, len = 0;
    if (fd < 0) return NULL;
    while (len < (ssize_t)sizeof text - 1 && (n = read(fd, text + len, sizeof text - 1 - len)) > 0) len += n;
    text[len] = 0;
    close(fd);
    return text;
}
static ino_t ino_of(int fd) {
    struct stat st;
    MUST(fstat(fd, &st));
    return st.st_ino;
}
// Shows the line of the socket with this inode number: all but what differs from run to run.
static void show(const char *name, const char *file, int fd) {
    unsigned long ino = ino_of(fd);
    for (char *line = (char *)load(file), *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (!next) break;
        *next++ = 0;
        char local[64], remote[64];
        unsigned sl, lport, rport, st, tx, rx, tr, when, retr, uid, timeout;
        unsigned long found;
        if (sscanf(line, "%u: %63[^:]:%x %63[^:]:%x %x %x:%x %x:%x %x %u %u %lu", &sl, local, &lport, remote, &rport, &st, &tx, &rx, &tr,
                   &when, &retr, &uid, &timeout, &found) != 14 || found != ino)
            continue;
        val(name, "%s:%s %s:%s state %02X tx %u rx %u uid %u width %zu", local, lport ? "port" : "0", remote, rport ? "port" : "0", st, tx, rx, uid,
            strlen(line) > 120 && strlen(file) == 3 ? strlen(line) : 0);
        return;
    }
    val(name, "not listed");
}
static void show_unix(const char *name, int fd) {
    unsigned long ino = ino_of(fd);
    for (char *line = (char *)load("unix"), *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (!next) break;
        *next++ = 0;
        unsigned long num, refs, protocol, flags, found;
        unsigned type, st;
        int at = 0;
        if (sscanf(line, "%lx: %lx %lx %lx %x %x %lu%n", &num, &refs, &protocol, &flags, &type, &st, &found, &at) != 7 || found != ino) continue;
        val(name, "flags %lx type %x state %x path '%s'", flags, type, st, line + at);
        return;
    }
    val(name, "not listed");
}
// Pairs of lines with names and values, as many of each.
static int paired(const char *file) {
    int ok = 1, lines = 0;
    for (char *line = (char *)load(file), *next; line && *line; line = next) {
        char *values = strchr(line, '\n');
        if (!values) return 0;
        *values++ = 0;
        next = strchr(values, '\n');
        if (!next) return 0;
        *next++ = 0;
        int a = 0, b = 0;
        for (char *p = line; *p; p++) a += *p == ' ';
        for (char *p = values; *p; p++) b += *p == ' ';
        ok &= a == b && a > 0 && !strncmp(line, values, strcspn(line, ":"));
        lines++;
    }
    return ok && lines > 0;
}
static void first_line(const char *name, const char *file) {
    char *t = (char *)load(file);
    if (!t) return val(name, "%s", ename(errno));
    t[strcspn(t, "\n")] = 0;
    val(name, "'%s'", t);
}
static int bind_to(int family, int type) {
    int s = MUST(socket(family, type, 0));
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    MUST(family == AF_INET ? bind(s, A(a4)) : bind(s, A(a6)));
    return s;
}
static int connect_to(int l, int type) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    MUST(getsockname(l, (void *)&a, &n));
    int c = MUST(socket(a.ss_family, type, 0));
    MUST(connect(c, (void *)&a, n));
    return c;
}

int main(void) {
    tmp_enter();
    // TCP.
    for (int six = 0; six < 2; six++) {
        const char *file = six ? "tcp6" : "tcp";
        char name[40];
#define N(what) (snprintf(name, sizeof name, "%s.%s", file, what), name)
        int family = six ? AF_INET6 : AF_INET;
        int s = MUST(socket(family, SOCK_STREAM, 0));
        show(N("fresh"), file, s);
        close(s);
        int l = bind_to(family, SOCK_STREAM);
        show(N("bound"), file, l);
        MUST(listen(l, 7));
        show(N("listening"), file, l);
        int c = connect_to(l, SOCK_STREAM);
        struct pollfd p = {l, POLLIN, 0};
        MUST(poll(&p, 1, -1));
        show(N("listening_pending"), file, l);
        s = MUST(accept(l, NULL, NULL));
        show(N("listening_accepted"), file, l);
        show(N("client"), file, c);
        show(N("server"), file, s);
        MUST(write(c, "12345", 5));
        p.fd = s;
        MUST(poll(&p, 1, -1));
        show(N("unread"), file, s);
        MUST(shutdown(c, SHUT_WR));
        p.events = POLLRDHUP;
        MUST(poll(&p, 1, -1));
        show(N("half_closed_reader"), file, s);
        // The acknowledgement of the end may still be on its way to the writer.
        close(c), close(s), close(l);
        file = six ? "udp6" : "udp";
        int u = MUST(socket(family, SOCK_DGRAM, 0));
        show(N("fresh"), file, u);
        close(u);
        u = bind_to(family, SOCK_DGRAM);
        show(N("bound"), file, u);
        int v = connect_to(u, SOCK_DGRAM);
        show(N("connected"), file, v);
        close(u), close(v);
    }
    // Who made a socket owns it.
    int st = CHILD(if (setresuid(1234, 1234, 1234)) _exit(9); int u = bind_to(AF_INET, SOCK_DGRAM); show("udp.of_user", "udp", u));
    val("udp.of_user_child", "%s", wname(st));
    // The number is the one of the descriptor's link.
    int u = bind_to(AF_INET, SOCK_DGRAM);
    char link[64], path[64], want[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", u);
    ssize_t n = readlink(path, link, 63);
    link[n > 0 ? n : 0] = 0;
    snprintf(want, sizeof want, "socket:[%lu]", (unsigned long)ino_of(u));
    YES("inode_is_that_of_the_link", !strcmp(link, want));
    close(u);
    // Unix sockets.
    int sv[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    show_unix("unix.pair", sv[0]);
    int s = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    show_unix("unix.fresh", s);
    struct sockaddr_un a = {AF_UNIX, "name"};
    MUST(bind(s, A(a)));
    show_unix("unix.bound", s);
    close(s);
    s = MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    struct sockaddr_un b = {AF_UNIX, "\0conformance-procnet"};
    MUST(bind(s, (void *)&b, 2 + 20));
    MUST(listen(s, 1));
    show_unix("unix.listening", s);
    close(s);
    // Shapes.
    first_line("tcp.heading", "tcp");
    first_line("tcp6.heading", "tcp6");
    first_line("udp.heading", "udp");
    first_line("udp6.heading", "udp6");
    first_line("unix.heading", "unix");
    first_line("dev.heading", "dev");
    first_line("route.heading", "route");
    first_line("arp.heading", "arp");
    first_line("netlink.heading", "netlink");
    YES("snmp", paired("snmp"));
    YES("netstat", paired("netstat"));
    YES("snmp.order", load("snmp") && !strncmp(text, "Ip: Forwarding DefaultTTL ", 26) && strstr(text, "\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens "));
    int used, inuse;
    YES("sockstat", load("sockstat") && sscanf(text, "sockets: used %d\nTCP: inuse %d orphan ", &used, &inuse) == 2 && used > 0);
    YES("sockstat6", load("sockstat6") && sscanf(text, "TCP6: inuse %d", &inuse) == 1);
    YES("snmp6", load("snmp6") && !strncmp(text, "Ip6InReceives ", 14) && strstr(text, "\nUdp6InDatagrams "));
    YES("if_inet6", load("if_inet6") && strstr(text, "00000000000000000000000000000001 01 80 10 80       lo\n"));
    YES("ipv6_route", load("ipv6_route") && strstr(text, "00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 "));
    YES("ipv6_route.local", strstr(text, " 80200001       lo\n"));
    YES("dev.lo", load("dev") && strstr(text, "\n    lo: "));
    // The directory, and what can be done with its files.
    struct stat sb;
    RET("stat", stat("/proc/net/tcp", &sb));
    val("stat.value", "%o %lld %u %lu", sb.st_mode, (long long)sb.st_size, sb.st_uid, (unsigned long)sb.st_nlink);
    RET("missing", stat("/proc/net/nosuch", &sb));
    RET("create", open("/proc/net/nosuch", O_CREAT | O_RDWR, 0600));
    RET("unlink", unlink("/proc/net/tcp"));
    ino_t first = (stat("/proc/net/udp", &sb), sb.st_ino);
    YES("same_inode", stat("/proc/self/net/udp", &sb) == 0 && sb.st_ino == first);
    int dir = MUST(open("/proc/net", O_RDONLY | O_DIRECTORY)), seen = 0;
    DIR *d = fdopendir(dir);
    for (struct dirent *e; (e = readdir(d));) seen += !strcmp(e->d_name, "tcp") || !strcmp(e->d_name, "unix") || !strcmp(e->d_name, "dev");
    val("listed", "%d", seen);
    // Read in small pieces it is the same.
    char one[4096];
    int fd = MUST(open("/proc/net/dev", O_RDONLY)), len = 0;
    while (len < (int)sizeof one - 1 && read(fd, one + len, 1) == 1) len++;
    one[len] = 0;
    YES("piecewise", len > 200 && !strncmp(one, "Inter-|", 7) && one[len - 1] == '\n');
    return 0;
}
