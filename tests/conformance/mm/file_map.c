// File mappings: coherence with read(2)/write(2), SIGBUS beyond the end, truncation, permissions needed, offsets, msync(2).
#include "../fault.h"

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    tmp_enter();
    int fd = MUST(open("f", O_RDWR | O_CREAT, 0644));
    char buf[64] = {0};
    MUST(ftruncate(fd, PAGE + 100));
    MUST(pwrite(fd, "hello", 5, 0));
    char *s = mmap(NULL, 3 * PAGE, rw, MAP_SHARED, fd, 0);
    val("read_through", "%.5s", s);
    memcpy(s + 10, "mapped", 6);
    pread(fd, buf, 6, 10);
    val("write_through_map", "%s", buf);
    MUST(pwrite(fd, "W", 1, 10));
    val("write_through_file", "%.6s", s + 10);
    TOUCH("last_byte", s + PAGE + 99, 'w', s);
    val("tail_is_zero", "%d", s[PAGE + 100]);
    TOUCH("rest_of_last_page", s + 2 * PAGE - 1, 'w', s);
    TOUCH("beyond.read", s + 2 * PAGE, 'r', s);
    TOUCH("beyond.write", s + 3 * PAGE - 1, 'w', s);
    int pfd[2];
    MUST(pipe(pfd));
    RET("beyond.syscall", write(pfd[1], s + 2 * PAGE, 10));
    MUST(ftruncate(fd, 3 * PAGE));
    TOUCH("grown", s + 2 * PAGE, 'r', s);
    s[2 * PAGE] = 'T';
    MUST(ftruncate(fd, 10));
    TOUCH("shrunk.first_page", s + 100, 'r', s);
    TOUCH("shrunk.second_page", s + PAGE, 'r', s);
    MUST(ftruncate(fd, 3 * PAGE));
    val("regrown_is_zero", "%d %d %d", s[10], s[PAGE], s[2 * PAGE]);
    // Private: sees the file until written.
    char *p = mmap(NULL, 3 * PAGE, rw, MAP_PRIVATE, fd, 0);
    MUST(pwrite(fd, "later", 5, PAGE));
    val("private.sees_file", "%.5s", p + PAGE);
    p[PAGE] = 'P';
    MUST(pwrite(fd, "LATER", 5, PAGE));
    val("private.has_copy", "%.5s", p + PAGE);
    pread(fd, buf, 5, PAGE);
    val("private.not_in_file", "%.5s", buf);
    // Closing and unlinking leave the mapping.
    close(fd);
    MUST(unlink("f"));
    s[0] = 'Q';
    val("unlinked", "%.5s", s);

    put_file("g", "0123456789", 0644);
    int ro = MUST(open("g", O_RDONLY)), wo = MUST(open("g", O_WRONLY)), op = MUST(open("g", O_PATH));
    OK("readonly.shared_write", mmap(NULL, PAGE, rw, MAP_SHARED, ro, 0));
    OK("readonly.shared_read", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 0));
    OK("readonly.private_write", mmap(NULL, PAGE, rw, MAP_PRIVATE, ro, 0));
    OK("writeonly.read", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, wo, 0));
    OK("writeonly.write", mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, wo, 0));
    OK("opath", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, op, 0));
    int dir = MUST(open(".", O_RDONLY));
    OK("directory", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, dir, 0));
    OK("pipe", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pfd[0], 0));
    OK("offset_unaligned", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ro, 512));
    OK("offset_overflow", mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, ro, 0x7ffffffffffff000));
    char *far = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ro, 1 << 20);
    YES("offset_beyond_end.maps", far != MAP_FAILED);
    TOUCH("offset_beyond_end.touch", far, 'r', far);
    OK("shared_validate", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, ro, 0));
    OK("shared_validate_bad", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x800000, ro, 0));
    OK("private_unknown_flag_ignored", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | 0x800000, ro, 0));
    int zero = MUST(open("/dev/zero", O_RDWR));
    char *z = mmap(NULL, PAGE, rw, MAP_PRIVATE, zero, 0);
    val("dev_zero.private", "%d", z[5]);
    z = mmap(NULL, PAGE, rw, MAP_SHARED, zero, 0);
    z[0] = 1;
    CHILD(z[0] = 2);
    val("dev_zero.shared", "%d", z[0]);
    // A page offset within the file.
    int h = MUST(open("h", O_RDWR | O_CREAT, 0644));
    MUST(ftruncate(h, 4 * PAGE));
    MUST(pwrite(h, "two", 3, 2 * PAGE));
    char *o = mmap(NULL, PAGE, rw, MAP_SHARED, h, 2 * PAGE);
    val("offset", "%.3s", o);
    RET("msync.sync", msync(o, PAGE, MS_SYNC));
    RET("msync.async", msync(o, PAGE, MS_ASYNC));
    RET("msync.both", msync(o, PAGE, MS_SYNC | MS_ASYNC));
    RET("msync.none", msync(o, PAGE, 0));
    RET("msync.bad", msync(o, PAGE, 0x80));
    RET("msync.unaligned", msync(o + 1, PAGE, MS_SYNC));
    RET("msync.zero", msync(o, 0, MS_SYNC));
    munmap(o, PAGE);
    RET("msync.unmapped", msync(o, PAGE, MS_SYNC));
    return 0;
}
