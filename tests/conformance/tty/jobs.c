// Sessions, controlling terminals and job control: setsid, TIOCSCTTY, foreground groups, SIGTTIN, SIGTTOU, SIGINT,
// SIGTSTP, SIGWINCH, hang-up, /dev/tty. credentials(7), tty_ioctl(4).
#include "../check.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int m, s;
static volatile int got[65];
static void note(int sig) { got[sig]++; }
static void await(int sig) {
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, sig);
    sigprocmask(SIG_BLOCK, &set, &old);
    sigdelset(&old, sig);
    while (!got[sig]) sigsuspend(&old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    got[sig] = 0;
}

static void leader(void) {
    int st;
    RET("setsid", setsid() == getpid() ? 0 : -1);
    RET("setsid.again", setsid());
    RET("dev_tty.without", open("/dev/tty", O_RDWR));
    RET("tcgetpgrp.without", tcgetpgrp(s));
    RET("tcsetpgrp.without", tcsetpgrp(s, getpgrp()));
    RET("tiocsctty", ioctl(s, TIOCSCTTY, 0));
    RET("tiocsctty.again_same", ioctl(s, TIOCSCTTY, 0));
    OK("dev_tty", open("/dev/tty", O_RDWR));
    YES("tcgetpgrp", tcgetpgrp(s) == getpgrp());
    YES("tcgetsid", tcgetsid(s) == getpid());
    RET("tcsetpgrp.bad_group", tcsetpgrp(s, 1 << 22));
    RET("tcsetpgrp.negative", tcsetpgrp(s, -5));
    signal(SIGINT, note);
    signal(SIGQUIT, note);
    signal(SIGWINCH, note);
    signal(SIGTSTP, note);
    signal(SIGCHLD, note);
    // Keyboard signals go to the foreground group.
    MUST(write(m, "lost\x03", 5));
    await(SIGINT);
    val("vintr", "delivered");
    int n = -1;
    ioctl(s, FIONREAD, &n);
    val("vintr.flushes", "%d", n);
    MUST(write(m, "\x1c", 1));
    await(SIGQUIT);
    val("vquit", "delivered");
    MUST(write(m, "\x1a", 1));
    await(SIGTSTP);
    val("vsusp", "delivered");
    // SIGWINCH only when the size changes.
    ioctl(m, TIOCSWINSZ, &(struct winsize){30, 90, 0, 0});
    await(SIGWINCH);
    val("winch", "delivered");
    got[SIGWINCH] = 0;
    ioctl(m, TIOCSWINSZ, &(struct winsize){30, 90, 0, 0});
    val("winch.same_size", "%d", got[SIGWINCH]);
    // A background job: reading stops it with SIGTTIN.
    pid_t pid = MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        char c;
        signal(SIGTTIN, SIG_DFL);
        ssize_t r = read(s, &c, 1);
        _exit(r == 1 && c == 'k' ? 4 : 5);
    }
    setpgid(pid, pid);
    waitpid(pid, &st, WUNTRACED);
    val("background_read", "%s", wname(st));
    RET("to_foreground", tcsetpgrp(s, pid));
    YES("foreground_is_child", tcgetpgrp(s) == pid);
    kill(-pid, SIGCONT);
    MUST(write(m, "k\n", 2));
    val("foreground_read", "%s", wname(wait_for(pid)));
    // We are in the background now: setting the group from here needs SIGTTOU out of the way.
    signal(SIGTTOU, SIG_IGN);
    RET("back_to_us", tcsetpgrp(s, getpgrp()));
    signal(SIGTTOU, SIG_DFL);
    // A background job that ignores SIGTTIN, or is orphaned, gets EIO.
    pid = MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        char c;
        signal(SIGTTIN, SIG_IGN);
        RET("background_read.ignored", read(s, &c, 1));
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTTIN);
        signal(SIGTTIN, SIG_DFL);
        sigprocmask(SIG_BLOCK, &set, NULL);
        RET("background_read.blocked", read(s, &c, 1));
        _exit(0);
    }
    setpgid(pid, pid);
    wait_for(pid);
    // Writing is free unless TOSTOP is set.
    struct termios t;
    tcgetattr(s, &t);
    pid = MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        RET("background_write", write(s, "w", 1));
        signal(SIGTTOU, SIG_IGN);
        t.c_lflag |= TOSTOP;
        RET("background_tcsetattr.ignored", tcsetattr(s, TCSANOW, &t));
        RET("background_write.tostop_ignored", write(s, "w", 1));
        signal(SIGTTOU, SIG_DFL);
        write(s, "w", 1);
        _exit(0);
    }
    setpgid(pid, pid);
    waitpid(pid, &st, WUNTRACED);
    val("background_write.tostop", "%s", wname(st));
    kill(pid, SIGKILL);
    wait_for(pid);
    pid = MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        tcsetpgrp(s, getpgrp());
        _exit(0);
    }
    setpgid(pid, pid);
    waitpid(pid, &st, WUNTRACED);
    val("background_tcsetpgrp", "%s", wname(st));
    kill(pid, SIGKILL);
    wait_for(pid);
    // A process of another session may not use it as its own.
    pid = MUST(fork());
    if (pid == 0) {
        setsid();
        RET("other_session.tiocsctty", ioctl(s, TIOCSCTTY, 0));
        RET("other_session.dev_tty", open("/dev/tty", O_RDWR));
        RET("other_session.tcgetpgrp", tcgetpgrp(s));
        RET("other_session.tcsetpgrp", tcsetpgrp(s, getpgrp()));
        _exit(0);
    }
    wait_for(pid);
    RET("getsid.no_process", getsid(1 << 22));
    RET("getpgid.no_process", getpgid(1 << 22));
    RET("setpgid.leader", setpgid(0, 0));
    RET("setpgid.negative", setpgid(0, -1));
    pid = MUST(fork());
    if (pid == 0) {
        RET("setpgid.no_such_group", setpgid(0, 1 << 22));
        RET("setpgid.parent", setpgid(getppid(), 0));
        RET("setpgid.own", setpgid(0, 0));
        RET("setpgid.back", setpgid(0, getppid()));
        _exit(0);
    }
    wait_for(pid);
    baton b = baton_new(), b2 = baton_new();
    pid = MUST(fork());
    if (pid == 0) {
        char *av[] = {"x", "wait", NULL};
        dup2(b2.fd[0], 0);
        dup2(b.fd[1], 1);
        execv(self_path(), av);
        _exit(9);
    }
    baton_take(&b);
    RET("setpgid.after_exec", setpgid(pid, pid));
    baton_pass(&b2);
    wait_for(pid);
    // Giving the terminal up.
    signal(SIGHUP, note);
    signal(SIGCONT, note);
    got[SIGHUP] = got[SIGCONT] = 0;
    RET("tiocnotty", ioctl(s, TIOCNOTTY));
    val("tiocnotty.signals", "HUP %d CONT %d", got[SIGHUP], got[SIGCONT]);
    RET("tiocnotty.dev_tty", open("/dev/tty", O_RDWR));
    RET("tiocnotty.again", ioctl(s, TIOCNOTTY));
    // Opening one without O_NOCTTY makes it ours; closing the master hangs up.
    int m2 = MUST(posix_openpt(O_RDWR | O_NOCTTY));
    unlockpt(m2);
    char name[64];
    ptsname_r(m2, name, sizeof name);
    int s2 = MUST(open(name, O_RDWR));
    YES("open_takes_it", tcgetsid(s2) == getpid());
    got[SIGHUP] = 0;
    close(m2);
    await(SIGHUP);
    val("hangup", "SIGHUP delivered");
    char c;
    RET("hangup.read", read(s2, &c, 1));
    RET("hangup.write", write(s2, &c, 1));
    _exit(3);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "wait")) {
        char c = 'x';
        write(1, &c, 1);
        read(0, &c, 1);
        return 0;
    }
    MUST(openpty(&m, &s, NULL, NULL, NULL));
    self_path();
    pid_t pid = MUST(fork());
    if (pid == 0) leader();
    val("leader", "%s", wname(wait_for(pid)));
    // When a session leader dies, its foreground group is hung up.
    baton b = baton_new();
    pid = MUST(fork());
    if (pid == 0) {
        setsid();
        MUST(ioctl(s, TIOCSCTTY, 0));
        signal(SIGHUP, SIG_IGN);
        if (fork() == 0) {
            signal(SIGHUP, SIG_DFL);
            baton_pass(&b);
            for (;;) pause();
        }
        baton_take(&b);
        _exit(0);
    }
    close(b.fd[1]);
    val("leader_dies", "%s", wname(wait_for(pid)));
    char c;
    // The pipe's end shows that the grandchild is gone.
    RET("leader_dies.foreground_is_killed", read(b.fd[0], &c, 1));
    return 0;
}
