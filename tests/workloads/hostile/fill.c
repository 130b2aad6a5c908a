// Takes as much of one thing as the kernel gives: `fill WHAT`. It ends when it is refused, and prints "refused"; or when it has had so much
// that nobody would call it bounded, and prints "enough". A kernel with a memory limit may also kill it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static void end(int refused) {
    printf("%s\n", refused ? "refused" : "enough");
    fflush(stdout);
    _exit(0);
}

// Files in memory, as many and as long as they get.
static int tmpfs(long i) {
    char name[32];
    sprintf(name, "f%ld", i / 1000);
    int fd = open(name, O_CREAT | O_WRONLY | O_APPEND, 0600);
    int ok = fd >= 0 && write(fd, buffer, sizeof buffer) > 0;
    close(fd);
    return ok;
}

static int memfd(long i) {
    static int fd = -1;
    if (i % 100 == 0)
        fd = memfd_create("m", 0);
    return fd >= 0 && write(fd, buffer, sizeof buffer) > 0;
}

static int names(long i) {
    char name[256];
    memset(name, 'n', 200);
    sprintf(name + 200, "%ld", i);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    return fd >= 0 && close(fd) == 0;
}

static int pipes(long i) {
    int fds[2];
    (void)i;
    if (pipe2(fds, O_NONBLOCK))
        return 0;
    fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
    while (write(fds[1], buffer, sizeof buffer) > 0)
        ;
    return 1;
}

static int sockets(long i) {
    int fds[2];
    (void)i;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
        return 0;
    while (write(fds[1], buffer, sizeof buffer) > 0)
        ;
    return 1;
}

static int send_fd(int socket, int fd) {
    char control[CMSG_SPACE(sizeof fd)];
    struct iovec part = {buffer, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(socket, &message, MSG_DONTWAIT) > 0;
}

// Sockets in flight within each other, and closed: nobody but a collector of cycles can find them.
static int cycles(long i) {
    int fds[2], more[2];
    (void)i;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, more))
        return 0;
    int ok = send_fd(fds[0], more[0]) && send_fd(more[0], fds[0]) && send_fd(fds[1], fds[1]);
    close(fds[0]), close(fds[1]), close(more[0]), close(more[1]);
    return ok;
}

// A chain: each socket in the queue of the next. Letting the last go lets go of all.
static int chain(long i) {
    static int last = -1;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
        return 0;
    if (last >= 0 && !send_fd(fds[0], last))
        return 0;
    close(last);
    close(fds[0]);
    last = fds[1];
    if (i == 199)
        close(last);
    return 1;
}

static int mounts(long i) {
    (void)i;
    return mount("none", ".", "tmpfs", 0, "size=4k") == 0;
}

// Each bind shows the whole tree once more below itself: twice as many mounts as before.
static int binds(long i) {
    char name[32];
    if (i == 0) {
        mkdir("t", 0755);
        mount("none", "t", "tmpfs", 0, "");
    }
    sprintf(name, "t/%ld", i);
    mkdir(name, 0755);
    return mount("t", name, NULL, MS_BIND | MS_REC, NULL) == 0;
}

static int deep(long i) {
    if (mkdir("d", 0755) || chdir("d"))
        return 0;
    if (i % 100 == 0) {
        char here[100];
        getcwd(here, sizeof here);
        readlink("/proc/self/cwd", here, sizeof here);
    }
    return 1;
}

static int mappings(long i) {
    char *at = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)i;
    return at != MAP_FAILED && mprotect(at, 4096, PROT_READ | PROT_WRITE) == 0;
}

static int timers(long i) {
    timer_t timer;
    (void)i;
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    return timer_create(CLOCK_MONOTONIC, &none, &timer) == 0;
}

static int signals(long i) {
    sigset_t all;
    sigfillset(&all);
    if (i == 0)
        sigprocmask(SIG_BLOCK, &all, NULL);
    return sigqueue(getpid(), SIGRTMIN + 1, (union sigval){0}) == 0;
}

static int locks(long i) {
    static int fd = -1;
    if (fd < 0)
        fd = open("lock", O_CREAT | O_RDWR, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_start = 2 * i, .l_len = 1};
    return fcntl(fd, F_SETLK, &lock) == 0;
}

static int attributes(long i) {
    static int fd = -1;
    char name[64];
    if (fd < 0)
        fd = open("x", O_CREAT | O_RDWR, 0600);
    sprintf(name, "trusted.%ld", i);
    if (fsetxattr(fd, name, buffer, 60000, 0) == 0)
        return 1;
    sprintf(name, "user.%ld", i);
    return fsetxattr(fd, name, buffer, 60000, 0) == 0;
}

