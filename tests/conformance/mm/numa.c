// Memory policies where node 0 is the only node: modes, flags, masks, and what is told back, for tasks and for ranges.
// set_mempolicy(2), get_mempolicy(2), mbind(2), move_pages(2), migrate_pages(2).
// needs: a kernel with NUMA support on a machine with one node
#include "../check.h"

#define DEFAULT 0
#define PREFERRED 1
#define BIND 2
#define INTERLEAVE 3
#define LOCAL 4
#define MANY 5
#define STATIC (1 << 15)
#define RELATIVE (1 << 14)
#define BALANCING (1 << 13)

static unsigned long mask[64];

static void shown(const char *name, void *addr, unsigned long flags) {
    int mode = -1;
    unsigned long nodes[64] = {~0UL};
    errno = 0;
    if (syscall(SYS_get_mempolicy, &mode, nodes, 1024, addr, flags) != 0) val(name, "-1 %s", ename(errno));
    else val(name, "%#x nodes %lx", mode, nodes[0]);
}
static long set(int mode, unsigned long nodes, unsigned long max) {
    mask[0] = nodes;
    return syscall(SYS_set_mempolicy, mode, mask, max);
}

int main(void) {
    char name[64];
    char *p = (char *)MUST(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    p[0] = 1;
    shown("fresh", NULL, 0);
    shown("fresh.addr", p, 2);
    shown("allowed", NULL, 4);
    shown("node_of_page", p, 3);
    shown("node_of_untouched", p + PAGE, 3);
    shown("get.addr_without_flag", p, 0);
    shown("get.node_without_addr", NULL, 1);
    shown("get.unmapped", (void *)PAGE, 2);
    shown("get.bad_flag", NULL, 8);
    shown("get.mixed_flags", p, 6);
    int mode;
    RET("get.maxnode_0", syscall(SYS_get_mempolicy, &mode, mask, 0, 0, 0));
    RET("get.maxnode_1", syscall(SYS_get_mempolicy, &mode, mask, 1, 0, 0));
    RET("get.maxnode_huge", syscall(SYS_get_mempolicy, &mode, mask, 1UL << 20, 0, 0));
    RET("get.nothing", syscall(SYS_get_mempolicy, NULL, NULL, 0, 0, 0));
    RET("get.bad_pointer", syscall(SYS_get_mempolicy, 16, NULL, 0, 0, 0));

    for (int m = DEFAULT; m <= MANY; m++) {
        for (int some = 0; some < 2; some++) {
            set(DEFAULT, 0, 0);
            snprintf(name, sizeof name, "set.%d.%s", m, some ? "node0" : "empty");
            RET(name, set(m, some, 64));
            shown(name, NULL, 0);
            shown(name, NULL, 1);
        }
        snprintf(name, sizeof name, "set.%d.static", m);
        RET(name, set(m | STATIC, m != DEFAULT && m != LOCAL, 64));
        shown(name, NULL, 0);
        snprintf(name, sizeof name, "set.%d.relative", m);
        RET(name, set(m | RELATIVE, m != DEFAULT && m != LOCAL, 64));
        snprintf(name, sizeof name, "set.%d.both", m);
        RET(name, set(m | RELATIVE | STATIC, 1, 64));
    }
    RET("set.balancing_bind", set(BIND | BALANCING, 1, 64));
    RET("set.balancing_interleave", set(INTERLEAVE | BALANCING, 1, 64));
    RET("set.unknown_mode", set(77, 1, 64));
    RET("set.negative_mode", set(-1, 1, 64));
    RET("set.absent_node", set(BIND, 2, 64));
    RET("set.absent_preferred", set(PREFERRED, 2, 64));
    RET("set.one_absent", set(BIND, 3, 64));
    RET("set.max_1", set(BIND, 1, 1));
    RET("set.max_2", set(BIND, 1, 2));
    RET("set.max_2_cuts", set(BIND, 2, 2));
    RET("set.max_1025", set(BIND, 1, 1025));
    mask[17] = 1;
    RET("set.far_node", set(BIND, 1, 2048));
    mask[17] = 0;
    RET("set.max_too_large", set(BIND, 1, 8 * PAGE + 2));
    RET("set.bad_pointer", syscall(SYS_set_mempolicy, BIND, 16, 64));
    RET("set.null_mask", syscall(SYS_set_mempolicy, BIND, NULL, 64));
    RET("set.interleave", set(INTERLEAVE, 1, 64));
    val("inherited", "%s", wname(CHILD({ shown("child", NULL, 0); })));
    shown("addr.from_task", p, 2);
    set(DEFAULT, 0, 0);

    mask[0] = 1;
    RET("mbind.bind", syscall(SYS_mbind, p + PAGE, PAGE, BIND, mask, 64, 0));
    shown("mbind.before", p, 2);
    shown("mbind.at", p + PAGE, 2);
    shown("mbind.after", p + 2 * PAGE, 2);
    RET("mbind.whole", syscall(SYS_mbind, p, 4 * PAGE, INTERLEAVE, mask, 64, 3));
    shown("mbind.whole", p + 3 * PAGE + 5, 2);
    RET("mbind.reset", syscall(SYS_mbind, p, 4 * PAGE, DEFAULT, NULL, 0, 0));
    shown("mbind.reset", p, 2);
    RET("mbind.unaligned", syscall(SYS_mbind, p + 1, PAGE, BIND, mask, 64, 0));
    RET("mbind.empty", syscall(SYS_mbind, p, 0, BIND, mask, 64, 0));
    RET("mbind.no_nodes", syscall(SYS_mbind, p, PAGE, BIND, NULL, 0, 0));
    RET("mbind.bad_flags", syscall(SYS_mbind, p, PAGE, BIND, mask, 64, 8));
    RET("mbind.unmapped", syscall(SYS_mbind, PAGE, PAGE, BIND, mask, 64, 0));
    RET("mbind.unmapped_default", syscall(SYS_mbind, PAGE, PAGE, DEFAULT, NULL, 0, 0));
    RET("mbind.overflow", syscall(SYS_mbind, p, -PAGE, BIND, mask, 64, 0));
    munmap(p + 2 * PAGE, PAGE);
    RET("mbind.hole", syscall(SYS_mbind, p, 4 * PAGE, BIND, mask, 64, 0));
    RET("mbind.hole_default", syscall(SYS_mbind, p, 4 * PAGE, DEFAULT, NULL, 0, 0));

    void *pages[3] = {p, p + PAGE, (void *)PAGE};
    int status[3] = {9, 9, 9}, nodes[3] = {0, 0, 0};
    RET("move_pages.query", syscall(SYS_move_pages, 0, 3, pages, NULL, status, 0));
    val("move_pages.status", "%d %d %d", status[0], status[1], status[2]);
    RET("move_pages.to_0", syscall(SYS_move_pages, 0, 3, pages, nodes, status, 2));
    val("move_pages.status", "%d %d %d", status[0], status[1], status[2]);
    nodes[0] = 1;
    RET("move_pages.absent_node", syscall(SYS_move_pages, 0, 3, pages, nodes, status, 2));
    RET("move_pages.bad_flags", syscall(SYS_move_pages, 0, 3, pages, NULL, status, 1));
    RET("move_pages.nobody", syscall(SYS_move_pages, 0x3fffffff, 3, pages, NULL, status, 2));
    RET("move_pages.none", syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0));
    RET("move_pages.bad_pointer", syscall(SYS_move_pages, 0, 1, 16, NULL, status, 0));
    unsigned long zero[1] = {1}, one[1] = {2};
    RET("migrate_pages.same", syscall(SYS_migrate_pages, 0, 64, zero, zero));
    RET("migrate_pages.bad_pointer", syscall(SYS_migrate_pages, 0, 64, 16, zero));
    RET("migrate_pages.nobody", syscall(SYS_migrate_pages, 0x3fffffff, 64, zero, zero));
    (void)one;
    char text[4096];
    YES("node0.meminfo", get_file("/sys/devices/system/node/node0/meminfo", text, sizeof text) != NULL);
    YES("node0.total", strstr(text, "Node 0 MemTotal: ") == text);
    YES("node0.free", strstr(text, "Node 0 MemFree: ") != NULL);
    return 0;
}
