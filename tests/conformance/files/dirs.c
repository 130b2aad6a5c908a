// Directories: getdents64(2), seeking, removal while reading, mkdir and rmdir errnos, link counts, chdir, fchdir, getcwd,
// chroot, path resolution with symbolic links, `..` and slashes. path_resolution(7).
#include "../check.h"

static int cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void list(const char *name, const char *dir) {
    char *n[64], line[1024] = "";
    int k = 0;
    DIR *d = opendir(dir);
    if (!d) {
        val(name, "-1 %s", ename(errno));
        return;
    }
    for (struct dirent *e; (e = readdir(d)) && k < 64;) {
        char one[300];
        snprintf(one, sizeof one, "%s:%d", e->d_name, e->d_type);
        n[k++] = strdup(one);
    }
    closedir(d);
    qsort(n, k, sizeof *n, cmp);
    for (int i = 0; i < k; i++) strcat(strcat(line, i ? " " : ""), n[i]);
    val(name, "%s", line);
}
static void cwd(const char *name) {
    char b[PATH_MAX], *r = getcwd(b, sizeof b);
    if (!r) val(name, "-1 %s", ename(errno));
    else if (!strncmp(b, tmp_path, strlen(tmp_path))) val(name, "TMP%s", b + strlen(tmp_path));
    else val(name, "%s", b);
}

