// mmap(2) and munmap(2): errnos, zeroed memory, alignment, holes, partial unmapping.
#include "../fault.h"

static long raw_mmap(void *a, size_t l, int p, int f, int fd, off_t o) { return syscall(SYS_mmap, a, l, p, f, fd, o); }

int main(void) {
    const int pa = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
    OK("zero_length", raw_mmap(NULL, 0, rw, pa, -1, 0));
    OK("no_type", raw_mmap(NULL, PAGE, rw, MAP_ANONYMOUS, -1, 0));
    OK("both_types_is_shared_validate", raw_mmap(NULL, PAGE, rw, MAP_ANONYMOUS | MAP_SHARED | MAP_PRIVATE, -1, 0));
    OK("bad_fd", raw_mmap(NULL, PAGE, rw, MAP_PRIVATE, -1, 0));
    OK("bad_fd_closed", raw_mmap(NULL, PAGE, rw, MAP_PRIVATE, 999, 0));
    OK("anonymous_ignores_fd", raw_mmap(NULL, PAGE, rw, pa, 999, 0));
    OK("offset_unaligned", raw_mmap(NULL, PAGE, rw, pa, -1, 100));
    OK("length_huge", raw_mmap(NULL, ~0UL - 4095, rw, pa, -1, 0));
    OK("length_wraps", raw_mmap(NULL, ~0UL, rw, pa, -1, 0));
    OK("length_address_space", raw_mmap(NULL, 1UL << 47, PROT_NONE, pa | MAP_NORESERVE, -1, 0));
    OK("fixed_unaligned", raw_mmap((void *)0x10001, PAGE, rw, pa | MAP_FIXED, -1, 0));
    // Beyond what five-level page tables reach, so that it is the same with and without them.
    OK("fixed_beyond_task_size", raw_mmap((void *)(1UL << 57), PAGE, rw, pa | MAP_FIXED, -1, 0));
    OK("fixed_kernel_half", raw_mmap((void *)0xffff800000000000, PAGE, rw, pa | MAP_FIXED, -1, 0));
    OK("fixed_wraps", raw_mmap((void *)0x7fffffff0000, 1UL << 57, rw, pa | MAP_FIXED, -1, 0));
    OK("unaligned_hint_is_fine", raw_mmap((void *)0x10000001, PAGE, rw, pa, -1, 0));

    char *p = (char *)raw_mmap(NULL, 5 * PAGE, rw, pa, -1, 0);
    YES("aligned", ((uintptr_t)p & (PAGE - 1)) == 0);
    int nonzero = 0;
    for (size_t i = 0; i < 5 * PAGE; i++) nonzero += p[i] != 0;
    val("zeroed", "%d", nonzero);
    memset(p, 'a', 5 * PAGE);
    RET("munmap.unaligned", syscall(SYS_munmap, p + 1, PAGE));
    RET("munmap.zero", syscall(SYS_munmap, p, 0));
    RET("munmap.wraps", syscall(SYS_munmap, p, ~0UL));
    RET("munmap.kernel_half", syscall(SYS_munmap, 0xffff800000000000UL, PAGE));
    RET("munmap.beyond", syscall(SYS_munmap, 1UL << 57, 2 * PAGE));
    RET("munmap.middle", munmap(p + 2 * PAGE, PAGE));
    TOUCH("hole.below", p + 2 * PAGE - 1, 'r', p);
    TOUCH("hole.read", p + 2 * PAGE, 'r', p);
    TOUCH("hole.write", p + 3 * PAGE - 1, 'w', p);
    TOUCH("hole.above", p + 3 * PAGE, 'r', p);
    val("hole.content", "%c%c", p[0], p[4 * PAGE]);
    RET("munmap.again_is_no_error", munmap(p + 2 * PAGE, PAGE));
    RET("munmap.length_rounds_up", munmap(p + 3 * PAGE, 1));
    TOUCH("rounded.gone", p + 4 * PAGE - 1, 'r', p);
    TOUCH("rounded.next_stays", p + 4 * PAGE, 'r', p);
    RET("munmap.all_with_holes", munmap(p, 5 * PAGE));
    TOUCH("all.first", p, 'r', p);
    TOUCH("all.last", p + 4 * PAGE, 'r', p);

    char *q = (char *)raw_mmap(NULL, 1, rw, pa, -1, 0);
    q[PAGE - 1] = 1;
    val("length_rounds_up", "%d", q[PAGE - 1]);
    return 0;
}