static int descriptors(long i) {
    (void)i;
    return eventfd(0, 0) >= 0;
}

static int nested_epoll(long i) {
    static int last = -1;
    struct epoll_event event = {.events = EPOLLIN};
    int fd = epoll_create1(0);
    int ok = fd >= 0 && (last < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, last, &event) == 0);
    (void)i;
    last = fd;
    return ok;
}

static int links(long i) {
    char name[32], target[32];
    sprintf(name, "l%ld", i + 1), sprintf(target, "l%ld", i);
    if (i == 0)
        mkdir("l0", 0755);
    return symlink(target, name) == 0 && access(name, F_OK) == 0;
}

static int backlog(long i) {
    static int listener = -1;
    static struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "backlog"};
    (void)i;
    if (listener < 0) {
        listener = socket(AF_UNIX, SOCK_STREAM, 0);
        bind(listener, (void *)&address, sizeof address);
        listen(listener, 0x7fffffff);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int ok = connect(fd, (void *)&address, sizeof address) == 0;
    close(fd);
    return ok;
}

static int children(long i) {
    (void)i;
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    return pid > 0;
}

// What is not kept, but has a size that the caller picks: each must be refused, or cost nothing.
static int sizes(long i) {
    (void)i;
    static struct iovec parts[1025];
    for (int j = 0; j < 1025; j++)
        parts[j] = (struct iovec){buffer, 0x7fffffffffffffff};
    errno = 0;
    int bad = 0;
    bad += writev(1, parts, 1025) >= 0;
    bad += readv(0, parts, 0x7fffffff) >= 0;
    bad += poll((void *)buffer, 1UL << 31, 0) >= 0;
    bad += syscall(SYS_poll, buffer, 0xffffffffUL, 0) >= 0;
    bad += syscall(SYS_setgroups, 1 << 20, buffer) >= 0;
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    bad += syscall(SYS_getrandom, page, -1UL, 0) > 1L << 31;
    bad += read(open("/dev/zero", O_RDONLY), page, -1UL) > 1L << 31;
    bad += syscall(SYS_getdents64, open("/proc", O_RDONLY), page, 0xffffffff) > 1L << 31;
    bad += syscall(SYS_getcwd, page, -1UL) > 4096;
    bad += setxattr(".", "user.a", buffer, -1UL, 0) >= 0;
    bad += syscall(SYS_epoll_wait, 3, buffer, 0x7fffffff, 0) > 0;
    bad += syscall(SYS_process_vm_readv, getpid(), parts, 1UL << 40, parts, 1, 0) >= 0;
    bad += syscall(SYS_sendmmsg, 1, buffer, 0xffffffff, 0) > 0;
    bad += syscall(SYS_mq_open, "q", O_CREAT, 0600, NULL) >= 0;
    bad += syscall(SYS_sched_setaffinity, 0, 1UL << 40, buffer) < -1;
    bad += syscall(SYS_sethostname, buffer, 1 << 20) >= 0;
    bad += syscall(SYS_mount, buffer, buffer, buffer, 0, -1L) >= 0;
    end(bad == 0);
    return 0;
}

static const struct {
    const char *name;
    int (*one)(long);
    long most;
} kinds[] = {
    {"tmpfs", tmpfs, 1 << 20}, {"memfd", memfd, 1 << 20}, {"names", names, 5000}, {"pipes", pipes, 1 << 20}, {"sockets", sockets, 1 << 20},
    {"cycles", cycles, 1000}, {"chain", chain, 200}, {"mounts", mounts, 3000}, {"binds", binds, 64}, {"deep", deep, 1000},
    {"mappings", mappings, 5000}, {"timers", timers, 5000}, {"signals", signals, 5000}, {"locks", locks, 1000},
    {"attributes", attributes, 100000}, {"descriptors", descriptors, 5000}, {"nested-epoll", nested_epoll, 10000}, {"links", links, 10000},
    {"backlog", backlog, 1 << 20}, {"children", children, 1 << 17}, {"sizes", sizes, 1},
};

int main(int argc, char **argv) {
    struct rlimit files = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    mkdir("/tmp/fill", 0755);
    if (argc != 2 || chdir("/tmp/fill"))
        return 2;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, argv[1])) {
            for (long n = 0; n < kinds[i].most; n++)
                if (!kinds[i].one(n)) {
                    fprintf(stderr, "%ld: %s\n", n, strerror(errno));
                    end(1);
                }
            end(0);
        }
    return 2;
}