int main(void) {
    char tmp[PATH_MAX];
    tmp_enter();
    MUST(realpath(tmp_path, tmp) ? 0 : -1);
    strcpy(tmp_path, tmp);
    char b[8192];
    MUST(mkdir("d", 0755));
    MUST(mkdir("d/sub", 0755));
    put_file("d/file", "x", 0644);
    MUST(symlink("file", "d/link"));
    MUST(mkfifo("d/fifo", 0600));
    list("list", "d");
    list("list.missing", "none");
    list("list.file", "d/file");
    struct stat st;
    stat("d", &st);
    // getdents64 itself.
    int d = MUST(open("d", O_RDONLY | O_DIRECTORY));
    RET("getdents.small", syscall(SYS_getdents64, d, b, 8));
    long n = syscall(SYS_getdents64, d, b, sizeof b);
    YES("getdents.some", n > 0);
    int entries = 0, aligned = 1, ino = 1;
    for (long o = 0; o < n;) {
        struct { uint64_t ino; int64_t off; uint16_t len; uint8_t type; char name[]; } *e = (void *)(b + o);
        entries++;
        aligned &= e->len % 8 == 0;
        ino &= e->ino != 0;
        o += e->len;
    }
    val("getdents.entries", "%d aligned %d ino %d", entries, aligned, ino);
    RET("getdents.end", syscall(SYS_getdents64, d, b, sizeof b));
    RET("getdents.end_again", syscall(SYS_getdents64, d, b, sizeof b));
    RET("rewind", lseek(d, 0, SEEK_SET));
    YES("rewind.same", syscall(SYS_getdents64, d, b, sizeof b) == n);
    RET("getdents.bad_buffer", ({ lseek(d, 0, SEEK_SET); syscall(SYS_getdents64, d, 8, 1000); }));
    RET("getdents.file", syscall(SYS_getdents64, open("d/file", O_RDONLY), b, sizeof b));
    RET("getdents.bad_fd", syscall(SYS_getdents64, 999, b, sizeof b));
    RET("directory.write", write(d, b, 1));
    RET("directory.pread", pread(d, b, 1, 0));
    // One entry at a time gives every entry once.
    lseek(d, 0, SEEK_SET);
    int count = 0;
    while ((n = syscall(SYS_getdents64, d, b, 32)) > 0)
        for (long o = 0; o < n; o += *(uint16_t *)(b + o + 16)) count++;
    val("getdents.one_by_one", "%d", count);
    // Many entries; deleting while reading.
    MUST(mkdir("many", 0755));
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/entry-%03d", i);
        put_file(name, "", 0600);
    }
    DIR *dp = opendir("many");
    count = 0;
    int removed = 0;
    for (struct dirent *e; (e = readdir(dp));) {
        count++;
        if (e->d_name[0] == 'e') removed += unlinkat(dirfd(dp), e->d_name, 0) == 0;
    }
    closedir(dp);
    val("delete_while_reading", "%d seen %d removed", count, removed);
    list("delete_while_reading.left", "many");
    RET("rmdir", rmdir("many"));
    // A removed directory that is open or current.
    MUST(mkdir("gone", 0755));
    int g = MUST(open("gone", O_RDONLY));
    MUST(chdir("gone"));
    RET("removed.rmdir", rmdir("../gone"));
    RET("removed.getdents", syscall(SYS_getdents64, g, b, sizeof b));
    cwd("removed.getcwd");
    RET("removed.create", open("x", O_CREAT | O_RDWR, 0600));
    RET("removed.mkdir", mkdir("x", 0700));
    RET("removed.dot", stat(".", &st));
    val("removed.nlink", "%ld", (long)st.st_nlink);
    RET("removed.dotdot", chdir(".."));
    cwd("removed.dotdot_is_parent");
    RET("removed.openat", openat(g, "x", O_CREAT | O_RDWR, 0600));
    RET("removed.fchdir", fchdir(g));
    MUST(chdir(tmp_path));
    // mkdir and rmdir.
    RET("mkdir.exists", mkdir("d", 0755));
    RET("mkdir.file_exists", mkdir("d/file", 0755));
    RET("mkdir.no_parent", mkdir("no/such", 0755));
    RET("mkdir.parent_is_file", mkdir("d/file/x", 0755));
    RET("mkdir.link_exists", mkdir("d/link", 0755));
    RET("mkdir.root", mkdir("/", 0755));
    RET("rmdir.not_empty", rmdir("d"));
    RET("rmdir.file", rmdir("d/file"));
    RET("rmdir.missing", rmdir("none"));
    RET("rmdir.dot", rmdir("d/sub/."));
    RET("rmdir.dotdot", rmdir("d/sub/.."));
    RET("rmdir.slash", rmdir("d/sub/"));
    MUST(mkdir("d/sub", 0755));
    // Current directory.
    RET("chdir", chdir("d/sub"));
    cwd("getcwd");
    RET("chdir.file", chdir("../file"));
    RET("chdir.missing", chdir("none"));
    RET("chdir.empty", chdir(""));
    RET("chdir.dots", chdir("./.././sub/.."));
    cwd("getcwd.after_dots");
    RET("fchdir.file", fchdir(open("file", O_RDONLY)));
    RET("fchdir.bad", fchdir(999));
    RET("getcwd.small", syscall(SYS_getcwd, b, 2));
    RET("getcwd.zero", syscall(SYS_getcwd, b, 0));
    RET("getcwd.bad_pointer", syscall(SYS_getcwd, 8, 4096));
    MUST(chdir(tmp_path));
    MUST(chdir("d"));
    MUST(rename("../d", "../renamed"));
    cwd("getcwd.after_rename");
    MUST(chdir(".."));
    MUST(rename("renamed", "d"));
    cwd("getcwd.parent");
    CHILD(MUST(chdir("d")));
    cwd("fork.own_cwd");
    // Resolution.
    MUST(symlink("d", "dl"));
    MUST(symlink("dl/sub", "sl"));
    MUST(symlink("/", "rootlink"));
    RET("resolve.through_link", stat("dl/file", &st));
    RET("resolve.dotdot_after_link", stat("sl/../file", &st));
    RET("resolve.slashes", stat(".//d///file", &st));
    RET("resolve.trailing_slash_dir", stat("d/", &st));
    RET("resolve.trailing_slash_link", lstat("dl/", &st));
    val("resolve.trailing_slash_link_is", "%o", st.st_mode & S_IFMT);
    RET("resolve.lstat_link", lstat("dl", &st));
    val("resolve.lstat_is", "%o", st.st_mode & S_IFMT);
    RET("resolve.file_dot", stat("d/file/.", &st));
    RET("resolve.file_dotdot", stat("d/file/..", &st));
    RET("resolve.missing_dotdot", stat("none/..", &st));
    RET("resolve.root_dotdot", stat("/../../..", &st));
    RET("resolve.rootlink", stat("rootlink/dev/null", &st));
    for (int i = 0; i < 42; i++) {
        char from[16], to[16];
        snprintf(from, sizeof from, "c%d", i);
        snprintf(to, sizeof to, "c%d", i - 1);
        MUST(symlink(i ? to : "d/file", from));
    }
    RET("resolve.40_links", stat("c39", &st));
    RET("resolve.41_links", stat("c40", &st));
    RET("resolve.empty", stat("", &st));
    char longname[300];
    memset(longname, 'a', 299);
    longname[299] = 0;
    RET("resolve.long_component", stat(longname, &st));
    RET("resolve.long_inner_component", ({ strcpy(b, longname); strcat(b, "/x"); stat(b, &st); }));
    RET("symlink.long_target", ({ memset(b, 't', 4095); b[4095] = 0; symlink(b, "lt"); }));
    // O_NOFOLLOW and openat2's restrictions.
    struct { uint64_t flags, mode, resolve; } how = {O_RDONLY, 0, 0};
    int here = MUST(open(".", O_PATH));
