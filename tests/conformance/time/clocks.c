// clock_gettime(2), clock_getres(2), nanosleep(2), clock_nanosleep(2), times(2), gettimeofday(2): clocks and errnos.
#include "../check.h"
#include <sys/time.h>
#include <sys/times.h>

static volatile int hits;
static void on_alarm(int sig) { (void)sig; hits++; }

// A child that sends SIGALRM to its parent once that sleeps.
static pid_t alarm_when_asleep(void) {
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        wait_blocked(parent, parent);
        kill(parent, SIGALRM);
        _exit(0);
    }
    return pid;
}

int main(void) {
    static const struct { int id; const char *name; } clocks[] = {
        {0, "realtime"}, {1, "monotonic"}, {2, "process"}, {3, "thread"}, {4, "monotonic_raw"}, {5, "realtime_coarse"},
        {6, "monotonic_coarse"}, {7, "boottime"}, {8, "realtime_alarm"}, {9, "boottime_alarm"}, {10, "ten"}, {11, "tai"},
        {12, "twelve"}, {15, "fifteen"}, {16, "sixteen"}, {99, "ninety_nine"},
    };
    struct timespec ts = {0}, rem = {7, 7};
    char name[64];
    for (size_t i = 0; i < COUNT(clocks); i++) {
        if (clocks[i].id == 8 || clocks[i].id == 9) continue; // depend on a real-time clock device
        snprintf(name, sizeof name, "gettime.%s", clocks[i].name);
        RET(name, syscall(SYS_clock_gettime, clocks[i].id, &ts));
    }
    static const int fine[] = {0, 1, 2, 3, 4, 7, 11};
    for (size_t i = 0; i < COUNT(fine); i++) {
        snprintf(name, sizeof name, "getres.%d", fine[i]);
        RET(name, syscall(SYS_clock_getres, fine[i], &ts));
        snprintf(name, sizeof name, "getres.%d.value", fine[i]);
        val(name, "%ld.%09ld", ts.tv_sec, ts.tv_nsec);
    }
    RET("getres.coarse", syscall(SYS_clock_getres, 5, &ts));
    YES("getres.coarse_is_a_tick", ts.tv_nsec >= 1000000 && ts.tv_nsec <= 10000000);
    RET("getres.null", syscall(SYS_clock_getres, 1, NULL));
    RET("getres.bad_clock", syscall(SYS_clock_getres, 99, &ts));
    RET("gettime.bad_pointer", syscall(SYS_clock_gettime, 1, 8));
    // The clock of a process by its id, and of a thread.
    clockid_t mine;
    ERR("getcpuclockid", clock_getcpuclockid(getpid(), &mine));
    RET("getcpuclockid.gettime", clock_gettime(mine, &ts));
    RET("cpu_clock.no_process", syscall(SYS_clock_gettime, (~(1 << 22) << 3) | 2, &ts));
    int64_t c0 = now_ns(CLOCK_PROCESS_CPUTIME_ID), t0 = now_ns(CLOCK_THREAD_CPUTIME_ID);
    for (volatile int i = 0; i < 3000000; i++)
        ;
    int64_t c1 = now_ns(CLOCK_PROCESS_CPUTIME_ID), t1 = now_ns(CLOCK_THREAD_CPUTIME_ID);
    YES("cpu_clock.advances", c1 > c0 && t1 > t0);
    YES("cpu_clock.thread_within_process", t1 - t0 <= c1 - c0 + 50000000);
    int64_t monotonic = now_ns(CLOCK_MONOTONIC);
    YES("boottime.not_before_monotonic", now_ns(CLOCK_BOOTTIME) >= monotonic - 1000000);
    RET("settime.bad_nsec", syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){0, 1000000000}));
    RET("settime.monotonic", syscall(SYS_clock_settime, CLOCK_MONOTONIC, &(struct timespec){1, 0}));
    RET("settime.bad_pointer", syscall(SYS_clock_settime, CLOCK_REALTIME, 8));

    // Sleeping.
    RET("nanosleep.zero", nanosleep(&(struct timespec){0}, &rem));
    RET("nanosleep.bad_nsec", nanosleep(&(struct timespec){0, 1000000000}, &rem));
    RET("nanosleep.negative_nsec", nanosleep(&(struct timespec){0, -1}, &rem));
    RET("nanosleep.negative_sec", nanosleep(&(struct timespec){-1, 0}, &rem));
    RET("nanosleep.bad_pointer", syscall(SYS_nanosleep, 8, NULL));
    int64_t b = now_ns(CLOCK_MONOTONIC);
    RET("nanosleep.5ms", nanosleep(&(struct timespec){0, 5000000}, &rem));
    YES("nanosleep.5ms_passed", now_ns(CLOCK_MONOTONIC) - b >= 5000000);
    val("nanosleep.remaining_untouched", "%ld %ld", rem.tv_sec, rem.tv_nsec);
    ERR("clock_nanosleep.relative", clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL));
    b = now_ns(CLOCK_MONOTONIC) + 5000000;
    ERR("clock_nanosleep.absolute", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){b / 1000000000, b % 1000000000}, NULL));
    YES("clock_nanosleep.absolute_reached", now_ns(CLOCK_MONOTONIC) >= b);
    ERR("clock_nanosleep.past", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){1, 0}, NULL));
    ERR("clock_nanosleep.realtime_past", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &(struct timespec){1, 0}, NULL));
    ERR("clock_nanosleep.boottime", clock_nanosleep(CLOCK_BOOTTIME, 0, &(struct timespec){0, 1000}, NULL));
    ERR("clock_nanosleep.tai", clock_nanosleep(CLOCK_TAI, 0, &(struct timespec){0, 1000}, NULL));
    RET("clock_nanosleep.coarse", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_COARSE, 0, &(struct timespec){0, 1000}, NULL));
    RET("clock_nanosleep.raw", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_RAW, 0, &(struct timespec){0, 1000}, NULL));
    RET("clock_nanosleep.thread_cpu", syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &(struct timespec){0, 1000}, NULL));
    RET("clock_nanosleep.bad_clock", syscall(SYS_clock_nanosleep, 99, 0, &(struct timespec){0, 1000}, NULL));
    RET("clock_nanosleep.bad_nsec", syscall(SYS_clock_nanosleep, 1, 0, &(struct timespec){0, -5}, NULL));
    RET("clock_nanosleep.unknown_flag_is_relative", syscall(SYS_clock_nanosleep, 1, 2, &(struct timespec){0, 1000}, NULL));
    // An interrupted sleep tells what is left; an absolute one does not.
    signal(SIGALRM, on_alarm);
    rem = (struct timespec){0, 0};
    pid_t sender = alarm_when_asleep();
    RET("interrupted", nanosleep(&(struct timespec){500, 0}, &rem));
    // Linux counts to the end of the slack (50 us), so that a short sleep may leave more than was asked for.
    YES("interrupted.remaining", rem.tv_sec >= 400 && rem.tv_sec <= 500);
    wait_for(sender);
    rem = (struct timespec){3, 3};
    b = now_ns(CLOCK_MONOTONIC);
    sender = alarm_when_asleep();
    ERR("interrupted.absolute", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){b / 1000000000 + 500, 0}, &rem));
    wait_for(sender);
    val("interrupted.absolute_remaining", "%ld %ld", rem.tv_sec, rem.tv_nsec);
    val("interrupted.signals", "%d", hits);
    // A stop and continue does not end the sleep early, and is not seen.
    pid_t pid = fork();
    if (pid == 0) {
        int64_t s = now_ns(CLOCK_MONOTONIC);
        int r = nanosleep(&(struct timespec){0, 30000000}, NULL);
        _exit(r == 0 && now_ns(CLOCK_MONOTONIC) - s >= 30000000 ? 0 : 1);
    }
    wait_blocked(pid, pid);
    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    kill(pid, SIGCONT);
    val("stopped_sleep", "%s", wname(wait_for(pid)));

    // Others.
    struct timeval tv;
    struct timezone tz = {1, 1};
    RET("gettimeofday.raw", syscall(SYS_gettimeofday, &tv, &tz));
    YES("gettimeofday.plausible", tv.tv_sec > 1600000000 && tv.tv_usec >= 0 && tv.tv_usec < 1000000);
    RET("gettimeofday.nulls", syscall(SYS_gettimeofday, NULL, NULL));
    RET("gettimeofday.bad", syscall(SYS_gettimeofday, ~0xfffUL, NULL));
    // By the clock of ticks, which may be a tick behind: in the second before.
    YES("time", syscall(SYS_time, NULL) >= tv.tv_sec - 1);
    RET("time.bad", syscall(SYS_time, 8));
    struct tms tms;
    clock_t k = times(&tms);
    YES("times.ticks", k > 0 && tms.tms_utime >= 0 && tms.tms_cutime >= 0);
    YES("times.null", times(NULL) >= k);
    RET("times.bad", syscall(SYS_times, 8));
    val("sysconf.clk_tck", "%ld", sysconf(_SC_CLK_TCK));
    return 0;
}
