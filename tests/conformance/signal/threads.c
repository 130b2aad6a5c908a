// Signals and threads: who gets a process-directed signal, pthread_kill, sigwait, per-thread masks and pending sets,
// cancellation, set*id over all threads, stopping and killing a whole group. signal(7), pthreads(7).
#include "../check.h"

static pid_t handled_by;
static volatile int hits;
static void handler(int sig) {
    (void)sig;
    handled_by = syscall(SYS_gettid);
    __atomic_fetch_add(&hits, 1, __ATOMIC_SEQ_CST);
}
static sigset_t one(int sig) {
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, sig);
    return s;
}
struct worker { pthread_t t; pid_t tid; baton up, down; void (*body)(struct worker *); long result; };
static void *run(void *arg) {
    struct worker *w = arg;
    w->tid = syscall(SYS_gettid);
    w->body(w);
    return NULL;
}
static void start(struct worker *w, void (*body)(struct worker *)) {
    *w = (struct worker){.body = body, .up = baton_new(), .down = baton_new()};
    pthread_create(&w->t, NULL, run, w);
    baton_take(&w->up);
}
static void unblocked(struct worker *w) {
    sigset_t s = one(SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    baton_pass(&w->up);
    while (!hits) pause();
}
static void waiter(struct worker *w) {
    sigset_t s = one(SIGUSR2);
    int sig = 0;
    baton_pass(&w->up);
    sigwait(&s, &sig);
    w->result = sig;
}
static void own_pending(struct worker *w) {
    sigset_t p;
    baton_pass(&w->up);
    baton_take(&w->down);
    sigpending(&p);
    w->result = sigismember(&p, SIGUSR1) * 10 + sigismember(&p, SIGUSR2);
    baton_pass(&w->up);
    baton_take(&w->down);
}
static void sleeper(struct worker *w) {
    baton_pass(&w->up);
    for (;;) pause();
}
static int cleaned;
static void cleanup(void *arg) { cleaned = (int)(long)arg; }
static void cancelled(struct worker *w) {
    pthread_cleanup_push(cleanup, (void *)7);
    baton_pass(&w->up);
    char c;
    read(w->down.fd[0], &c, 1); // a cancellation point
    pthread_cleanup_pop(0);
}
static void asks_uid(struct worker *w) {
    baton_pass(&w->up);
    baton_take(&w->down);
    w->result = syscall(SYS_geteuid);
    baton_pass(&w->up);
    baton_take(&w->down);
}
static void raw_setuid(struct worker *w) {
    w->result = syscall(SYS_setuid, 1234);
    w->result = w->result * 10000 + syscall(SYS_geteuid);
    baton_pass(&w->up);
}
static void interrupted_read(struct worker *w) {
    char c;
    baton_pass(&w->up);
    errno = 0;
    w->result = read(w->down.fd[0], &c, 1) < 0 ? errno : 0;
}

int main(void) {
    struct sigaction sa = {.sa_handler = handler};
    sigaction(SIGUSR1, &sa, NULL);
    sigset_t s = one(SIGUSR1), s2 = one(SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &s, NULL);
    pthread_sigmask(SIG_BLOCK, &s2, NULL);
    struct worker w;
    // The main thread has it blocked, the other has not.
    start(&w, unblocked);
    kill(getpid(), SIGUSR1);
    pthread_join(w.t, NULL);
    YES("process_signal.goes_to_unblocked_thread", handled_by == w.tid);
    // A thread in sigwait takes it although it is blocked there.
    start(&w, waiter);
    wait_blocked(getpid(), w.tid);
    kill(getpid(), SIGUSR2);
    pthread_join(w.t, NULL);
    val("sigwait.thread", "%ld", w.result);
    // pthread_kill stays with its thread, kill waits for anybody.
    start(&w, own_pending);
    pthread_kill(w.t, SIGUSR1);
    kill(getpid(), SIGUSR2);
    baton_pass(&w.down);
    baton_take(&w.up);
    sigset_t p;
    sigpending(&p);
    val("pending.thread", "%ld", w.result);
    val("pending.main", "%d%d", sigismember(&p, SIGUSR1), sigismember(&p, SIGUSR2));
    baton_pass(&w.down);
    pthread_join(w.t, NULL);
    sigtimedwait(&s2, NULL, &(struct timespec){0});
    // A thread's own pending signals die with it.
    hits = 0;
    pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    val("pending.gone_with_the_thread", "%d", hits);
    pthread_sigmask(SIG_BLOCK, &s, NULL);
    // A handler in a thread interrupts that thread's call.
    start(&w, interrupted_read);
    wait_blocked(getpid(), w.tid);
    sigset_t none;
    sigemptyset(&none);
    ERR("pthread_kill", pthread_kill(w.t, 0));
    syscall(SYS_tgkill, getpid(), w.tid, SIGUSR1); // blocked there: inherited mask
    char c = 'x';
    write(w.down.fd[1], &c, 1);
    pthread_join(w.t, NULL);
    val("blocked_signal_does_not_interrupt", "%s", ename(w.result));
    pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    start(&w, interrupted_read);
    wait_blocked(getpid(), w.tid);
    hits = 0;
    pthread_kill(w.t, SIGUSR1);
    pthread_join(w.t, NULL);
    val("signal_interrupts_thread", "%s hits %d", ename(w.result), hits);
    YES("handled_by_that_thread", handled_by == w.tid);
    // Cancellation is a signal of glibc's.
    start(&w, cancelled);
    wait_blocked(getpid(), w.tid);
    ERR("cancel", pthread_cancel(w.t));
    void *ret;
    pthread_join(w.t, &ret);
    val("cancel.result", "%d cleanup %d", ret == PTHREAD_CANCELED, cleaned);
    // setuid changes all threads (glibc asks each by a signal); the raw call only its own.
    val("setuid", "%s", wname(CHILD(start(&w, asks_uid); RET("setuid.call", setuid(4321)); baton_pass(&w.down); baton_take(&w.up); val("setuid.thread_sees", "%ld", w.result))));
    val("raw_setuid", "%s", wname(CHILD(start(&w, raw_setuid); pthread_join(w.t, NULL); val("raw_setuid.thread", "%ld", w.result); RET("raw_setuid.main", geteuid()))));
    // Stopping takes all threads, killing too.
    baton b = baton_new();
    pid_t pid = fork();
    if (pid == 0) {
        struct worker x, y;
        start(&x, sleeper);
        start(&y, sleeper);
        baton_pass(&b);
        for (;;) pause();
    }
    baton_take(&b);
    int st;
    kill(pid, SIGSTOP);
    waitpid(pid, &st, WUNTRACED);
    val("stop", "%s", wname(st));
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    int stopped = 0, threads = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/stat", pid, e->d_name);
        threads++;
        for (;;) { // a sibling reaches its stop a moment later
            get_file(path, text, sizeof text);
            if (strrchr(text, ')')[2] == 'T') break;
            sched_yield();
        }
        stopped++;
    }
    closedir(d);
    val("stop.all_threads", "%d of %d", stopped, threads);
    kill(pid, SIGCONT);
    waitpid(pid, &st, WCONTINUED);
    val("continue", "%s", wname(st));
    kill(pid, SIGTERM);
    waitpid(pid, &st, 0);
    val("terminate", "%s", wname(st));
    // SA_NOCLDSTOP.
    sigset_t ch = one(SIGCHLD);
    sigprocmask(SIG_BLOCK, &ch, NULL);
    for (int flag = 0; flag < 2; flag++) {
        struct sigaction sc = {.sa_handler = handler, .sa_flags = flag ? SA_NOCLDSTOP : 0};
        sigaction(SIGCHLD, &sc, NULL);
        pid = fork();
        if (pid == 0) {
            raise(SIGSTOP);
            _exit(0);
        }
        waitpid(pid, &st, WUNTRACED);
        sigpending(&p);
        val(flag ? "nocldstop.pending" : "cldstop.pending", "%d", sigismember(&p, SIGCHLD));
        sigtimedwait(&ch, NULL, &(struct timespec){0});
        kill(pid, SIGCONT);
        waitpid(pid, &st, 0);
        sigtimedwait(&ch, NULL, &(struct timespec){0});
    }
    // A handler for SIGCONT runs after the stop, even when the signal was sent to a stopped process.
    b = baton_new();
    pid = fork();
    if (pid == 0) {
        signal(SIGCONT, handler);
        hits = 0;
        raise(SIGSTOP);
        _exit(hits);
    }
    waitpid(pid, &st, WUNTRACED);
    kill(pid, SIGCONT);
    waitpid(pid, &st, 0);
    val("cont.handler", "%s", wname(st));
    // Signals sent to a stopped process wait for the continuation; SIGKILL does not.
    pid = fork();
    if (pid == 0) {
        signal(SIGUSR1, SIG_DFL);
        raise(SIGSTOP);
        for (;;) pause();
    }
    waitpid(pid, &st, WUNTRACED);
    kill(pid, SIGUSR1);
    RET("stopped.not_dead_yet", waitpid(pid, &st, WNOHANG));
    kill(pid, SIGCONT);
    waitpid(pid, &st, 0);
    val("stopped.then", "%s", wname(st));
    return 0;
}
