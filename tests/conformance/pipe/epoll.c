// epoll(7): level and edge triggering, one-shot, EPOLLEXCLUSIVE, nesting, what closing does, errnos, order, data.
#include "../check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int ep;
static int add(int fd, uint32_t events, uint64_t data) {
    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = events, .data.u64 = data});
}
static int mod(int fd, uint32_t events, uint64_t data) {
    return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &(struct epoll_event){.events = events, .data.u64 = data});
}
static void wait_show(const char *name) {
    struct epoll_event e[8];
    int n = epoll_wait(ep, e, 8, 0);
    char line[256] = "";
    for (int i = 0; i < n; i++) {
        char one[40];
        snprintf(one, sizeof one, " [%lu:%#x]", (unsigned long)e[i].data.u64, e[i].events);
        strcat(line, one);
    }
    if (n < 0) val(name, "-1 %s", ename(errno));
    else val(name, "%d%s", n, line);
}

int main(void) {
    tmp_enter();
    int p[2], sv[2];
    char c, big[65536] = {0};
    RET("create.zero", epoll_create(0));
    OK("create.one", epoll_create(1));
    RET("create1.bad_flags", epoll_create1(1));
    RET("create1.cloexec", fcntl(epoll_create1(EPOLL_CLOEXEC), F_GETFD));
    ep = MUST(epoll_create1(0));
    MUST(pipe2(p, O_NONBLOCK));
    RET("add", add(p[0], EPOLLIN, 1));
    RET("add.again", add(p[0], EPOLLIN, 1));
    RET("mod.unknown", mod(p[1], EPOLLIN, 1));
    RET("del.unknown", epoll_ctl(ep, EPOLL_CTL_DEL, p[1], NULL));
    RET("add.bad_fd", add(999, EPOLLIN, 1));
    RET("add.itself", add(ep, EPOLLIN, 1));
    RET("add.bad_epfd", epoll_ctl(999, EPOLL_CTL_ADD, p[1], &(struct epoll_event){0}));
    RET("add.not_epoll", epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &(struct epoll_event){0}));
    RET("bad_op", epoll_ctl(ep, 9, p[1], &(struct epoll_event){0}));
    RET("add.bad_event", syscall(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, p[1], 8));
    put_file("f", "x", 0600);
    RET("add.file", add(MUST(open("f", O_RDONLY)), EPOLLIN, 1));
    RET("add.directory", add(MUST(open(".", O_RDONLY)), EPOLLIN, 1));
    RET("add.dev_null", add(MUST(open("/dev/null", O_RDONLY)), EPOLLIN, 1));
    RET("wait.max_zero", epoll_wait(ep, &(struct epoll_event){0}, 0, 0));
    RET("wait.max_negative", syscall(SYS_epoll_wait, ep, &(struct epoll_event){0}, -1, 0));
    RET("wait.not_epoll", epoll_wait(p[0], &(struct epoll_event){0}, 1, 0));
    RET("wait.bad_fd", epoll_wait(999, &(struct epoll_event){0}, 1, 0));
    wait_show("level.idle");
    write(p[1], "ab", 2);
    wait_show("level.ready");
    wait_show("level.again");
    RET("wait.bad_buffer", syscall(SYS_epoll_wait, ep, 0xffff800000000000UL, 1, 0));
    read(p[0], &c, 1);
    wait_show("level.still_one_byte");
    read(p[0], &c, 1);
    wait_show("level.drained");
    // Edge.
    RET("mod.edge", mod(p[0], EPOLLIN | EPOLLET, 2));
    wait_show("edge.idle");
    write(p[1], "a", 1);
    wait_show("edge.first");
    wait_show("edge.not_again");
    write(p[1], "b", 1);
    wait_show("edge.new_data");
    read(p[0], &c, 1);
    wait_show("edge.partial_read_is_no_edge");
    mod(p[0], EPOLLIN | EPOLLET, 3);
    wait_show("edge.mod_rearms");
    read(p[0], &c, 1);
    // One-shot.
    mod(p[0], EPOLLIN | EPOLLONESHOT, 4);
    write(p[1], "a", 1);
    wait_show("oneshot.first");
    wait_show("oneshot.disarmed");
    write(p[1], "a", 1);
    wait_show("oneshot.still_disarmed");
    mod(p[0], EPOLLIN | EPOLLONESHOT, 5);
    wait_show("oneshot.rearmed");
    mod(p[0], 0, 6);
    wait_show("events_zero");
    close(p[1]);
    wait_show("events_zero.hangup");
    read(p[0], big, 100);
    mod(p[0], EPOLLIN | EPOLLRDHUP, 7);
    wait_show("hangup");
    RET("del", epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
    wait_show("deleted");
    // Write side, edge triggered.
    MUST(pipe2(p, O_NONBLOCK));
    add(p[1], EPOLLOUT | EPOLLET, 8);
    wait_show("out.first");
    wait_show("out.not_again");
    write(p[1], big, sizeof big);
    wait_show("out.full");
    read(p[0], big, sizeof big);
    wait_show("out.drained");
    close(p[0]);
    wait_show("out.reader_gone");
    close(p[1]);
    wait_show("closed_fd_leaves_set");
    // A duplicate keeps the registration alive.
    MUST(pipe2(p, O_NONBLOCK));
    add(p[0], EPOLLIN, 9);
    int d = dup(p[0]), was = p[0];
    write(p[1], "x", 1);
    close(p[0]);
    wait_show("dup_keeps");
    RET("dup.del_by_old_number", epoll_ctl(ep, EPOLL_CTL_DEL, was, NULL));
    RET("dup.add_other_number", add(d, EPOLLIN, 10));
    wait_show("dup.both");
    close(d);
    wait_show("dup.closed");
    close(p[1]);
    // Several: the order is that in which they became ready, and it rotates for level-triggered ones.
    int e1 = eventfd(0, EFD_NONBLOCK), e2 = eventfd(0, EFD_NONBLOCK), e3 = eventfd(0, EFD_NONBLOCK);
    add(e1, EPOLLIN, 11);
    add(e2, EPOLLIN, 12);
    add(e3, EPOLLIN, 13);
    eventfd_write(e3, 1);
    eventfd_write(e1, 1);
    eventfd_write(e2, 1);
    wait_show("order");
    struct epoll_event one;
    uint64_t got[4];
    for (int i = 0; i < 4; i++) {
        epoll_wait(ep, &one, 1, 0);
        got[i] = one.data.u64;
    }
    val("rotation", "%lu %lu %lu %lu", got[0], got[1], got[2], got[3]);
    // Nested.
    int outer = MUST(epoll_create1(0));
    RET("nested.add", epoll_ctl(outer, EPOLL_CTL_ADD, ep, &(struct epoll_event){.events = EPOLLIN, .data.u64 = 20}));
    int n = epoll_wait(outer, &one, 1, 0);
    val("nested.ready", "%d %lu %#x", n, (unsigned long)one.data.u64, one.events);
    eventfd_t v;
    eventfd_read(e1, &v), eventfd_read(e2, &v), eventfd_read(e3, &v);
    RET("nested.idle", epoll_wait(outer, &one, 1, 0));
    RET("nested.loop", add(outer, EPOLLIN, 21));
    int chain[6];
    chain[0] = outer;
    int depth = 0;
    for (int i = 1; i < 6; i++) {
        chain[i] = MUST(epoll_create1(0));
        if (epoll_ctl(chain[i], EPOLL_CTL_ADD, chain[i - 1], &(struct epoll_event){.events = EPOLLIN})) {
            val("nested.too_deep", "%s after %d", ename(errno), depth);
            break;
        }
        depth++;
    }
    // Exclusive.
    int x = eventfd(0, EFD_NONBLOCK);
    RET("exclusive.add", add(x, EPOLLIN | EPOLLEXCLUSIVE, 30));
    RET("exclusive.mod", mod(x, EPOLLIN, 30));
    RET("exclusive.oneshot", add(eventfd(0, 0), EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 31));
    RET("exclusive.epoll", add(MUST(epoll_create1(0)), EPOLLIN | EPOLLEXCLUSIVE, 32));
    RET("exclusive.mod_to", mod(e1, EPOLLIN | EPOLLEXCLUSIVE, 33));
    eventfd_write(x, 1);
    wait_show("exclusive.ready");
    eventfd_read(x, &v);
    // Sockets.
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    add(sv[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 40);
    wait_show("socket.connected");
    write(sv[1], "x", 1);
    wait_show("socket.data");
    shutdown(sv[1], SHUT_WR);
    wait_show("socket.peer_shut");
    close(sv[1]);
    wait_show("socket.peer_closed");
    close(sv[0]);
    // Timeouts and wake-ups.
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    RET("timeout", epoll_wait(ep, &one, 1, 15));
    YES("timeout.waited", now_ns(CLOCK_MONOTONIC) - t0 >= 15000000);
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        eventfd_write(e1, 3);
        _exit(0);
    }
    n = epoll_wait(ep, &one, 1, -1);
    val("woken", "%d %lu", n, (unsigned long)one.data.u64);
    wait_for(pid);
    // A change made while another waits.
    pid = fork();
    if (pid == 0) {
        wait_blocked(me, me);
        eventfd_write(e2, 1);
        _exit(0);
    }
    eventfd_read(e1, &v);
    n = epoll_wait(ep, &one, 1, -1);
    val("woken.other", "%d %lu", n, (unsigned long)one.data.u64);
    wait_for(pid);
    RET("pwait2", syscall(441, ep, &one, 1, &(struct timespec){0}, NULL, 8));
    RET("pwait2.bad_timeout", syscall(441, ep, &one, 1, &(struct timespec){0, -1}, NULL, 8));
    RET("pwait.bad_size", syscall(SYS_epoll_pwait, ep, &one, 1, 0, &(uint64_t){0}, 4));
    RET("read", read(ep, big, 10));
    return 0;
}
