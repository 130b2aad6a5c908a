// Many tasks that begin and end at once, under signals and timers: threads, forks, execs from every thread, vforks that
// fail, a parent that reaps. Nothing may be lost, and nothing may hang. clone(2), execve(2), vfork(2), wait(2), setitimer(2).
#include "../check.h"
#include <sched.h>
#include <sys/time.h>

static void on_signal(int sig) { (void)sig; }
static void *nothing(void *arg) { return arg; }
static void *spin(void *arg) {
    for (;;) sched_yield();
    return arg;
}
static void *sleep_on(void *arg) {
    for (;;) pause();
    return arg;
}
static void *exec_self(void *arg) {
    execl(self_path(), "storms", "end", NULL);
    return arg;
}
static void *fork_exec(void *arg) {
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            exec_self(NULL);
            _exit(99);
        }
        if (pid > 0) wait_for(pid);
    }
    return arg;
}
static void every_us(int us) {
    struct itimerval it = {{0, us}, {0, us}};
    setitimer(ITIMER_REAL, &it, NULL);
}
// How many of the children ended with this status.
static int ended(const pid_t *pids, int n, int status) {
    int good = 0;
    for (int i = 0; i < n; i++) good += wait_for(pids[i]) == status;
    return good;
}
// Execs itself with timers running, until the count is zero. What was sent by POSIX timers must not outlive an exec.
static void timers(int left) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    every_us(300);
    timer_t t;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct itimerspec its = {{0, 200000}, {0, 200000}};
    if (left == 0) {
        sigpending(&set);
        _exit(sigismember(&set, SIGUSR2) ? 1 : 42);
    }
    timer_create(CLOCK_MONOTONIC, &ev, &t);
    timer_settime(t, 0, &its, NULL);
    char text[16];
    snprintf(text, sizeof text, "%d", left - 1);
    execl(self_path(), "storms", "timers", text, NULL);
    _exit(2);
}

int main(int argc, char **argv) {
    if (argc > 2) timers(atoi(argv[2]));
    if (argc > 1) _exit(42);
    pid_t pids[40];
    pthread_t t[24];
    int count = 0;
    self_path();

    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    // First, while there can be no orphans that this process would inherit as pid 1.
    int gate[2];
    MUST(pipe(gate));
    sigaction(SIGCHLD, &sa, NULL);
    for (int i = 0; i < 40; i++) {
        pids[i] = MUST(fork());
        if (pids[i] == 0) {
            char c;
            close(gate[1]);
            _exit(read(gate[0], &c, 1) == 0 ? i : 100);
        }
    }
    close(gate[1]);
    count = 0;
    for (int i = 0; i < 40; i++) {
        int st = 0;
        pid_t pid = MUST(waitpid(-1, &st, 0));
        for (int k = 0; k < 40; k++) count += pids[k] == pid && st == k << 8;
    }
    val("reaped", "%d", count);
    RET("nobody_left", waitpid(-1, NULL, WNOHANG));
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 20; i++)
        if (fork() == 0) _exit(0);
    RET("ignored", waitpid(-1, NULL, 0));
    signal(SIGCHLD, SIG_DFL);

    count = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 24; i++) count += pthread_create(&t[i], NULL, nothing, NULL) == 0;
        for (int i = 0; i < 24; i++) i % 3 ? pthread_join(t[i], NULL) : pthread_detach(t[i]);
    }
    val("threads", "%d", count);
    for (int i = 0; i < 4; i++) {
        pids[i] = MUST(fork());
        if (pids[i] == 0) {
            for (int k = 0; k < 8; k++) pthread_create(&t[k], NULL, k % 2 ? spin : sleep_on, NULL);
            _exit(5);
        }
    }
    val("exit_group", "%d", ended(pids, 4, 5 << 8));

    sigaction(SIGALRM, &sa, NULL);
    every_us(700);
    count = 0;
    for (int i = 0; i < 8; i++) {
        pid_t pid = MUST(fork());
        if (pid == 0) {
            exec_self(NULL);
            _exit(99);
        }
        count += wait_for(pid) == 42 << 8;
    }
    val("fork_exec", "%d", count);
    count = 0;
    for (int i = 0; i < 16; i++) {
        pid_t pid = MUST(vfork());
        if (pid == 0) {
            if (i % 2) execl("/nonexistent", "x", NULL);
            else execl(self_buf, "storms", "end", NULL);
            _exit(42);
        }
        count += wait_for(pid) == 42 << 8;
    }
    val("vfork_exec", "%d", count);
    every_us(0);

    for (int i = 0; i < 6; i++) {
        pids[i] = MUST(fork());
        if (pids[i] == 0) {
            for (int k = 0; k < 4; k++) pthread_create(&t[k], NULL, k % 2 ? spin : sleep_on, NULL);
            for (int k = 0; k <= i % 3; k++) pthread_create(&t[k], NULL, exec_self, NULL);
            if (i % 2) pthread_exit(NULL);
            for (;;) pause();
        }
    }
    val("exec_of_threads", "%d", ended(pids, 6, 42 << 8));
    for (int i = 0; i < 3; i++) {
        pids[i] = MUST(fork());
        if (pids[i] == 0) {
            for (int k = 0; k < 3; k++) pthread_create(&t[k], NULL, fork_exec, NULL);
            for (int k = 0; k < i * 20; k++) sched_yield();
            exec_self(NULL);
            _exit(99);
        }
    }
    val("exec_while_forking", "%d", ended(pids, 3, 42 << 8));
    for (int i = 0; i < 3; i++) {
        pids[i] = MUST(fork());
        if (pids[i] == 0) timers(5);
    }
    val("timers_and_exec", "%d", ended(pids, 3, 42 << 8));

    pid_t child = MUST(fork());
    if (child == 0) {
        setpgid(0, 0);
        for (int k = 0; k < 3; k++) pthread_create(&t[k], NULL, k % 2 ? spin : sleep_on, NULL);
        for (;;) pause();
    }
    setpgid(child, child);
    int stops = 0, continues = 0, st;
    for (int i = 0; i < 20; i++) {
        kill(child, i % 2 ? SIGSTOP : SIGTSTP);
        stops += waitpid(child, &st, WUNTRACED) == child && WIFSTOPPED(st);
        kill(child, SIGCONT);
        continues += waitpid(child, &st, WCONTINUED) == child && WIFCONTINUED(st);
    }
    for (int i = 0; i < 40; i++) kill(child, i % 2 ? SIGCONT : SIGSTOP);
    kill(child, SIGKILL);
    val("stops", "%d", stops);
    val("continues", "%d", continues);
    val("killed", "%s", wname(wait_for(child)));
    return 0;
}
