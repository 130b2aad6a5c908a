// System V shared memory: keys, sizes, permissions, attaching and detaching, counts, removal. shmget(2), shmop(2), shmctl(2).
#include "../check.h"
#include <sys/ipc.h>
#include <sys/shm.h>

static long at(const char *name, int id, void *addr, int flags) {
    errno = 0;
    void *p = shmat(id, addr, flags);
    val(name, "%s", p == (void *)-1 ? ename(errno) : addr && p == addr ? "there" : "somewhere");
    return (long)p;
}
static struct shmid_ds stat_of(int id) {
    struct shmid_ds ds = {0};
    MUST(shmctl(id, IPC_STAT, &ds));
    return ds;
}

int main(void) {
    key_t key = 0x51000000 | (getpid() & 0xffffff);
    RET("absent", shmget(key, 0, 0));
    RET("size_0", shmget(key, 0, IPC_CREAT | 0600));
    RET("size_huge", shmget(key, ~0UL, IPC_CREAT | 0600));
    int id = OK("create", shmget(key, 2 * PAGE + 5, IPC_CREAT | 0640));
    RET("exclusive", shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600));
    YES("found", shmget(key, 0, 0) == id);
    YES("found.smaller", shmget(key, PAGE, IPC_CREAT) == id);
    RET("found.larger", shmget(key, 9 * PAGE, 0));
    int private = OK("private", shmget(IPC_PRIVATE, PAGE, 0600));
    YES("private.another", private != id);
    struct shmid_ds ds = stat_of(id);
    val("stat", "size %zu mode %o attached %lu atime %d ctime %d own %d", ds.shm_segsz, ds.shm_perm.mode, ds.shm_nattch,
        ds.shm_atime != 0, llabs((long long)ds.shm_ctime - time(NULL)) < 10, ds.shm_perm.uid == geteuid() && ds.shm_perm.cgid == getegid());
    YES("stat.key", ds.shm_perm.__key == key && ds.shm_cpid == getpid() && ds.shm_lpid == 0);

    char *a = (char *)at("attach", id, NULL, 0), *b = (char *)at("attach.again", id, NULL, 0);
    strcpy(a + PAGE, "shared");
    val("same_memory", "%s", b + PAGE);
    YES("rest_of_page", a[3 * PAGE - 1] == 0);
    val("attached", "%lu", stat_of(id).shm_nattch);
    char *r = (char *)at("read_only", id, NULL, SHM_RDONLY);
    RET("read_only.mprotect", mprotect(r, PAGE, PROT_READ | PROT_WRITE));
    RET("write.mprotect", mprotect(b, PAGE, PROT_READ));
    val("attached.split", "%lu", stat_of(id).shm_nattch);
    RET("write.mprotect_back", mprotect(b, PAGE, PROT_READ | PROT_WRITE));
    char *hole = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    at("occupied", id, hole, 0);
    at("occupied.remap", id, hole, SHM_REMAP);
    RET("detach.remapped", shmdt(hole));
    at("unaligned", id, hole + 5, 0);
    at("rounded", id, hole + 5, SHM_RND);
    RET("detach.rounded", shmdt(hole));
    at("remap_null", id, NULL, SHM_REMAP);
    at("bad_id", -1, NULL, 0);
    at("no_such_id", 0x7ffffff0, NULL, 0);
    RET("detach.middle", shmdt(a + PAGE));
    RET("detach.unaligned", shmdt(a + 1));
    RET("detach.not_shared", shmdt(hole + 7 * PAGE));
    RET("detach", shmdt(b));
    RET("detach.again", shmdt(b));
    munmap(r, PAGE);
    val("attached.partly", "%lu", stat_of(id).shm_nattch);
    RET("detach.rest", shmdt(r));
    val("attached.rest", "%lu", stat_of(id).shm_nattch);
    val("fork", "%s", wname(CHILD({
        val("child.sees", "%s", a + PAGE);
        val("child.attached", "%lu", stat_of(id).shm_nattch);
        strcpy(a + PAGE, "from the child");
        YES("child.detach", shmdt(a) == 0);
        val("child.attached_after", "%lu", stat_of(id).shm_nattch);
    })));
    val("after_child", "%s, attached %lu", a + PAGE, stat_of(id).shm_nattch);
    char maps[65536], line[64];
    snprintf(line, sizeof line, "/SYSV%08x (deleted)", key);
    int fd = open("/proc/self/maps", O_RDONLY);
    ssize_t have = 0, n;
    while ((n = read(fd, maps + have, sizeof maps - 1 - have)) > 0) have += n;
    maps[have] = 0;
    YES("maps", strstr(maps, line) != NULL);
    ds.shm_perm.mode = 0604;
    RET("set", shmctl(id, IPC_SET, &ds));
    val("set.mode", "%o", stat_of(id).shm_perm.mode);
    val("other", "%s", wname(CHILD({
        MUST(setgid(65534));
        MUST(setuid(65534));
        OK("other.get_read", shmget(key, 0, 0444));
        RET("other.get_write", shmget(key, 0, 0666));
        at("other.read", id, NULL, SHM_RDONLY);
        at("other.write", id, NULL, 0);
        at("other.private", private, NULL, SHM_RDONLY);
        RET("other.stat_private", shmctl(private, IPC_STAT, &ds));
        RET("other.set", shmctl(id, IPC_SET, &ds));
        RET("other.remove", shmctl(id, IPC_RMID, NULL));
    })));
    RET("stat.bad_pointer", syscall(SYS_shmctl, id, IPC_STAT, 16));
    RET("ctl.unknown", syscall(SYS_shmctl, id, 77, NULL));
    RET("remove", shmctl(id, IPC_RMID, NULL));
    ds = stat_of(id);
    val("removed.mode", "%o attached %lu", ds.shm_perm.mode, ds.shm_nattch);
    YES("removed.key", ds.shm_perm.__key == IPC_PRIVATE);
    RET("removed.by_key", shmget(key, 0, 0));
    b = (char *)at("removed.attach", id, NULL, 0);
    val("removed.sees", "%s", b + PAGE);
    RET("removed.detach", shmdt(a));
    RET("removed.detach_last", shmdt(b));
    YES("removed.gone", shmctl(id, IPC_STAT, &ds) == -1 && (errno == EINVAL || errno == EIDRM));
    RET("private.remove", shmctl(private, IPC_RMID, NULL));
    YES("private.gone", shmctl(private, IPC_STAT, &ds) == -1 && (errno == EINVAL || errno == EIDRM));
    return 0;
}
