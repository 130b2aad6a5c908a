// inotify(7): which events which change makes, their order, names and cookies; watches, masks, reading, removal.
#include "../check.h"
#include <sys/inotify.h>
#include <sys/ioctl.h>

static int in, dir, file;
static uint32_t cookie;
static const char *bits(uint32_t m) {
    static char buf[200];
    static const struct { uint32_t bit; const char *name; } names[] = {
        {IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"}, {IN_CLOSE_WRITE, "CLOSE_WRITE"},
        {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"}, {IN_OPEN, "OPEN"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"},
        {IN_CREATE, "CREATE"}, {IN_DELETE, "DELETE"}, {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"},
        {IN_IGNORED, "IGNORED"}, {IN_ISDIR, "ISDIR"}, {IN_Q_OVERFLOW, "OVERFLOW"}};
    buf[0] = 0;
    for (size_t i = 0; i < COUNT(names); i++)
        if (m & names[i].bit) strcat(strcat(buf, buf[0] ? "|" : ""), names[i].name);
    return buf;
}
// Everything that is queued.
static void events(const char *what) {
    static _Alignas(struct inotify_event) char buf[65536];
    ssize_t n = read(in, buf, sizeof buf);
    if (n < 0) return val(what, "none %s", ename(errno));
    for (char *p = buf; p < buf + n;) {
        struct inotify_event *e = (void *)p;
        const char *pair = "";
        if (e->mask & (IN_MOVED_FROM | IN_MOVED_TO)) {
            pair = e->cookie == 0 ? " no cookie" : e->cookie == cookie ? " same cookie" : " new cookie";
            cookie = e->cookie;
        } else if (e->cookie) pair = " cookie";
        val(what, "%s %s%s%s%s%s", e->wd == dir ? "dir" : e->wd == file ? "file" : "other", bits(e->mask), e->len ? " " : "",
            e->len ? e->name : "", pair, e->len % 16 ? " odd" : "");
        p += sizeof *e + e->len;
    }
}

int main(void) {
    tmp_enter();
    RET("init.flags", inotify_init1(1));
    in = OK("init", inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    mkdir("d", 0755);
    put_file("d/f", "text", 0644);
    RET("add.no_mask", inotify_add_watch(in, "d", 0));
    RET("add.absent", inotify_add_watch(in, "none", IN_ALL_EVENTS));
    RET("add.only_dir", inotify_add_watch(in, "d/f", IN_ALL_EVENTS | IN_ONLYDIR));
    RET("add.not_inotify", inotify_add_watch(0, "d", IN_ALL_EVENTS));
    RET("add.bad_fd", inotify_add_watch(-1, "d", IN_ALL_EVENTS));
    RET("add.both", inotify_add_watch(in, "d", IN_ALL_EVENTS | IN_MASK_ADD | IN_MASK_CREATE));
    RET("add.bad_pointer", syscall(SYS_inotify_add_watch, in, 16, IN_ALL_EVENTS));
    dir = RET("add.dir", inotify_add_watch(in, "d", IN_ALL_EVENTS));
    file = RET("add.file", inotify_add_watch(in, "d/f", IN_ALL_EVENTS));
    RET("add.again", inotify_add_watch(in, "d/../d", IN_ALL_EVENTS));
    RET("add.exists", inotify_add_watch(in, "d", IN_ALL_EVENTS | IN_MASK_CREATE));
    events("nothing");

    char c[8];
    int fd = open("d/f", O_RDWR);
    events("open");
    MUST(read(fd, c, 2));
    events("read");
    MUST(write(fd, "xy", 2));
    MUST(write(fd, "xy", 2));
    events("write");
    MUST(pread(fd, c, 0, 0));
    MUST(write(fd, c, 0));
    events("no_bytes");
    MUST(ftruncate(fd, 1));
    events("ftruncate");
    MUST(fchmod(fd, 0600));
    events("chmod");
    MUST(fchown(fd, -1, -1));
    events("chown");
    futimens(fd, NULL);
    events("utimes");
    close(dup(fd));
    events("dup");
    close(fd);
    events("close");
    close(open("d/f", O_RDONLY));
    events("open_close");
    close(open("d/f", O_PATH));
    events("open_path");
    MUST(truncate("d/f", 3));
    events("truncate");
    close(open("d/new", O_CREAT | O_WRONLY, 0600));
    events("create");
    MUST(mkdir("d/sub", 0700));
    events("mkdir");
    MUST(symlink("f", "d/link"));
    MUST(mkfifo("d/fifo", 0600));
    events("symlink_fifo");
    MUST(link("d/f", "d/hard"));
    events("link");
    MUST(unlink("d/hard"));
    events("unlink.hard");
    MUST(rename("d/f", "d/g"));
    events("rename");
    MUST(rename("d/g", "outside"));
    events("rename.out");
    MUST(rename("outside", "d/f"));
    events("rename.in");
    MUST(rename("d/new", "d/f"));
    events("rename.over");
    MUST(rename("d/sub", "d/sub2"));
    events("rename.dir");
    MUST(rmdir("d/sub2"));
    events("rmdir");
    MUST(unlink("d/link"));
    MUST(unlink("d/fifo"));
    events("unlink");
    file = RET("add.file_again", inotify_add_watch(in, "d/f", IN_DELETE_SELF | IN_ATTRIB));
    MUST(unlink("d/f"));
    events("unlink.watched");
    RET("rm.gone", inotify_rm_watch(in, file));

    RET("mask.replace", inotify_add_watch(in, "d", IN_CREATE));
    put_file("d/x", "x", 0600);
    events("mask.create");
    RET("mask.add", inotify_add_watch(in, "d", IN_DELETE | IN_MASK_ADD));
    unlink("d/x");
    put_file("d/x", "x", 0600);
    events("mask.added");
    RET("oneshot", inotify_add_watch(in, "d", IN_CREATE | IN_ONESHOT));
    put_file("d/y", "x", 0600);
    put_file("d/z", "x", 0600);
    events("oneshot");
    RET("oneshot.gone", inotify_rm_watch(in, dir));
    dir = inotify_add_watch(in, "d", IN_CREATE | IN_DELETE | IN_DELETE_SELF);
    YES("add.new_number", dir > file);
    put_file("d/a-name-of-more-than-sixteen", "x", 0600);
    int waiting = -1;
    RET("fionread", ioctl(in, FIONREAD, &waiting));
    val("fionread", "%d", waiting);
    struct pollfd p = {in, POLLIN, 0};
    RET("poll", poll(&p, 1, 0));
    RET("read.small", read(in, c, sizeof c));
    events("long_name");
    RET("poll.empty", poll(&p, 1, 0));
    RET("rm", inotify_rm_watch(in, dir));
    events("rm");
    RET("rm.again", inotify_rm_watch(in, dir));
    RET("rm.bad_fd", inotify_rm_watch(-1, 1));
    RET("rm.not_inotify", inotify_rm_watch(0, 1));
    RET("write", write(in, c, 1));
    mkdir("gone", 0700);
    dir = inotify_add_watch(in, "gone", IN_ALL_EVENTS);
    rmdir("gone");
    events("rmdir.watched");
    // A reader that waits.
    int flags = fcntl(in, F_GETFL);
    fcntl(in, F_SETFL, flags & ~O_NONBLOCK);
    dir = inotify_add_watch(in, "d", IN_CREATE);
    pid_t self = getpid(), child = MUST(fork());
    if (child == 0) {
        wait_blocked(self, self);
        close(open("d/by-child", O_CREAT | O_WRONLY, 0600));
        _exit(0);
    }
    events("waited");
    val("child", "%s", wname(wait_for(child)));
    val("unreadable", "%s", wname(CHILD({
        chmod("d", 0300);
        MUST(setgid(65534));
        MUST(setuid(65534));
        RET("unreadable.add", inotify_add_watch(in, "d", IN_CREATE));
    })));
    return 0;
}
