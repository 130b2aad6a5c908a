// futex_waitv(2): arguments, values that differ, time-outs, and which of several futexes was woken.
#include "../check.h"
#include <linux/futex.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
struct waitv { uint64_t val, uaddr; uint32_t flags, reserved; };
static uint32_t word[130];
static struct waitv v[130];

static long waitv(unsigned n, unsigned flags, struct timespec *ts, clockid_t clock) {
    return syscall(SYS_futex_waitv, v, n, flags, ts, clock);
}
static struct timespec in_ms(clockid_t clock, long n) {
    int64_t at = now_ns(clock) + n * 1000000;
    return (struct timespec){at / 1000000000, at % 1000000000};
}
static void fill(unsigned flags) {
    for (unsigned i = 0; i < COUNT(v); i++) v[i] = (struct waitv){word[i], (uintptr_t)&word[i], flags, 0};
}
static pid_t main_tid;
static void *waker(void *arg) {
    wait_blocked(getpid(), main_tid);
    return (void *)syscall(SYS_futex, &word[(long)arg], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void *requeuer(void *arg) {
    wait_blocked(getpid(), main_tid);
    RET("requeue.count", syscall(SYS_futex, &word[1], FUTEX_REQUEUE_PRIVATE, 0, 1, &word[100], 0));
    RET("requeue.old_place", syscall(SYS_futex, &word[1], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    (void)arg;
    return (void *)syscall(SYS_futex, &word[100], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void on_signal(int sig) { (void)sig; }
static void *killer(void *arg) {
    wait_blocked(getpid(), main_tid);
    syscall(SYS_tgkill, getpid(), main_tid, SIGUSR1);
    return arg;
}

int main(void) {
    main_tid = syscall(SYS_gettid);
    struct timespec past = {0, 0}, soon, bad = {0, 1000000000};
    fill(2 | 128);
    RET("flags", waitv(1, 1, NULL, 0));
    RET("none", waitv(0, 0, NULL, 0));
    RET("too_many", waitv(129, 0, NULL, 0));
    RET("null", syscall(SYS_futex_waitv, NULL, 1, 0, NULL, 0));
    RET("bad_pointer", syscall(SYS_futex_waitv, 16, 1, 0, NULL, 0));
    RET("clock", waitv(1, 0, &past, CLOCK_PROCESS_CPUTIME_ID));
    RET("bad_time", waitv(1, 0, &bad, CLOCK_MONOTONIC));
    RET("past", waitv(1, 0, &past, CLOCK_MONOTONIC));
    RET("past.realtime", waitv(128, 0, &past, CLOCK_REALTIME));
    soon = in_ms(CLOCK_MONOTONIC, 5);
    RET("soon", waitv(3, 0, &soon, CLOCK_MONOTONIC));
    v[2].val = 9;
    RET("differs", waitv(3, 0, NULL, 0));
    v[2].val = 0, v[2].reserved = 1;
    RET("reserved", waitv(3, 0, NULL, 0));
    v[2].reserved = 0, v[2].flags = 128;
    RET("no_size", waitv(3, 0, NULL, 0));
    v[2].flags = 2 | 1 << 30;
    RET("unknown_flag", waitv(3, 0, NULL, 0));
    v[2].flags = 2, v[2].uaddr++;
    RET("unaligned", waitv(3, 0, NULL, 0));
    v[2].uaddr = PAGE;
    RET("unmapped", waitv(3, 0, NULL, 0));
    fill(2 | 128);
    for (long i = 0; i < 3; i++) {
        pthread_t t;
        pthread_create(&t, NULL, waker, (void *)i);
        RET("woken", waitv(3, 0, NULL, 0));
        void *count;
        pthread_join(t, &count);
        val("wake.count", "%ld", (long)count);
    }
    pthread_t t;
    pthread_create(&t, NULL, requeuer, NULL);
    RET("requeued", waitv(3, 0, NULL, 0));
    void *count;
    pthread_join(t, &count);
    val("requeue.new_place", "%ld", (long)count);
    RET("nobody_left", syscall(SYS_futex, &word[0], FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    pthread_create(&t, NULL, killer, NULL);
    RET("interrupted", waitv(3, 0, NULL, 0));
    pthread_join(t, NULL);
    sa.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &sa, NULL);
    pthread_create(&t, NULL, killer, NULL);
    soon = in_ms(CLOCK_MONOTONIC, 50);
    RET("restarted", waitv(3, 0, &soon, CLOCK_MONOTONIC));
    pthread_join(t, NULL);
    return 0;
}
