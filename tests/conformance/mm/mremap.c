// mremap(2): shrink, grow in place, move, MREMAP_FIXED, MREMAP_DONTUNMAP, duplicating a shared mapping, errnos.
#include "../fault.h"

#define REMAP(...) syscall(SYS_mremap, __VA_ARGS__)
static char *fresh(size_t pages, int prot, int flags) {
    // With an unmapped gap after it, so that growing in place is possible.
    char *p = mmap(NULL, (pages + 16) * PAGE, prot, flags | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) must_fail(__FILE__, __LINE__, "mmap");
    munmap(p + pages * PAGE, 16 * PAGE);
    return p;
}

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    char *p = fresh(4, rw, MAP_PRIVATE);
    for (int i = 0; i < 4; i++) p[i * PAGE] = '0' + i;
    YES("same_size", REMAP(p, 4 * PAGE, 4 * PAGE, 0) == (long)p);
    YES("shrink", REMAP(p, 4 * PAGE, 2 * PAGE, 0) == (long)p);
    TOUCH("shrink.gone", p + 2 * PAGE, 'r', p);
    YES("grow_in_place", REMAP(p, 2 * PAGE, 6 * PAGE, 0) == (long)p);
    val("grow.content", "%c %d", p[PAGE], p[2 * PAGE]);
    TOUCH("grow.last", p + 6 * PAGE - 1, 'w', p);
    // Something behind it.
    mmap(p + 6 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    OK("grow_blocked", REMAP(p, 6 * PAGE, 8 * PAGE, 0));
    char *q = (char *)REMAP(p, 6 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
    YES("move", q != MAP_FAILED && q != p);
    TOUCH("move.old_gone", p, 'r', p);
    val("move.content", "%c%c", q[0], q[PAGE]);
    TOUCH("move.new_tail", q + 8 * PAGE - 1, 'w', q);

    OK("unaligned", REMAP(q + 1, PAGE, PAGE, 0));
    OK("new_zero", REMAP(q, PAGE, 0, 0));
    OK("bad_flags", REMAP(q, PAGE, PAGE, 0x80));
    OK("fixed_without_maymove", REMAP(q, PAGE, PAGE, MREMAP_FIXED, q + 64 * PAGE));
    OK("dontunmap_without_maymove", REMAP(q, PAGE, PAGE, MREMAP_DONTUNMAP, 0));
    OK("dontunmap_resize", REMAP(q, PAGE, 2 * PAGE, MREMAP_DONTUNMAP | MREMAP_MAYMOVE, 0));
    OK("fixed_unaligned", REMAP(q, PAGE, PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, q + 64 * PAGE + 1));
    OK("fixed_overlap", REMAP(q, 4 * PAGE, 4 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, q + 2 * PAGE));
    OK("not_mapped", REMAP(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    OK("old_zero_private", REMAP(q, 0, PAGE, MREMAP_MAYMOVE));
    mprotect(q + 4 * PAGE, PAGE, PROT_READ);
    OK("grow_across_vmas", REMAP(q, 8 * PAGE, 10 * PAGE, MREMAP_MAYMOVE));

    // MREMAP_FIXED replaces what is there.
    char *src = fresh(2, rw, MAP_PRIVATE), *dst = fresh(4, rw, MAP_PRIVATE);
    src[0] = 's';
    dst[PAGE] = 'd';
    dst[3 * PAGE] = 'e';
    YES("fixed", REMAP(src, 2 * PAGE, 2 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, dst + PAGE) == (long)(dst + PAGE));
    val("fixed.content", "%c %c", dst[PAGE], dst[3 * PAGE]);
    TOUCH("fixed.source_gone", src, 'r', src);
    // Shrinking while moving.
    src = fresh(4, rw, MAP_PRIVATE);
    src[PAGE] = 'k';
    YES("fixed_shrink", REMAP(src, 4 * PAGE, 2 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, dst) == (long)dst);
    val("fixed_shrink.content", "%c", dst[PAGE]);
    TOUCH("fixed_shrink.source_gone", src + 3 * PAGE, 'r', src);

    // MREMAP_DONTUNMAP leaves an empty mapping of the same protection behind.
    src = fresh(2, rw, MAP_PRIVATE);
    src[0] = 'u';
    char *moved = (char *)REMAP(src, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    YES("dontunmap", moved != MAP_FAILED && moved != src);
    val("dontunmap.content", "%c %d", moved[0], src[0]);
    TOUCH("dontunmap.source_writable", src, 'w', src);

    // Old length 0 on a shared mapping makes a second mapping of the same pages.
    char *sh = fresh(2, rw, MAP_SHARED);
    char *dup = (char *)REMAP(sh, 0, 2 * PAGE, MREMAP_MAYMOVE);
    YES("duplicate", dup != MAP_FAILED && dup != sh);
    sh[PAGE] = 'z';
    val("duplicate.coherent", "%c", dup[PAGE]);
    // Protection moves along.
    char *ro = fresh(1, PROT_READ, MAP_PRIVATE);
    char *ro2 = (char *)REMAP(ro, PAGE, 20 * PAGE, MREMAP_MAYMOVE);
    TOUCH("readonly.first", ro2, 'w', ro2);
    TOUCH("readonly.grown", ro2 + 19 * PAGE, 'w', ro2);
    // RLIMIT_AS.
    struct rlimit rl = {64UL << 20, 64UL << 20};
    int st = CHILD(setrlimit(RLIMIT_AS, &rl); OK("rlimit_as", REMAP(sh, 2 * PAGE, 128UL << 20, MREMAP_MAYMOVE)));
    val("rlimit_as.child", "%s", wname(st));
    return 0;
}
