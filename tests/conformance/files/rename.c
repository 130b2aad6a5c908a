// rename(2), renameat2(2): replacing, types, RENAME_NOREPLACE, RENAME_EXCHANGE, loops, slashes, open files.
#include "../check.h"
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif

static void content(const char *name, const char *path) {
    char b[64];
    char *s = get_file(path, b, sizeof b);
    val(name, "%s", s ? s : ename(errno));
}
static void type(const char *name, const char *path) {
    struct stat st;
    if (lstat(path, &st)) val(name, "-1 %s", ename(errno));
    else val(name, "%s", S_ISDIR(st.st_mode) ? "dir" : S_ISREG(st.st_mode) ? "file" : S_ISLNK(st.st_mode) ? "link" : "other");
}
#define R2(a, b, f) syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, f)

int main(void) {
    tmp_enter();
    put_file("a", "A", 0644);
    put_file("b", "B", 0644);
    MUST(mkdir("d", 0755));
    MUST(mkdir("e", 0755));
    MUST(mkdir("full", 0755));
    put_file("full/x", "X", 0644);
    RET("simple", rename("a", "a2"));
    type("simple.old", "a");
    content("simple.new", "a2");
    RET("replace", rename("a2", "b"));
    content("replace.new", "b");
    RET("missing", rename("nothing", "z"));
    RET("missing_dir", rename("b", "nodir/z"));
    RET("file_over_dir", rename("b", "d"));
    RET("dir_over_file", rename("d", "b"));
    RET("dir_over_empty_dir", rename("full", "d"));
    content("dir_over_empty_dir.inner", "d/x");
    RET("dir_over_full_dir", rename("e", "d"));
    RET("same", rename("b", "b"));
    MUST(link("b", "bhard"));
    RET("hard_links_to_same", rename("b", "bhard"));
    type("hard_links.both_stay", "b");
    RET("into_itself", rename("d", "d/sub"));
    RET("into_deep_itself", ({ mkdir("d/s", 0755); rename("d", "d/s/t"); }));
    RET("ancestor", rename("d/s", "d"));
    RET("dot", rename(".", "z"));
    RET("dotdot", rename("d/..", "z"));
    RET("to_dot", rename("b", "d/."));
    RET("file_slash", rename("b/", "z"));
    RET("file_to_slash", rename("b", "z/"));
    RET("dir_to_slash", rename("e", "e2/"));
    RET("dir_slash", rename("e2/", "e"));
    RET("empty", rename("", "z"));
    RET("empty_new", rename("b", ""));
    RET("root", rename("/", "/qs-renamed-root"));
    MUST(symlink("b", "l"));
    RET("symlink_itself", rename("l", "l2"));
    type("symlink_itself.is", "l2");
    MUST(symlink("nowhere", "dang"));
    RET("over_symlink", rename("bhard", "dang"));
    type("over_symlink.is", "dang");

    put_file("p", "P", 0644);
    put_file("q", "Q", 0644);
    RET("noreplace.exists", R2("p", "q", RENAME_NOREPLACE));
    RET("noreplace.free", R2("p", "p2", RENAME_NOREPLACE));
    RET("noreplace.same", R2("p2", "p2", RENAME_NOREPLACE));
    RET("noreplace.missing", R2("nothing", "q", RENAME_NOREPLACE));
    RET("exchange", R2("p2", "q", RENAME_EXCHANGE));
    content("exchange.p2", "p2");
    content("exchange.q", "q");
    RET("exchange.missing", R2("p2", "nothing", RENAME_EXCHANGE));
    RET("exchange.file_dir", R2("p2", "d", RENAME_EXCHANGE));
    type("exchange.p2_is", "p2");
    type("exchange.d_is", "d");
    content("exchange.inner", "p2/x");
    RET("exchange.ancestor", R2("p2", "p2/s", RENAME_EXCHANGE));
    RET("both_flags", R2("p2", "q", RENAME_EXCHANGE | RENAME_NOREPLACE));
    RET("exchange_whiteout", R2("p2", "q", RENAME_EXCHANGE | RENAME_WHITEOUT));
    RET("bad_flag", R2("p2", "q", 8));

    // Open files and directories follow.
    int fd = MUST(open("q", O_RDONLY)), dir = MUST(open("p2", O_RDONLY));
    MUST(rename("q", "q-moved"));
    MUST(rename("p2", "p2-moved"));
    char c;
    RET("open_file.read", read(fd, &c, 1));
    OK("open_dir.openat", openat(dir, "x", O_RDONLY));
    struct stat st;
    MUST(rename("q-moved", "dang"));
    fd = MUST(open("dang", O_RDONLY));
    put_file("fresh", "F", 0644);
    MUST(rename("fresh", "dang"));
    fstat(fd, &st);
    val("replaced_open.nlink", "%ld", (long)st.st_nlink);
    RET("replaced_open.read", read(fd, &c, 1));
    // Link counts of directories that move.
    MUST(mkdir("m1", 0755));
    MUST(mkdir("m2", 0755));
    MUST(mkdir("m1/c", 0755));
    RET("move_dir", rename("m1/c", "m2/c"));
    type("move_dir.is", "m2/c");
    struct stat a, b;
    stat("m2/c/..", &a);
    stat("m2", &b);
    YES("move_dir.dotdot", a.st_ino == b.st_ino);
    int mfd = MUST(open("m1", O_RDONLY));
    RET("renameat", renameat(mfd, "../m2/c", mfd, "back"));
    type("renameat.is", "m1/back");
    RET("renameat.bad_fd", renameat(999, "c", mfd, "x"));
    RET("sticky_dir_root", ({ mkdir("st", 01777); chmod("st", 01777); put_file("st/f", "f", 0600); rename("st/f", "st/g"); }));
    return 0;
}
