// The *at family: dirfd and AT_FDCWD, absolute paths, wrong descriptors, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, bad flags.
#include "../check.h"

int main(void) {
    const char *tmp = tmp_enter();
    struct stat st;
    char buf[PATH_MAX];
    put_file("file", "content", 0644);
    MUST(mkdir("dir", 0755));
    put_file("dir/inner", "inner", 0600);
    MUST(symlink("file", "link"));
    MUST(symlink("missing", "dangling"));
    int dir = MUST(open("dir", O_RDONLY | O_DIRECTORY)), file = MUST(open("file", O_RDONLY)), path = MUST(open("dir", O_PATH));

    OK("openat.dirfd", openat(dir, "inner", O_RDONLY));
    OK("openat.opath", openat(path, "inner", O_RDONLY));
    OK("openat.file_fd", openat(file, "inner", O_RDONLY));
    OK("openat.bad_fd", openat(-5, "inner", O_RDONLY));
    OK("openat.closed_fd", openat(999, "inner", O_RDONLY));
    strcat(strcpy(buf, tmp), "/file");
    OK("openat.absolute_ignores_fd", openat(999, buf, O_RDONLY));
    OK("openat.dotdot", openat(dir, "../file", O_RDONLY));
    OK("openat.empty", openat(dir, "", O_RDONLY));

    RET("mkdirat", mkdirat(dir, "sub", 0700));
    RET("mkdirat.again", mkdirat(dir, "sub", 0700));
    RET("mkdirat.file_fd", mkdirat(file, "sub", 0700));
    RET("mkdirat.slash", mkdirat(dir, "sub2/", 0700));
    RET("mkdirat.dot", mkdirat(dir, ".", 0700));
    RET("mkdirat.dangling", mkdirat(AT_FDCWD, "dangling", 0700));
    RET("mkdirat.empty", mkdirat(dir, "", 0700));
    RET("mknodat.reg", mknodat(dir, "node", S_IFREG | 0600, 0));
    RET("mknodat.no_type", mknodat(dir, "node0", 0600, 0));
    RET("mknodat.fifo", mknodat(dir, "fifo", S_IFIFO | 0600, 0));
    RET("mknodat.sock", mknodat(dir, "sock", S_IFSOCK | 0600, 0));
    RET("mknodat.dir", mknodat(dir, "d", S_IFDIR | 0600, 0));
    RET("mknodat.bad", mknodat(dir, "d", 0110000 | 0600, 0));
    RET("mknodat.exists", mknodat(dir, "node", S_IFREG | 0600, 0));
    RET("mknodat.slash", mknodat(dir, "nodeslash/", S_IFREG | 0600, 0));
    fstatat(dir, "node0", &st, 0);
    val("mknodat.no_type_is", "%o", st.st_mode);

    RET("fstatat", fstatat(dir, "inner", &st, 0));
    RET("fstatat.follow_dangling", fstatat(AT_FDCWD, "dangling", &st, 0));
    RET("fstatat.nofollow_dangling", fstatat(AT_FDCWD, "dangling", &st, AT_SYMLINK_NOFOLLOW));
    val("fstatat.link_size", "%ld", (long)st.st_size);
    RET("fstatat.empty", fstatat(dir, "", &st, 0));
    RET("fstatat.empty_path", fstatat(dir, "", &st, AT_EMPTY_PATH));
    RET("fstatat.empty_path_cwd", fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    RET("fstatat.empty_path_bad_fd", fstatat(999, "", &st, AT_EMPTY_PATH));
    RET("fstatat.bad_flag", fstatat(dir, "inner", &st, 0x8000));
    RET("fstatat.bad_buffer", syscall(SYS_newfstatat, dir, "inner", 8, 0));
    RET("fstatat.no_automount", fstatat(dir, "inner", &st, AT_NO_AUTOMOUNT));

    RET("symlinkat", symlinkat("target", dir, "sym"));
    RET("symlinkat.exists", symlinkat("target", dir, "sym"));
    RET("symlinkat.empty_target", symlinkat("", dir, "sym2"));
    RET("symlinkat.slash", symlinkat("t", dir, "sym3/"));
    memset(buf, 0, sizeof buf);
    RET("readlinkat", readlinkat(dir, "sym", buf, sizeof buf));
    val("readlinkat.content", "%s", buf);
    RET("readlinkat.short", readlinkat(dir, "sym", buf, 3));
    RET("readlinkat.zero", syscall(SYS_readlinkat, dir, "sym", buf, 0));
    RET("readlinkat.negative", syscall(SYS_readlinkat, dir, "sym", buf, -1));
    RET("readlinkat.file", readlinkat(dir, "inner", buf, sizeof buf));
    RET("readlinkat.dir", readlinkat(AT_FDCWD, "dir", buf, sizeof buf));
    RET("readlinkat.missing", readlinkat(dir, "nothing", buf, sizeof buf));
    RET("readlinkat.empty_on_dir", readlinkat(dir, "", buf, sizeof buf));

    RET("linkat", linkat(dir, "inner", AT_FDCWD, "hard", 0));
    fstatat(dir, "inner", &st, 0);
    val("linkat.nlink", "%ld", (long)st.st_nlink);
    RET("linkat.exists", linkat(dir, "inner", AT_FDCWD, "hard", 0));
    RET("linkat.directory", linkat(AT_FDCWD, "dir", AT_FDCWD, "dirhard", 0));
    RET("linkat.symlink_itself", linkat(AT_FDCWD, "link", AT_FDCWD, "hardlink", 0));
    lstat("hardlink", &st);
    val("linkat.symlink_itself_is", "%o", st.st_mode & S_IFMT);
    RET("linkat.follow", linkat(AT_FDCWD, "link", AT_FDCWD, "hardfile", AT_SYMLINK_FOLLOW));
    lstat("hardfile", &st);
    val("linkat.follow_is", "%o", st.st_mode & S_IFMT);
    RET("linkat.bad_flag", linkat(dir, "inner", AT_FDCWD, "h2", 0x8000));
    RET("linkat.missing", linkat(dir, "nope", AT_FDCWD, "h3", 0));
    RET("linkat.into_missing_dir", linkat(dir, "inner", AT_FDCWD, "nodir/h", 0));
    RET("linkat.to_slash", linkat(dir, "inner", AT_FDCWD, "h4/", 0));
    RET("linkat.empty_path_fd", linkat(file, "", AT_FDCWD, "h5", AT_EMPTY_PATH));

    RET("unlinkat", unlinkat(dir, "sym", 0));
    RET("unlinkat.missing", unlinkat(dir, "sym", 0));
    RET("unlinkat.dir_as_file", unlinkat(dir, "sub", 0));
    RET("unlinkat.removedir_file", unlinkat(dir, "inner", AT_REMOVEDIR));
    RET("unlinkat.removedir", unlinkat(dir, "sub", AT_REMOVEDIR));
    RET("unlinkat.bad_flag", unlinkat(dir, "sub2", 0x1));
    RET("unlinkat.not_empty", unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
    RET("unlinkat.dot", unlinkat(dir, ".", AT_REMOVEDIR));
    RET("unlinkat.dotdot", unlinkat(dir, "..", AT_REMOVEDIR));
    RET("unlinkat.file_slash", unlinkat(dir, "node/", 0));
    RET("unlinkat.dir_slash_unlink", unlinkat(dir, "sub2/", 0));
    RET("unlinkat.dir_slash_rmdir", unlinkat(dir, "sub2/", AT_REMOVEDIR));
    RET("unlinkat.root", unlinkat(AT_FDCWD, "/", AT_REMOVEDIR));
    RET("unlinkat.empty", unlinkat(AT_FDCWD, "", 0));
    MUST(symlink("dir", "dirlink"));
    RET("unlinkat.dirlink_slash", unlinkat(AT_FDCWD, "dirlink/", 0));
    RET("unlinkat.dirlink_rmdir", unlinkat(AT_FDCWD, "dirlink", AT_REMOVEDIR));

    RET("fchmodat", fchmodat(dir, "inner", 0711, 0));
    fstatat(dir, "inner", &st, 0);
    val("fchmodat.mode", "%o", st.st_mode);
    RET("fchmodat.dangling", fchmodat(AT_FDCWD, "dangling", 0700, 0));
    RET("fchownat.nofollow", fchownat(AT_FDCWD, "dangling", 12, 34, AT_SYMLINK_NOFOLLOW));
    lstat("dangling", &st);
    val("fchownat.owner", "%d %d", st.st_uid, st.st_gid);
    RET("fchownat.follow", fchownat(AT_FDCWD, "dangling", 12, 34, 0));
    RET("fchownat.empty_path", fchownat(file, "", 5, -1, AT_EMPTY_PATH));
    fstat(file, &st);
    val("fchownat.empty_path_owner", "%d %d", st.st_uid, st.st_gid);
    RET("fchownat.bad_flag", fchownat(dir, "inner", 0, 0, 0x8000));

    RET("faccessat", faccessat(dir, "inner", R_OK, 0));
    RET("faccessat.bad_mode", faccessat(dir, "inner", 8, 0));
    RET("faccessat2.bad_flag", syscall(SYS_faccessat2, dir, "inner", R_OK, 1));
    RET("faccessat2.eaccess", syscall(SYS_faccessat2, dir, "inner", R_OK, AT_EACCESS));
    RET("faccessat2.nofollow", syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    RET("faccessat2.follow", syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, 0));
    RET("faccessat2.empty", syscall(SYS_faccessat2, file, "", R_OK, AT_EMPTY_PATH));
    RET("access.root_x_without_bits", access("file", X_OK));
    RET("access.root_w_readonly", ({ chmod("file", 0444); access("file", W_OK); }));
    RET("access.root_x_dir", ({ mkdir("locked", 0); access("locked", R_OK | W_OK | X_OK); }));
    return 0;
}
