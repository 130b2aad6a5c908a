// brk(2): grow, shrink, zeroed after regrowth, refusal when something is in the way, RLIMIT_DATA.
#include "../fault.h"

int main(void) {
    char *start = (char *)syscall(SYS_brk, 0);
    YES("current.nonzero", start != NULL);
    char *base = (char *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
#define BRK(name, p) val(name, "%+ld", (long)(syscall(SYS_brk, p) - (long)base))
    BRK("align", base);
    BRK("grow", base + 3 * PAGE);
    TOUCH("grow.first", base, 'w', base);
    TOUCH("grow.last", base + 3 * PAGE - 1, 'w', base);
    TOUCH("grow.beyond", base + 3 * PAGE, 'r', base);
    BRK("unaligned", base + 3 * PAGE + 1);
    TOUCH("unaligned.rest_of_page", base + 4 * PAGE - 1, 'w', base);
    BRK("shrink", base + PAGE);
    TOUCH("shrink.gone", base + PAGE, 'r', base);
    val("shrink.keeps", "%c", base[0]);
    BRK("regrow", base + 3 * PAGE);
    val("regrow.zeroed", "%d", base[3 * PAGE - 1]);
    BRK("below_start_is_refused", (char *)PAGE);
    BRK("null_asks", NULL);
    BRK("huge_is_refused", (char *)(1UL << 46) + (1UL << 45));
    // A mapping in the way.
    long r = syscall(SYS_mmap, base + 8 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0L);
    YES("obstacle", r == (long)(base + 8 * PAGE));
    BRK("into_obstacle_is_refused", base + 9 * PAGE);
    BRK("up_to_obstacle", base + 6 * PAGE);
    munmap((void *)r, PAGE);
    // RLIMIT_DATA counts the heap and private writable mappings.
    struct rlimit rl = {1 << 16, 1 << 16};
    int st = CHILD(setrlimit(RLIMIT_DATA, &rl); BRK("rlimit_data", base + 1024 * PAGE);
                   OK("rlimit_data.mmap", syscall(SYS_mmap, NULL, 1UL << 20, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L));
                   OK("rlimit_data.mmap_readonly", syscall(SYS_mmap, NULL, 1UL << 20, PROT_READ,
                                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L));
                   OK("rlimit_data.mmap_shared", syscall(SYS_mmap, NULL, 1UL << 20, PROT_READ | PROT_WRITE,
                                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0L)));
    val("rlimit_data.child", "%s", wname(st));
    // The heap is copied by fork.
    base[0] = 'p';
    st = CHILD(base[0] = 'c'; BRK("fork.child", base + 20 * PAGE));
    BRK("fork.parent", NULL);
    val("fork.content", "%c", base[0]);
    return 0;
}
