// pipe2(2), pipe(7): flags, capacity, atomic writes, end of file, EPIPE and SIGPIPE, FIONREAD, FIFOs. fifo(7).
#include "../check.h"
#include <sys/ioctl.h>

static char buf[1 << 20];
static volatile int sigpipes;
static void on_pipe(int sig) { (void)sig; sigpipes++; }

int main(void) {
    int p[2], n;
    tmp_enter();
    RET("pipe2", pipe2(p, O_CLOEXEC | O_NONBLOCK));
    RET("pipe2.bad_flags", pipe2(p, O_APPEND));
    RET("pipe2.bad_pointer", syscall(SYS_pipe2, 8, 0));
    val("flags", "%d %d %#x %#x", fcntl(p[0], F_GETFD), fcntl(p[1], F_GETFD), fcntl(p[0], F_GETFL), fcntl(p[1], F_GETFL));
    RET("empty.read", read(p[0], buf, 1));
    RET("wrong_way.read", read(p[1], buf, 1));
    RET("wrong_way.write", write(p[0], buf, 1));
    RET("zero.write", write(p[1], buf, 0));
    RET("zero.read", read(p[0], buf, 0));
    struct stat st;
    fstat(p[0], &st);
    val("stat", "%o size %ld blksize %ld", st.st_mode, (long)st.st_size, (long)st.st_blksize);
    RET("getpipe_sz", fcntl(p[0], F_GETPIPE_SZ));
    RET("fill", write(p[1], buf, sizeof buf));
    RET("full.write", write(p[1], buf, 1));
    RET("full.fionread", ({ ioctl(p[0], FIONREAD, &n); n; }));
    RET("drain", read(p[0], buf, sizeof buf));
    RET("setpipe_sz.4096", fcntl(p[0], F_SETPIPE_SZ, 4096));
    RET("setpipe_sz.5000", fcntl(p[0], F_SETPIPE_SZ, 5000));
    RET("setpipe_sz.100", fcntl(p[0], F_SETPIPE_SZ, 100));
    RET("setpipe_sz.0", fcntl(p[0], F_SETPIPE_SZ, 0));
    RET("setpipe_sz.huge", fcntl(p[0], F_SETPIPE_SZ, 0x80000001U));
    RET("setpipe_sz.get", fcntl(p[1], F_GETPIPE_SZ));
    RET("setpipe_sz.not_pipe", fcntl(MUST(open("/dev/null", O_RDONLY)), F_GETPIPE_SZ));
    RET("small.fill", write(p[1], buf, 8192));
    RET("small.shrink_below_content", ({ fcntl(p[0], F_SETPIPE_SZ, 16384); write(p[1], buf, 12288); fcntl(p[0], F_SETPIPE_SZ, 4096); }));
    RET("small.drain", read(p[0], buf, sizeof buf));

    // Atomicity: up to PIPE_BUF all or nothing, more is taken in part.
    fcntl(p[0], F_SETPIPE_SZ, 8192);
    MUST(write(p[1], buf, 4096 + 1000));
    RET("atomic.pipe_buf_does_not_fit", write(p[1], buf, 4096));
    RET("atomic.fits", write(p[1], buf, 3000));
    RET("atomic.drain", read(p[0], buf, sizeof buf));
    RET("partial.more_than_fits", write(p[1], buf, 10000));
    RET("partial.drain", read(p[0], buf, sizeof buf));
    // Two small writes are read as one stream.
    write(p[1], "ab", 2);
    write(p[1], "cd", 2);
    RET("stream.read3", read(p[0], buf, 3));
    val("stream.content", "%.3s", buf);
    RET("stream.rest", read(p[0], buf, 10));
    // Packets.
    int d[2];
    MUST(pipe2(d, O_DIRECT | O_NONBLOCK));
    write(d[1], "one", 3);
    write(d[1], "three", 5);
    RET("packet.first", read(d[0], buf, 10));
    RET("packet.cut", read(d[0], buf, 2));
    RET("packet.rest_is_lost", read(d[0], buf, 10));

    // Ends.
    write(p[1], "xy", 2);
    close(p[1]);
    RET("eof.data_first", read(p[0], buf, 10));
    RET("eof.then_zero", read(p[0], buf, 10));
    close(p[0]);
    MUST(pipe(p));
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    RET("epipe.ignored", write(p[1], "x", 1));
    RET("epipe.zero_bytes", write(p[1], "x", 0));
    signal(SIGPIPE, on_pipe);
    RET("epipe.handler", write(p[1], "x", 1));
    val("epipe.signals", "%d", sigpipes);
    val("epipe.default", "%s", wname(CHILD(signal(SIGPIPE, SIG_DFL); write(p[1], "x", 1))));
    // A blocked reader sees the end when the last writer goes; a blocked writer gets EPIPE.
    MUST(pipe(p));
    pid_t me = getpid(), pid = fork();
    if (pid == 0) {
        close(p[0]);
        wait_blocked(me, me);
        _exit(0);
    }
    close(p[1]);
    RET("blocked_reader.end", read(p[0], buf, 1));
    wait_for(pid);
    MUST(pipe(p));
    fcntl(p[1], F_SETPIPE_SZ, 4096);
    pid = fork();
    if (pid == 0) {
        close(p[1]);
        wait_blocked(me, me);
        read(p[0], buf, 100); // frees nothing: the page is not empty
        read(p[0], buf, 4096 - 100);
        wait_blocked(me, me);
        _exit(0);
    }
    close(p[0]);
    sigpipes = 0;
    RET("blocked_writer.partial", write(p[1], buf, 3 * 4096));
    val("blocked_writer.signals", "%d", sigpipes);
    wait_for(pid);
    // A large transfer through a small pipe.
    MUST(pipe(p));
    fcntl(p[1], F_SETPIPE_SZ, 4096);
    pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 300000; i++) buf[i] = i * 7;
        _exit(write(p[1], buf, 300000) == 300000 ? 0 : 1);
    }
    close(p[1]);
    long sum = 0, total = 0;
    for (ssize_t r; (r = read(p[0], buf, 7777)) > 0; total += r)
        for (int i = 0; i < r; i++) sum += (unsigned char)buf[i] * ((total + i) % 13);
    val("transfer", "%ld bytes sum %ld %s", total, sum, wname(wait_for(pid)));

    // FIFOs.
    MUST(mkfifo("fifo", 0600));
    RET("fifo.exists", mkfifo("fifo", 0600));
    RET("fifo.nonblock_write_no_reader", open("fifo", O_WRONLY | O_NONBLOCK));
    int r = OK("fifo.nonblock_read", open("fifo", O_RDONLY | O_NONBLOCK));
    RET("fifo.read_no_writer", read(r, buf, 1));
    int w = OK("fifo.nonblock_write", open("fifo", O_WRONLY | O_NONBLOCK));
    RET("fifo.read_empty", read(r, buf, 1));
    RET("fifo.write", write(w, "abc", 3));
    RET("fifo.read", read(r, buf, 10));
    close(w);
    RET("fifo.read_after_writer_left", read(r, buf, 1));
    w = MUST(open("fifo", O_WRONLY));
    write(w, "left", 4);
    close(w);
    close(r);
    r = MUST(open("fifo", O_RDONLY | O_NONBLOCK));
    RET("fifo.content_is_gone", read(r, buf, 10));
    close(r);
    int rw = OK("fifo.rdwr", open("fifo", O_RDWR));
    write(rw, "self", 4);
    RET("fifo.rdwr_read", read(rw, buf, 10));
    close(rw);
    pid = fork();
    if (pid == 0) {
        w = open("fifo", O_WRONLY);
        _exit(write(w, "from child", 10) == 10 ? 0 : 1);
    }
    r = OK("fifo.blocking_open", open("fifo", O_RDONLY));
    RET("fifo.blocking_read", read(r, buf, 100));
    RET("fifo.end", read(r, buf, 100));
    val("fifo.child", "%s", wname(wait_for(pid)));
    RET("fifo.lseek", lseek(r, 0, SEEK_SET));
    RET("fifo.ftruncate", ftruncate(r, 0));
    fstat(r, &st);
    val("fifo.mode", "%o", st.st_mode);
    unlink("fifo");
    // Opening a pipe again through /proc.
    MUST(pipe(p));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", p[1]);
    w = OK("reopen.write_end", open(path, O_WRONLY));
    write(w, "re", 2);
    RET("reopen.read", read(p[0], buf, 10));
    ssize_t len = readlink(path, buf, 100);
    buf[len > 0 ? len : 0] = 0;
    val("link", "%.6s", buf);
    return 0;
}
