// /proc/self/maps and friends tell the truth about our own mappings: addresses, protections, names, merging. proc(5).
#include "../check.h"

static char b[1 << 20];
struct line { unsigned long start, end; char perms[8]; unsigned long off; char name[256]; };

static int find(const void *addr, struct line *out) {
    if (!get_file("/proc/self/maps", b, sizeof b)) return 0;
    for (char *l = b; *l; l = strchr(l, '\n') + 1) {
        unsigned maj, min;
        unsigned long ino;
        char one[512];
        snprintf(one, sizeof one, "%.*s", (int)strcspn(l, "\n"), l);
        out->name[0] = 0;
        if (sscanf(one, "%lx-%lx %7s %lx %x:%x %lu %255[^\n]", &out->start, &out->end, out->perms, &out->off, &maj, &min, &ino, out->name) < 7) return -1;
        if ((unsigned long)addr >= out->start && (unsigned long)addr < out->end) return 1;
    }
    return 0;
}
static void show(const char *name, char *addr, char *base, size_t pages) {
    struct line l;
    int r = find(addr, &l);
    if (r != 1) val(name, "%s", r ? "bad line" : "not mapped");
    else {
        // Neighbours may have merged with it, so say only what is ours.
        bool covers = l.start <= (unsigned long)addr && l.end >= (unsigned long)addr + pages * PAGE;
        char *slash = strcmp(l.name, self_path()) ? strrchr(l.name, '/') : "(this program)";
        val(name, "%s covers %d%s%s", l.perms, covers, l.name[0] ? " " : "", slash ? slash : l.name);
    }
    (void)base;
}
static int lines_between(char *from, char *to) {
    struct line l;
    int n = 0;
    if (!get_file("/proc/self/maps", b, sizeof b)) return -1;
    for (char *p = b; *p; p = strchr(p, '\n') + 1)
        if (sscanf(p, "%lx-%lx", &l.start, &l.end) == 2 && l.start < (unsigned long)to && l.end > (unsigned long)from) n++;
    return n;
}
static int data_var = 1;
static const int ro_var = 2;

int main(void) {
    tmp_enter();
    struct line l;
    int local;
    show("text", (char *)main, NULL, 1);
    YES("text.is_exe", find((char *)main, &l) == 1 && !strcmp(l.name, self_path()));
    show("rodata", (char *)&ro_var, NULL, 1);
    show("data", (char *)&data_var, NULL, 0);
    show("stack", (char *)&local, NULL, 0);
    char *heap = sbrk(PAGE);
    *heap = 1;
    show("heap", heap, NULL, 0);
    show("vdso", (char *)getauxval(AT_SYSINFO_EHDR), NULL, 1);
    // Ours, with guard pages so that nothing merges from outside.
    char *g = mmap(NULL, 34 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *p = g + PAGE;
    const int fx = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    mmap(p, 4 * PAGE, PROT_READ | PROT_WRITE, fx, -1, 0);
    show("anonymous", p, p, 4);
    val("anonymous.lines", "%d", lines_between(p, p + 4 * PAGE));
    mprotect(p + PAGE, PAGE, PROT_READ);
    val("split.lines", "%d", lines_between(p, p + 4 * PAGE));
    show("split.middle", p + PAGE, p, 1);
    mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE);
    val("split.merged_again", "%d", lines_between(p, p + 4 * PAGE));
    munmap(p + 2 * PAGE, PAGE);
    val("hole.lines", "%d", lines_between(p, p + 4 * PAGE));
    show("hole", p + 2 * PAGE, p, 1);
    mmap(p + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, fx, -1, 0);
    val("hole.filled_merges", "%d", lines_between(p, p + 4 * PAGE));
    mmap(p + 8 * PAGE, 2 * PAGE, PROT_READ | PROT_EXEC, fx, -1, 0);
    show("exec", p + 8 * PAGE, p, 2);
    mmap(p + 10 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (find(p + 10 * PAGE, &l) == 1) val("shared_anonymous", "%s [%s]", l.perms, l.name);
    int fd = MUST(open("file name", O_RDWR | O_CREAT, 0600));
    ftruncate(fd, 4 * PAGE);
    mmap(p + 14 * PAGE, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, PAGE);
    show("file.private", p + 14 * PAGE, p, 2);
    find(p + 14 * PAGE, &l);
    val("file.offset", "%lu", l.off);
    struct stat st;
    fstat(fd, &st);
    char ino[32];
    snprintf(ino, sizeof ino, " %lu ", (unsigned long)st.st_ino);
    YES("file.inode", strstr(b, ino));
    mmap(p + 18 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    show("file.shared", p + 18 * PAGE, p, 1);
    unlink("file name");
    show("file.deleted", p + 14 * PAGE, p, 2);
    int m = MUST(memfd_create("named", 0));
    ftruncate(m, PAGE);
    mmap(p + 22 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, m, 0);
    show("memfd", p + 22 * PAGE, p, 1);
    mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 26 * PAGE);
    show("mremap.old", p, p, 1);
    show("mremap.new", p + 26 * PAGE, p, 1);
    // Every line is well formed, in order and without overlap; addresses are at least eight digits.
    get_file("/proc/self/maps", b, sizeof b);
    unsigned long last = 0;
    int bad = 0, n = 0;
    for (char *q = b; *q; q = strchr(q, '\n') + 1, n++) {
        unsigned maj, min;
        unsigned long i;
        if (sscanf(q, "%lx-%lx %7s %lx %x:%x %lu", &l.start, &l.end, l.perms, &l.off, &maj, &min, &i) != 7) bad++;
        if (l.start < last && l.start < 0xffff000000000000) bad++;
        if (strlen(l.perms) != 4 || l.start >= l.end || strcspn(q, "-") < 8) bad++;
        last = l.end;
    }
    val("well_formed", "bad %d", bad);
    YES("several", n > 8);
    // Reading it in small pieces gives the same.
    static char c[1 << 20];
    fd = open("/proc/self/maps", O_RDONLY);
    size_t have = 0;
    ssize_t r;
    while ((r = read(fd, c + have, 100)) > 0) have += r;
    c[have] = 0;
    YES("small_reads", !strcmp(b, c));
    RET("lseek", lseek(fd, 0, SEEK_SET));
    RET("pread", pread(fd, c, 20, 0) > 0 ? 0 : -1);
    YES("pread.start", !strncmp(b, c, 20));
    // mem
    int mem = OK("mem.open", open("/proc/self/mem", O_RDWR));
    static volatile char target[16] = "original";
    RET("mem.read", pread(mem, c, 8, (off_t)(uintptr_t)target));
    val("mem.read_content", "%.8s", c);
    RET("mem.write", pwrite(mem, "changed!", 8, (off_t)(uintptr_t)target));
    val("mem.written", "%.8s", (char *)target);
    RET("mem.unmapped", pread(mem, c, 8, 8));
    RET("mem.writes_readonly", pwrite(mem, "\x02", 1, (off_t)(uintptr_t)&ro_var) == 1 ? 0 : -1);
    return 0;
}
