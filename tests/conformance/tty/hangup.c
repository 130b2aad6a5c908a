// What a hang-up does: the master is closed, or the session leader exits. Who gets SIGHUP and SIGCONT, whose descriptors
// are dead. pty(7), setsid(2), tty_ioctl(4).
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
}
static void listen_all(void) {
    signal(SIGHUP, note);
    signal(SIGCONT, note);
    signal(SIGUSR1, note);
}
static void report(const char *name) { val(name, "HUP %d CONT %d", got[SIGHUP], got[SIGCONT]); }
static void dead(const char *prefix, int f) {
    char name[64], c = 'x';
#define SAY(what, r) snprintf(name, sizeof name, "%s." what, prefix); RET(name, r)
    SAY("read", read(f, &c, 1));
    SAY("write", write(f, &c, 1));
    struct termios t;
    SAY("tcgetattr", tcgetattr(f, &t));
    SAY("tcgetpgrp", tcgetpgrp(f));
    SAY("fionread", ioctl(f, FIONREAD, &(int){0}));
    struct pollfd p = {f, POLLIN | POLLOUT, 0};
    poll(&p, 1, 0);
    snprintf(name, sizeof name, "%s.poll", prefix);
    val(name, "%#x", p.revents);
}

// The leader with a foreground child in a group of its own. `ready` when the child has the terminal.
static void leader_and_child(baton *ready, bool master_closes) {
    setsid();
    MUST(ioctl(s, TIOCSCTTY, 0));
    listen_all();
    signal(SIGTTOU, SIG_IGN);
    baton b = baton_new();
    pid_t child = MUST(fork());
    if (child == 0) {
        if (master_closes) close(m);
        MUST(setpgid(0, 0));
        MUST(tcsetpgrp(s, getpgrp()));
        baton_pass(&b);
        if (master_closes) {
            await(SIGUSR1);
            report("master_closed.foreground");
            RET("master_closed.foreground.dev_tty", open("/dev/tty", O_RDWR));
            baton_pass(&b);
        }
        await(SIGHUP);
        // With the terminal still there SIGHUP is all that comes.
        if (master_closes) await(SIGCONT);
        report("leader_exits.foreground");
        RET("leader_exits.foreground.dev_tty", open("/dev/tty", O_RDWR));
        if (master_closes) dead("leader_exits.foreground", s);
        baton_pass(ready);
        _exit(0);
    }
    baton_take(&b);
    if (master_closes) {
        close(m);
        await(SIGHUP);
        await(SIGCONT);
        report("master_closed.leader");
        RET("master_closed.dev_tty", open("/dev/tty", O_RDWR));
        RET("master_closed.tcgetpgrp", tcgetpgrp(s));
        RET("master_closed.tiocnotty", ioctl(s, TIOCNOTTY));
        kill(child, SIGUSR1);
        baton_take(&b);
    }
    _exit(0);
}

int main(void) {
    // The master goes first. Nobody but the session has it open.
    baton ready = baton_new();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        MUST(openpty(&m, &s, NULL, NULL, NULL));
        leader_and_child(&ready, true);
    }
    wait_for(pid);
    baton_take(&ready);
    // The leader goes; the master is still there.
    pid = MUST(fork());
    if (pid == 0) {
        MUST(openpty(&m, &s, NULL, NULL, NULL));
        leader_and_child(&ready, false);
    }
    wait_for(pid);
    baton_take(&ready);
    return 0;
}
