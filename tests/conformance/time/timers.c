// alarm(2), setitimer(2), timer_create(2), timer_settime(2), timer_getoverrun(2): values, signals, errnos.
#include "../check.h"
#include <sys/time.h>

static volatile int hits;
static void on_signal(int sig) { (void)sig; hits++; }
static void on_thread(union sigval v) { baton_pass(v.sival_ptr); }

int main(void) {
    struct itimerval it = {0}, old = {0};
    // alarm
    RET("alarm.none", alarm(0));
    RET("alarm.set", alarm(100));
    RET("alarm.replace", alarm(50));
    RET("alarm.cancel", alarm(0));
    RET("alarm.none_again", alarm(0));
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {7, 600000}}, NULL);
    RET("alarm.rounds", alarm(0));
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, 300000}}, NULL);
    RET("alarm.at_least_one", alarm(0));
    // setitimer
    RET("getitimer", getitimer(ITIMER_REAL, &it));
    val("getitimer.idle", "%ld %ld %ld %ld", it.it_value.tv_sec, it.it_value.tv_usec, it.it_interval.tv_sec, it.it_interval.tv_usec);
    RET("setitimer", setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = 90, .it_interval = {4, 5}}, &old));
    getitimer(ITIMER_REAL, &it);
    YES("setitimer.value", it.it_value.tv_sec == 89 || it.it_value.tv_sec == 90);
    val("setitimer.interval", "%ld %ld", it.it_interval.tv_sec, it.it_interval.tv_usec);
    RET("setitimer.interval_only_disarms", setitimer(ITIMER_REAL, &(struct itimerval){.it_interval = {4, 5}}, &old));
    YES("setitimer.old", old.it_value.tv_sec >= 89 && old.it_interval.tv_usec == 5);
    getitimer(ITIMER_REAL, &it);
    val("setitimer.disarmed", "%ld %ld", it.it_value.tv_sec, it.it_interval.tv_sec);
    RET("setitimer.bad_which", setitimer(9, &it, NULL));
    RET("getitimer.bad_which", getitimer(9, &it));
    RET("setitimer.bad_usec", setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 1000000}, NULL));
    RET("setitimer.negative", setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = -1}, NULL));
    RET("setitimer.bad_interval", setitimer(ITIMER_REAL, &(struct itimerval){.it_interval.tv_usec = -1}, NULL));
    RET("setitimer.bad_pointer", syscall(SYS_setitimer, ITIMER_REAL, 8, NULL));
    RET("setitimer.null_disarms", syscall(SYS_setitimer, ITIMER_REAL, NULL, NULL));
    RET("getitimer.bad_pointer", syscall(SYS_getitimer, ITIMER_REAL, 8));
    // Signals: real, virtual and profiling time.
    sigset_t none;
    sigemptyset(&none);
    signal(SIGALRM, on_signal);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 2000}, {0, 2000}}, NULL);
    while (hits < 3) pause();
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    YES("real.periodic", hits >= 3);
    signal(SIGVTALRM, on_signal);
    hits = 0;
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){.it_value.tv_usec = 10000}, NULL);
    int64_t c0 = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (!hits)
        ;
    YES("virtual.fires", now_ns(CLOCK_PROCESS_CPUTIME_ID) - c0 >= 5000000);
    signal(SIGPROF, on_signal);
    hits = 0;
    setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_usec = 10000}, NULL);
    while (!hits)
        ;
    val("prof.fires", "%d", hits);
    val("real.default_kills", "%s", wname(CHILD(signal(SIGALRM, SIG_DFL); setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 1000}, NULL); for (;;) pause())));
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = 500}, NULL);
    CHILD(getitimer(ITIMER_REAL, &it); val("fork.not_inherited", "%ld", it.it_value.tv_sec));
    alarm(0);

    // POSIX timers.
    timer_t t;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    int kid = -1;
    signal(SIGUSR1, on_signal);
    RET("create.raw", syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &kid));
    val("create.first_id", "%d", kid);
    RET("create.raw_second", syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &kid));
    val("create.second_id", "%d", kid);
    RET("delete.raw", syscall(SYS_timer_delete, 1));
    RET("delete.again", syscall(SYS_timer_delete, 1));
    RET("delete.negative", syscall(SYS_timer_delete, -1));
    RET("create.bad_clock", syscall(SYS_timer_create, 99, &ev, &kid));
    RET("create.bad_pointer", syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, 8));
    RET("create.bad_event", syscall(SYS_timer_create, CLOCK_MONOTONIC, 8, &kid));
    ev.sigev_signo = 65;
    RET("create.bad_signal", syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &kid));
    ev.sigev_signo = SIGUSR1;
    ev.sigev_notify = 77;
    RET("create.bad_notify", syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &kid));
    ev.sigev_notify = SIGEV_THREAD_ID;
    ev._sigev_un._tid = 1 << 22;
    RET("create.bad_thread", syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &kid));
    RET("create.coarse", syscall(SYS_timer_create, CLOCK_MONOTONIC_COARSE, NULL, &kid));
    static const int ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_BOOTTIME, CLOCK_TAI};
    for (size_t i = 0; i < COUNT(ids); i++) {
        char name[32];
        snprintf(name, sizeof name, "create.clock_%d", ids[i]);
        ev = (struct sigevent){.sigev_notify = SIGEV_NONE};
        RET(name, timer_create(ids[i], &ev, &t));
        timer_delete(t);
    }
    struct itimerspec its = {0}, was = {0};
    ev = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_create(CLOCK_MONOTONIC, &ev, &t);
    RET("settime", timer_settime(t, 0, &(struct itimerspec){{3, 4}, {60, 0}}, &was));
    RET("gettime", timer_gettime(t, &its));
    YES("gettime.value", its.it_value.tv_sec == 59 && its.it_interval.tv_sec == 3 && its.it_interval.tv_nsec == 4);
    RET("settime.disarm", timer_settime(t, 0, &(struct itimerspec){{3, 4}, {0, 0}}, &was));
    YES("settime.old", was.it_value.tv_sec == 59 && was.it_interval.tv_sec == 3);
    timer_gettime(t, &its);
    val("settime.disarmed", "%ld %ld", its.it_value.tv_sec, its.it_interval.tv_sec);
    RET("settime.bad_nsec", timer_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000000}, NULL));
    RET("settime.negative", timer_settime(t, 0, &(struct itimerspec){.it_value.tv_sec = -1}, NULL));
    RET("settime.null", syscall(SYS_timer_settime, 0, 0, NULL, NULL));
    RET("settime.no_timer", syscall(SYS_timer_settime, 12345, 0, &its, NULL));
    RET("gettime.no_timer", syscall(SYS_timer_gettime, 12345, &its));
    RET("getoverrun.no_timer", syscall(SYS_timer_getoverrun, 12345));
    timer_delete(t);
    // A SIGEV_NONE timer that has expired shows nothing left.
    ev = (struct sigevent){.sigev_notify = SIGEV_NONE};
    timer_create(CLOCK_MONOTONIC, &ev, &t);
    timer_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 1}, NULL);
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    timer_gettime(t, &its);
    val("none.expired", "%ld %ld", its.it_value.tv_sec, its.it_value.tv_nsec);
    timer_delete(t);
    // An absolute time in the past expires at once; missed periods are counted.
    sigset_t set;
    siginfo_t si;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    ev = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 123};
    timer_create(CLOCK_MONOTONIC, &ev, &t);
    RET("absolute.past", timer_settime(t, TIMER_ABSTIME, &(struct itimerspec){.it_value.tv_sec = 1}, NULL));
    RET("absolute.signal", sigwaitinfo(&set, &si));
    val("absolute.info", "code %d value %d overrun %d", si.si_code, si.si_value.sival_int, si.si_overrun);
    timer_settime(t, 0, &(struct itimerspec){{0, 1000000}, {0, 1000000}}, NULL);
    int64_t b = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) - b < 10000000)
        ;
    sigwaitinfo(&set, &si);
    YES("overrun.counted", si.si_overrun >= 5);
    YES("overrun.getoverrun", timer_getoverrun(t) == si.si_overrun);
    timer_settime(t, 0, &(struct itimerspec){0}, NULL);
    sigtimedwait(&set, &si, &(struct timespec){0});
    // Deleting a timer takes its pending signal away? It does not have to be delivered; only the calls are checked.
    RET("delete", timer_delete(t));
    // To one thread, and by a thread of glibc's.
    ev = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    ev._sigev_un._tid = syscall(SYS_gettid);
    RET("thread_id.create", timer_create(CLOCK_MONOTONIC, &ev, &t));
    timer_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 1000}, NULL);
    RET("thread_id.signal", sigwaitinfo(&set, &si));
    timer_delete(t);
    baton bt = baton_new();
    ev = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_ptr = &bt};
    RET("thread.create", timer_create(CLOCK_MONOTONIC, &ev, &t));
    timer_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 1000}, NULL);
    baton_take(&bt);
    RET("thread.delete", timer_delete(t));
    // CPU time.
    ev = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_create(CLOCK_PROCESS_CPUTIME_ID, &ev, &t);
    c0 = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    timer_settime(t, 0, &(struct itimerspec){.it_value.tv_nsec = 10000000}, NULL);
    sigset_t pend;
    do sigpending(&pend);
    while (!sigismember(&pend, SIGUSR1));
    YES("cpu.fires_after", now_ns(CLOCK_PROCESS_CPUTIME_ID) - c0 >= 10000000);
    timer_delete(t);
    // Not inherited by fork.
    timer_create(CLOCK_MONOTONIC, &(struct sigevent){.sigev_notify = SIGEV_NONE}, &t);
    CHILD(RET("fork.gettime", timer_gettime(t, &its)));
    return 0;
}
