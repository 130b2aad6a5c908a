// timerfd_create(2): one-shot, periodic, absolute, reads, poll, TFD_TIMER_CANCEL_ON_SET, errnos.
#include "../check.h"
#include <sys/timerfd.h>
#ifndef TFD_TIMER_CANCEL_ON_SET
#define TFD_TIMER_CANCEL_ON_SET 2
#endif

int main(void) {
    uint64_t n = 0;
    struct itimerspec its, old;
    RET("create.bad_clock", timerfd_create(99, 0));
    RET("create.cpu_clock", timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
    RET("create.bad_flags", timerfd_create(CLOCK_MONOTONIC, 1));
    OK("create.realtime", timerfd_create(CLOCK_REALTIME, 0));
    OK("create.boottime", timerfd_create(CLOCK_BOOTTIME, 0));
    int f = OK("create", timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    val("flags", "%d %#x", fcntl(f, F_GETFD), fcntl(f, F_GETFL));
    RET("read.disarmed", read(f, &n, 8));
    RET("gettime", timerfd_gettime(f, &its));
    val("gettime.idle", "%ld %ld %ld %ld", its.it_value.tv_sec, its.it_value.tv_nsec, its.it_interval.tv_sec, its.it_interval.tv_nsec);
    RET("settime", timerfd_settime(f, 0, &(struct itimerspec){{5, 6}, {70, 0}}, &old));
    timerfd_gettime(f, &its);
    YES("gettime.value", its.it_value.tv_sec == 69 && its.it_interval.tv_sec == 5 && its.it_interval.tv_nsec == 6);
    RET("read.not_yet", read(f, &n, 8));
    RET("settime.disarm", timerfd_settime(f, 0, &(struct itimerspec){{5, 6}, {0, 0}}, &old));
    YES("settime.old", old.it_value.tv_sec == 69);
    timerfd_gettime(f, &its);
    val("gettime.disarmed", "%ld %ld", its.it_value.tv_sec, its.it_interval.tv_sec);
    RET("settime.bad_flags", timerfd_settime(f, 8, &its, NULL));
    RET("settime.bad_nsec", timerfd_settime(f, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000000}, NULL));
    RET("settime.negative", timerfd_settime(f, 0, &(struct itimerspec){.it_value.tv_sec = -1}, NULL));
    RET("settime.bad_pointer", syscall(SYS_timerfd_settime, f, 0, 8, NULL));
    RET("settime.not_timerfd", timerfd_settime(0, 0, &its, NULL));
    RET("settime.bad_fd", timerfd_settime(999, 0, &its, NULL));
    RET("gettime.not_timerfd", timerfd_gettime(0, &its));
    // One shot.
    timerfd_settime(f, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL);
    struct pollfd p = {f, POLLIN, 0};
    RET("oneshot.poll", poll(&p, 1, -1));
    RET("oneshot.read", read(f, &n, 8));
    val("oneshot.count", "%lu", n);
    RET("oneshot.read_again", read(f, &n, 8));
    RET("oneshot.poll_again", poll(&p, 1, 0));
    timerfd_gettime(f, &its);
    val("oneshot.after", "%ld %ld", its.it_value.tv_sec, its.it_value.tv_nsec);
    // An absolute time in the past; a rearm clears the count.
    timerfd_settime(f, TFD_TIMER_ABSTIME, &(struct itimerspec){.it_value.tv_sec = 1}, NULL);
    RET("past.poll", poll(&p, 1, -1));
    RET("read.short", read(f, &n, 7));
    RET("read.long", read(f, (uint64_t[2]){0}, 16));
    timerfd_settime(f, TFD_TIMER_ABSTIME, &(struct itimerspec){.it_value.tv_sec = 1}, NULL);
    poll(&p, 1, -1);
    timerfd_settime(f, 0, &(struct itimerspec){.it_value.tv_sec = 100}, NULL);
    RET("rearm_clears", read(f, &n, 8));
    // Periodic: counts what was missed.
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    timerfd_settime(f, 0, &(struct itimerspec){{0, 1000000}, {0, 1000000}}, NULL);
    int64_t armed = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) - armed < 10500000)
        ;
    RET("periodic.read", read(f, &n, 8));
    int64_t elapsed = (now_ns(CLOCK_MONOTONIC) - t0) / 1000000;
    YES("periodic.count", n >= 10 && (int64_t)n <= elapsed);
    // Past start with a period: expirations since then.
    t0 = now_ns(CLOCK_MONOTONIC) - 50000000;
    timerfd_settime(f, TFD_TIMER_ABSTIME, &(struct itimerspec){{0, 10000000}, {t0 / 1000000000, t0 % 1000000000}}, NULL);
    poll(&p, 1, -1);
    RET("periodic_past.read", read(f, &n, 8));
    YES("periodic_past.count", n >= 6 && n < 1000);
    timerfd_settime(f, 0, &(struct itimerspec){0}, NULL);
    // Blocking read, shared over fork.
    int b = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    timerfd_settime(b, 0, &(struct itimerspec){.it_value.tv_nsec = 3000000}, NULL);
    RET("blocking.read", read(b, &n, 8));
    val("blocking.count", "%lu", n);
    timerfd_settime(b, 0, &(struct itimerspec){.it_value.tv_nsec = 3000000}, NULL);
    CHILD(RET("fork.read", read(b, &n, 8)));
    fcntl(b, F_SETFL, O_NONBLOCK);
    RET("fork.already_read", read(b, &n, 8));
    int r = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
    RET("cancel_on_set", timerfd_settime(r, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &(struct itimerspec){.it_value.tv_sec = now_ns(CLOCK_REALTIME) / 1000000000 + 1000}, NULL));
    RET("cancel_on_set.read", read(r, &n, 8));
    RET("cancel_on_set.relative", timerfd_settime(r, TFD_TIMER_CANCEL_ON_SET, &(struct itimerspec){.it_value.tv_sec = 1000}, NULL));
    RET("cancel_on_set.monotonic", timerfd_settime(f, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &(struct itimerspec){.it_value.tv_sec = 1}, NULL));
    RET("write", write(f, &n, 8));
    RET("pread", pread(f, &n, 8, 0));
    RET("lseek", lseek(f, 0, SEEK_SET));
    return 0;
}
