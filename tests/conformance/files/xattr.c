// Extended attributes: set, get, list and remove, flags, sizes, name spaces, symbolic links, errnos. xattr(7).
// needs: a file system for the temporary directory that has user attributes (tmpfs has them since Linux 6.6)
#include "../check.h"
#include <sys/xattr.h>

static int cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void list(const char *name, const char *path) {
    char b[1024], *n[16], line[1024] = "";
    ssize_t r = listxattr(path, b, sizeof b);
    int k = 0;
    if (r < 0) {
        val(name, "-1 %s", ename(errno));
        return;
    }
    for (char *p = b; p < b + r && k < 16; p += strlen(p) + 1)
        if (!strncmp(p, "user.", 5)) n[k++] = p;
    qsort(n, k, sizeof *n, cmp);
    for (int i = 0; i < k; i++) strcat(strcat(line, i ? " " : ""), n[i]);
    val(name, "[%s]", line);
}

int main(void) {
    tmp_enter();
    char b[300] = {0};
    put_file("f", "x", 0644);
    MUST(symlink("f", "l"));
    MUST(mkdir("d", 0755));
    int fd = MUST(open("f", O_RDWR));
    MUST(setxattr("f", "user.probe", "", 0, 0));
    MUST(removexattr("f", "user.probe"));
    RET("get.none", getxattr("f", "user.a", b, sizeof b));
    RET("set", setxattr("f", "user.a", "value", 5, 0));
    RET("get", getxattr("f", "user.a", b, sizeof b));
    val("get.value", "%.5s", b);
    RET("get.size", getxattr("f", "user.a", NULL, 0));
    RET("get.small", getxattr("f", "user.a", b, 3));
    RET("set.create_exists", setxattr("f", "user.a", "v", 1, XATTR_CREATE));
    RET("set.replace", setxattr("f", "user.a", "longer value", 12, XATTR_REPLACE));
    RET("set.replace_missing", setxattr("f", "user.b", "v", 1, XATTR_REPLACE));
    RET("set.create", setxattr("f", "user.b", "v", 1, XATTR_CREATE));
    RET("set.both_flags", setxattr("f", "user.c", "v", 1, XATTR_CREATE | XATTR_REPLACE) == -1 ? -1 : 0);
    RET("set.bad_flags", setxattr("f", "user.c", "v", 1, 8));
    RET("set.empty_value", setxattr("f", "user.empty", "", 0, 0));
    RET("get.empty_value", getxattr("f", "user.empty", b, sizeof b));
    list("list", "f");
    RET("list.small", listxattr("f", b, 3));
    RET("set.no_name_space", setxattr("f", "plain", "v", 1, 0));
    RET("set.empty_name", setxattr("f", "", "v", 1, 0));
    RET("set.only_prefix", setxattr("f", "user.", "v", 1, 0));
    RET("get.no_name_space", getxattr("f", "plain", b, sizeof b));
    char name[300];
    memset(name, 'n', sizeof name);
    memcpy(name, "user.", 5);
    name[256] = 0;
    RET("set.name_256", setxattr("f", name, "v", 1, 0));
    RET("get.name_256", getxattr("f", name, b, sizeof b));
    RET("set.too_large", ({ static char big[70000]; setxattr("f", "user.big", big, sizeof big, 0); }));
    RET("set.missing_file", setxattr("none", "user.a", "v", 1, 0));
    RET("set.bad_value", syscall(SYS_setxattr, "f", "user.z", 8, 4, 0));
    RET("set.bad_name", syscall(SYS_setxattr, "f", 8, "v", 1, 0));
    RET("remove", removexattr("f", "user.b"));
    RET("remove.again", removexattr("f", "user.b"));
    RET("fset", fsetxattr(fd, "user.fd", "1", 1, 0));
    RET("fget", fgetxattr(fd, "user.fd", b, sizeof b));
    RET("fremove", fremovexattr(fd, "user.fd"));
    RET("fget.bad_fd", fgetxattr(999, "user.fd", b, sizeof b));
    RET("flist", flistxattr(fd, b, sizeof b) >= 0 ? 0 : -1);
    RET("follow", setxattr("l", "user.via", "v", 1, 0));
    RET("follow.target_has_it", getxattr("f", "user.via", b, sizeof b));
    RET("lset.user_on_symlink", lsetxattr("l", "user.x", "v", 1, 0));
    RET("lget.user_on_symlink", lgetxattr("l", "user.x", b, sizeof b));
    RET("directory.set", setxattr("d", "user.d", "dir", 3, 0));
    RET("directory.get", getxattr("d", "user.d", b, sizeof b));
    MUST(mkfifo("fifo", 0600));
    RET("fifo.user", setxattr("fifo", "user.x", "v", 1, 0));
    RET("dev_null.user", setxattr("/dev/null", "user.x", "v", 1, 0));
    // They belong to the inode: links and renames keep them, a copy does not.
    MUST(link("f", "hard"));
    RET("hard_link", getxattr("hard", "user.a", b, sizeof b));
    MUST(rename("f", "moved"));
    RET("renamed", getxattr("moved", "user.a", b, sizeof b));
    // Permissions.
    chmod("moved", 0444);
    chmod(".", 0777);
    CHILD(MUST(setresuid(1000, 1000, 1000)); RET("user.get_readable", getxattr("moved", "user.a", b, sizeof b));
          RET("user.set_not_writable", setxattr("moved", "user.a", "v", 1, 0)); RET("user.trusted", setxattr("moved", "trusted.t", "v", 1, 0));
          RET("user.get_trusted", getxattr("moved", "trusted.t", b, sizeof b)));
    return 0;
}
