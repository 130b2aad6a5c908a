// Interrupted calls: each blocking call is interrupted by a handler with and without SA_RESTART. signal(7).
#include "../check.h"
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/uio.h>

static volatile int calls;
static int pipefd[2], full[2], sv[2], dg[2], lst, ep, lockfd;
static uint32_t word;
static char buf[65536];
// What lets the call succeed when it is restarted; done by the handler.
static void (*rescue)(void);

static void handler(int sig) {
    (void)sig;
    calls++;
    if (rescue) rescue();
}

static long c_read(void) { return read(pipefd[0], buf, 1); }
static long c_readv(void) { struct iovec v = {buf, 1}; return readv(pipefd[0], &v, 1); }
static long c_write(void) { return write(full[1], "x", 1); }
static long c_recv(void) { return recv(sv[0], buf, 1, 0); }
static long c_recvfrom_dgram(void) { return recvfrom(dg[0], buf, 1, 0, NULL, NULL); }
static long c_recvmsg(void) { struct iovec v = {buf, 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1}; return recvmsg(sv[0], &m, 0); }
static long c_recv_timeo(void) { setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){100, 0}, sizeof(struct timeval)); long r = recv(sv[0], buf, 1, 0); int e = errno; setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0}, sizeof(struct timeval)); errno = e; return r; }
static long c_accept(void) { return accept(lst, NULL, NULL) >= 0 ? 1 : -1; }
static long c_nanosleep(void) { return nanosleep(&(struct timespec){100, 0}, NULL); }
static long c_clock_nanosleep(void) { errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){100, 0}, NULL); return errno ? -1 : 0; }
static long c_pause(void) { return pause(); }
static long c_poll(void) { struct pollfd p = {pipefd[0], POLLIN, 0}; return poll(&p, 1, -1); }
static long c_poll_timeout(void) { struct pollfd p = {pipefd[0], POLLIN, 0}; return poll(&p, 1, 100000); }
static long c_ppoll(void) { struct pollfd p = {pipefd[0], POLLIN, 0}; return ppoll(&p, 1, NULL, NULL); }
static long c_select(void) { fd_set s; FD_ZERO(&s); FD_SET(pipefd[0], &s); return select(pipefd[0] + 1, &s, NULL, NULL, NULL); }
static long c_pselect(void) { fd_set s; FD_ZERO(&s); FD_SET(pipefd[0], &s); return pselect(pipefd[0] + 1, &s, NULL, NULL, NULL, NULL); }
static long c_epoll(void) { struct epoll_event e; return epoll_wait(ep, &e, 1, -1); }
static long c_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); }
static long c_futex_timeout(void) { return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &(struct timespec){100, 0}, NULL, 0); }
static long c_futex_bitset(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); t.tv_sec += 100; return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, 1); }
static long c_flock(void) { return flock(lockfd, LOCK_EX); }
static long c_setlkw(void) { struct flock f = {.l_type = F_WRLCK}; return fcntl(lockfd, F_SETLKW, &f); }
static long c_open_fifo(void) { int fd = open("fifo", O_RDONLY); if (fd < 0) return -1; close(fd); return 1; }
static long c_wait(void) { return waitpid(-1, NULL, 0) > 0 ? 1 : -1; }
static long c_waitid(void) { return waitid(P_ALL, 0, NULL, WEXITED); }
static long c_sigtimedwait(void) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2); return sigtimedwait(&s, NULL, &(struct timespec){100, 0}); }
static long c_sigwaitinfo(void) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2); return sigwaitinfo(&s, NULL); }
static long c_sigsuspend(void) { sigset_t s; sigemptyset(&s); return sigsuspend(&s); }

static void r_pipe(void) { MUST(write(pipefd[1], "r", 1)); }
static void r_full(void) { MUST(read(full[0], buf, 4096)); }
static void r_sv(void) { MUST(write(sv[1], "r", 1)); }
static void r_dg(void) { MUST(write(dg[1], "r", 1)); }
static void r_accept(void) {
    struct sockaddr_un a;
    socklen_t l = sizeof a;
    getsockname(lst, (struct sockaddr *)&a, &l);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(connect(s, (struct sockaddr *)&a, l));
}
static void r_futex(void) { word = 1; } // a restarted wait finds another value
static int holder;
static void r_lock(void) { kill(holder, SIGKILL); }
static void r_fifo(void) { MUST(open("fifo", O_RDWR)); }
static void r_child(void) { kill(holder, SIGKILL); }

