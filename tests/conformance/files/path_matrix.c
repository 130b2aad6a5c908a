// Every call that takes a path, on every kind of path: one line each, in a tree that is made anew after each change.
// path_resolution(7).
#include "../check.h"
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static void make_tree(void) {
    MUST(mkdir("t", 0755));
    MUST(chdir("t"));
    put_file("file", "content", 0644);
    MUST(mkdir("dir", 0755));
    put_file("dir/inner", "inner", 0644);
    MUST(mkdir("empty", 0755));
    MUST(symlink("file", "flink"));
    MUST(symlink("dir", "dlink"));
    MUST(symlink("empty", "elink"));
    MUST(symlink("nowhere", "dangling"));
    MUST(symlink("loop", "loop"));
    MUST(mkfifo("fifo", 0644));
    int s = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un a = {AF_UNIX, "sock"};
    MUST(bind(s, (void *)&a, sizeof a));
    close(s);
    put_file("other", "other", 0644);
}
static void drop_tree(void) {
    MUST(chdir(tmp_path));
    tmp_remove_under(AT_FDCWD, "t");
}

static char name255[256], name256[257], path4096[4097];
static const struct { const char *label, *path; } paths[] = {
    {"missing", "missing"}, {"missing/", "missing/"}, {"missing/x", "missing/x"}, {"empty-string", ""}, {"file", "file"}, {"file/", "file/"}, {"file/.", "file/."}, {"file/x", "file/x"},
    {"dir", "dir"}, {"dir/", "dir/"}, {"dir/.", "dir/."}, {"dir/..", "dir/.."}, {"dir/inner", "dir/inner"}, {"empty", "empty"}, {"empty/", "empty/"}, {"flink", "flink"}, {"flink/", "flink/"},
    {"flink/x", "flink/x"}, {"dlink", "dlink"}, {"dlink/", "dlink/"}, {"dlink/inner", "dlink/inner"}, {"elink/", "elink/"}, {"dangling", "dangling"}, {"dangling/", "dangling/"}, {"dangling/x", "dangling/x"},
    {"loop", "loop"}, {"loop/", "loop/"}, {"loop/x", "loop/x"}, {"fifo", "fifo"}, {"sock", "sock"}, {".", "."}, {"..", ".."}, {"/", "/"}, {"//", "//"}, {"/dev/null", "/dev/null"}, {"/dev/null/", "/dev/null/"},
    {"name255", name255}, {"name256", name256}, {"name256/x", NULL}, {"path4096", path4096}, {"bad-pointer", (char *)8},
};

static int ret_fd(long fd) {
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return -1;
}
static struct stat st;
static char buf[256];
static int do_open(const char *p) { return ret_fd(open(p, O_RDONLY | O_NONBLOCK)); }
static int do_open_w(const char *p) { return ret_fd(open(p, O_WRONLY | O_NONBLOCK)); }
static int do_open_creat(const char *p) { return ret_fd(open(p, O_RDONLY | O_CREAT | O_NONBLOCK, 0600)); }
static int do_open_excl(const char *p) { return ret_fd(open(p, O_WRONLY | O_CREAT | O_EXCL, 0600)); }
static int do_open_dir(const char *p) { return ret_fd(open(p, O_RDONLY | O_DIRECTORY)); }
static int do_open_nofollow(const char *p) { return ret_fd(open(p, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)); }
static int do_open_path(const char *p) { return ret_fd(open(p, O_PATH)); }
static int do_open_path_nofollow(const char *p) { return ret_fd(open(p, O_PATH | O_NOFOLLOW)); }
static int do_stat(const char *p) { return syscall(SYS_stat, p, &st); }
static int do_lstat(const char *p) { return syscall(SYS_lstat, p, &st); }
static int do_access(const char *p) { return syscall(SYS_access, p, R_OK); }
static int do_readlink(const char *p) { return syscall(SYS_readlink, p, buf, sizeof buf); }
static int do_unlink(const char *p) { return syscall(SYS_unlink, p); }
static int do_rmdir(const char *p) { return syscall(SYS_rmdir, p); }
static int do_mkdir(const char *p) { return syscall(SYS_mkdir, p, 0755); }
static int do_mknod(const char *p) { return syscall(SYS_mknod, p, S_IFREG | 0600, 0); }
static int do_symlink(const char *p) { return syscall(SYS_symlink, "target", p); }
static int do_symlink_target(const char *p) { return syscall(SYS_symlink, p, "newlink"); }
static int do_link_from(const char *p) { return syscall(SYS_link, p, "newlink"); }
static int do_link_to(const char *p) { return syscall(SYS_link, "other", p); }
static int do_link_follow(const char *p) { return syscall(SYS_linkat, AT_FDCWD, p, AT_FDCWD, "newlink", AT_SYMLINK_FOLLOW); }
static int do_rename_from(const char *p) { return syscall(SYS_rename, p, "/proc/none") == -1 && errno == EXDEV ? (errno = 0, 0) : -1; }
static int do_rename_file_to(const char *p) { return syscall(SYS_rename, "other", p); }
static int do_rename_dir_to(const char *p) { return syscall(SYS_rename, "empty", p); }
static int do_chmod(const char *p) { return syscall(SYS_chmod, p, 0755); }
static int do_chown(const char *p) { return syscall(SYS_chown, p, -1, -1); }
static int do_lchown(const char *p) { return syscall(SYS_lchown, p, -1, -1); }
static int do_truncate(const char *p) { return syscall(SYS_truncate, p, 3); }
static int do_utimensat(const char *p) { return syscall(SYS_utimensat, AT_FDCWD, p, NULL, 0); }
static int do_chdir(const char *p) { return syscall(SYS_chdir, p); }
static int do_statfs(const char *p) { struct statfs sf; return syscall(SYS_statfs, p, &sf); }
static int do_getxattr(const char *p) { return syscall(SYS_getxattr, p, "trusted.none", buf, sizeof buf); }
static int do_execve(const char *p) { char *av[] = {"x", NULL}; return syscall(SYS_execve, p, av, av + 1); }
static struct sockaddr_un sun(const char *p) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", p);
    return a;
}
static int do_bind(const char *p) {
    struct sockaddr_un a = sun(p);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), r = bind(s, (void *)&a, sizeof a), e = errno;
    close(s);
    errno = e;
    return r;
}
static int do_connect(const char *p) {
    struct sockaddr_un a = sun(p);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), r = connect(s, (void *)&a, sizeof a), e = errno;
    close(s);
    errno = e;
    return r;
}

