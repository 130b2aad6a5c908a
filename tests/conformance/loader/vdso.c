// The vDSO's clock_gettime, gettimeofday, time and getcpu: present by name, monotonic, and in agreement with the real
// system calls. vdso(7).
#include "../check.h"
#include <elf.h>
#include <link.h>
#include <sys/time.h>

static void *lookup(const char *want) {
    char *base = (char *)getauxval(AT_SYSINFO_EHDR);
    if (!base) return NULL;
    ElfW(Ehdr) *eh = (void *)base;
    ElfW(Phdr) *ph = (void *)(base + eh->e_phoff);
    ElfW(Dyn) *dyn = NULL;
    long bias = 0;
    for (int i = 0; i < eh->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD && !bias) bias = (long)base + ph[i].p_offset - ph[i].p_vaddr;
        if (ph[i].p_type == PT_DYNAMIC) dyn = (void *)(base + ph[i].p_offset);
    }
    if (!dyn) return NULL;
    ElfW(Sym) *sym = NULL;
    char *str = NULL;
    uint32_t *hash = NULL, *gnu = NULL;
    for (; dyn->d_tag != DT_NULL; dyn++) {
        void *p = (void *)(bias + dyn->d_un.d_ptr);
        if (dyn->d_tag == DT_SYMTAB) sym = p;
        if (dyn->d_tag == DT_STRTAB) str = p;
        if (dyn->d_tag == DT_HASH) hash = p;
        if (dyn->d_tag == DT_GNU_HASH) gnu = p;
    }
    if (!sym || !str) return NULL;
    uint32_t n = 0;
    if (hash) n = hash[1];
    else if (gnu) {
        uint32_t *buckets = gnu + 4 + gnu[2] * 2, *chain = buckets + gnu[0];
        for (uint32_t b = 0; b < gnu[0]; b++)
            if (buckets[b] > n) n = buckets[b];
        while (n >= gnu[1] && !(chain[n - gnu[1]] & 1)) n++;
        n++;
    }
    for (uint32_t i = 0; i < n; i++)
        if (sym[i].st_shndx && !strcmp(str + sym[i].st_name, want)) return (void *)(bias + sym[i].st_value);
    return NULL;
}

int main(void) {
    int (*cg)(clockid_t, struct timespec *) = lookup("__vdso_clock_gettime");
    int (*gtod)(struct timeval *, void *) = lookup("__vdso_gettimeofday");
    time_t (*tm)(time_t *) = lookup("__vdso_time");
    int (*gc)(unsigned *, unsigned *, void *) = lookup("__vdso_getcpu");
    int (*res)(clockid_t, struct timespec *) = lookup("__vdso_clock_getres");
    YES("has.clock_gettime", cg);
    YES("has.gettimeofday", gtod);
    YES("has.time", tm);
    YES("has.getcpu", gc);
    YES("has.clock_getres", res);
    static const struct { clockid_t id; const char *name; } clocks[] = {
        {CLOCK_REALTIME, "realtime"}, {CLOCK_MONOTONIC, "monotonic"}, {CLOCK_REALTIME_COARSE, "realtime_coarse"},
        {CLOCK_MONOTONIC_COARSE, "monotonic_coarse"}, {CLOCK_MONOTONIC_RAW, "monotonic_raw"}, {CLOCK_BOOTTIME, "boottime"},
        {CLOCK_TAI, "tai"}, {CLOCK_PROCESS_CPUTIME_ID, "process"}, {CLOCK_THREAD_CPUTIME_ID, "thread"},
    };
    for (size_t i = 0; cg && i < COUNT(clocks); i++) {
        struct timespec a, b, c;
        char name[64];
        int between = 1, bad = 0;
        bool coarse = strstr(clocks[i].name, "coarse");
        for (int k = 0; k < 200; k++) {
            syscall(SYS_clock_gettime, clocks[i].id, &a);
            bad |= cg(clocks[i].id, &b);
            syscall(SYS_clock_gettime, clocks[i].id, &c);
            int64_t x = a.tv_sec * 1000000000LL + a.tv_nsec, y = b.tv_sec * 1000000000LL + b.tv_nsec, z = c.tv_sec * 1000000000LL + c.tv_nsec;
            bad |= b.tv_nsec < 0 || b.tv_nsec > 999999999;
            // A coarse clock may lag by a tick, which is at most 10 ms.
            int64_t slack = coarse ? 10000000 : 0;
            if (y < x - slack || y > z + slack) between = 0;
        }
        snprintf(name, sizeof name, "%s.valid", clocks[i].name);
        YES(name, !bad);
        snprintf(name, sizeof name, "%s.between_syscalls", clocks[i].name);
        YES(name, between);
    }
    int64_t last = 0;
    int back = 0;
    for (int i = 0; i < 10000; i++) {
        int64_t t = now_ns(CLOCK_MONOTONIC);
        back += t < last;
        last = t;
    }
    val("monotonic.backwards", "%d", back);
    int64_t t0 = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) - t0 < 1000000)
        ;
    YES("monotonic.advances", now_ns(CLOCK_MONOTONIC) > t0);
    struct timeval tv;
    int64_t r0 = now_ns(CLOCK_REALTIME);
    gettimeofday(&tv, NULL);
    int64_t r1 = now_ns(CLOCK_REALTIME), us = tv.tv_sec * 1000000LL + tv.tv_usec;
    YES("gettimeofday.agrees", us >= r0 / 1000 && us <= r1 / 1000);
    time_t t = time(NULL), t2 = 0;
    time(&t2);
    YES("time.agrees", t >= r0 / 1000000000 - 1 && t <= r1 / 1000000000 + 1 && t2 >= t);
    YES("realtime.this_century", t > 1600000000);
    struct timespec ts;
    if (cg) {
        val("bad_clock", "%d", cg(99, &ts) == -EINVAL);
        val("bad_clock_negative", "%d", cg(-1000, &ts) < 0);
    }
    unsigned cpu = 9999, node = 9999;
    if (gc) {
        val("getcpu", "%d", gc(&cpu, &node, NULL));
        YES("getcpu.plausible", cpu < 4096 && node < 1024);
        val("getcpu.nulls", "%d", gc(NULL, NULL, NULL));
    }
    int64_t first = now_ns(CLOCK_MONOTONIC), inchild = 0;
    int p[2];
    MUST(pipe(p));
    CHILD(int64_t c = now_ns(CLOCK_MONOTONIC); write(p[1], &c, 8));
    read(p[0], &inchild, 8);
    YES("fork.monotonic", first <= inchild && inchild <= now_ns(CLOCK_MONOTONIC));
    return 0;
}