static const struct { const char *name; long (*fn)(void); void (*rescue)(void); int drain; } list[] = {
    {"read_pipe", c_read, r_pipe}, {"readv_pipe", c_readv, r_pipe}, {"write_pipe", c_write, r_full},
    {"recv_unix", c_recv, r_sv}, {"recv_dgram", c_recvfrom_dgram, r_dg}, {"recvmsg", c_recvmsg, r_sv},
    {"recv_timeout", c_recv_timeo, r_sv}, {"accept", c_accept, r_accept}, {"nanosleep", c_nanosleep, NULL},
    {"clock_nanosleep", c_clock_nanosleep, NULL}, {"pause", c_pause, NULL}, {"poll", c_poll, NULL},
    {"poll_timeout", c_poll_timeout, NULL}, {"ppoll", c_ppoll, NULL}, {"select", c_select, NULL},
    {"pselect", c_pselect, NULL}, {"epoll_wait", c_epoll, NULL}, {"futex", c_futex, r_futex},
    {"futex_timeout", c_futex_timeout, r_futex}, {"futex_bitset", c_futex_bitset, r_futex}, {"flock", c_flock, r_lock, 1}, {"setlkw", c_setlkw, r_lock, 2},
    {"open_fifo", c_open_fifo, r_fifo}, {"waitpid", c_wait, r_child, 3}, {"waitid", c_waitid, r_child, 3},
    {"sigtimedwait", c_sigtimedwait, NULL}, {"sigwaitinfo", c_sigwaitinfo, NULL}, {"sigsuspend", c_sigsuspend, NULL},
};

// In the child: a peer sends one signal when it sees us asleep in the call.
static void one(size_t i, int restart) {
    struct sigaction sa = {.sa_handler = handler, .sa_flags = restart};
    sigaction(SIGUSR1, &sa, NULL);
    rescue = list[i].rescue;
    MUST(pipe(pipefd));
    MUST(pipe(full));
    fcntl(full[1], F_SETFL, O_NONBLOCK);
    while (write(full[1], buf, sizeof buf) > 0)
        ;
    fcntl(full[1], F_SETFL, 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg));
    lst = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(lst, (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, sizeof(sa_family_t)));
    MUST(listen(lst, 1));
    ep = MUST(epoll_create1(0));
    epoll_ctl(ep, EPOLL_CTL_ADD, pipefd[0], &(struct epoll_event){.events = EPOLLIN});
    lockfd = MUST(open("lock", O_RDWR | O_CREAT, 0600));
    int kind = list[i].drain;
    pid_t me = getpid();
    if (kind) {
        baton b = baton_new();
        holder = MUST(fork());
        if (holder == 0) {
            int fd = MUST(open("lock", O_RDWR));
            if (kind == 1) MUST(flock(fd, LOCK_EX));
            if (kind == 2) MUST(fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK}));
            baton_pass(&b);
            for (;;) pause();
        }
        baton_take(&b);
    }
    // The signaller must not be a child of ours, or waitpid would see it: its parent leaves at once.
    baton begin = baton_new();
    pid_t mid = MUST(fork());
    if (mid == 0) {
        if (fork()) _exit(0);
        baton_take(&begin);
        wait_blocked(me, me);
        kill(me, SIGUSR1);
        _exit(0);
    }
    wait_for(mid);
    baton_pass(&begin);
    errno = 0;
    long r = list[i].fn();
    int e = errno, c = calls;
    char name[64];
    snprintf(name, sizeof name, "%s.%s", list[i].name, restart ? "restart" : "plain");
    if (r < 0) val(name, "-1 %s after %d", ename(e), c);
    else val(name, "%ld after %d", r, c);
    if (kind) {
        kill(holder, SIGKILL);
        waitpid(holder, NULL, 0); // its lock is gone before the next test wants it
    }
    _exit(0);
}

int main(void) {
    tmp_enter();
    MUST(mkfifo("fifo", 0600));
    for (size_t i = 0; i < COUNT(list); i++) {
        CHILD(one(i, 0));
        CHILD(one(i, SA_RESTART));
    }
    return 0;
}