// What each call must not be tried on: the machine's own root and devices, or names that would leave something behind.
enum { OWN = 1, SHORT = 2 };
static const struct { const char *name; int (*fn)(const char *); int skip; bool changes; } ops[] = {
    {"open", do_open, 0, false}, {"open_w", do_open_w, 0, false}, {"open_creat", do_open_creat, 0, true}, {"open_excl", do_open_excl, 0, true}, {"open_directory", do_open_dir, 0, false}, {"open_nofollow", do_open_nofollow, 0, false},
    {"open_path", do_open_path, 0, false}, {"open_path_nofollow", do_open_path_nofollow, 0, false}, {"stat", do_stat, 0, false}, {"lstat", do_lstat, 0, false}, {"access", do_access, 0, false}, {"readlink", do_readlink, 0, false},
    {"unlink", do_unlink, OWN, true}, {"rmdir", do_rmdir, OWN, true}, {"mkdir", do_mkdir, 0, true}, {"mknod", do_mknod, 0, true}, {"symlink", do_symlink, 0, true}, {"symlink_target", do_symlink_target, 0, true}, {"link_from", do_link_from, OWN, true},
    {"link_to", do_link_to, OWN, true}, {"link_follow", do_link_follow, OWN, true}, {"rename_from", do_rename_from, OWN, false}, {"rename_file_to", do_rename_file_to, OWN, true}, {"rename_dir_to", do_rename_dir_to, OWN, true}, {"chmod", do_chmod, OWN, true},
    {"chown", do_chown, OWN, false}, {"lchown", do_lchown, OWN, false}, {"truncate", do_truncate, 0, true}, {"utimensat", do_utimensat, OWN, false}, {"chdir", do_chdir, 0, true}, {"statfs", do_statfs, 0, false}, {"getxattr", do_getxattr, OWN, false},
    {"execve", do_execve, 0, false}, {"bind", do_bind, SHORT, true}, {"connect", do_connect, SHORT, false},
};

int main(void) {
    tmp_enter();
    umask(022);
    bool standing = false;
    memset(name255, 'n', 255);
    memset(name256, 'n', 256);
    memset(path4096, '/', 4096);
    static char inner[300];
    snprintf(inner, sizeof inner, "%s/x", name256);
    for (size_t o = 0; o < COUNT(ops); o++) {
        for (size_t i = 0; i < COUNT(paths); i++) {
            const char *p = paths[i].path ? paths[i].path : inner, *l = paths[i].label;
            if ((ops[o].skip & OWN) && (l[0] == '/' || !strcmp(l, ".."))) continue;
            if ((ops[o].skip & SHORT) && (!strncmp(l, "name", 4) || !strcmp(l, "path4096") || !strcmp(l, "bad-pointer") || !strcmp(l, "empty-string"))) continue;
            if (!standing) make_tree();
            standing = true;
            char name[64];
            snprintf(name, sizeof name, "%s %s", ops[o].name, l);
            // A call that fails has changed nothing.
            if (RET(name, ops[o].fn(p)) >= 0 && ops[o].changes) {
                drop_tree();
                standing = false;
            }
        }
    }
    return 0;
}
