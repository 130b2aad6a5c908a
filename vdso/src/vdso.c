// The vDSO: clocks read without leaving guest code (vdso(7)).
//
// The kernel keeps one data page for all programs, mapped read-only right before this image. It says how to turn the
// processor's time stamp counter into the sandbox's clocks:
//
//     CLOCK_MONOTONIC = mono_ns + ((tsc - tsc_base) * mult + fraction) / 2^32
//
// and the other clocks by their distance from it. `seq` is odd while the page is being written: a reader that saw it
// odd, or saw it change, reads again, and asks the kernel after a few tries, as it does when the counter cannot be
// trusted (`mode`). The kernel computes its own answers by the same numbers, so that both agree.
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;
typedef unsigned __int128 u128;

struct timespec { s64 sec, nsec; };
struct timeval { s64 sec, usec; };
struct timezone { int minuteswest, dsttime; };

// Shared with src/lib.rs.
struct clock_page {
    u32 seq;
    u32 mode;
    u64 tsc_base;
    u64 mult;
    u64 mono_ns;
    u64 fraction;
    s64 realtime_offset_ns;
    s64 boottime_offset_ns;
    u64 coarse_tick_ns;
};
enum { MODE_ASK = 0, MODE_TSC = 1 };

enum {
    REALTIME = 0, MONOTONIC = 1, MONOTONIC_RAW = 4, REALTIME_COARSE = 5, MONOTONIC_COARSE = 6, BOOTTIME = 7, TAI = 11,
};
enum { NR_gettimeofday = 96, NR_time = 201, NR_clock_gettime = 228, NR_clock_getres = 229, NR_getcpu = 309 };

#define NSEC_PER_SEC 1000000000UL
#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((visibility("default"), alias(name)))

// The page before the image, whose beginning the linker calls `__ehdr_start`.
static inline const volatile struct clock_page *clock_page(void) {
    const volatile struct clock_page *page;
    __asm__("lea __ehdr_start - 4096(%%rip), %0" : "=r"(page));
    return page;
}

static inline long syscall3(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

// The counter, not read before what the program did earlier, and not before the page's `seq`.
static inline u64 read_tsc(void) {
    u32 low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

// Reads the monotonic clock and the distance of another one from it. False where the kernel must be asked.
static inline int read_clock(u64 *mono, s64 *offset, s64 boottime) {
    const volatile struct clock_page *page = clock_page();
    for (int tries = 0; tries < 64; tries++) {
        u32 seq = page->seq;
        __asm__ volatile("" : : : "memory");
        if (seq & 1) {
            __asm__ volatile("pause");
            continue;
        }
        if (page->mode != MODE_TSC) return 0;
        u64 base = page->tsc_base, mult = page->mult, ns = page->mono_ns, fraction = page->fraction;
        s64 distance = boottime ? page->boottime_offset_ns : page->realtime_offset_ns;
        u64 tsc = read_tsc();
        __asm__ volatile("" : : : "memory");
        if (page->seq != seq) continue;
        // Another processor's counter may be a little behind the one that the kernel read.
        u64 delta = tsc > base ? tsc - base : 0;
        *mono = ns + (u64)(((u128)delta * mult + fraction) >> 32);
        *offset = distance;
        return 1;
    }
    return 0;
}

static inline void split(struct timespec *ts, u64 ns) {
    u64 sec = ns / NSEC_PER_SEC;
    ts->sec = (s64)sec;
    ts->nsec = (s64)(ns - sec * NSEC_PER_SEC);
}

EXPORT int __vdso_clock_gettime(int clock, struct timespec *ts) {
    u64 mono;
    s64 offset;
    switch (clock) {
    case MONOTONIC:
        if (!read_clock(&mono, &offset, 0)) break;
        split(ts, mono);
        return 0;
    case REALTIME:
        if (!read_clock(&mono, &offset, 0)) break;
        split(ts, mono + (u64)offset);
        return 0;
    case BOOTTIME:
        if (!read_clock(&mono, &offset, 1)) break;
        split(ts, mono + (u64)offset);
        return 0;
    case MONOTONIC_COARSE:
    case REALTIME_COARSE:
        // What the clock said at the last tick.
        if (!read_clock(&mono, &offset, 0)) break;
        mono -= mono % clock_page()->coarse_tick_ns;
        split(ts, clock == REALTIME_COARSE ? mono + (u64)offset : mono);
        return 0;
    }
    return (int)syscall3(NR_clock_gettime, clock, (long)ts, 0);
}

EXPORT int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz) {
    if (tv) {
        u64 mono;
        s64 offset;
        if (!read_clock(&mono, &offset, 0)) return (int)syscall3(NR_gettimeofday, (long)tv, (long)tz, 0);
        struct timespec ts;
        split(&ts, mono + (u64)offset);
        tv->sec = ts.sec;
        tv->usec = ts.nsec / 1000;
    }
    if (tz) {
        tz->minuteswest = 0;
        tz->dsttime = 0;
    }
    return 0;
}

EXPORT s64 __vdso_time(s64 *t) {
    u64 mono;
    s64 offset;
    if (!read_clock(&mono, &offset, 0)) return syscall3(NR_time, (long)t, 0, 0);
    s64 now = (s64)((mono + (u64)offset) / NSEC_PER_SEC);
    if (t) *t = now;
    return now;
}

EXPORT int __vdso_clock_getres(int clock, struct timespec *ts) {
    u64 ns;
    switch (clock) {
    case REALTIME:
    case MONOTONIC:
    case MONOTONIC_RAW:
    case BOOTTIME:
    case TAI:
        ns = 1;
        break;
    case REALTIME_COARSE:
    case MONOTONIC_COARSE:
        ns = clock_page()->coarse_tick_ns;
        break;
    default:
        return (int)syscall3(NR_clock_getres, clock, (long)ts, 0);
    }
    if (ts) split(ts, ns);
    return 0;
}

// A guest thread moves between processors without any guest code being told, so only the kernel knows.
EXPORT long __vdso_getcpu(u32 *cpu, u32 *node, void *unused) {
    return syscall3(NR_getcpu, (long)cpu, (long)node, (long)unused);
}

ALIAS("__vdso_clock_gettime") int clock_gettime(int, struct timespec *);
ALIAS("__vdso_gettimeofday") int gettimeofday(struct timeval *, struct timezone *);
ALIAS("__vdso_time") s64 time(s64 *);
ALIAS("__vdso_clock_getres") int clock_getres(int, struct timespec *);
ALIAS("__vdso_getcpu") long getcpu(u32 *, u32 *, void *);
