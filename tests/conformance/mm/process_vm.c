// process_vm_readv(2) and process_vm_writev(2): ourselves and a child, partial results, vectors, errnos.
#include "../check.h"
#include <sys/uio.h>

int main(void) {
    char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *edge = m + 2 * PAGE;
    munmap(edge, 2 * PAGE);
    memset(m, 'q', 2 * PAGE);
    struct iovec lv = {m, 100}, rv = {edge - 10, 20};
    RET("readv.partial", process_vm_readv(getpid(), &lv, 1, &rv, 1, 0));
    RET("readv.bad", ({ rv.iov_base = edge; process_vm_readv(getpid(), &lv, 1, &rv, 1, 0); }));
    RET("readv.no_process", process_vm_readv(1 << 22, &lv, 1, &rv, 1, 0));
    RET("readv.flags", process_vm_readv(getpid(), &lv, 1, &rv, 1, 1));
    pid_t pid;
    strcpy(m, "child's view");
    baton b = baton_new();
    pid = fork();
    if (pid == 0) {
        baton_take(&b);
        _exit(strcmp(m, "parent wrote") ? 1 : 0);
    }
    char local[16] = {0};
    lv = (struct iovec){local, 12};
    rv = (struct iovec){m, 12};
    RET("readv.child", process_vm_readv(pid, &lv, 1, &rv, 1, 0));
    val("readv.content", "%s", local);
    lv.iov_base = "parent wrote";
    RET("writev.child", process_vm_writev(pid, &lv, 1, &rv, 1, 0));
    baton_pass(&b);
    val("writev.seen", "%s", wname(wait_for(pid)));
    char a[4] = "", b2[8] = "";
    struct iovec two[2] = {{a, 3}, {b2, 7}}, from[2] = {{m, 6}, {m + PAGE, 4}};
    memcpy(m, "abcdef", 6);
    memcpy(m + PAGE, "wxyz", 4);
    RET("vectors", process_vm_readv(getpid(), two, 2, from, 2, 0));
    val("vectors.content", "%.3s %.7s", a, b2);
    RET("vectors.zero", process_vm_readv(getpid(), two, 0, from, 0, 0));
    RET("vectors.too_many", process_vm_readv(getpid(), two, 2000, from, 2, 0));
    RET("local.bad", ({ struct iovec bad = {(void *)8, 4}; process_vm_readv(getpid(), &bad, 1, from, 1, 0); }));
    mprotect(m, PAGE, PROT_READ);
    RET("write.readonly", ({ struct iovec w = {"no", 2}, to = {m, 2}; process_vm_writev(getpid(), &w, 1, &to, 1, 0); }));
    return 0;
}
