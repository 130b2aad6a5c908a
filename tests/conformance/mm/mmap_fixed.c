// Placement rules of mmap(2): hints, MAP_FIXED over old mappings, MAP_FIXED_NOREPLACE, MAP_32BIT, MAP_POPULATE.
#include "../fault.h"

static char *base;
static void at(const char *name, long r) {
    if (r == -1) val(name, "-1 %s", ename(errno));
    else val(name, "%+ld pages", (r - (long)base) / (long)PAGE);
}
#define MAP(addr, len, prot, flags) syscall(SYS_mmap, addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | (flags), -1, 0L)

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    // A playground: 64 pages that are known to be free because they were just unmapped.
    base = (char *)MUST(MAP(NULL, 64 * PAGE, rw, 0));
    munmap(base, 64 * PAGE);
    at("hint.free", MAP(base + 8 * PAGE, PAGE, rw, 0));
    at("hint.unaligned_rounds_down", MAP(base + 10 * PAGE + 5, PAGE, rw, 0));
    long r = MAP(base + 8 * PAGE, PAGE, rw, 0);
    YES("hint.taken_goes_elsewhere", r != -1 && r != (long)(base + 8 * PAGE));
    munmap((void *)r, PAGE);
    base[8 * PAGE] = 'x';
    at("fixed.replaces", MAP(base + 8 * PAGE, PAGE, rw, MAP_FIXED));
    val("fixed.zeroed", "%d", base[8 * PAGE]);
    at("noreplace.free", MAP(base + 20 * PAGE, 2 * PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.exact", MAP(base + 20 * PAGE, 2 * PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.overlaps_start", MAP(base + 19 * PAGE, 2 * PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.overlaps_end", MAP(base + 21 * PAGE, 2 * PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.covers", MAP(base + 18 * PAGE, 8 * PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.adjacent_below", MAP(base + 19 * PAGE, PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.adjacent_above", MAP(base + 22 * PAGE, PAGE, rw, MAP_FIXED_NOREPLACE));
    at("noreplace.unaligned", MAP(base + 30 * PAGE + 1, PAGE, rw, MAP_FIXED_NOREPLACE));
    at("fixed_and_noreplace.taken", MAP(base + 20 * PAGE, PAGE, rw, MAP_FIXED | MAP_FIXED_NOREPLACE));

    // MAP_FIXED over several mappings with a hole between them: all go, the neighbours stay.
    at("span.a", MAP(base + 32 * PAGE, 2 * PAGE, rw, MAP_FIXED));
    at("span.b", MAP(base + 36 * PAGE, 2 * PAGE, PROT_READ, MAP_FIXED));
    at("span.over", MAP(base + 33 * PAGE, 4 * PAGE, PROT_NONE, MAP_FIXED));
    TOUCH("span.left_stays", base + 33 * PAGE - 1, 'w', base);
    TOUCH("span.first", base + 33 * PAGE, 'r', base);
    TOUCH("span.last", base + 37 * PAGE - 1, 'r', base);
    TOUCH("span.right_stays", base + 37 * PAGE, 'r', base);
    TOUCH("span.right_prot", base + 37 * PAGE, 'w', base);

    long low = MAP(NULL, PAGE, rw, MAP_32BIT);
    YES("map_32bit.below_2g", low > 0 && low < (1L << 31));
    char *pop = (char *)MAP(NULL, 4 * PAGE, rw, MAP_POPULATE);
    unsigned char vec[4] = {0};
    RET("populate.mincore", mincore(pop, 4 * PAGE, vec));
    val("populate.resident", "%d%d%d%d", vec[0] & 1, vec[1] & 1, vec[2] & 1, vec[3] & 1);
    // A hint above the task's size is ignored; one below mmap_min_addr is raised.
    r = MAP((void *)0x7ffffffff000, PAGE, rw, 0);
    YES("hint.beyond_task_size", r != -1);
    r = MAP((void *)1, PAGE, rw, 0);
    YES("hint.one", r != -1 && r != 0);
    // Two maps of one size without a hint do not overlap, and come from the top down.
    long a = MAP(NULL, 16 * PAGE, PROT_NONE, 0), b = MAP(NULL, 16 * PAGE, PROT_NONE, 0);
    YES("two.disjoint", a + 16 * (long)PAGE <= b || b + 16 * (long)PAGE <= a);
    YES("two.top_down", b < a);
    return 0;
}
