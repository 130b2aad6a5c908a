// The auxiliary vector: which entries are there and that they are true. getauxval(3), elf(5).
#include "../check.h"
#include <elf.h>
#include <link.h>

extern char __ehdr_start[] __attribute__((weak, visibility("hidden")));

int main(int argc, char **argv, char **envp) {
    char **p = envp;
    while (*p) p++;
    ElfW(auxv_t) *av = (void *)(p + 1);
    unsigned long seen[64] = {0}, count[64] = {0};
    int n = 0;
    for (; av[n].a_type != AT_NULL; n++)
        if (av[n].a_type < 64) {
            seen[av[n].a_type] = av[n].a_un.a_val;
            count[av[n].a_type]++;
        }
    static const struct { int type; const char *name; } must[] = {
        {AT_PHDR, "AT_PHDR"},   {AT_PHENT, "AT_PHENT"},   {AT_PHNUM, "AT_PHNUM"}, {AT_PAGESZ, "AT_PAGESZ"},
        {AT_BASE, "AT_BASE"},   {AT_FLAGS, "AT_FLAGS"},   {AT_ENTRY, "AT_ENTRY"}, {AT_UID, "AT_UID"},
        {AT_EUID, "AT_EUID"},   {AT_GID, "AT_GID"},       {AT_EGID, "AT_EGID"},   {AT_PLATFORM, "AT_PLATFORM"},
        {AT_HWCAP, "AT_HWCAP"}, {AT_CLKTCK, "AT_CLKTCK"}, {AT_SECURE, "AT_SECURE"}, {AT_RANDOM, "AT_RANDOM"},
        {AT_HWCAP2, "AT_HWCAP2"}, {AT_EXECFN, "AT_EXECFN"}, {AT_SYSINFO_EHDR, "AT_SYSINFO_EHDR"},
    };
    for (size_t i = 0; i < COUNT(must); i++) {
        char name[64];
        snprintf(name, sizeof name, "count.%s", must[i].name);
        val(name, "%lu", count[must[i].type]);
    }
    val("pagesz", "%lu", seen[AT_PAGESZ]);
    val("phent", "%lu", seen[AT_PHENT]);
    val("clktck", "%lu", seen[AT_CLKTCK]);
    val("flags", "%lu", seen[AT_FLAGS]);
    val("base.static", "%lu", seen[AT_BASE]);
    val("secure", "%lu", seen[AT_SECURE]);
    val("platform", "%s", (char *)seen[AT_PLATFORM]);
    YES("uid", seen[AT_UID] == getuid() && seen[AT_EUID] == geteuid());
    YES("gid", seen[AT_GID] == getgid() && seen[AT_EGID] == getegid());
    ElfW(Ehdr) *eh = (void *)__ehdr_start;
    YES("entry", seen[AT_ENTRY] == eh->e_entry);
    YES("phdr", seen[AT_PHDR] == (unsigned long)__ehdr_start + eh->e_phoff);
    YES("phnum", seen[AT_PHNUM] == eh->e_phnum);
    const char *fn = (const char *)seen[AT_EXECFN];
    YES("execfn.same_file", access(fn, X_OK) == 0);
    // What getauxval says must be what the stack says.
    YES("getauxval", getauxval(AT_ENTRY) == seen[AT_ENTRY]);
    // AT_RANDOM: 16 bytes that differ between two executions, above the vector on the stack.
    unsigned char *rnd = (void *)seen[AT_RANDOM];
    YES("random.on_stack", (char *)rnd > (char *)&av[n]);
    int zero = 0;
    for (int i = 0; i < 16; i++) zero += rnd[i] == 0;
    YES("random.not_zero", zero < 8);
    if (argc > 1) {
        write(atoi(argv[1]), rnd, 16);
        return 0;
    }
    // The child's lines about shape are the same as ours, so its stdout is not wanted: only its random bytes.
    int pfd[2];
    unsigned char other[2][16];
    for (int i = 0; i < 2; i++) {
        MUST(pipe(pfd));
        char num[16];
        snprintf(num, sizeof num, "%d", pfd[1]);
        CHILD(int null = open("/dev/null", O_WRONLY); dup2(null, 1); execl(self_path(), "x", num, NULL); _exit(99));
        val("random.read", "%zd", read(pfd[0], other[i], 16));
        close(pfd[0]);
        close(pfd[1]);
    }
    YES("random.differs", memcmp(other[0], other[1], 16) && memcmp(other[0], rnd, 16));
    // The vDSO is a mapped ELF image.
    unsigned char *vdso = (void *)seen[AT_SYSINFO_EHDR];
    YES("vdso.elf", vdso && !memcmp(vdso, ELFMAG, SELFMAG));
    YES("vdso.aligned", ((unsigned long)vdso & (PAGE - 1)) == 0);
    YES("stack.aligned", ((unsigned long)(argv - 1) & 15) == 0);
    return 0;
}
