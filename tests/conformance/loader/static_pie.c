// A static position-independent executable: no interpreter, loaded at a place of the kernel's choosing, relocated by
// itself. elf(5).
// build: static-pie
#include "../fault.h"
#include <elf.h>
#include <link.h>

extern char __ehdr_start[] __attribute__((visibility("hidden")));
static int target = 42;
static int *pointer = &target; // needs a relocation

int main(int argc, char **argv) {
    ElfW(Ehdr) *eh = (void *)__ehdr_start;
    if (argc > 1) {
        write(atoi(argv[1]), &eh, sizeof eh);
        return 0;
    }
    YES("is_pie", eh->e_type == ET_DYN);
    val("at_base", "%lu", getauxval(AT_BASE));
    YES("at_entry", getauxval(AT_ENTRY) == (unsigned long)eh + eh->e_entry);
    YES("at_phdr", getauxval(AT_PHDR) == (unsigned long)eh + eh->e_phoff);
    YES("page_aligned", ((unsigned long)eh & (PAGE - 1)) == 0);
    val("relocated", "%d", *pointer);
    TOUCH("text.write", (char *)main, 'w', main);
    // The heap follows somewhere after the program, or at least is not in the low 64 KiB.
    YES("brk.sane", (unsigned long)sbrk(0) > 65536);
    void *where[3] = {eh};
    for (int i = 1; i < 3; i++) {
        int p[2];
        char num[16];
        MUST(pipe(p));
        snprintf(num, sizeof num, "%d", p[1]);
        val("again", "%s", wname(CHILD(execl(self_path(), "x", num, NULL); _exit(99))));
        MUST(read(p[0], &where[i], sizeof(void *)));
    }
    YES("randomised", where[0] != where[1] || where[1] != where[2]);
    return 0;
}
