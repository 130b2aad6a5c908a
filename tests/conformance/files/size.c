// truncate(2), ftruncate, fallocate(2), lseek SEEK_DATA and SEEK_HOLE, posix_fadvise, fsync, sparse files. What depends
// on the kind of file system is left out.
#include "../check.h"
#include <linux/falloc.h>

static void size_of(const char *name, int fd) {
    struct stat st;
    fstat(fd, &st);
    val(name, "%ld", (long)st.st_size);
}

int main(void) {
    tmp_enter();
    char b[64];
    static char page[4 * PAGE];
    memset(page, 'd', sizeof page);
    int fd = MUST(open("f", O_RDWR | O_CREAT, 0644)), ro = MUST(open("f", O_RDONLY)), p[2];
    MUST(pipe(p));
    RET("ftruncate.grow", ftruncate(fd, 1000));
    size_of("ftruncate.size", fd);
    RET("ftruncate.position_stays", lseek(fd, 0, SEEK_CUR));
    RET("grown.read", read(fd, b, 10));
    val("grown.zero", "%d %d", b[0], b[9]);
    pwrite(fd, "tail", 4, 996);
    RET("ftruncate.shrink", ftruncate(fd, 998));
    RET("ftruncate.grow_again", ftruncate(fd, 1000));
    pread(fd, b, 4, 996);
    val("shrunk_part_is_zero", "%c%c %d %d", b[0], b[1], b[2], b[3]);
    RET("ftruncate.negative", ftruncate(fd, -1));
    RET("ftruncate.readonly", ftruncate(ro, 5));
    RET("ftruncate.pipe", ftruncate(p[1], 5));
    RET("ftruncate.directory", ftruncate(MUST(open(".", O_RDONLY)), 5));
    RET("ftruncate.bad_fd", ftruncate(999, 5));
    RET("truncate", truncate("f", 10));
    RET("truncate.missing", truncate("none", 10));
    RET("truncate.directory", truncate(".", 10));
    RET("truncate.negative", truncate("f", -1));
    RET("truncate.fifo", ({ mkfifo("fifo", 0600); truncate("fifo", 0); }));
    RET("truncate.dev_null", truncate("/dev/null", 5));

    ftruncate(fd, 0);
    RET("fallocate", fallocate(fd, 0, 0, 5000));
    size_of("fallocate.size", fd);
    RET("fallocate.keep_size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
    size_of("fallocate.keep_size_size", fd);
    RET("fallocate.extend_middle", fallocate(fd, 0, 6000, 100));
    size_of("fallocate.extend_size", fd);
    RET("fallocate.negative_offset", fallocate(fd, 0, -1, 10));
    RET("fallocate.zero_length", fallocate(fd, 0, 0, 0));
    RET("fallocate.negative_length", fallocate(fd, 0, 0, -1));
    RET("fallocate.overflow", fallocate(fd, 0, 0x7fffffffffffffff, 10));
    RET("fallocate.bad_mode", fallocate(fd, 0x8000, 0, 10));
    RET("fallocate.punch_without_keep", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
    RET("fallocate.readonly", fallocate(ro, 0, 0, 10));
    RET("fallocate.pipe", fallocate(p[1], 0, 0, 10));
    RET("fallocate.bad_fd", fallocate(999, 0, 0, 10));
    RET("fallocate.directory", fallocate(open(".", O_RDONLY), 0, 0, 10));
    pwrite(fd, page, sizeof page, 0);
    RET("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE));
    pread(fd, b, 1, PAGE - 1);
    char before = b[0];
    pread(fd, b, 1, PAGE);
    char first = b[0];
    pread(fd, b, 1, 2 * PAGE - 1);
    char last = b[0];
    pread(fd, b, 1, 2 * PAGE);
    val("punch.content", "%d %d %d %d", before, first, last, b[0]);
    size_of("punch.size", fd);
    RET("punch.unaligned", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 5));
    pread(fd, b, 20, 0);
    val("punch.unaligned_content", "%d %d %d %d", b[9], b[10], b[14], b[15]);
    RET("punch.beyond_end", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
    RET("posix_fallocate", posix_fallocate(fd, 0, 100));
    // Holes.
    int s = MUST(open("sparse", O_RDWR | O_CREAT, 0644));
    const off_t M = 1 << 20;
    pwrite(s, page, PAGE, M);
    RET("seek.data", lseek(s, 0, SEEK_DATA));
    RET("seek.hole_at_start", lseek(s, 0, SEEK_HOLE));
    RET("seek.hole_after_data", lseek(s, M, SEEK_HOLE));
    RET("seek.data_in_data", lseek(s, M + 5, SEEK_DATA));
    ftruncate(s, 2 * M);
    RET("seek.hole_in_tail", lseek(s, M, SEEK_HOLE));
    RET("seek.no_more_data", lseek(s, M + PAGE, SEEK_DATA));
    RET("seek.beyond_end", lseek(s, 2 * M, SEEK_HOLE));
    RET("seek.far_beyond", lseek(s, 3 * M, SEEK_DATA));
    struct stat st;
    fstat(s, &st);
    YES("sparse.few_blocks", st.st_blocks * 512 < M);
    RET("seek.dev_null_data", lseek(open("/dev/null", O_RDONLY), 5, SEEK_SET));
    RET("fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    RET("fadvise.dontneed", posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    ERR("fadvise.bad", posix_fadvise(fd, 0, 0, 99));
    ERR("fadvise.pipe", posix_fadvise(p[0], 0, 0, 0));
    ERR("fadvise.bad_fd", posix_fadvise(999, 0, 0, 0));
    RET("readahead", readahead(fd, 0, 100));
    RET("readahead.pipe", readahead(p[0], 0, 100));
    RET("fsync", fsync(fd));
    RET("fdatasync", fdatasync(fd));
    RET("fsync.directory", fsync(open(".", O_RDONLY)));
    RET("fsync.pipe", fsync(p[0]));
    RET("fsync.bad_fd", fsync(999));
    RET("sync_file_range", sync_file_range(fd, 0, 100, SYNC_FILE_RANGE_WRITE));
    RET("sync_file_range.bad_flags", sync_file_range(fd, 0, 100, 99));
    RET("syncfs", syncfs(fd));
    RET("syncfs.bad_fd", syncfs(999));
    return 0;
}
