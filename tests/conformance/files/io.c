// read, write, pread, pwrite, lseek and the vectored calls: positions, holes, short counts, errnos. readv(2), lseek(2).
#include "../check.h"
#include <sys/uio.h>

int main(void) {
    tmp_enter();
    char buf[64] = {0};
    int fd = MUST(open("f", O_RDWR | O_CREAT, 0644));
    RET("write", write(fd, "0123456789", 10));
    RET("position", lseek(fd, 0, SEEK_CUR));
    RET("read.at_end", read(fd, buf, 10));
    RET("read.at_end_null", syscall(SYS_read, fd, NULL, 1));
    RET("lseek.set", lseek(fd, 4, SEEK_SET));
    RET("read.short", read(fd, buf, 60));
    val("read.content", "%.6s", buf);
    RET("lseek.end", lseek(fd, -3, SEEK_END));
    RET("lseek.cur", lseek(fd, -2, SEEK_CUR));
    RET("lseek.negative", lseek(fd, -100, SEEK_CUR));
    RET("lseek.beyond", lseek(fd, 100, SEEK_SET));
    RET("read.beyond", read(fd, buf, 1));
    RET("write.beyond", write(fd, "X", 1));
    RET("size", lseek(fd, 0, SEEK_END));
    RET("hole.read", pread(fd, buf, 1, 50));
    val("hole.byte", "%d", buf[0]);
    RET("lseek.bad_whence", lseek(fd, 0, 99));
    RET("lseek.data_at_end", lseek(fd, 101, SEEK_DATA));
    RET("lseek.hole_at_end", lseek(fd, 101, SEEK_HOLE));
    RET("lseek.hole_last", lseek(fd, 100, SEEK_HOLE));
    RET("lseek.data_negative", lseek(fd, -1, SEEK_DATA));
    RET("pread.negative", pread(fd, buf, 1, -1));
    RET("pwrite.negative", pwrite(fd, buf, 1, -1));
    RET("pread.beyond", pread(fd, buf, 1, 1 << 20));
    RET("pwrite", pwrite(fd, "ab", 2, 3));
    RET("pread", pread(fd, buf, 4, 2));
    val("pread.content", "%.4s", buf);
    RET("read.zero", read(fd, NULL, 0));
    RET("write.zero", write(fd, NULL, 0));
    RET("read.bad_fd", read(999, buf, 1));
    RET("write.bad_fd", write(-1, buf, 1));
    RET("read.bad_buffer", ({ lseek(fd, 0, SEEK_SET); syscall(SYS_read, fd, 8, 4); }));
    RET("write.bad_buffer", syscall(SYS_write, fd, 8, 4));
    RET("read.kernel_buffer", syscall(SYS_read, fd, 0xffff800000000000UL, 4));
    RET("read.huge_count", syscall(SYS_read, fd, buf, -1L));

    // A buffer that ends at an unmapped page: as much as fits.
    char *m = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(m + PAGE, PAGE);
    memset(m, 'm', PAGE);
    lseek(fd, 0, SEEK_SET);
    RET("read.across_edge", read(fd, m + PAGE - 4, 10));
    int p[2];
    MUST(pipe(p));
    RET("write.fits_edge", write(p[1], m + PAGE - 4, 4));
    RET("read.fits_edge", read(p[0], m + PAGE - 4, 4));
    RET("write.whole_beyond", write(p[1], m + PAGE, 4));

    // Vectors.
    lseek(fd, 0, SEEK_SET);
    char a[4] = {0}, b[8] = {0};
    struct iovec iov[3] = {{a, 3}, {NULL, 0}, {b, 4}};
    RET("readv", readv(fd, iov, 3));
    val("readv.content", "%s %s", a, b);
    RET("readv.position", lseek(fd, 0, SEEK_CUR));
    RET("readv.zero_count", readv(fd, iov, 0));
    RET("readv.negative_count", syscall(SYS_readv, fd, iov, -1));
    RET("readv.too_many", syscall(SYS_readv, fd, iov, 1025));
    RET("readv.bad_vector", syscall(SYS_readv, fd, 8, 1));
    RET("readv.bad_vector_zero", syscall(SYS_readv, fd, 8, 0));
    struct iovec neg = {a, (size_t)-1};
    RET("readv.negative_length", readv(fd, &neg, 1));
    struct iovec over[2] = {{a, 0x7fffffffffffffff}, {b, 0x7fffffffffffffff}};
    RET("writev.bad_fd_comes_first", writev(999, over, 2));
    struct iovec bad2[2] = {{a, 3}, {(void *)8, 3}};
    lseek(fd, 0, SEEK_SET);
    RET("readv.second_bad", readv(fd, bad2, 2));
    struct iovec wv[2] = {{"one", 3}, {"two", 3}};
    int g = MUST(open("g", O_RDWR | O_CREAT, 0644));
    RET("writev", writev(g, wv, 2));
    RET("pwritev", pwritev(g, wv, 2, 10));
    RET("pwritev.position", lseek(g, 0, SEEK_CUR));
    RET("preadv", preadv(g, iov, 3, 9));
    RET("preadv.negative", preadv(g, iov, 1, -1));
    RET("preadv2.minus_one_uses_position", preadv2(g, iov, 1, -1, 0));
    RET("preadv2.moved", lseek(g, 0, SEEK_CUR));
    RET("preadv2.minus_two", preadv2(g, iov, 1, -2, 0));
    RET("preadv2.bad_flag", preadv2(g, iov, 1, 0, 0x4000));
    RET("preadv2.hipri", preadv2(g, iov, 1, 0, RWF_HIPRI) >= 0 ? 0 : -2);
    RET("preadv2.append_on_read", preadv2(g, iov, 1, 0, RWF_APPEND) >= 0 ? 0 : -2);
    RET("pwritev2.append", pwritev2(g, wv, 1, 0, RWF_APPEND));
    RET("pwritev2.append_size", lseek(g, 0, SEEK_END));
    RET("pwritev2.sync", pwritev2(g, wv, 1, 0, RWF_SYNC | RWF_DSYNC));
    RET("preadv.pipe", preadv(p[0], iov, 1, 0));
    RET("pread.pipe", pread(p[0], buf, 1, 0));
    RET("lseek.pipe", lseek(p[0], 0, SEEK_CUR));
    RET("preadv2.pipe_minus_one", ({ write(p[1], "pp", 2); preadv2(p[0], iov, 1, -1, 0); }));

    // Limits. They would hold for standard output too, so the results are printed when the limit is gone.
    CHILD(struct rlimit rl = {20, RLIM_INFINITY}; signal(SIGXFSZ, SIG_IGN); int h = open("h", O_RDWR | O_CREAT, 0600); memset(m, 'z', 64);
          setrlimit(RLIMIT_FSIZE, &rl); long w = write(h, m, 64); int w2 = write(h, m, 1) < 0 ? errno : 0, t = ftruncate(h, 21) < 0 ? errno : 0, t2 = ftruncate(h, 20) < 0 ? errno : 0;
          rl.rlim_cur = RLIM_INFINITY; setrlimit(RLIMIT_FSIZE, &rl); val("fsize.partial", "%ld", w); val("fsize.at_limit", "%s", ename(w2));
          val("fsize.truncate", "%s", ename(t)); val("fsize.truncate_to_limit", "%s", ename(t2)));
    val("fsize.signal", "%s", wname(CHILD(struct rlimit rl = {5, 5}; setrlimit(RLIMIT_FSIZE, &rl);
                                          int h = open("h2", O_RDWR | O_CREAT, 0600); write(h, m, 5); write(h, m, 1))));
    RET("write.offset_overflow", pwrite(fd, "x", 1, 0x7fffffffffffffff));
    RET("lseek.overflow", ({ lseek(fd, 10, SEEK_SET); lseek(fd, 0x7fffffffffffffff, SEEK_CUR); }));

    // The position belongs to the open file description: shared by dup and fork, not by a second open.
    lseek(fd, 0, SEEK_SET);
    int d = dup(fd), o = open("f", O_RDONLY);
    read(fd, buf, 2);
    RET("dup.shares", lseek(d, 0, SEEK_CUR));
    RET("open.own", lseek(o, 0, SEEK_CUR));
    CHILD(read(fd, buf, 3));
    RET("fork.shares", lseek(fd, 0, SEEK_CUR));
    CHILD(close(fd));
    OK("fork.close_is_own", lseek(fd, 0, SEEK_CUR));
    return 0;
}
