// Every call that takes a descriptor, on every kind of descriptor: which errno says that it is the wrong kind. All of them
// are non-blocking.
#include "../check.h"
#include <netinet/in.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static char b[4096];
static struct stat st;
static int helper_pipe[2], helper_file;
static int k_closed(void) { return 987; }
static int k_negative(void) { return -1; }
static int k_opath(void) { return open("file", O_PATH); }
static int k_opath_dir(void) { return open("dir", O_PATH); }
static int k_rdonly(void) { return open("file", O_RDONLY); }
static int k_wronly(void) { return open("file", O_WRONLY); }
static int k_rdwr(void) { return open("file", O_RDWR); }
static int k_append(void) { return open("file", O_RDWR | O_APPEND); }
static int k_dir(void) { return open("dir", O_RDONLY); }
static int k_null(void) { return open("/dev/null", O_RDWR); }
static int k_zero(void) { return open("/dev/zero", O_RDWR); }
static int k_pipe_r(void) { int p[2]; MUST(pipe2(p, O_NONBLOCK)); return p[0]; }
static int k_pipe_w(void) { int p[2]; MUST(pipe2(p, O_NONBLOCK)); return p[1]; }
static int k_fifo(void) { return open("fifo", O_RDWR | O_NONBLOCK); }
static int k_stream(void) { int s[2]; MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s)); return s[0]; }
static int k_dgram(void) { int s[2]; MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, s)); return s[0]; }
static int k_unconnected(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0); }
static int k_listening(void) { int s = k_unconnected(); MUST(bind(s, &(struct sockaddr){.sa_family = AF_UNIX}, 2)); MUST(listen(s, 1)); return s; }
static int k_tcp(void) { return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); }
static int k_udp(void) { return socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0); }
static int k_eventfd(void) { return eventfd(3, EFD_NONBLOCK); }
static int k_timerfd(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); }
static int k_epoll(void) { return epoll_create1(0); }
static int k_signalfd(void) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2); return signalfd(-1, &s, SFD_NONBLOCK); }
static int k_memfd(void) { int m = memfd_create("m", MFD_ALLOW_SEALING); MUST(ftruncate(m, 100)); return m; }
static int k_ptm(void) { int m = MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)); MUST(unlockpt(m)); return m; }
static int k_proc(void) { return open("/proc/self/comm", O_RDWR); }
static const struct { const char *name; int (*make)(void); } kinds[] = {
    {"closed", k_closed}, {"negative", k_negative}, {"opath", k_opath}, {"opath_dir", k_opath_dir}, {"rdonly", k_rdonly}, {"wronly", k_wronly}, {"rdwr", k_rdwr}, {"append", k_append}, {"dir", k_dir}, {"null", k_null}, {"zero", k_zero},
    {"pipe_r", k_pipe_r}, {"pipe_w", k_pipe_w}, {"fifo", k_fifo}, {"stream", k_stream}, {"dgram", k_dgram}, {"unconnected", k_unconnected}, {"listening", k_listening}, {"tcp", k_tcp}, {"udp", k_udp},
    {"eventfd", k_eventfd}, {"timerfd", k_timerfd}, {"epoll", k_epoll}, {"signalfd", k_signalfd}, {"memfd", k_memfd}, {"ptm", k_ptm}, {"proc", k_proc},
};

