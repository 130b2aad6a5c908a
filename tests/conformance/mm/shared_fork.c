// Memory and fork(2): private pages are copied in both directions, shared ones are one; file mappings; nested forks.
#include "../fault.h"

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    static char data[2 * PAGE] = "data";
    char *pr = mmap(NULL, 4 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *sh = mmap(NULL, 4 * PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char local[16] = "stack";
    strcpy(pr, "before");
    strcpy(sh, "before");
    baton down = baton_new(), up = baton_new();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        val("child.private", "%s", pr);
        strcpy(pr, "child");
        strcpy(sh, "child");
        strcpy(data, "child");
        strcpy(local, "child");
        strcpy(pr + PAGE, "untouched-before");
        baton_pass(&up);
        baton_take(&down);
        val("child.private_after_parent_wrote", "%s %s", pr, data);
        val("child.shared_after_parent_wrote", "%s", sh);
        val("child.stack", "%s", local);
        val("child.never_written_by_us", "[%s]", pr + 2 * PAGE);
        _exit(0);
    }
    baton_take(&up);
    val("parent.private", "%s", pr);
    val("parent.data", "%s", data);
    val("parent.stack", "%s", local);
    val("parent.shared", "%s", sh);
    strcpy(pr, "parent");
    strcpy(pr + 2 * PAGE, "parent");
    strcpy(sh, "parent");
    strcpy(data, "parent");
    baton_pass(&down);
    val("child", "%s", wname(wait_for(pid)));
    val("parent.page_child_touched", "[%s]", pr + PAGE);

    // Three generations: each sees what its parent had at the fork.
    strcpy(pr, "1");
    int st = CHILD(strcat(pr, "2"); int s2 = CHILD(strcat(pr, "3"); val("gen3", "%s", pr)); (void)s2;
                   val("gen2", "%s", pr));
    val("gen1", "%s %s", pr, wname(st));

    // Writing after the other side has gone.
    strcpy(pr, "again");
    st = CHILD(pr[0] = 'A'; val("second.child", "%s", pr));
    pr[1] = 'G';
    val("second.parent", "%s", pr);

    // A system call that writes into a copy-on-write page.
    int p[2];
    MUST(pipe(p));
    write(p[1], "kernel", 7);
    st = CHILD(val("kernel_write.n", "%zd", read(p[0], pr, 7)); val("kernel_write.child", "%s", pr));
    val("kernel_write.parent", "%s", pr);

    // Protection changes are private.
    st = CHILD(mprotect(pr, PAGE, PROT_NONE); munmap(sh + PAGE, PAGE); TOUCH("prot.child", pr, 'r', pr));
    TOUCH("prot.parent", pr, 'w', pr);
    TOUCH("unmap.parent", sh + PAGE, 'w', sh);

    // A shared file mapping is one memory for unrelated mappings of the file; a private one is not.
    tmp_enter();
    int fd = MUST(open("f", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 2 * PAGE));
    char *a = mmap(NULL, 2 * PAGE, rw, MAP_SHARED, fd, 0);
    st = CHILD(int f2 = open("f", O_RDWR); char *b = mmap(NULL, 2 * PAGE, rw, MAP_SHARED, f2, 0); strcpy(b, "via-child");
               strcpy(b + PAGE, "page2"));
    val("file.shared", "%s %s", a, a + PAGE);
    char *c = mmap(NULL, 2 * PAGE, rw, MAP_PRIVATE, fd, 0);
    strcpy(c, "private");
    val("file.private", "%s %s", a, c);
    st = CHILD(val("file.private_child", "%s", c); strcpy(c, "pchild"));
    val("file.private_parent", "%s", c);
    // Atomic operations on shared memory from two processes.
    volatile int *counter = (int *)(sh + 2 * PAGE);
    *counter = 0;
    pid = MUST(fork());
    for (int i = 0; i < 20000; i++) __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
    if (pid == 0) _exit(0);
    wait_for(pid);
    val("atomics", "%d", *counter);
    return 0;
}
