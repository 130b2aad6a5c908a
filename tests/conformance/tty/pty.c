// A pseudo-terminal pair and its line discipline: canonical and raw input, echo, erase, end of file, window size,
// signals from the keyboard, hang-up. pty(7), termios(3), ioctl_tty(2).
#include "../check.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int m, s;
static char b[4096];

static void text(const char *name, ssize_t n) {
    char out[512] = "";
    size_t o = 0;
    if (n < 0) {
        val(name, "-1 %s", ename(errno));
        return;
    }
    for (ssize_t i = 0; i < n && o < sizeof out - 8; i++) {
        unsigned char c = b[i];
        if (c >= 32 && c < 127) out[o++] = c;
        else o += snprintf(out + o, 8, "\\x%02x", c);
    }
    out[o] = 0;
    val(name, "%zd [%s]", n, out);
}
// What the master has to read: what is echoed is there when write returns, but output processing may be deferred.
static void master_shows(const char *name, size_t want) {
    size_t have = 0;
    while (have < want) {
        ssize_t n = read(m, b + have, want - have);
        if (n <= 0) break;
        have += n;
    }
    text(name, have);
}
static void type(const char *t) { MUST(write(m, t, strlen(t))); }
static ssize_t slave_reads(size_t n) {
    struct pollfd p = {s, POLLIN, 0};
    poll(&p, 1, -1);
    return read(s, b, n);
}
static void settle(void) {
    // Input may cross a work queue: wait until it is readable.
    struct pollfd p = {s, POLLIN, 0};
    poll(&p, 1, -1);
}
static struct termios tio;
static void set(void (*change)(void)) {
    tcgetattr(s, &tio);
    change();
    tcsetattr(s, TCSANOW, &tio);
}
static void no_echo(void) { tio.c_lflag &= ~(ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE); }
static void raw(void) { cfmakeraw(&tio); }
static void cooked(void) { tio.c_iflag = ICRNL | IXON; tio.c_oflag = OPOST | ONLCR; tio.c_lflag = ISIG | ICANON | IEXTEN; tio.c_cc[VMIN] = 1; tio.c_cc[VTIME] = 0; }
static void min0(void) { tio.c_cc[VMIN] = 0; tio.c_cc[VTIME] = 0; }
static void time1(void) { tio.c_cc[VMIN] = 0; tio.c_cc[VTIME] = 1; }
static void min3(void) { tio.c_cc[VMIN] = 3; tio.c_cc[VTIME] = 0; }
static void no_onlcr(void) { tio.c_oflag &= ~ONLCR; }
static void upper(void) { tio.c_iflag |= INLCR; tio.c_iflag &= ~ICRNL; }

