// AF_UNIX stream and seqpacket sockets: binding, listening, names, abstract and automatic addresses, flags, shutdown,
// errnos. unix(7), socket(2).
#include "../check.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static socklen_t addr(struct sockaddr_un *a, const char *path) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    size_t n = strlen(path);
    if (path[0] == '@') {
        memcpy(a->sun_path, path, n);
        a->sun_path[0] = 0;
        return offsetof(struct sockaddr_un, sun_path) + n;
    }
    memcpy(a->sun_path, path, n + 1);
    return offsetof(struct sockaddr_un, sun_path) + n + 1;
}
static int bind_to(int s, const char *path) { struct sockaddr_un a; socklen_t l = addr(&a, path); return bind(s, (void *)&a, l); }
static int connect_to(int s, const char *path) { struct sockaddr_un a; socklen_t l = addr(&a, path); return connect(s, (void *)&a, l); }
static int sock(int type) { return MUST(socket(AF_UNIX, type, 0)); }
static void names(const char *name, int s) {
    struct sockaddr_un a;
    socklen_t l = sizeof a;
    char one[200];
    memset(&a, 0, sizeof a);
    int r = getsockname(s, (void *)&a, &l);
    snprintf(one, sizeof one, "%d len %u [%s%s]", r, l, l > 2 && !a.sun_path[0] ? "@" : "", l > 2 ? a.sun_path[0] ? a.sun_path : a.sun_path + 1 : "");
    memset(&a, 0, sizeof a);
    l = sizeof a;
    r = getpeername(s, (void *)&a, &l);
    if (r) val(name, "%s peer %s", one, ename(errno));
    else val(name, "%s peer len %u [%s%s]", one, l, l > 2 && !a.sun_path[0] ? "@" : "", l > 2 ? a.sun_path[0] ? a.sun_path : a.sun_path + 1 : "");
}

