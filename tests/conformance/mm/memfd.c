// memfd_create(2) and seals: flags, names, F_ADD_SEALS rules, what each seal forbids, mappings against seals.
#include "../fault.h"
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

static int sealed(int seals) {
    int fd = MUST(memfd_create("s", MFD_ALLOW_SEALING | MFD_CLOEXEC));
    MUST(ftruncate(fd, 2 * PAGE));
    MUST(pwrite(fd, "content", 7, 0));
    if (seals) MUST(fcntl(fd, F_ADD_SEALS, seals));
    return fd;
}

int main(void) {
    char b[300];
    struct stat st;
    int fd = OK("create", memfd_create("name", 0));
    RET("cloexec.not", fcntl(fd, F_GETFD));
    RET("cloexec", fcntl(memfd_create("name", MFD_CLOEXEC), F_GETFD));
    RET("flags", fcntl(fd, F_GETFL) & ~0100000);
    RET("bad_flags", memfd_create("x", 0x1000));
    OK("empty_name", memfd_create("", 0));
    memset(b, 'n', sizeof b);
    b[249] = 0;
    OK("name_249", memfd_create(b, 0));
    b[249] = 'n';
    b[250] = 0;
    RET("name_250", memfd_create(b, 0));
    RET("bad_pointer", syscall(SYS_memfd_create, 8, 0));
    fstat(fd, &st);
    val("stat", "%o nlink %ld size %ld", st.st_mode, (long)st.st_nlink, (long)st.st_size);
    snprintf(b, sizeof b, "/proc/self/fd/%d", fd);
    char link[64] = {0};
    RET("link", readlink(b, link, 63));
    val("link.target", "%s", link);
    RET("write", write(fd, "hello", 5));
    RET("pread", pread(fd, link, 5, 0));
    OK("reopen", open(b, O_RDONLY));
    RET("seals.without_flag", fcntl(fd, F_GET_SEALS));
    RET("add_seals.without_flag", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    int s = sealed(0);
    RET("seals.none", fcntl(s, F_GET_SEALS));
    RET("seals.bad", fcntl(s, F_ADD_SEALS, 0x100));
    int p[2];
    MUST(pipe(p));
    RET("seals.pipe", fcntl(p[0], F_GET_SEALS));
    RET("add_seals.pipe", fcntl(p[1], F_ADD_SEALS, F_SEAL_WRITE));
    snprintf(b, sizeof b, "/proc/self/fd/%d", s);
    RET("add_seals.readonly_descriptor", fcntl(MUST(open(b, O_RDONLY)), F_ADD_SEALS, F_SEAL_WRITE));
    // Shrink and grow.
    s = sealed(F_SEAL_SHRINK);
    RET("shrink.shrink", ftruncate(s, PAGE));
    RET("shrink.grow", ftruncate(s, 3 * PAGE));
    RET("shrink.same", ftruncate(s, 3 * PAGE));
    RET("shrink.write", write(s, "x", 1));
    s = sealed(F_SEAL_GROW);
    RET("grow.grow", ftruncate(s, 3 * PAGE));
    RET("grow.write_beyond", pwrite(s, "x", 1, 2 * PAGE));
    RET("grow.write_across", pwrite(s, "xyz", 3, 2 * PAGE - 1));
    RET("grow.fallocate", fallocate(s, 0, 0, 4 * PAGE));
    RET("grow.shrink", ftruncate(s, PAGE));
    // Write.
    s = sealed(F_SEAL_WRITE);
    RET("write.write", write(s, "x", 1));
    RET("write.grow", ftruncate(s, 3 * PAGE));
    RET("write.punch", fallocate(s, 3, 0, PAGE));
    OK("write.map_shared_rw", mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0));
    OK("write.map_private_rw", mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, s, 0));
    RET("write.read", pread(s, link, 7, 0));
    snprintf(b, sizeof b, "/proc/self/fd/%d", s);
    RET("write.reopened", write(open(b, O_RDWR), "x", 1));
    s = sealed(0);
    char *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    RET("write.while_mapped", fcntl(s, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(m, PAGE);
    RET("write.unmapped", fcntl(s, F_ADD_SEALS, F_SEAL_WRITE));
    // Future write: existing mappings keep working.
    s = sealed(0);
    m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    RET("future.add_while_mapped", fcntl(s, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    m[0] = 'F';
    RET("future.pread", pread(s, link, 7, 0));
    val("future.content", "%.7s", link);
    RET("future.write", write(s, "x", 1));
    OK("future.map_rw", mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0));
    char *r = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, s, 0);
    YES("future.map_r", r != MAP_FAILED);
    RET("future.mprotect", mprotect(r, PAGE, PROT_READ | PROT_WRITE));
    // Sealing the seals.
    s = sealed(F_SEAL_SEAL);
    RET("seal.add", fcntl(s, F_ADD_SEALS, F_SEAL_WRITE));
    RET("seal.get", fcntl(s, F_GET_SEALS));
    s = sealed(F_SEAL_SHRINK);
    RET("accumulate", fcntl(s, F_ADD_SEALS, F_SEAL_GROW));
    RET("accumulate.get", fcntl(s, F_GET_SEALS));
    RET("add_again", fcntl(s, F_ADD_SEALS, F_SEAL_GROW));
    CHILD(RET("fork.shares", fcntl(s, F_ADD_SEALS, F_SEAL_WRITE)));
    RET("fork.seen", fcntl(s, F_GET_SEALS));
    // Shared between processes by mapping.
    fd = memfd_create("shared", 0);
    ftruncate(fd, PAGE);
    m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHILD(char *o = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); strcpy(o, "from child"));
    val("shared", "%s", m);
    ftruncate(fd, 0);
    TOUCH("truncated", m, 'r', m);
    return 0;
}
