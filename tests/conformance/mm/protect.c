// mprotect(2): what every protection allows, si_code and si_addr of each fault, splits, errnos. sigaction(2).
#include "../fault.h"

int main(void) {
    char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 0xc3, 8 * PAGE); // ret
    static const struct { int prot; const char *name; } kinds[] = {
        {PROT_NONE, "none"},        {PROT_READ, "r"},          {PROT_WRITE, "w"},
        {PROT_READ | PROT_WRITE, "rw"}, {PROT_EXEC, "x"},      {PROT_READ | PROT_EXEC, "rx"},
        {PROT_READ | PROT_WRITE | PROT_EXEC, "rwx"},
    };
    for (size_t i = 0; i < COUNT(kinds); i++) {
        char name[64];
        mprotect(p, PAGE, PROT_READ | PROT_WRITE);
        p[8] = 0xc3;
        snprintf(name, sizeof name, "%s.set", kinds[i].name);
        RET(name, mprotect(p, PAGE, kinds[i].prot));
        // Execute-only memory is protected by a protection key where the processor has them: only executed here.
        if (kinds[i].prot != PROT_EXEC) {
            snprintf(name, sizeof name, "%s.read", kinds[i].name);
            TOUCH(name, p + 16, 'r', p);
        }
        snprintf(name, sizeof name, "%s.exec", kinds[i].name);
        TOUCH(name, p + 8, 'x', p);
        if (kinds[i].prot != PROT_EXEC) {
            snprintf(name, sizeof name, "%s.write", kinds[i].name);
            TOUCH(name, p + 24, 'w', p);
        }
    }
    mprotect(p, PAGE, PROT_READ | PROT_WRITE);
    RET("unaligned", syscall(SYS_mprotect, p + 1, PAGE, PROT_READ));
    RET("zero_length", syscall(SYS_mprotect, p, 0, PROT_NONE));
    RET("bad_prot", syscall(SYS_mprotect, p, PAGE, 0x40000000));
    RET("growsdown_and_up", syscall(SYS_mprotect, p, PAGE, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP));
    RET("growsdown_not_stack", syscall(SYS_mprotect, p, PAGE, PROT_READ | PROT_GROWSDOWN));
    RET("wraps", syscall(SYS_mprotect, p, ~0UL - PAGE, PROT_READ));
    RET("middle", mprotect(p + 2 * PAGE, 2 * PAGE, PROT_READ));
    TOUCH("split.below", p + 2 * PAGE - 1, 'w', p);
    TOUCH("split.first", p + 2 * PAGE, 'w', p);
    TOUCH("split.last", p + 4 * PAGE - 1, 'w', p);
    TOUCH("split.above", p + 4 * PAGE, 'w', p);
    RET("across_split", mprotect(p, 8 * PAGE, PROT_READ));
    TOUCH("across.first", p, 'w', p);
    TOUCH("across.last", p + 8 * PAGE - 1, 'w', p);
    munmap(p + 5 * PAGE, PAGE);
    RET("hole", mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE));
    TOUCH("hole.before_is_changed", p + 4 * PAGE, 'w', p);
    TOUCH("hole.after_is_not", p + 6 * PAGE, 'w', p);
    RET("starts_in_hole", mprotect(p + 5 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE));

    tmp_enter();
    put_file("f", "content", 0644);
    int ro = MUST(open("f", O_RDONLY)), rw = MUST(open("f", O_RDWR));
    char *sh = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 0), *pr = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ro, 0);
    RET("shared_readonly_file.write", mprotect(sh, PAGE, PROT_READ | PROT_WRITE));
    RET("private_readonly_file.write", mprotect(pr, PAGE, PROT_READ | PROT_WRITE));
    pr[0] = 'X';
    val("private.not_in_file", "%c", sh[0]);
    char *sw = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, rw, 0);
    RET("shared_rw_file.write", mprotect(sw, PAGE, PROT_READ | PROT_WRITE));
    sw[0] = 'Y';
    val("shared.in_file", "%c", sh[0]);
    // A write system call checks the same protections and reports EFAULT.
    int z = MUST(open("/dev/zero", O_RDONLY));
    mprotect(p, PAGE, PROT_READ);
    RET("syscall_into_readonly", read(z, p, 16));
    mprotect(p, PAGE, PROT_NONE);
    int n = MUST(open("f", O_RDWR));
    RET("syscall_from_none", write(n, p, 16));
    return 0;
}