int main(void) {
    struct winsize ws = {0};
    // Opening by hand.
    m = OK("posix_openpt", posix_openpt(O_RDWR | O_NOCTTY));
    RET("grantpt", grantpt(m));
    int lock = -1;
    RET("locked", ({ ioctl(m, TIOCGPTLCK, &lock); lock; }));
    char name[64];
    ERR("ptsname", ptsname_r(m, name, sizeof name));
    val("ptsname.prefix", "%.9s", name);
    RET("open_locked", open(name, O_RDWR | O_NOCTTY));
    RET("unlockpt", unlockpt(m));
    s = OK("open", open(name, O_RDWR | O_NOCTTY));
    RET("isatty.slave", isatty(s));
    RET("isatty.master", isatty(m));
    char tn[64];
    ERR("ttyname", ttyname_r(s, tn, sizeof tn));
    YES("ttyname.same", !strcmp(tn, name));
    struct stat st;
    fstat(s, &st);
    val("stat", "type %o major %u", st.st_mode & S_IFMT, (unsigned)(st.st_rdev >> 8 & 0xfff));
    int gp = OK("tiocgptpeer", ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    close(gp);
    RET("tcgetattr", tcgetattr(s, &tio));
    val("default.flags", "i %#o o %#o c %#o l %#o", tio.c_iflag, tio.c_oflag, tio.c_cflag & ~CBAUD, tio.c_lflag);
    val("default.cc", "intr %d quit %d erase %d kill %d eof %d min %d time %d susp %d start %d stop %d", tio.c_cc[VINTR], tio.c_cc[VQUIT], tio.c_cc[VERASE],
        tio.c_cc[VKILL], tio.c_cc[VEOF], tio.c_cc[VMIN], tio.c_cc[VTIME], tio.c_cc[VSUSP], tio.c_cc[VSTART], tio.c_cc[VSTOP]);
    val("default.speed", "%u %u", cfgetospeed(&tio), cfgetispeed(&tio));
    RET("winsize", ioctl(s, TIOCGWINSZ, &ws));
    val("winsize.default", "%u %u", ws.ws_row, ws.ws_col);
    RET("winsize.set", ioctl(m, TIOCSWINSZ, &(struct winsize){24, 80, 0, 0}));
    ioctl(s, TIOCGWINSZ, &ws);
    val("winsize.get", "%u %u", ws.ws_row, ws.ws_col);
    RET("tcgetattr.not_tty", ({ int p[2]; pipe(p); tcgetattr(p[0], &tio); }));

    // Canonical mode with echo.
    type("hello\n");
    master_shows("echo.line", 7);
    text("canonical.line", slave_reads(100));
    type("ab");
    master_shows("echo.part", 2);
    int n = -1;
    ioctl(s, FIONREAD, &n);
    val("canonical.incomplete", "%d", n);
    type("c\x7f\x7fX\n");
    text("canonical.erase", slave_reads(100));
    master_shows("echo.erase", 1 + 3 + 3 + 1 + 2);
    type("one two\x17three\n");
    text("canonical.word_erase", slave_reads(100));
    master_shows("echo.word_erase", 7 + 9 + 5 + 2);
    type("gone\x15kept\n");
    text("canonical.kill", slave_reads(100));
    master_shows("echo.kill", 4 + 12 + 4 + 2);
    type("\x16\x03q\n");
    text("canonical.literal_next", slave_reads(100));
    master_shows("echo.literal_next", 2 + 2 + 1 + 2);
    set(no_echo);
    type("line1\nline2\n");
    settle();
    text("canonical.two_lines_first", slave_reads(100));
    text("canonical.two_lines_second", slave_reads(100));
    type("partial\n");
    text("canonical.short_read", slave_reads(3));
    text("canonical.short_read_rest", slave_reads(100));
    type("\x04");
    text("canonical.eof", slave_reads(100));
    type("abc\x04");
    text("canonical.eof_pushes", slave_reads(100));
    type("cr\r");
    text("icrnl", slave_reads(100));
    set(upper);
    type("nl\n\x04");
    text("inlcr", slave_reads(100));
    set(cooked);
    // Output.
    RET("output.write", write(s, "a\nb", 3));
    master_shows("output.onlcr", 4);
    set(no_onlcr);
    write(s, "a\nb", 3);
    master_shows("output.plain", 3);
    // Raw.
    set(raw);
    type("r\x03\x04\r\n");
    settle();
    size_t have = 0;
    while (have < 5) have += read(s, b + have, 5 - have);
    text("raw", have);
    set(min0);
    text("raw.min0", read(s, b, 10));
    set(time1);
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    text("raw.time1", read(s, b, 10));
    YES("raw.time1_waited", now_ns(CLOCK_MONOTONIC) - t0 >= 90000000);
    set(min3);
    type("xyz");
    text("raw.min3", read(s, b, 10));
    fcntl(s, F_SETFL, O_NONBLOCK);
    text("raw.nonblock", read(s, b, 10));
    fcntl(s, F_SETFL, 0);
    // Flushing and flow.
    type("discard");
    settle();
    RET("tcflush.input", tcflush(s, TCIFLUSH));
    ioctl(s, FIONREAD, &n);
    val("tcflush.left", "%d", n);
    RET("tcflush.bad", tcflush(s, 99));
    RET("tcdrain", tcdrain(s));
    RET("tcsendbreak", tcsendbreak(s, 0));
    RET("tcflow", tcflow(s, TCOON));
    RET("tiocoutq", ({ n = -1; ioctl(s, TIOCOUTQ, &n); n; }));
    RET("tcsetattr.bad_action", tcsetattr(s, 99, &tio));
    // Polling.
    struct pollfd p = {m, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    val("poll.master", "%#x", p.revents);
    p.fd = s;
    poll(&p, 1, 0);
    val("poll.slave", "%#x", p.revents);
    // The master's own view when the last slave goes, and the slave's when the master goes.
    close(s);
    p = (struct pollfd){m, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    val("slave_closed.poll", "%#x", p.revents);
    text("slave_closed.read", read(m, b, 10));
    RET("slave_closed.write", write(m, "x", 1));
    s = OK("slave.reopen", open(name, O_RDWR | O_NOCTTY));
    close(m);
    text("master_closed.read", read(s, b, 10));
    RET("master_closed.write", write(s, "x", 1));
    p = (struct pollfd){s, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    val("master_closed.poll", "%#x", p.revents);
    RET("master_closed.tcgetattr", tcgetattr(s, &tio));
    RET("master_closed.open", open(name, O_RDWR | O_NOCTTY) >= 0 ? 0 : errno == ENOENT || errno == EIO ? 1 : 2);
    // openpty in one go.
    struct termios t2;
    RET("openpty", openpty(&m, &s, NULL, NULL, &(struct winsize){10, 20, 0, 0}));
    ioctl(s, TIOCGWINSZ, &ws);
    val("openpty.winsize", "%u %u", ws.ws_row, ws.ws_col);
    tcgetattr(s, &t2);
    RET("packet_mode", ioctl(m, TIOCPKT, &(int){1}));
    write(s, "pk", 2);
    text("packet_mode.data", read(m, b, 10));
    tcflush(s, TCIFLUSH);
    text("packet_mode.flush", read(m, b, 10));
    return 0;
}