static long zero_or_error(long r) { return r < 0 ? -1 : 0; }
static long o_read0(int f) { return read(f, b, 0); }
static long o_pread(int f) { return zero_or_error(pread(f, b, 4, 0)); }
static long o_pwrite0(int f) { return pwrite(f, b, 0, 0); }
static long o_write0(int f) { return write(f, b, 0); }
static long o_preadv_neg(int f) { struct iovec v = {b, 4}; return preadv(f, &v, 1, -5); }
static long o_lseek(int f) { return zero_or_error(lseek(f, 0, SEEK_CUR)); }
static long o_lseek_data(int f) { return zero_or_error(lseek(f, 0, SEEK_DATA)); }
static long o_fstat(int f) { return fstat(f, &st) ? -1 : st.st_mode >> 12; }
static long o_fstatfs(int f) { struct statfs s; return fstatfs(f, &s); }
static long o_ftruncate(int f) { return ftruncate(f, 100); }
static long o_fallocate(int f) { return fallocate(f, 0, 0, 50); }
static long o_fsync(int f) { return fsync(f); }
static long o_fdatasync(int f) { return fdatasync(f); }
static long o_sync_range(int f) { return sync_file_range(f, 0, 10, SYNC_FILE_RANGE_WRITE); }
static long o_fadvise(int f) { int e = posix_fadvise(f, 0, 0, 0); errno = e; return e ? -1 : 0; }
static long o_readahead(int f) { return readahead(f, 0, 10); }
static long o_fchmod(int f) { return fstat(f, &st) ? -1 : fchmod(f, st.st_mode & 07777); }
static long o_fchown(int f) { return fchown(f, -1, -1); }
static long o_futimens(int f) { return syscall(SYS_utimensat, f, NULL, NULL, 0); }
static long o_fchdir(int f) { long r = fchdir(f); int e = errno; if (!r) MUST(chdir(tmp_path)); errno = e; return r; }
static long o_getdents(int f) { return zero_or_error(syscall(SYS_getdents64, f, b, sizeof b)); }
static long o_openat(int f) { long r = openat(f, "inner", O_RDONLY); if (r >= 0) close(r); return zero_or_error(r); }
static long o_fgetxattr(int f) { return fgetxattr(f, "trusted.none", b, 10) < 0 && (errno == ENODATA || errno == EOPNOTSUPP) ? 0 : -1; }
static long o_flock(int f) { return flock(f, LOCK_SH | LOCK_NB); }
static long o_getlk(int f) { struct flock l = {.l_type = F_WRLCK}; return fcntl(f, F_GETLK, &l); }
static long o_setlk_r(int f) { struct flock l = {.l_type = F_RDLCK}; return fcntl(f, F_SETLK, &l); }
static long o_setlk_w(int f) { struct flock l = {.l_type = F_WRLCK}; return fcntl(f, F_SETLK, &l); }
static long o_getfl(int f) { return fcntl(f, F_GETFL) < 0 ? -1 : fcntl(f, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_PATH); }
static long o_pipe_sz(int f) { return fcntl(f, F_GETPIPE_SZ); }
static long o_fionread(int f) { int n = -1; return ioctl(f, FIONREAD, &n) ? -1 : n; }
static long o_fionbio(int f) { return ioctl(f, FIONBIO, &(int){1}); }
static long o_tcgets(int f) { return ioctl(f, TCGETS, b); }
static long o_unknown_ioctl(int f) { return ioctl(f, 0xdeadbeef, b); }
static long o_mmap_r(int f) { void *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, f, 0); if (p == MAP_FAILED) return -1; munmap(p, PAGE); return 0; }
static long o_mmap_sw(int f) { void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0); if (p == MAP_FAILED) return -1; munmap(p, PAGE); return 0; }
static long o_send0(int f) { return send(f, b, 0, MSG_NOSIGNAL | MSG_DONTWAIT); }
static long o_send1(int f) { return send(f, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT); }
static long o_recv(int f) { return recv(f, b, 1, MSG_DONTWAIT); }
static long o_accept(int f) { return accept4(f, NULL, NULL, SOCK_NONBLOCK); }
static long o_listen(int f) { return listen(f, 1); }
static long o_getsockname(int f) { socklen_t l = sizeof b; return getsockname(f, (void *)b, &l); }
static long o_getpeername(int f) { socklen_t l = sizeof b; return getpeername(f, (void *)b, &l); }
static long o_getsockopt(int f) { int v; socklen_t l = 4; return getsockopt(f, SOL_SOCKET, SO_TYPE, &v, &l) ? -1 : v; }
static long o_setsockopt(int f) { return setsockopt(f, SOL_SOCKET, SO_SNDBUF, &(int){9000}, 4); }
static long o_shutdown(int f) { return shutdown(f, SHUT_RD); }
static long o_connect_unspec(int f) { return connect(f, &(struct sockaddr){.sa_family = AF_UNSPEC}, 2); }
static long o_splice_in(int f) { return zero_or_error(splice(f, NULL, helper_pipe[1], NULL, 4, SPLICE_F_NONBLOCK)); }
static long o_splice_out(int f) { write(helper_pipe[1], "abcd", 4); return zero_or_error(splice(helper_pipe[0], NULL, f, NULL, 4, SPLICE_F_NONBLOCK)); }
static long o_tee_in(int f) { return tee(f, helper_pipe[1], 4, SPLICE_F_NONBLOCK); }
static long o_vmsplice(int f) { struct iovec v = {b, 1}; return vmsplice(f, &v, 1, SPLICE_F_NONBLOCK); }
static long o_sendfile_in(int f) { return zero_or_error(sendfile(helper_pipe[1], f, NULL, 4)); }
static long o_sendfile_out(int f) { off_t o = 0; return zero_or_error(sendfile(f, helper_file, &o, 4)); }
static long o_cfr_in(int f) { loff_t o = 500; return copy_file_range(f, NULL, helper_file, &o, 1, 0) < 0 ? -1 : 0; }
static long o_cfr_out(int f) { loff_t o = 0; return copy_file_range(helper_file, &o, f, NULL, 1, 0) < 0 ? -1 : 0; }
static long o_poll(int f) { struct pollfd p = {f, POLLIN | POLLOUT, 0}; return poll(&p, 1, 0) < 0 ? -1 : p.revents; }
static long o_epoll_add(int f) { int e = epoll_create1(0); long r = epoll_ctl(e, EPOLL_CTL_ADD, f, &(struct epoll_event){.events = EPOLLIN}); int x = errno; close(e); errno = x; return r; }
static long o_epoll_wait(int f) { struct epoll_event e; return epoll_wait(f, &e, 1, 0); }
static long o_timerfd_get(int f) { struct itimerspec i; return timerfd_gettime(f, &i); }
static long o_signalfd(int f) { sigset_t s; sigemptyset(&s); return zero_or_error(signalfd(f, &s, 0)); }
static long o_execveat(int f) { char *av[] = {"x", NULL}; return syscall(SYS_execveat, f, "", av, av + 1, AT_EMPTY_PATH); }
static long o_dup(int f) { long r = dup(f); if (r >= 0) close(r); return zero_or_error(r); }
static long o_pidfd_signal(int f) { return syscall(SYS_pidfd_send_signal, f, 0, NULL, 0); }
static long o_readlinkat(int f) { return zero_or_error(readlinkat(f, "", b, 10)); }
static long o_fstatat_empty(int f) { return fstatat(f, "", &st, AT_EMPTY_PATH); }
static long o_close(int f) { return close(f); }

