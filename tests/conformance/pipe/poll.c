// poll(2), ppoll, select(2), pselect: what each kind of descriptor reports, errnos, timeouts, bad descriptors.
#include "../check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static void ev(const char *name, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    int r = poll(&p, 1, 0);
    val(name, "%d%s%s%s%s%s%s%s", r, p.revents & POLLIN ? " IN" : "", p.revents & POLLOUT ? " OUT" : "",
        p.revents & POLLPRI ? " PRI" : "", p.revents & POLLRDHUP ? " RDHUP" : "", p.revents & POLLERR ? " ERR" : "",
        p.revents & POLLHUP ? " HUP" : "", p.revents & POLLNVAL ? " NVAL" : "");
}

int main(void) {
    tmp_enter();
    int p[2], sv[2];
    char c, big[65536] = {0};
    MUST(pipe(p));
    ev("pipe.read_empty", p[0]);
    ev("pipe.write_empty", p[1]);
    write(p[1], "x", 1);
    ev("pipe.read_data", p[0]);
    close(p[1]);
    ev("pipe.read_data_closed", p[0]);
    read(p[0], &c, 1);
    ev("pipe.read_closed", p[0]);
    MUST(pipe2(p, O_NONBLOCK));
    write(p[1], big, sizeof big);
    ev("pipe.write_full", p[1]);
    read(p[0], big, 100);
    ev("pipe.write_part_of_page_read", p[1]);
    read(p[0], big, 4096);
    ev("pipe.write_page_read", p[1]);
    close(p[0]);
    ev("pipe.write_closed", p[1]);
    put_file("f", "x", 0600);
    ev("file", MUST(open("f", O_RDONLY)));
    ev("directory", MUST(open(".", O_RDONLY)));
    ev("dev_null", MUST(open("/dev/null", O_RDWR)));
    ev("dev_zero", MUST(open("/dev/zero", O_RDWR)));
    ev("opath", MUST(open("f", O_PATH)));
    ev("closed_fd", 999);
    struct pollfd neg = {-1, POLLIN, 7};
    int r = poll(&neg, 1, 0);
    val("negative_fd", "%d revents %d", r, neg.revents);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    ev("stream.idle", sv[0]);
    write(sv[1], "x", 1);
    ev("stream.data", sv[0]);
    shutdown(sv[1], SHUT_WR);
    ev("stream.peer_shut_write", sv[0]);
    ev("stream.self_shut_write", sv[1]);
    read(sv[0], &c, 1);
    ev("stream.peer_shut_write_drained", sv[0]);
    close(sv[1]);
    ev("stream.peer_closed", sv[0]);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
    ev("dgram.idle", sv[0]);
    write(sv[1], "", 0);
    ev("dgram.empty_packet", sv[0]);
    close(sv[1]);
    ev("dgram.peer_closed", sv[0]);
    int s = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    ev("unix.unconnected", s);
    bind(s, &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t));
    listen(s, 1);
    ev("unix.listening", s);
    int e = MUST(eventfd(0, EFD_NONBLOCK));
    ev("eventfd.zero", e);
    write(e, &(uint64_t){5}, 8);
    ev("eventfd.five", e);
    write(e, &(uint64_t){0xfffffffffffffffeUL - 5}, 8);
    ev("eventfd.max", e);
    int t = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    ev("timerfd.idle", t);
    timerfd_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 1}, NULL);
    struct pollfd tp = {t, POLLIN, 0};
    RET("timerfd.wait", poll(&tp, 1, -1));
    ev("timerfd.expired", t);
    int ep = MUST(epoll_create1(0));
    ev("epoll.empty", ep);
    epoll_ctl(ep, EPOLL_CTL_ADD, t, &(struct epoll_event){.events = EPOLLIN});
    ev("epoll.ready", ep);
    MUST(mkfifo("fifo", 0600));
    int fr = MUST(open("fifo", O_RDONLY | O_NONBLOCK));
    ev("fifo.never_a_writer", fr);
    int fw = MUST(open("fifo", O_WRONLY));
    ev("fifo.writer", fr);
    close(fw);
    ev("fifo.writer_left", fr);

    struct pollfd two[3] = {{t, POLLIN, 0}, {e, POLLIN, 0}, {fr, POLLOUT, 0}};
    RET("several", poll(two, 3, -1));
    RET("zero_fds", poll(NULL, 0, 1));
    RET("bad_pointer", syscall(SYS_poll, 8, 1, 0));
    RET("too_many", syscall(SYS_poll, two, 1UL << 30, 0));
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    RET("timeout", poll(NULL, 0, 20));
    int64_t took = now_ns(CLOCK_MONOTONIC) - t0;
    YES("timeout.waited", took >= 20000000 && took < 2000000000);
    RET("ppoll.bad_timeout", ppoll(two, 1, &(struct timespec){0, 1000000000}, NULL));
    RET("ppoll.negative_timeout", ppoll(two, 1, &(struct timespec){-1, 0}, NULL));
    RET("ppoll.bad_sigset_size", syscall(SYS_ppoll, two, 1, NULL, &(uint64_t){0}, 4));
    struct timespec left = {0, 5000000};
    syscall(SYS_ppoll, NULL, 0, &left, NULL, 8);
    val("ppoll.time_left", "%ld %ld", left.tv_sec, left.tv_nsec);

    // select
    fd_set rs, ws, es;
    MUST(pipe(p));
    FD_ZERO(&rs); FD_ZERO(&ws); FD_ZERO(&es);
    FD_SET(p[0], &rs); FD_SET(p[1], &ws); FD_SET(p[0], &es);
    int n = p[1] + 1;
    struct timeval tv = {0};
    RET("select.writable", select(n, &rs, &ws, &es, &tv));
    val("select.sets", "%d %d %d", !!FD_ISSET(p[0], &rs), !!FD_ISSET(p[1], &ws), !!FD_ISSET(p[0], &es));
    write(p[1], "x", 1);
    FD_SET(p[0], &rs);
    RET("select.both", select(n, &rs, &ws, NULL, NULL));
    FD_ZERO(&rs);
    int gone = dup(p[0]);
    close(gone);
    FD_SET(gone, &rs);
    RET("select.bad_fd", select(gone + 1, &rs, NULL, NULL, &tv));
    RET("select.negative_n", select(-1, NULL, NULL, NULL, &tv));
    RET("select.bad_timeout", select(0, NULL, NULL, NULL, &(struct timeval){-1, 0}));
    RET("select.bad_pointer", syscall(SYS_select, 5, 8, NULL, NULL, &tv));
    tv = (struct timeval){0, 3000};
    RET("select.timeout", select(0, NULL, NULL, NULL, &tv));
    val("select.time_left", "%ld %ld", tv.tv_sec, tv.tv_usec);
    FD_ZERO(&rs);
    FD_SET(p[0], &rs);
    RET("select.beyond_n_ignored", select(p[0], &rs, NULL, NULL, &(struct timeval){0}));
    close(p[1]);
    read(p[0], &c, 1);
    FD_SET(p[0], &rs);
    RET("select.hangup_is_readable", select(n, &rs, NULL, NULL, NULL));
    RET("pselect.bad_timeout", pselect(0, NULL, NULL, NULL, &(struct timespec){0, -1}, NULL));

    // ppoll's mask is in force only while it waits: a pending signal is taken.
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct sigaction sa = {.sa_handler = (void (*)(int))(void *)abs};
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    RET("ppoll.pending_signal", ppoll(NULL, 0, NULL, &none));
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    val("ppoll.mask_restored", "%d", sigismember(&now, SIGUSR1));
    raise(SIGUSR1);
    RET("pselect.pending_signal", pselect(0, NULL, NULL, NULL, NULL, &none));
    raise(SIGUSR1);
    FD_ZERO(&ws);
    struct pollfd ready = {e, POLLIN, 0};
    RET("ppoll.ready_wins", ppoll(&ready, 1, NULL, &none));
    sigpending(&now);
    val("ppoll.still_pending", "%d", sigismember(&now, SIGUSR1));
    // A wake-up from another process.
    MUST(pipe(p));
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        _exit(write(p[1], "w", 1) == 1 ? 0 : 1);
    }
    struct pollfd w = {p[0], POLLIN, 0};
    RET("woken", poll(&w, 1, -1));
    wait_for(pid);
    return 0;
}
