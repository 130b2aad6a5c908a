// madvise(2): DONTNEED on private, shared and file memory, FREE, DONTFORK, WIPEONFORK, POPULATE, errnos.
#include "../fault.h"
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    char *p = mmap(NULL, 4 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 'a', 4 * PAGE);
    RET("dontneed", madvise(p + PAGE, PAGE, MADV_DONTNEED));
    val("dontneed.content", "%d %d %d", p[0], p[PAGE], p[2 * PAGE]);
    RET("unaligned", madvise(p + 1, PAGE, MADV_DONTNEED));
    RET("zero_length", madvise(p, 0, MADV_DONTNEED));
    RET("bad_advice", madvise(p, PAGE, 12345));
    RET("bad_advice_zero_length", madvise(p, 0, 12345));
    RET("wraps", madvise(p, ~0UL - PAGE, MADV_DONTNEED));
    RET("normal", madvise(p, PAGE, MADV_NORMAL));
    RET("random", madvise(p, PAGE, MADV_RANDOM));
    RET("sequential", madvise(p, PAGE, MADV_SEQUENTIAL));
    RET("willneed_anonymous", madvise(p, PAGE, MADV_WILLNEED));
    RET("dontdump", madvise(p, PAGE, MADV_DONTDUMP));
    RET("dodump", madvise(p, PAGE, MADV_DODUMP));
    RET("cold", madvise(p, PAGE, MADV_COLD));
    RET("pageout", madvise(p, PAGE, MADV_PAGEOUT));
    RET("free", madvise(p, PAGE, MADV_FREE));
    p[0] = 'n';
    val("free.write_after", "%c", p[0]);
    RET("populate_write", madvise(p, 4 * PAGE, MADV_POPULATE_WRITE));
    mprotect(p + 3 * PAGE, PAGE, PROT_READ);
    RET("populate_write_readonly", madvise(p, 4 * PAGE, MADV_POPULATE_WRITE));
    RET("populate_read", madvise(p, 4 * PAGE, MADV_POPULATE_READ));
    munmap(p + 2 * PAGE, PAGE);
    memset(p, 'b', 2 * PAGE);
    RET("dontneed_hole", madvise(p, 4 * PAGE, MADV_DONTNEED));
    val("dontneed_hole.content", "%d %d %d", p[0], p[PAGE], p[3 * PAGE]);
    RET("populate_hole", madvise(p, 4 * PAGE, MADV_POPULATE_READ));
    RET("unmapped", madvise(p + 2 * PAGE, PAGE, MADV_NORMAL));

    char *sh = mmap(NULL, 2 * PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(sh, 's', 2 * PAGE);
    RET("shared.dontneed", madvise(sh, 2 * PAGE, MADV_DONTNEED));
    val("shared.keeps", "%c", sh[PAGE]);
    RET("shared.free", madvise(sh, PAGE, MADV_FREE));
    RET("shared.remove", madvise(sh, PAGE, MADV_REMOVE));
    val("shared.removed", "%d %c", sh[0], sh[PAGE]);
    RET("private.remove", madvise(p, PAGE, MADV_REMOVE));
    RET("shared.wipeonfork", madvise(sh, PAGE, MADV_WIPEONFORK));

    tmp_enter();
    put_file("f", "filedata", 0644);
    int fd = MUST(open("f", O_RDWR));
    char *f = mmap(NULL, PAGE, rw, MAP_PRIVATE, fd, 0);
    f[0] = 'X';
    val("file.private", "%.8s", f);
    RET("file.dontneed", madvise(f, PAGE, MADV_DONTNEED));
    val("file.reverts", "%.8s", f);
    RET("file.willneed", madvise(f, PAGE, MADV_WILLNEED));
    RET("file.free", madvise(f, PAGE, MADV_FREE));

    char *w = mmap(NULL, 3 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(w, 'w', 3 * PAGE);
    RET("wipeonfork", madvise(w, PAGE, MADV_WIPEONFORK));
    RET("dontfork", madvise(w + 2 * PAGE, PAGE, MADV_DONTFORK));
    int st = CHILD(val("wipeonfork.child", "%d %c", w[0], w[PAGE]); TOUCH("dontfork.child", w + 2 * PAGE, 'r', w);
                   int g = CHILD(val("wipeonfork.grandchild", "%d", w[0])); (void)g;
                   RET("keeponfork.child", madvise(w, PAGE, MADV_KEEPONFORK)); w[0] = 'g';
                   g = CHILD(val("keeponfork.grandchild", "%c", w[0])));
    val("wipeonfork.parent", "%c%c", w[0], w[2 * PAGE]);
    RET("dofork", madvise(w + 2 * PAGE, PAGE, MADV_DOFORK));
    st = CHILD(TOUCH("dofork.child", w + 2 * PAGE, 'r', w));
    val("child", "%s", wname(st));
    return 0;
}
