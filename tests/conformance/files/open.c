// open(2) and openat(2): the flag matrix and its errnos, modes and umask, O_PATH, O_TMPFILE, access modes of the result.
#include "../check.h"

#define OPEN(name, path, flags, ...)                                                                                \
    ({                                                                                                              \
        int fd_ = OK(name, open(path, flags, ##__VA_ARGS__));                                                       \
        if (fd_ >= 0) close(fd_);                                                                                   \
    })

static void mode_of(const char *name, const char *path) {
    struct stat st;
    if (lstat(path, &st)) val(name, "-1 %s", ename(errno));
    else val(name, "%o", st.st_mode);
}

int main(void) {
    tmp_enter();
    put_file("file", "content", 0644);
    MUST(mkdir("dir", 0755));
    MUST(symlink("file", "link"));
    MUST(symlink("dir", "dirlink"));
    MUST(symlink("nowhere", "dangling"));
    MUST(symlink("selfloop", "selfloop"));

    OPEN("missing", "missing", O_RDONLY);
    OPEN("empty_path", "", O_RDONLY);
    OPEN("null_path", (char *)8, O_RDONLY);
    OPEN("bad_pointer", (char *)~0xfffUL, O_RDONLY);
    OPEN("file_as_directory", "file/x", O_RDONLY);
    OPEN("file_slash", "file/", O_RDONLY);
    OPEN("file_dot", "file/.", O_RDONLY);
    OPEN("missing_parent", "no/such", O_RDWR | O_CREAT, 0644);
    OPEN("loop", "selfloop", O_RDONLY);
    OPEN("dangling", "dangling", O_RDONLY);
    OPEN("dangling_create", "dangling", O_RDWR | O_CREAT, 0600);
    mode_of("dangling_create.made", "nowhere");
    OPEN("creat_existing", "file", O_RDWR | O_CREAT, 0600);
    OPEN("creat_excl_existing", "file", O_RDWR | O_CREAT | O_EXCL, 0600);
    OPEN("creat_excl_new", "new", O_RDWR | O_CREAT | O_EXCL, 0640);
    mode_of("creat_excl_new.mode", "new");
    OPEN("creat_excl_symlink", "link", O_RDWR | O_CREAT | O_EXCL, 0600);
    OPEN("creat_excl_directory", "dir", O_RDONLY | O_CREAT | O_EXCL, 0600);
    OPEN("creat_directory", "dir", O_RDONLY | O_CREAT, 0600);
    OPEN("creat_slash", "newslash/", O_RDWR | O_CREAT, 0600);
    OPEN("creat_o_directory", "newdir", O_RDONLY | O_CREAT | O_DIRECTORY, 0600);
    OPEN("creat_dot", ".", O_RDWR | O_CREAT, 0600);
    OPEN("excl_alone", "file", O_RDWR | O_EXCL);
    OPEN("directory_read", "dir", O_RDONLY);
    OPEN("directory_write", "dir", O_WRONLY);
    OPEN("directory_rdwr", "dir", O_RDWR);
    OPEN("directory_trunc", "dir", O_RDONLY | O_TRUNC);
    OPEN("o_directory", "dir", O_RDONLY | O_DIRECTORY);
    OPEN("o_directory_file", "file", O_RDONLY | O_DIRECTORY);
    OPEN("o_directory_link", "dirlink", O_RDONLY | O_DIRECTORY);
    OPEN("nofollow_file", "file", O_RDONLY | O_NOFOLLOW);
    OPEN("nofollow_link", "link", O_RDONLY | O_NOFOLLOW);
    OPEN("nofollow_dirlink", "dirlink", O_RDONLY | O_NOFOLLOW | O_DIRECTORY);
    OPEN("nofollow_dirlink_slash", "dirlink/", O_RDONLY | O_NOFOLLOW);
    OPEN("nofollow_inner", "dirlink/.", O_RDONLY | O_NOFOLLOW);
    OPEN("accmode_3", "file", 3);
    OPEN("unknown_flag_ignored", "file", O_RDONLY | 0x10000000);
    char name[NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[NAME_MAX + 1] = 0;
    OPEN("name_256", name, O_RDWR | O_CREAT, 0600);
    name[NAME_MAX] = 0;
    OPEN("name_255", name, O_RDWR | O_CREAT, 0600);
    unlink(name);
    static char path[PATH_MAX + 1];
    for (int i = 0; i < PATH_MAX; i += 2) memcpy(path + i, "./", 2);
    OPEN("path_4096", path, O_RDONLY);
    path[PATH_MAX - 1] = 0;
    OPEN("path_4095", path, O_RDONLY);

    // Modes.
    umask(027);
    OPEN("umask.create", "masked", O_RDWR | O_CREAT, 0666);
    mode_of("umask.mode", "masked");
    umask(0);
    OPEN("mode_bits.create", "bits", O_RDWR | O_CREAT, 07777);
    mode_of("mode_bits.mode", "bits");
    OPEN("mode_high.create", "high", O_RDWR | O_CREAT, 0170644);
    mode_of("mode_high.mode", "high");
    umask(022);
    // The descriptor that creates is not bound by the mode it sets.
    int fd = MUST(open("ro", O_RDWR | O_CREAT, 0400));
    RET("create_readonly_then_write", write(fd, "x", 1));

    // Access modes.
    char c;
    int r = MUST(open("file", O_RDONLY)), w = MUST(open("file", O_WRONLY)), three = MUST(open("file", 3));
    RET("rdonly.write", write(r, "x", 1));
    RET("wronly.read", read(w, &c, 1));
    RET("accmode_3.read", read(three, &c, 1));
    RET("accmode_3.write", write(three, &c, 1));
    RET("rdonly.ftruncate", ftruncate(r, 0));
    RET("directory.read", read(MUST(open("dir", O_RDONLY)), &c, 1));
    OPEN("trunc_rdonly", "file", O_RDONLY | O_TRUNC);
    struct stat st;
    stat("file", &st);
    val("trunc_rdonly.size", "%ld", (long)st.st_size);

    // O_APPEND.
    int a = MUST(open("app", O_RDWR | O_CREAT | O_APPEND, 0600));
    RET("append.write1", write(a, "one", 3));
    lseek(a, 0, SEEK_SET);
    RET("append.write2", write(a, "two", 3));
    RET("append.position", lseek(a, 0, SEEK_CUR));
    RET("append.pwrite", pwrite(a, "X", 1, 0));
    char buf[32] = {0};
    pread(a, buf, 31, 0);
    val("append.content", "%s", buf);

    // O_PATH.
    int p = OK("path.file", open("file", O_PATH));
    RET("path.read", read(p, &c, 1));
    RET("path.write", write(p, &c, 1));
    RET("path.lseek", lseek(p, 0, SEEK_SET));
    RET("path.fstat", fstat(p, &st));
    RET("path.fchmod", fchmod(p, 0600));
    RET("path.fchown", fchown(p, 0, 0));
    RET("path.ftruncate", ftruncate(p, 0));
    RET("path.fsync", fsync(p));
    RET("path.getfl", fcntl(p, F_GETFL) & ~0100000);
    RET("path.setfl", fcntl(p, F_SETFL, O_APPEND));
    RET("path.ioctl", syscall(SYS_ioctl, p, 0x5401, buf));
    OK("path.dup", dup(p));
    RET("path.flock", syscall(SYS_flock, p, 1));
    RET("path.getdents", syscall(SYS_getdents64, open("dir", O_PATH), buf, sizeof buf));
    RET("path.fgetxattr", syscall(SYS_fgetxattr, p, "user.x", buf, 10));
    RET("path.fchdir", fchdir(MUST(open(".", O_PATH))));
    int pl = OK("path.symlink", open("link", O_PATH | O_NOFOLLOW));
    fstat(pl, &st);
    val("path.symlink_mode", "%o", st.st_mode & S_IFMT);
    RET("path.readlinkat_empty", readlinkat(pl, "", buf, sizeof buf));
    OPEN("path.other_flags_ignored", "file", O_PATH | O_CREAT | O_TRUNC | O_RDWR, 0600);
    OPEN("path.creat_missing", "missing", O_PATH | O_CREAT, 0600);
    OPEN("path.directory_file", "file", O_PATH | O_DIRECTORY);

    // O_TMPFILE.
    int t = OK("tmpfile", open(".", O_TMPFILE | O_RDWR, 0640));
    fstat(t, &st);
    val("tmpfile.stat", "nlink %ld mode %o", (long)st.st_nlink, st.st_mode);
    RET("tmpfile.write", write(t, "data", 4));
    OPEN("tmpfile.rdonly", ".", O_TMPFILE | O_RDONLY, 0600);
    OPEN("tmpfile.on_file", "file", O_TMPFILE | O_RDWR, 0600);
    OPEN("tmpfile.missing", "missing", O_TMPFILE | O_RDWR, 0600);
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", t);
    RET("tmpfile.link", linkat(AT_FDCWD, proc, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
    mode_of("tmpfile.linked", "linked");
    int te = MUST(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", te);
    RET("tmpfile.excl_link", linkat(AT_FDCWD, proc, AT_FDCWD, "linked2", AT_SYMLINK_FOLLOW));
    RET("tmpfile.empty_path_link", linkat(t, "", AT_FDCWD, "linked3", AT_EMPTY_PATH));

    // Descriptors: the lowest free one is taken.
    int lo = MUST(dup2(r, 500));
    RET("closed", close(lo));
    RET("close_again", close(lo));
    RET("close_negative", close(-1));
    int x = open("file", O_RDONLY), y = open("file", O_RDONLY);
    close(x);
    YES("lowest", open("file", O_RDONLY) == x && open("file", O_RDONLY) > y);
    struct rlimit rl = {64, 64};
    CHILD(setrlimit(RLIMIT_NOFILE, &rl); int last = -1, n; while ((n = open("file", O_RDONLY)) >= 0) last = n;
          val("nofile", "%s after %d", ename(errno), last); RET("nofile.dup", dup(r)); RET("nofile.dup2", dup2(r, 64));
          RET("nofile.dup2_below", dup2(r, 63)); int pp[2]; RET("nofile.pipe", pipe(pp)));
    return 0;
}
