// A dynamically linked program: the interpreter is loaded beside it and AT_BASE names it; the program is position
// independent, its segments have the protections that its headers ask for; dlopen-able libraries work. ld.so(8).
// build: dynamic
#include "../fault.h"
#include <elf.h>
#include <link.h>
#include <math.h>

static const int constant[2] = {1, 2};
static int data = 3, bss[4000];
extern char __ehdr_start[] __attribute__((visibility("hidden")));

static int count(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)info;
    (void)size;
    ++*(int *)arg;
    return 0;
}

int main(void) {
    ElfW(Ehdr) *eh = (void *)__ehdr_start;
    unsigned long base = getauxval(AT_BASE);
    YES("is_pie", eh->e_type == ET_DYN);
    YES("at_base.is_elf", base && !memcmp((void *)base, ELFMAG, SELFMAG));
    YES("at_base.is_not_the_program", base != (unsigned long)eh);
    YES("at_entry", getauxval(AT_ENTRY) == (unsigned long)eh + eh->e_entry);
    YES("at_phdr", getauxval(AT_PHDR) == (unsigned long)eh + eh->e_phoff);
    YES("at_phnum", getauxval(AT_PHNUM) == eh->e_phnum);
    TOUCH("text.write", (char *)main, 'w', main);
    TOUCH("rodata.write", constant, 'w', constant);
    TOUCH("data.write", &data, 'w', &data);
    TOUCH("data.exec", &data, 'x', &data);
    TOUCH("bss.write", bss + 3999, 'w', bss);
    int sum = 0;
    for (int i = 0; i < 3999; i++) sum += bss[i];
    val("bss.zero", "%d", sum);
    int n = 0;
    dl_iterate_phdr(count, &n);
    YES("objects.several", n >= 3);
    const ElfW(Phdr) *ph = (void *)getauxval(AT_PHDR);
    const char *interp = NULL;
    for (int i = 0; i < eh->e_phnum; i++)
        if (ph[i].p_type == PT_INTERP) interp = (char *)eh + ph[i].p_vaddr;
    val("interp", "%s", interp ? interp : "none");
    // Run once more through the interpreter itself.
    if (interp && !getenv("INNER")) {
        setenv("INNER", "1", 1);
        val("direct", "%s", wname(CHILD(execl(interp, interp, self_path(), NULL); _exit(99))));
    }
    return 0;
}
