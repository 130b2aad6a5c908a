// RLIMIT_AS, RLIMIT_STACK, RLIMIT_MEMLOCK and their effects; mlock(2), mlockall(2), mincore(2); MAP_GROWSDOWN and the
// growing stack; MAP_NORESERVE. getrlimit(2), mmap(2).
#include "../fault.h"
#include <setjmp.h>

static volatile char sink;
static __attribute__((noinline)) void grow(size_t pages) {
    volatile char page[PAGE];
    page[0] = pages;
    sink = page[0];
    if (pages > 1) grow(pages - 1);
    sink = page[PAGE - 1];
}
// An address below the stack pointer, hidden from the compiler.
static __attribute__((noinline)) char *below(long bytes) {
    char *p = __builtin_frame_address(0);
    asm volatile("" : "+r"(p));
    return p - bytes;
}
#define ANON(len, prot, flags) mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | (flags), -1, 0)
static int resident(char *p) {
    unsigned char v = 9;
    return mincore(p, PAGE, &v) ? -1 : v & 1;
}

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    struct rlimit rl;
    // Address space.
    int st = CHILD(rl = (struct rlimit){256UL << 20, 256UL << 20}; setrlimit(RLIMIT_AS, &rl); OK("as.too_much", ANON(512UL << 20, rw, 0));
                   OK("as.too_much_none", ANON(512UL << 20, PROT_NONE, MAP_NORESERVE)); OK("as.within", ANON(64UL << 20, rw, 0));
                   OK("as.sum", ANON(200UL << 20, rw, 0)); RET("as.brk_refused", (void *)syscall(SYS_brk, (char *)syscall(SYS_brk, 0) + (300UL << 20)) == (void *)syscall(SYS_brk, 0));
                   OK("as.file", ({ int m = memfd_create("m", 0); ftruncate(m, 1UL << 30); mmap(NULL, 1UL << 30, PROT_READ, MAP_SHARED, m, 0); }));
                   char *p = ANON(1 << 20, rw, 0); munmap(p, 1 << 20); OK("as.fixed_replacing_counts_once", mmap(ANON(60UL << 20, rw, 0), 60UL << 20, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
                   pid_t k = fork(); if (k == 0) _exit(0); val("as.fork_works", "%s", wname(wait_for(k))););
    val("as", "%s", wname(st));
    // Stack.
    val("stack.within", "%s", wname(CHILD(rl = (struct rlimit){1 << 20, 1 << 20}; setrlimit(RLIMIT_STACK, &rl); grow(100))));
    val("stack.beyond", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); rl = (struct rlimit){1 << 20, 1 << 20}; setrlimit(RLIMIT_STACK, &rl); grow(400))));
    val("stack.grows_to_4mb", "%s", wname(CHILD(rl = (struct rlimit){8 << 20, RLIM_INFINITY}; setrlimit(RLIMIT_STACK, &rl); grow(1000))));
    val("stack.far_touch", "%s", wname(CHILD(volatile char *far = below(1 << 20); rl = (struct rlimit){8 << 20, RLIM_INFINITY}; setrlimit(RLIMIT_STACK, &rl); *far = 1)));
    // By a system call, which has to grow it too.
    val("stack.by_read", "%s", wname(CHILD(int z = open("/dev/zero", O_RDONLY); _exit(read(z, below(300000), 100) == 100 ? 0 : 1))));
    // MAP_GROWSDOWN.
    char *area = ANON(512 * PAGE, PROT_NONE, 0), *low;
    munmap(area, 512 * PAGE);
    low = mmap(area + 500 * PAGE, 4 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    YES("growsdown", low == area + 500 * PAGE);
    TOUCH("growsdown.inside", low, 'w', low);
    TOUCH("growsdown.one_below", low - 1, 'w', low);
    TOUCH("growsdown.next_page", low - PAGE - 1, 'w', low);
    TOUCH("growsdown.gap_is_filled", low - 10 * PAGE, 'w', low);
    TOUCH("growsdown.between", low - 5 * PAGE, 'r', low);
    TOUCH("growsdown.above", low + 4 * PAGE, 'w', low);
    mmap(area, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    TOUCH("growsdown.guard_gap_keeps_away", area + PAGE, 'w', area);
    TOUCH("growsdown.neighbour_is_fine", area, 'w', area);
    OK("growsdown.shared", mmap(NULL, PAGE, rw, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    RET("growsdown.mprotect_down", mprotect(low, PAGE, PROT_READ | PROT_GROWSDOWN));
    TOUCH("growsdown.mprotect_lowest", low - 10 * PAGE, 'w', low);

    // mincore.
    char *p = ANON(4 * PAGE, rw, 0);
    unsigned char v[4];
    p[PAGE] = 1;
    RET("mincore", mincore(p, 4 * PAGE, v));
    val("mincore.pages", "%d%d%d%d", v[0] & 1, v[1] & 1, v[2] & 1, v[3] & 1);
    RET("mincore.unaligned", mincore(p + 1, PAGE, v));
    RET("mincore.zero", mincore(p, 0, v));
    RET("mincore.bad_vector", syscall(SYS_mincore, p, PAGE, 8));
    munmap(p + 2 * PAGE, PAGE);
    RET("mincore.hole", mincore(p, 4 * PAGE, v));
    RET("mincore.huge_length", mincore(p, 1UL << 60, v));
    madvise(p, PAGE, MADV_DONTNEED);
    val("mincore.after_dontneed", "%d", resident(p));
    p[0] = 1;
    val("mincore.after_touch", "%d", resident(p));
    // mlock.
    char *q = ANON(8 * PAGE, rw, 0);
    RET("mlock", mlock(q, 4 * PAGE));
    val("mlock.resident", "%d %d", resident(q), resident(q + 4 * PAGE));
    RET("mlock.unaligned_start", mlock(q + 100, 10));
    RET("munlock", munlock(q, 4 * PAGE));
    RET("munlock.not_locked", munlock(q, 4 * PAGE));
    RET("mlock.zero", mlock(q, 0));
    RET("mlock.wraps", mlock(q, ~0UL));
    munmap(q + 6 * PAGE, PAGE);
    RET("mlock.hole", mlock(q, 8 * PAGE));
    RET("munlock.hole", munlock(q, 8 * PAGE));
    mprotect(q + PAGE, PAGE, PROT_NONE);
    RET("mlock.none", mlock(q + PAGE, PAGE));
    RET("munlock.none", munlock(q + PAGE, PAGE));
    char *on = ANON(PAGE, rw, 0);
    RET("mlock2.onfault", mlock2(on, PAGE, MLOCK_ONFAULT));
    val("mlock2.onfault_resident", "%d", resident(on));
    RET("mlock2.bad_flags", mlock2(q, PAGE, 8));
    RET("mlockall.none", mlockall(0));
    RET("mlockall.bad", mlockall(16));
    RET("mlockall.onfault_alone", mlockall(MCL_ONFAULT));
    RET("mlockall.future", mlockall(MCL_FUTURE));
    char *fu = ANON(PAGE, rw, 0);
    val("mlockall.future_resident", "%d", resident(fu));
    RET("munlockall", munlockall());
    OK("map_locked", ({ char *x = ANON(2 * PAGE, rw, MAP_LOCKED); resident(x + PAGE) == 1 ? 0 : -1; }));
    // As an ordinary user the limit counts.
    CHILD(rl = (struct rlimit){8 * PAGE, 8 * PAGE}; setrlimit(RLIMIT_MEMLOCK, &rl); MUST(setresuid(1000, 1000, 1000)); char *a = ANON(64 * PAGE, rw, 0);
          RET("memlock.within", mlock(a, 8 * PAGE)); RET("memlock.again_same", mlock(a, 8 * PAGE)); RET("memlock.beyond", mlock(a + 8 * PAGE, PAGE)); RET("memlock.after_munlock", ({ munlock(a, PAGE); mlock(a + 8 * PAGE, PAGE); }));
          OK("memlock.map_locked", ANON(4 * PAGE, rw, MAP_LOCKED)); RET("memlock.mlockall", mlockall(MCL_CURRENT)));
    CHILD(rl = (struct rlimit){0, 0}; setrlimit(RLIMIT_MEMLOCK, &rl); MUST(setresuid(1000, 1000, 1000)); RET("memlock.zero", mlock(p, PAGE)); RET("memlock.zero_munlock", munlock(p, PAGE)));
    // Reserving a lot without using it.
    p = ANON(1UL << 40, PROT_NONE, MAP_NORESERVE);
    YES("noreserve.1tb", p != MAP_FAILED);
    RET("noreserve.use_a_page", mprotect(p + (1UL << 39), PAGE, rw));
    TOUCH("noreserve.write", p + (1UL << 39), 'w', p + (1UL << 39));
    RET("noreserve.unmap", munmap(p, 1UL << 40));
    return 0;
}