int main(void) {
    tmp_enter();
    signal(SIGPIPE, SIG_IGN);
    char buf[256];
    char abstract[64];
    snprintf(abstract, sizeof abstract, "@%s", strrchr(tmp_path, '/') + 1); // unique to this run, of a fixed length
    // Creation.
    RET("socket.bad_type", socket(AF_UNIX, 77, 0));
    RET("socket.bad_protocol", socket(AF_UNIX, SOCK_STREAM, 5));
    OK("socket.protocol_pf_unix", socket(AF_UNIX, SOCK_STREAM, PF_UNIX));
    RET("socket.bad_family", socket(99, SOCK_STREAM, 0));
    RET("socket.raw_is_dgram", ({ int s = socket(AF_UNIX, SOCK_RAW, 0), t; socklen_t l = 4; getsockopt(s, SOL_SOCKET, SO_TYPE, &t, &l); t; }));
    RET("socket.flags", ({ int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); fcntl(s, F_GETFD) | fcntl(s, F_GETFL); }));
    RET("socketpair.bad_family", socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}));
    RET("socketpair.bad_pointer", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8));

    // Binding.
    int l = sock(SOCK_STREAM), c = sock(SOCK_STREAM);
    names("unbound", l);
    RET("listen.unbound", listen(l, 1));
    RET("connect.missing", connect_to(c, "nothing"));
    RET("bind", bind_to(l, "sock"));
    struct stat st;
    stat("sock", &st);
    val("bind.mode", "%o", st.st_mode);
    RET("bind.again", bind_to(l, "other"));
    RET("bind.in_use", bind_to(c, "sock"));
    RET("bind.no_directory", bind_to(c, "no/such"));
    RET("bind.short", bind(c, (void *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 1));
    RET("bind.wrong_family", bind(c, (void *)&(struct sockaddr_un){.sun_family = AF_INET}, 20));
    RET("bind.long", bind(c, (void *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 200));
    RET("bind.not_socket", bind(0, (void *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 20));
    RET("bind.bad_fd", bind(999, (void *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 20));
    names("bound", l);
    RET("connect.not_listening", connect_to(c, "sock"));
    RET("accept.not_listening", accept(l, NULL, NULL));
    RET("listen", listen(l, 2));
    RET("listen.again", listen(l, 1));
    RET("listen.negative", listen(l, -1));
    RET("listen.one", listen(l, 1));
    put_file("plain", "", 0600);
    RET("connect.plain_file", connect_to(c, "plain"));
    RET("connect.wrong_type", connect_to(sock(SOCK_DGRAM), "sock"));
    RET("connect", connect_to(c, "sock"));
    RET("connect.again", connect_to(c, "sock"));
    RET("connect.itself", connect_to(l, "sock"));
    names("client", c);
    RET("write.before_accept", write(c, "early", 5));
    struct sockaddr_un a;
    socklen_t al = sizeof a;
    int s = OK("accept", accept4(l, (void *)&a, &al, SOCK_CLOEXEC | SOCK_NONBLOCK));
    val("accept.peer", "len %u family %d", al, a.sun_family);
    val("accept.flags", "%d %#x", fcntl(s, F_GETFD), fcntl(s, F_GETFL));
    names("accepted", s);
    RET("accept4.bad_flags", accept4(l, NULL, NULL, 1));
    RET("read.early", read(s, buf, sizeof buf));
    RET("read.empty", read(s, buf, sizeof buf));
    RET("accept.nonblock_empty", ({ fcntl(l, F_SETFL, O_NONBLOCK); accept(l, NULL, NULL); }));
    RET("listener.read", read(l, buf, 1));
    RET("listener.write", write(l, buf, 1));
    RET("unconnected.write", write(sock(SOCK_STREAM), "x", 1));
    RET("unconnected.read", ({ int u = sock(SOCK_STREAM | SOCK_NONBLOCK); read(u, buf, 1); }));
    // A full backlog.
    int many[6], ok = 0;
    for (int i = 0; i < 6; i++) {
        many[i] = sock(SOCK_STREAM | SOCK_NONBLOCK);
        if (connect_to(many[i], "sock") == 0) ok++;
        else break;
    }
    val("backlog.one", "%d then %s", ok, ename(errno));
    for (int i = 0; i < ok; i++) close(accept(l, NULL, NULL));
    RET("client.peer_closed_read", ({ fcntl(many[0], F_SETFL, 0); read(many[0], buf, 1); }));
    RET("client.peer_closed_write", write(many[0], "x", 1));
    // Connections that wait when the listener goes are reset.
    int w = sock(SOCK_STREAM);
    connect_to(w, "sock");
    close(l);
    RET("listener_gone.read", read(w, buf, 1));
    RET("listener_gone.write", write(w, "x", 1));
    RET("listener_gone.connect", connect_to(sock(SOCK_STREAM), "sock"));
    // Data and shutdown.
    write(s, "pending", 7);
    RET("fionread", ({ int n; ioctl(c, FIONREAD, &n); n; }));
    RET("shutdown.wr", shutdown(s, SHUT_WR));
    RET("shutdown.write", write(s, "x", 1));
    RET("shutdown.peer_reads_data", read(c, buf, 100));
    RET("shutdown.peer_reads_end", read(c, buf, 100));
    RET("shutdown.other_way_works", write(c, "back", 4));
    RET("shutdown.reads", read(s, buf, 100));
    RET("shutdown.rd", shutdown(s, SHUT_RD));
    RET("shutdown.peer_write", write(c, "x", 1));
    RET("shutdown.bad_how", shutdown(s, 3));
    RET("shutdown.unconnected", shutdown(sock(SOCK_STREAM), SHUT_RDWR));
    // Unread data when one end closes: the other gets a reset.
    int sv[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    write(sv[0], "unread", 6);
    close(sv[1]);
    RET("closed_with_unread.read", read(sv[0], buf, 1));
    RET("closed_with_unread.read_again", read(sv[0], buf, 1));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    names("socketpair", sv[0]);
    // Abstract and automatic names.
    int ab = sock(SOCK_STREAM), ac = sock(SOCK_STREAM);
    RET("abstract.bind", bind_to(ab, abstract));
    RET("abstract.in_use", bind_to(ac, abstract));
    RET("abstract.listen", listen(ab, 1));
    RET("abstract.connect", connect_to(ac, abstract));
    al = sizeof a;
    getpeername(ac, (void *)&a, &al);
    val("abstract.peer_length", "%u first byte %d", al, a.sun_path[0]);
    close(ab);
    RET("abstract.free_again", bind_to(sock(SOCK_STREAM), abstract));
    int au = sock(SOCK_DGRAM);
    RET("autobind", bind(au, (void *)&(struct sockaddr_un){.sun_family = AF_UNIX}, sizeof(sa_family_t)));
    al = sizeof a;
    getsockname(au, (void *)&a, &al);
    val("autobind.name", "len %u first %d hex %d", al, a.sun_path[0], (int)strspn(a.sun_path + 1, "0123456789abcdef") >= 5);
    // A name without a NUL at the full length.
    memset(&a, 'p', sizeof a);
    a.sun_family = AF_UNIX;
    int fl = sock(SOCK_STREAM);
    RET("name_108.bind", bind(fl, (void *)&a, sizeof a));
    al = sizeof a;
    getsockname(fl, (void *)&a, &al);
    val("name_108.length", "%u", al);
    al = 4;
    RET("getsockname.short_buffer", getsockname(fl, (void *)&a, &al));
    val("getsockname.real_length", "%u", al);
    al = -1;
    RET("getsockname.negative_length", getsockname(fl, (void *)&a, &al));
    // Unlinking the name does not disturb the socket; a symbolic link is followed by connect, not by bind.
    int un = sock(SOCK_STREAM);
    bind_to(un, "un");
    listen(un, 5);
    symlink("un", "unlink");
    RET("via_symlink", connect_to(sock(SOCK_STREAM), "unlink"));
    RET("bind.symlink", bind_to(sock(SOCK_STREAM), "unlink"));
    unlink("un");
    RET("unlinked.connect", connect_to(sock(SOCK_STREAM), "un"));
    OK("unlinked.accept", accept(un, NULL, NULL));
    RET("open_socket_file", ({ bind_to(sock(SOCK_STREAM), "sf"); open("sf", O_RDWR); }));

    // Seqpacket keeps boundaries and is connected.
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv));
    write(sv[0], "one", 3);
    write(sv[0], "three", 5);
    write(sv[0], "", 0);
    RET("seqpacket.first", recv(sv[1], buf, 100, 0));
    RET("seqpacket.cut", recv(sv[1], buf, 2, 0));
    RET("seqpacket.empty_packet", recv(sv[1], buf, 100, MSG_DONTWAIT));
    RET("seqpacket.none", recv(sv[1], buf, 100, MSG_DONTWAIT));
    write(sv[0], "truncated", 9);
    RET("seqpacket.msg_trunc", recv(sv[1], buf, 2, MSG_TRUNC));
    close(sv[0]);
    RET("seqpacket.end", recv(sv[1], buf, 100, 0));
    RET("seqpacket.epipe", send(sv[1], "x", 1, 0));
    int sq = sock(SOCK_SEQPACKET), sc = sock(SOCK_SEQPACKET);
    bind_to(sq, "seq");
    listen(sq, 1);
    RET("seqpacket.connect", connect_to(sc, "seq"));
    OK("seqpacket.accept", accept(sq, NULL, NULL));
    RET("seqpacket.stream_mismatch", connect_to(sock(SOCK_STREAM), "seq"));
    return 0;
}
