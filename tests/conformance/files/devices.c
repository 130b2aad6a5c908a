// /dev/null, zero, full, random, urandom, fd, stdin, tty, shm, ptmx: reads, writes, seeks, getrandom(2). null(4), full(4),
// random(4).
#include "../check.h"
#include <sys/ioctl.h>
#include <sys/random.h>

static void kind(const char *path) {
    struct stat st;
    char name[64];
    snprintf(name, sizeof name, "stat.%s", path + 5);
    if (stat(path, &st)) val(name, "-1 %s", ename(errno));
    else val(name, "%o %u:%u", st.st_mode & S_IFMT, (unsigned)(st.st_rdev >> 8 & 0xfff), (unsigned)(st.st_rdev & 0xff));
}

int main(void) {
    char b[256];
    kind("/dev/null");
    kind("/dev/zero");
    kind("/dev/full");
    kind("/dev/random");
    kind("/dev/urandom");
    kind("/dev/tty");
    int n = MUST(open("/dev/null", O_RDWR)), z = MUST(open("/dev/zero", O_RDWR)), f = MUST(open("/dev/full", O_RDWR)), u = MUST(open("/dev/urandom", O_RDWR));
    RET("null.read", read(n, b, 10));
    RET("null.write", write(n, b, 10));
    RET("null.write_bad_pointer", syscall(SYS_write, n, 8, 10));
    RET("null.lseek", lseek(n, 100, SEEK_SET));
    RET("null.lseek_end", lseek(n, 5, SEEK_END));
    RET("null.pread", pread(n, b, 10, 5));
    RET("null.ftruncate", ftruncate(n, 5));
    RET("null.fsync", fsync(n));
    RET("null.ioctl", ioctl(n, 0x5401, b));
    RET("null.trunc_create", open("/dev/null", O_RDWR | O_TRUNC | O_CREAT, 0600) >= 0 ? 0 : -1);
    RET("null.append", write(open("/dev/null", O_WRONLY | O_APPEND), b, 5));
    memset(b, 'x', sizeof b);
    RET("zero.read", read(z, b, 100));
    val("zero.content", "%d %d %c", b[0], b[99], b[100]);
    RET("zero.write", write(z, b, 10));
    RET("zero.lseek", lseek(z, 100, SEEK_SET));
    RET("zero.read_bad_pointer", syscall(SYS_read, z, 8, 10));
    char *m = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(m + PAGE, PAGE);
    RET("zero.read_to_edge", read(z, m + PAGE - 10, 100));
    RET("full.read", read(f, b, 10));
    val("full.content", "%d", b[0]);
    RET("full.write", write(f, b, 10));
    RET("full.write_zero", write(f, b, 0));
    RET("full.lseek", lseek(f, 5, SEEK_SET));
    memset(b, 0, sizeof b);
    RET("urandom.read", read(u, b, 64));
    int nz = 0;
    for (int i = 0; i < 64; i++) nz += b[i] != 0;
    YES("urandom.random", nz > 40);
    RET("urandom.write", write(u, b, 10));
    RET("urandom.big_read", ({ static char big[1 << 20]; read(u, big, sizeof big); }));
    RET("random.read", ({ int r = open("/dev/random", O_RDONLY); read(r, b, 16); }));
    struct pollfd p = {u, POLLIN | POLLOUT, 0};
    RET("urandom.poll", poll(&p, 1, 0));
    RET("getrandom", getrandom(b, 64, 0));
    RET("getrandom.random", getrandom(b, 16, GRND_RANDOM));
    RET("getrandom.nonblock", getrandom(b, 16, GRND_NONBLOCK));
    RET("getrandom.insecure", getrandom(b, 16, 4));
    RET("getrandom.bad_flags", getrandom(b, 16, 0x10));
    RET("getrandom.both", getrandom(b, 16, 2 | 4));
    RET("getrandom.zero", getrandom(b, 0, 0));
    RET("getrandom.bad_pointer", syscall(SYS_getrandom, 8, 16, 0));
    char c[16], d[16];
    getrandom(c, 16, 0);
    getrandom(d, 16, 0);
    YES("getrandom.differs", memcmp(c, d, 16));
    int pfd[2];
    MUST(pipe(pfd));
    getrandom(c, 16, 0);
    CHILD(getrandom(d, 16, 0); write(pfd[1], d, 16));
    read(pfd[0], c, 16);
    getrandom(d, 16, 0);
    YES("getrandom.child_differs", memcmp(c, d, 16));
    // Aliases.
    ssize_t l = readlink("/dev/fd", b, sizeof b - 1);
    b[l > 0 ? l : 0] = 0;
    val("dev_fd", "%s", b);
    l = readlink("/dev/stdin", b, sizeof b - 1);
    b[l > 0 ? l : 0] = 0;
    val("dev_stdin", "%s", b);
    write(pfd[1], "via", 3);
    snprintf(b, sizeof b, "/dev/fd/%d", pfd[0]);
    RET("dev_fd.open", ({ int x = open(b, O_RDONLY); read(x, c, 10); }));
    struct stat st;
    RET("shm", stat("/dev/shm", &st));
    val("shm.mode", "%o", st.st_mode);
    RET("ptmx", ({ int x = open("/dev/ptmx", O_RDWR | O_NOCTTY); x >= 0 ? (close(x), 0) : -1; }));
    RET("pts", stat("/dev/pts", &st));
    return 0;
}
