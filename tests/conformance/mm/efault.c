// System calls whose buffers end at, or reach over, an unmapped page: partial results, or EFAULT, and nothing written
// where it must not be.
#include "../fault.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/epoll.h>

static char *edge; // first unmapped byte

int main(void) {
    tmp_enter();
    char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(m + 2 * PAGE, 2 * PAGE);
    edge = m + 2 * PAGE;
    int p[2], sv[2];
    MUST(pipe2(p, O_NONBLOCK));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    // Strings and structures that end exactly at the edge are fine.
    strcpy(edge - 10, "/dev/null");
    OK("open.path_at_edge", open(edge - 10, O_RDONLY));
    memcpy(edge - 9, "/dev/null", 9);
    RET("open.unterminated", open(edge - 9, O_RDONLY));
    RET("stat.fits", stat("/", (struct stat *)(edge - sizeof(struct stat))));
    RET("stat.one_over", syscall(SYS_stat, "/", edge - sizeof(struct stat) + 1));
    RET("uname.fits", uname((struct utsname *)(edge - sizeof(struct utsname))));
    RET("uname.one_over", syscall(SYS_uname, edge - sizeof(struct utsname) + 1));
    RET("pipe2.fits", syscall(SYS_pipe2, edge - 8, 0));
    RET("pipe2.one_over", syscall(SYS_pipe2, edge - 7, 0));
    RET("clock_gettime.fits", syscall(SYS_clock_gettime, 1, edge - 16));
    RET("clock_gettime.over", syscall(SYS_clock_gettime, 1, edge - 8));
    RET("getcwd.fits", ({ chdir("/"); syscall(SYS_getcwd, edge - 2, 100); }));
    RET("getcwd.over", syscall(SYS_getcwd, edge - 1, 100));
    // Bytes.
    memset(m, 'q', 2 * PAGE);
    RET("pipe_write.across", write(p[1], edge - 5, 10));
    RET("pipe_write.drained", ({ char b[64]; read(p[0], b, 64); }));
    RET("pipe_write.page_and_more", write(p[1], edge - PAGE, PAGE + 5));
    RET("pipe_read.across", ({ char b[8192]; read(p[0], b, sizeof b); MUST(write(p[1], "0123456789", 10)); read(p[0], edge - 4, 10); }));
    RET("pipe_read.left", ({ char b[64]; read(p[0], b, 64); }));
    RET("socket_write.across", write(sv[0], edge - 5, 10));
    RET("socket_write.arrived", ({ char b[64]; recv(sv[1], b, 64, MSG_DONTWAIT); }));
    put_file(strcat(strcpy(m, tmp_path), "/f"), "0123456789", 0600);
    int f = MUST(open(m, O_RDWR));
    RET("file_read.across", read(f, edge - 4, 10));
    RET("file_read.position", lseek(f, 0, SEEK_CUR));
    RET("file_read.wholly_bad", read(f, edge, 4));
    RET("file_read.position_same", lseek(f, 0, SEEK_CUR));
    RET("file_write.wholly_bad", pwrite(f, edge, 4, 0));
    struct stat st;
    fstat(f, &st);
    val("file.size", "%ld", (long)st.st_size);
    RET("zero_read.across", read(open("/dev/zero", O_RDONLY), edge - 100, 200));
    RET("null_write.beyond", write(open("/dev/null", O_WRONLY), edge, 200));
    // Vectors: good pieces before the bad one count.
    lseek(f, 0, SEEK_SET);
    struct iovec v[3] = {{m, 2}, {edge - 2, 2}, {edge, 2}};
    RET("readv.good_then_bad", readv(f, v, 3));
    RET("writev.good_then_bad", writev(p[1], v, 3));
    RET("readv.vector_at_edge", readv(f, memcpy(edge - sizeof v[0], v, sizeof v[0]), 1));
    RET("readv.vector_over_edge", syscall(SYS_readv, f, edge - sizeof v[0], 2));
    // Arrays of structures.
    MUST(write(p[1], "x", 1));
    struct pollfd *pf = (void *)(edge - sizeof *pf);
    *pf = (struct pollfd){p[0], POLLIN, 0};
    RET("poll.fits", poll(pf, 1, 0));
    RET("poll.over", syscall(SYS_poll, pf, 2, 0));
    int ep = epoll_create1(0);
    epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &(struct epoll_event){.events = EPOLLIN});
    RET("epoll_wait.fits", syscall(SYS_epoll_wait, ep, edge - 12, 1, 0));
    RET("epoll_wait.max_reaches_over_but_one_event", syscall(SYS_epoll_wait, ep, edge - 12, 5, 0));
    RET("epoll_wait.over", syscall(SYS_epoll_wait, ep, edge - 4, 1, 0));
    RET("getsockname.over", ({ *(int *)m = 100; syscall(SYS_getsockname, sv[0], edge - 1, m); }));
    RET("getsockopt.length_pointer", syscall(SYS_getsockopt, sv[0], SOL_SOCKET, SO_TYPE, m, edge));
    RET("select.over", syscall(SYS_select, 64, edge - 4, NULL, NULL, &(struct timeval){0}));
    RET("sigprocmask.over", syscall(SYS_rt_sigprocmask, SIG_BLOCK, edge - 4, NULL, 8));
    RET("nanosleep.over", syscall(SYS_nanosleep, edge - 8, NULL));
    RET("wait4.over", syscall(SYS_wait4, -1, edge, WNOHANG, NULL));
    RET("getrandom.over", syscall(SYS_getrandom, edge - 4, 8, 0));
    RET("prlimit.over", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, edge - 8));
    RET("sendmsg.over", syscall(SYS_sendmsg, sv[0], edge - 8, 0));
    RET("ioctl.over", syscall(SYS_ioctl, p[0], 0x541b, edge - 2));
    RET("futex.over", syscall(SYS_futex, edge, 0, 0, NULL, NULL, 0));
    // Read-only memory.
    char *ro = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RET("readonly.read", ({ lseek(f, 0, SEEK_SET); read(f, ro, 4); }));
    RET("readonly.write_from", write(p[1], ro, 4));
    RET("readonly.stat", syscall(SYS_stat, "/", ro));
    RET("readonly.clock_gettime", syscall(SYS_clock_gettime, 1, ro));
    RET("null.read", ({ lseek(f, 0, SEEK_SET); syscall(SYS_read, f, NULL, 4); }));
    RET("null.clock_gettime", syscall(SYS_clock_gettime, 1, NULL));
    chdir(tmp_path);
    return 0;
}