static const struct { const char *name; long (*fn)(int); } ops[] = {
#define O(x) {#x, o_##x}
    O(read0), O(pread), O(write0), O(pwrite0), O(preadv_neg), O(lseek), O(lseek_data), O(fstat), O(fstatfs), O(ftruncate), O(fallocate), O(fsync), O(fdatasync), O(sync_range), O(fadvise), O(readahead), O(fchmod), O(fchown), O(futimens), O(fchdir),
    O(getdents), O(openat), O(fgetxattr), O(flock), O(getlk), O(setlk_r), O(setlk_w), O(getfl), O(pipe_sz), O(fionread), O(fionbio), O(tcgets), O(unknown_ioctl), O(mmap_r), O(mmap_sw), O(send0), O(send1), O(recv), O(accept), O(listen),
    O(getsockname), O(getpeername), O(getsockopt), O(setsockopt), O(shutdown), O(connect_unspec), O(splice_in), O(splice_out), O(tee_in), O(vmsplice), O(sendfile_in), O(sendfile_out), O(cfr_in), O(cfr_out), O(poll), O(epoll_add), O(epoll_wait),
    O(timerfd_get), O(signalfd), O(execveat), O(dup), O(pidfd_signal), O(readlinkat), O(fstatat_empty), O(close),
};

// Pairs whose answer differs between kernel versions or file systems.
static bool varies(int (*kind)(void), long (*op)(int)) {
    if (kind == k_dir && op == o_lseek_data) return true;
    if (kind == k_zero) return op == o_splice_in || op == o_splice_out || op == o_sendfile_in || op == o_sendfile_out;
    if (kind == k_eventfd || kind == k_timerfd || kind == k_epoll || kind == k_signalfd)
        if (op == o_fchmod || op == o_fchown || op == o_futimens) return true;
    return kind == k_epoll && (op == o_fionread || op == o_tcgets || op == o_unknown_ioctl);
}
static void restore_file(const char *text) {
    int f = MUST(open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    MUST(pwrite(f, text, 100, 0));
    MUST(ftruncate(f, 100));
    close(f);
}

int main(void) {
    tmp_enter();
    signal(SIGPIPE, SIG_IGN);
    put_file("helper", "0123456789", 0644);
    MUST(mkdir("dir", 0755));
    put_file("dir/inner", "x", 0644);
    MUST(mkfifo("fifo", 0644));
    for (size_t k = 0; k < COUNT(kinds); k++)
        // A process for each kind, so that descriptors and locks do not pile up.
        CHILD(for (size_t o = 0; o < COUNT(ops); o++) {
            if (varies(kinds[k].make, ops[o].fn)) continue;
            char text[101];
            memset(text, 'f', 100);
            text[100] = 0;
            restore_file(text);
            MUST(pipe2(helper_pipe, O_NONBLOCK | O_CLOEXEC));
            helper_file = MUST(open("helper", O_RDWR | O_CLOEXEC));
            int f = kinds[k].make();
            char name[64];
            snprintf(name, sizeof name, "%s %s", kinds[k].name, ops[o].name);
            RET(name, ops[o].fn(f));
            close(f);
            close(helper_pipe[0]);
            close(helper_pipe[1]);
            close(helper_file);
        });
    return 0;
}
