// chmod(2), chown(2), umask, set-group-id directories, utimensat(2), stat(2), statx(2), access for other users, limits
// of what an unprivileged owner may do.
#include "../check.h"
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

static void show(const char *name, const char *path) {
    struct stat st;
    if (lstat(path, &st)) val(name, "-1 %s", ename(errno));
    else val(name, "%o %d:%d", st.st_mode, st.st_uid, st.st_gid);
}
static void times_of(const char *name, const char *path) {
    struct stat st;
    lstat(path, &st);
    val(name, "%ld.%09ld %ld.%09ld", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}
#define AS_USER(...) CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(syscall(SYS_setgroups, 0, NULL)); MUST(setresuid(1000, 1000, 1000)); __VA_ARGS__)

int main(void) {
    tmp_enter();
    put_file("f", "x", 0644);
    MUST(symlink("f", "l"));
    MUST(mkdir("d", 0755));
    RET("chmod", chmod("f", 0604));
    show("chmod.mode", "f");
    RET("chmod.special", chmod("f", 07777));
    show("chmod.special_mode", "f");
    RET("chmod.high_bits_ignored", chmod("f", 0170644));
    show("chmod.high_bits_mode", "f");
    RET("chmod.via_link", chmod("l", 0600));
    show("chmod.via_link_target", "f");
    show("chmod.via_link_link", "l");
    RET("chmod.missing", chmod("none", 0600));
    RET("fchmod", fchmod(open("f", O_RDONLY), 0640));
    RET("fchmodat.bad_flag_raw", syscall(SYS_fchmodat, AT_FDCWD, "f", 0644));
    RET("chown", chown("f", 10, 20));
    show("chown.result", "f");
    RET("chown.minus_one", chown("f", -1, 30));
    show("chown.minus_one_result", "f");
    RET("lchown", lchown("l", 5, 6));
    show("lchown.link", "l");
    show("lchown.target", "f");
    RET("chown.via_link", chown("l", 7, 8));
    show("chown.via_link_target", "f");
    chmod("f", 06775);
    RET("chown.clears_setuid", chown("f", 0, 0));
    show("chown.clears_setuid_result", "f");
    chmod("f", 02644);
    chown("f", 0, 0);
    show("chown.sgid_without_x_stays", "f");
    RET("fchown", fchown(open("f", O_RDONLY), 1, 2));
    show("fchown.result", "f");
    // Writing takes the set-id bits away, even for root? The host says.
    chmod("f", 06755);
    CHILD(int fd = open("f", O_WRONLY); write(fd, "y", 1));
    show("write_by_root.setid", "f");
    chown("f", 1000, 1000);
    chmod("f", 06777);
    AS_USER(int fd = open("f", O_WRONLY); write(fd, "y", 1));
    show("write_by_user.setid", "f");
    chmod("f", 06777);
    AS_USER(truncate("f", 0));
    show("truncate_by_user.setid", "f");
    chmod("f", 0644);
    // Umask.
    umask(0123);
    put_file("u1", "", 0666);
    RET("umask.returns_old", umask(022));
    umask(0123);
    int fd = MUST(open("u2", O_CREAT | O_RDWR, 0777));
    close(fd);
    mkdir("u3", 01777);
    mkfifo("u4", 0666);
    mknod("u5", S_IFREG | 0666, 0);
    show("umask.open", "u2");
    show("umask.mkdir", "u3");
    show("umask.mkfifo", "u4");
    show("umask.mknod", "u5");
    RET("umask.only_permission_bits", ({ umask(07777); umask(022); }));
    // Set-group-id directories hand their group on.
    chown("d", 0, 55);
    chmod("d", 02775);
    close(MUST(open("d/file", O_CREAT | O_RDWR, 0664)));
    mkdir("d/sub", 0755);
    symlink("x", "d/link");
    show("sgid_dir.file", "d/file");
    show("sgid_dir.sub", "d/sub");
    show("sgid_dir.link", "d/link");

    // What an ordinary user may and may not.
    chmod(".", 0777);
    put_file("root-owned", "secret", 0600);
    put_file("mine", "m", 0600);
    chown("mine", 1000, 1000);
    mkdir("locked", 0700);
    put_file("locked/in", "", 0644);
    mkdir("sticky", 01777);
    chmod("sticky", 01777);
    put_file("sticky/root", "", 0666);
    AS_USER(RET("user.chmod_other", chmod("root-owned", 0666)); RET("user.chmod_own", chmod("mine", 0604));
            RET("user.chown_own", chown("mine", 1001, -1)); RET("user.chown_same", chown("mine", 1000, 1000));
            RET("user.chgrp_foreign", chown("mine", -1, 77)); RET("user.open_other", open("root-owned", O_RDONLY));
            RET("user.open_write_other", open("root-owned", O_WRONLY)); RET("user.access_other", access("root-owned", R_OK));
            RET("user.access_exists", access("root-owned", F_OK)); RET("user.stat_other", stat("root-owned", &(struct stat){0}));
            RET("user.search_locked", stat("locked/in", &(struct stat){0})); RET("user.list_locked", open("locked", O_RDONLY));
            RET("user.opath_locked", open("locked/in", O_PATH)); RET("user.chdir_locked", chdir("locked"));
            RET("user.unlink_sticky", unlink("sticky/root")); RET("user.rename_sticky", rename("sticky/root", "sticky/r2"));
            put_file("sticky/user", "", 0600); RET("user.unlink_sticky_own", unlink("sticky/user"));
            RET("user.mknod_device", mknod("dev", S_IFCHR | 0600, 0x103));
            RET("user.noatime_other", open("sticky/root", O_RDONLY | O_NOATIME)); RET("user.chroot", chroot("."));
            RET("user.utime_now_writable", utimensat(AT_FDCWD, "sticky/root", NULL, 0));
            RET("user.utime_set_not_owner", utimensat(AT_FDCWD, "sticky/root", (struct timespec[2]){{1, 1}, {1, 1}}, 0));
            RET("user.sgid_of_own_group", ({ chmod("mine", 02755); struct stat st; stat("mine", &st); st.st_mode & 02000; }));
             RET("user.truncate_directory", truncate("sticky", 0)););
    // access(2) goes by the real ids, open by the effective ones.
    CHILD(MUST(setresuid(1000, 0, 0)); RET("real_id.access", access("root-owned", R_OK)); RET("real_id.eaccess", faccessat(AT_FDCWD, "root-owned", R_OK, AT_EACCESS));
          RET("real_id.open", open("root-owned", O_RDONLY) >= 0 ? 0 : -1));
    chmod("d/file", 0664);
    // The owner's bits count for the owner, even when others have more.
    put_file("odd", "x", 0066);
    chown("odd", 1000, 1000);
    AS_USER(RET("owner_bits_win", open("odd", O_RDONLY)); );
    CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(syscall(SYS_setgroups, 1, &(gid_t){55})); MUST(setresuid(2000, 2000, 2000));
          RET("supplementary_group", open("d/file", O_WRONLY) >= 0 ? 0 : -1); RET("group_bits", open("odd", O_RDONLY) >= 0 ? 0 : -1));

    // Times.
    struct timespec set[2] = {{1000, 111}, {2000, 222}};
    RET("utimensat", utimensat(AT_FDCWD, "f", set, 0));
    times_of("utimensat.times", "f");
    set[0].tv_nsec = UTIME_OMIT;
    set[1] = (struct timespec){3000, 333};
    RET("utimensat.omit", utimensat(AT_FDCWD, "f", set, 0));
    times_of("utimensat.omit_times", "f");
    set[0].tv_nsec = UTIME_NOW;
    set[1].tv_nsec = UTIME_OMIT;
    RET("utimensat.now", utimensat(AT_FDCWD, "f", set, 0));
    struct stat st;
    stat("f", &st);
    val("utimensat.now_times", "%s %ld", st.st_atim.tv_sec > 1600000000 ? "now" : "old", st.st_mtim.tv_sec);
    set[0] = set[1] = (struct timespec){0, 1000000000};
    RET("utimensat.bad_nsec", utimensat(AT_FDCWD, "f", set, 0));
    set[0] = set[1] = (struct timespec){5, 5};
    RET("utimensat.link", utimensat(AT_FDCWD, "l", set, AT_SYMLINK_NOFOLLOW));
    times_of("utimensat.link_times", "l");
    RET("utimensat.missing", utimensat(AT_FDCWD, "none", set, 0));
    RET("utimensat.missing_both_omit", utimensat(AT_FDCWD, "none", (struct timespec[2]){{0, UTIME_OMIT}, {0, UTIME_OMIT}}, 0));
    RET("utimensat.bad_flag", utimensat(AT_FDCWD, "f", set, 0x8000));
    RET("utimensat.fd", syscall(SYS_utimensat, open("f", O_RDONLY), NULL, set, 0));
    RET("utimensat.cwd_null", syscall(SYS_utimensat, AT_FDCWD, NULL, set, 0));
    times_of("utimensat.fd_times", "f");
    RET("utime", utime("f", &(struct utimbuf){100, 200}));
    times_of("utime.times", "f");
    RET("utimes", utimes("f", (struct timeval[2]){{1, 500000}, {2, 600000}}));
    times_of("utimes.times", "f");
    RET("utimes.bad_usec", utimes("f", (struct timeval[2]){{1, 1000000}, {2, 0}}));
    // Changes move the times that they should.
    set[0] = set[1] = (struct timespec){50, 0};
    utimensat(AT_FDCWD, "f", set, 0);
    fd = MUST(open("f", O_RDWR));
    write(fd, "z", 1);
    fstat(fd, &st);
    val("write.mtime", "%s", st.st_mtim.tv_sec > 50 ? "changed" : "same");
    utimensat(AT_FDCWD, "f", set, 0);
    chmod("f", 0600);
    stat("f", &st);
    val("chmod.mtime", "%s", st.st_mtim.tv_sec > 50 ? "changed" : "same");
    utimensat(AT_FDCWD, "d", set, 0);
    put_file("d/new", "", 0600);
    stat("d", &st);
    val("create.directory_mtime", "%s", st.st_mtim.tv_sec > 50 ? "changed" : "same");
    utimensat(AT_FDCWD, "f", set, 0);
    truncate("f", 1);
    stat("f", &st);
    val("truncate_same_size.mtime", "%s", st.st_mtim.tv_sec > 50 ? "changed" : "same");
    utimensat(AT_FDCWD, "f", set, 0);
    fd = MUST(open("f", O_RDWR | O_TRUNC));
    close(fd);
    fd = MUST(open("f", O_RDWR | O_TRUNC));
    fstat(fd, &st);
    val("open_trunc.mtime", "%s", st.st_mtim.tv_sec > 50 ? "changed" : "same");

    // statx.
    struct statx sx;
    memset(&sx, 0xff, sizeof sx);
    put_file("sx", "12345", 0640);
    RET("statx", statx(AT_FDCWD, "sx", 0, STATX_BASIC_STATS, &sx));
    val("statx.value", "mask %#x mode %o size %llu nlink %u uid %u blksize_pow2 %d", sx.stx_mask & STATX_BASIC_STATS, sx.stx_mode, sx.stx_size, sx.stx_nlink, sx.stx_uid,
        sx.stx_blksize && !(sx.stx_blksize & (sx.stx_blksize - 1)));
    stat("sx", &st);
    YES("statx.same_as_stat", sx.stx_ino == st.st_ino && sx.stx_mtime.tv_sec == st.st_mtim.tv_sec && sx.stx_mtime.tv_nsec == st.st_mtim.tv_nsec && sx.stx_blocks == st.st_blocks);
    RET("statx.mask_zero", statx(AT_FDCWD, "sx", 0, 0, &sx));
    RET("statx.reserved_mask", statx(AT_FDCWD, "sx", 0, 0x80000000U, &sx));
    RET("statx.sync_flags", statx(AT_FDCWD, "sx", AT_STATX_DONT_SYNC, STATX_ALL, &sx));
    RET("statx.both_sync_flags", statx(AT_FDCWD, "sx", AT_STATX_DONT_SYNC | AT_STATX_FORCE_SYNC, STATX_ALL, &sx));
    RET("statx.bad_flag", statx(AT_FDCWD, "sx", 0x8, STATX_ALL, &sx));
    RET("statx.empty_path", statx(open("sx", O_PATH), "", AT_EMPTY_PATH, STATX_ALL, &sx));
    RET("statx.empty_without_flag", statx(AT_FDCWD, "", 0, STATX_ALL, &sx));
    RET("statx.nofollow", statx(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_ALL, &sx));
    val("statx.link", "%o", sx.stx_mode & S_IFMT);
    RET("statx.missing", statx(AT_FDCWD, "none", 0, STATX_ALL, &sx));
    RET("statx.bad_buffer", syscall(SYS_statx, AT_FDCWD, "sx", 0, STATX_ALL, 8));
    RET("statx.fd_of_pipe", ({ int p[2]; pipe(p); statx(p[0], "", AT_EMPTY_PATH, STATX_ALL, &sx) ? -1 : (sx.stx_mode & S_IFMT) == S_IFIFO; }));
    RET("stat.bad_buffer", syscall(SYS_stat, "sx", 8));
    RET("fstat.bad_fd", fstat(999, &st));
    RET("stat.dev_null", stat("/dev/null", &st));
    val("stat.dev_null_rdev", "%#lx %o", (unsigned long)st.st_rdev, st.st_mode & S_IFMT);
    return 0;
}