#define OPENAT2(name, path, r) ({ how.resolve = r; long x = syscall(437, here, path, &how, sizeof how); if (x < 0) val(name, "-1 %s", ename(errno)); else val(name, "ok"); })
    OPENAT2("openat2.plain", "d/file", 0);
    OPENAT2("openat2.no_symlinks", "dl/file", 4);
    OPENAT2("openat2.no_symlinks_plain", "d/file", 4);
    OPENAT2("openat2.beneath", "d/../d/file", 8);
    OPENAT2("openat2.beneath_escape", "../x", 8);
    OPENAT2("openat2.beneath_absolute", "/dev/null", 8);
    OPENAT2("openat2.in_root_absolute", "/d/file", 16);
    OPENAT2("openat2.in_root_dotdot", "../../d/file", 16);
    OPENAT2("openat2.in_root_link", "rootlink/d/file", 16);
    OPENAT2("openat2.no_magiclinks", "/proc/self/fd/0", 2);
    OPENAT2("openat2.bad_resolve", "d/file", 0x1000);
    OPENAT2("openat2.beneath_and_in_root", "d/file", 24);
    how.flags = O_RDONLY | (1ULL << 40);
    OPENAT2("openat2.unknown_flags", "d/file", 0);
    how.flags = O_RDONLY;
    how.mode = 0600;
    OPENAT2("openat2.mode_without_create", "d/file", 0);
    how.mode = 0;
    RET("openat2.small", syscall(437, here, "d/file", &how, 8));
    // chroot.
    CHILD(MUST(mkdir("jail", 0755)); put_file("jail/inside", "in", 0644); RET("chroot", chroot("jail")); RET("chroot.old_cwd_relative", access("d/file", F_OK));
          RET("chroot.absolute", access("/inside", F_OK)); RET("chroot.chdir", chdir("/")); cwd("chroot.cwd"); RET("chroot.dotdot", access("../inside", F_OK));
          RET("chroot.outside_is_gone", access(tmp, F_OK)); RET("chroot.file", chroot("/inside")); RET("chroot.missing", chroot("/none"));
          RET("chroot.escape_by_fchdir", fchdir(here)); char c2[4096]; long r = syscall(SYS_getcwd, c2, sizeof c2); c2[13] = 0; val("chroot.unreachable", "%s", r > 0 ? c2 : ename(errno)););
    cwd("chroot.parent_unchanged");
    return 0;
}
