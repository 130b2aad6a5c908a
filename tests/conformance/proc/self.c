// /proc/self: the files that libc, Python, procps and the JVM read: their shape, and that they are true about ourselves.
// proc(5).
#include "../check.h"
#include <sys/prctl.h>
#include <sys/sysmacros.h>

static char b[65536];
static const char *at(const char *key) {
    // The value of `Key:` in b, white space squeezed out at the front.
    static char out[256];
    size_t n = strlen(key);
    for (char *l = b; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
        if (!strncmp(l, key, n) && l[n] == ':') {
            char *v = l + n + 1;
            while (*v == ' ' || *v == '\t') v++;
            snprintf(out, sizeof out, "%.*s", (int)strcspn(v, "\n"), v);
            return out;
        }
    return "missing";
}
static bool has(const char *key) { return strcmp(at(key), "missing"); }
static const char *link_of(const char *path) {
    static char out[PATH_MAX];
    ssize_t n = readlink(path, out, sizeof out - 1);
    if (n < 0) return ename(errno);
    out[n] = 0;
    return out;
}
static void *idle(void *arg) {
    prctl(PR_SET_NAME, "idler");
    baton_pass(arg);
    for (;;) pause();
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "shown")) {
        // Started with known arguments and environment.
        int fd = open("/proc/self/cmdline", O_RDONLY);
        ssize_t n = read(fd, b, sizeof b);
        for (ssize_t i = 0; i < n; i++)
            if (!b[i]) b[i] = '|';
        val("cmdline", "%.*s", (int)n, b);
        fd = open("/proc/self/environ", O_RDONLY);
        n = read(fd, b, sizeof b);
        for (ssize_t i = 0; i < n; i++)
            if (!b[i]) b[i] = '|';
        val("environ", "%.*s", (int)n, b);
        get_file("/proc/self/comm", b, sizeof b);
        val("comm", "%s", b[strlen(b) - 1] == '\n' ? "ends with newline" : "no newline");
        b[strlen(b) - 1] = 0;
        val("comm.value", "%s", b);
        return 0;
    }
    tmp_enter();
    const char *self = self_path();
    copy_file(self, "a-name-longer-than-fifteen", 0755);
    CHILD(char *av[] = {"arg zero", "shown", "", "last", NULL}; char *ev[] = {"ONE=1", "TWO=", NULL};
          execve("./a-name-longer-than-fifteen", av, ev); _exit(9));
    YES("self", atoi(link_of("/proc/self")) == getpid());
    char want[64], path[128];
    snprintf(want, sizeof want, "%d/task/%d", getpid(), getpid());
    YES("thread-self", !strcmp(link_of("/proc/thread-self"), want));
    YES("exe", !strcmp(link_of("/proc/self/exe"), self));
    char cwd[PATH_MAX];
    getcwd(cwd, sizeof cwd);
    YES("cwd", !strcmp(link_of("/proc/self/cwd"), cwd));
    val("root", "%s", link_of("/proc/self/root"));
    // A removed program and directory are marked.
    CHILD(copy_file(self, "gone", 0755); char *av[] = {"x", "none", NULL}; (void)av; int f = open("gone", O_RDONLY); unlink("gone");
          snprintf(path, sizeof path, "/proc/self/fd/%d", f); const char *l = link_of(path); l = strrchr(l, '/');
          val("fd.deleted", "%s", l ? l : "none"));

    // stat
    pid_t pid = getpid();
    RET("stat", get_file("/proc/self/stat", b, sizeof b) ? 0 : -1);
    char *close_paren = strrchr(b, ')');
    YES("stat.pid", atoi(b) == pid);
    char state;
    int ppid, pgrp, sid, tty, tpgid;
    unsigned flags;
    int k = sscanf(close_paren + 2, "%c %d %d %d %d %d %u", &state, &ppid, &pgrp, &sid, &tty, &tpgid, &flags);
    val("stat.fields", "%d state %c", k, state);
    YES("stat.ids", ppid == getppid() && pgrp == getpgrp() && sid == getsid(0));
    int fields = 2;
    for (char *p = close_paren + 1; *p; p++) fields += *p == ' ';
    val("stat.count", "%d newline %d", fields, b[strlen(b) - 1] == '\n');
    long long start = 0;
    char *p = close_paren + 2;
    for (int i = 3; i < 22; i++) p = strchr(p, ' ') + 1;
    start = atoll(p);
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    YES("stat.starttime", start > 0 && start / 100 <= up.tv_sec + 1 && start / 100 >= up.tv_sec - 100);
    p = strchr(p, ' ') + 1;
    YES("stat.vsize", atoll(p) > 100000);
    p = strchr(p, ' ') + 1;
    YES("stat.rss", atoll(p) > 0);
    // A name with blanks and parentheses.
    CHILD(prctl(PR_SET_NAME, "a) (b c"); get_file("/proc/self/stat", b, sizeof b); char *o = strchr(b, '('); char *c = strrchr(b, ')'); val("stat.odd_name", "%.*s", (int)(c - o + 1), o);
          get_file("/proc/self/status", b, sizeof b); val("status.odd_name", "%s", at("Name")); get_file("/proc/self/comm", b, sizeof b); val("comm.odd_name", "%.7s", b));
    RET("comm.write", ({ int f = open("/proc/self/comm", O_WRONLY); write(f, "written-by-comm-file", 20); }));
    char name[17];
    prctl(PR_GET_NAME, name);
    val("comm.written", "%s", name);
    // statm
    get_file("/proc/self/statm", b, sizeof b);
    long sz, res, shr, text, lib, data, dt;
    val("statm.fields", "%d", sscanf(b, "%ld %ld %ld %ld %ld %ld %ld", &sz, &res, &shr, &text, &lib, &data, &dt));
    YES("statm.sane", sz > 0 && res > 0 && res <= sz && lib == 0 && dt == 0);
    // status
    RET("status", get_file("/proc/self/status", b, sizeof b) ? 0 : -1);
    static const char *keys[] = {"Name", "Umask", "State", "Tgid", "Ngid", "Pid", "PPid", "TracerPid", "Uid", "Gid", "FDSize", "Groups", "VmPeak", "VmSize", "VmLck",
        "VmHWM", "VmRSS", "RssAnon", "RssFile", "VmData", "VmStk", "VmExe", "VmLib", "VmPTE", "VmSwap", "Threads", "SigQ", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
        "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Cpus_allowed_list", "Mems_allowed_list", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        char n[64];
        snprintf(n, sizeof n, "status.has.%s", keys[i]);
        YES(n, has(keys[i]));
    }
    val("status.Umask", "%s", at("Umask"));
    val("status.State", "%s", at("State"));
    YES("status.Pid", atoi(at("Pid")) == pid && atoi(at("Tgid")) == pid);
    YES("status.PPid", atoi(at("PPid")) == getppid());
    val("status.Uid", "%s", at("Uid"));
    val("status.Gid", "%s", at("Gid"));
    val("status.Threads", "%s", at("Threads"));
    val("status.TracerPid", "%s", at("TracerPid"));
    val("status.VmSize_unit", "%s", strstr(at("VmSize"), " kB") ? "kB" : "none");
    CHILD(signal(SIGUSR1, SIG_IGN); signal(SIGUSR2, (void (*)(int))(void *)abs); sigset_t s; sigemptyset(&s); sigaddset(&s, SIGTERM); sigaddset(&s, 64); sigaddset(&s, SIGHUP);
          sigprocmask(SIG_SETMASK, &s, NULL); raise(SIGTERM); kill(getpid(), SIGHUP); get_file("/proc/self/status", b, sizeof b); val("status.SigBlk", "%s", at("SigBlk"));
          char ign[32]; snprintf(ign, sizeof ign, "%s", at("SigIgn")); val("status.SigIgn_has_usr1", "%d", (int)(strtoull(ign, NULL, 16) >> 9 & 1));
          val("status.SigCgt", "%s", at("SigCgt")); val("status.SigPnd", "%s", at("SigPnd")); val("status.ShdPnd", "%s", at("ShdPnd"));
          prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); get_file("/proc/self/status", b, sizeof b); val("status.NoNewPrivs", "%s", at("NoNewPrivs"));
          syscall(SYS_setgroups, 3, (gid_t[]){30, 10, 20}); MUST(setresgid(1, 2, 3)); MUST(setresuid(4, 5, 6)); get_file("/proc/self/status", b, sizeof b);
          char t[64]; snprintf(t, sizeof t, "%s", at("Uid")); for (char *q = t; *q; q++) if (*q == '\t') *q = ' '; val("status.Uid_set", "%s", t);
          snprintf(t, sizeof t, "%s", at("Gid")); for (char *q = t; *q; q++) if (*q == '\t') *q = ' '; val("status.Gid_set", "%s", t); val("status.Groups", "%s", at("Groups")));

    // fd, fdinfo
    int f = MUST(open("f", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600)), pp[2];
    write(f, "12345", 5);
    MUST(pipe(pp));
    snprintf(path, sizeof path, "/proc/self/fd/%d", f);
    snprintf(b, sizeof b, "%s/f", cwd);
    YES("fd.file", !strcmp(link_of(path), b));
    struct stat st;
    lstat(path, &st);
    val("fd.mode", "%o", st.st_mode);
    stat(path, &st);
    val("fd.follow", "%o size %ld", st.st_mode, (long)st.st_size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pp[0]);
    lstat(path, &st);
    val("fd.pipe_mode", "%o", st.st_mode);
    fstat(pp[0], &st);
    snprintf(b, sizeof b, "pipe:[%lu]", (unsigned long)st.st_ino);
    YES("fd.pipe_inode", !strcmp(link_of(path), b));
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", f);
    RET("fdinfo", get_file(path, b, sizeof b) ? 0 : -1);
    val("fdinfo.pos", "%s", at("pos"));
    val("fdinfo.flags", "%s", at("flags"));
    YES("fdinfo.mnt_id", has("mnt_id"));
    RET("fd.missing", open("/proc/self/fd/999", O_RDONLY));
    RET("fd.not_a_number", open("/proc/self/fd/x", O_RDONLY));
    DIR *d = opendir("/proc/self/fd");
    int open_fds = 0, listed = 0;
    for (struct dirent *e; (e = readdir(d));) listed += e->d_name[0] != '.';
    closedir(d);
    for (int i = 0; i < 1024; i++) open_fds += fcntl(i, F_GETFD) >= 0;
    YES("fd.list_is_complete", listed == open_fds + 1);
    RET("fd.reopen_readonly_for_writing", ({ put_file("ro", "x", 0600); int r = open("ro", O_RDONLY); snprintf(path, sizeof path, "/proc/self/fd/%d", r); open(path, O_RDWR) >= 0 ? 0 : -1; }));
    // task
    baton bt = baton_new();
    pthread_t t;
    pthread_create(&t, NULL, idle, &bt);
    baton_take(&bt);
    d = opendir("/proc/self/task");
    int tasks = 0, other = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            tasks++;
            if (atoi(e->d_name) != pid) other = atoi(e->d_name);
        }
    closedir(d);
    val("task.count", "%d", tasks);
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", other);
    get_file(path, b, sizeof b);
    val("task.comm", "%.5s", b);
    snprintf(path, sizeof path, "/proc/self/task/%d/status", other);
    get_file(path, b, sizeof b);
    YES("task.status", atoi(at("Pid")) == other && atoi(at("Tgid")) == pid);
    snprintf(path, sizeof path, "/proc/%d/comm", other);
    YES("task.direct_path_works_too", get_file(path, b, sizeof b) != NULL);
    d = opendir("/proc");
    int shown = 0;
    for (struct dirent *e; (e = readdir(d));) shown |= atoi(e->d_name) == other;
    closedir(d);
    YES("task.not_in_listing", !shown);
    stat("/proc/self/task", &st);
    val("task.nlink", "%ld", (long)st.st_nlink);
    // Others
    get_file("/proc/self/limits", b, sizeof b);
    static const char *limits[] = {"Limit ", "Max cpu time ", "Max file size ", "Max data size ", "Max stack size ", "Max core file size ", "Max resident set ", "Max processes ", "Max open files ",
        "Max locked memory ", "Max address space ", "Max file locks ", "Max pending signals ", "Max msgqueue size ", "Max nice priority ", "Max realtime priority ", "Max realtime timeout "};
    int lines = 0, right = 0;
    for (char *l = b; *l; l = strchr(l, '\n') + 1, lines++)
        if (lines < (int)COUNT(limits) && !strncmp(l, limits[lines], strlen(limits[lines]))) right++;
    val("limits", "%d of %d lines", right, lines);
    CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){4096, 8192}); get_file("/proc/self/limits", b, sizeof b); char *l = strstr(b, "Max core"); val("limits.line", "[%.*s]", (int)strcspn(l, "\n"), l));
    get_file("/proc/self/auxv", b, sizeof b);
    unsigned long *av = (void *)b;
    int entry = 0;
    for (int i = 0; av[i]; i += 2) entry |= av[i] == AT_ENTRY && av[i + 1] == getauxval(AT_ENTRY);
    YES("auxv", entry);
    get_file("/proc/self/oom_score_adj", b, sizeof b);
    YES("oom_score_adj.number", strchr(b, '\n') && atoi(b) >= -1000 && atoi(b) <= 1000);
    RET("oom_score_adj.raise", ({ int x = open("/proc/self/oom_score_adj", O_WRONLY); write(x, "500", 3); }));
    get_file("/proc/self/oom_score_adj", b, sizeof b);
    val("oom_score_adj.raised", "%d", atoi(b));
    RET("oom_score_adj.bad", ({ int x = open("/proc/self/oom_score_adj", O_WRONLY); write(x, "5000", 4); }));
    YES("oom_score", get_file("/proc/self/oom_score", b, sizeof b));
    YES("cgroup", get_file("/proc/self/cgroup", b, sizeof b));
    YES("loginuid_or_absent", get_file("/proc/self/loginuid", b, sizeof b) || errno == ENOENT);
    get_file("/proc/self/uid_map", b, sizeof b);
    int mf[3];
    val("uid_map.fields", "%d", sscanf(b, "%d %d %d", mf, mf + 1, mf + 2) >= 2);
    YES("mountinfo.root", get_file("/proc/self/mountinfo", b, sizeof b) && strstr(b, " / ") && strstr(b, " - "));
    YES("mounts.root", get_file("/proc/self/mounts", b, sizeof b) && strstr(b, " / ") && strstr(b, " proc "));
    YES("mountstats_or_absent", get_file("/proc/self/mountstats", b, sizeof b) || errno == ENOENT);
    YES("io_or_absent", get_file("/proc/self/io", b, sizeof b) || errno == ENOENT);
    YES("smaps", get_file("/proc/self/smaps", b, sizeof b) && has("Size") && has("Rss") && has("Pss"));
    YES("smaps_rollup", get_file("/proc/self/smaps_rollup", b, sizeof b) && has("Rss"));
    static const char *ns[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    for (size_t i = 0; i < COUNT(ns); i++) {
        char n[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", ns[i]);
        snprintf(n, sizeof n, "ns.%s", ns[i]);
        YES(n, !strncmp(link_of(path), ns[i], strlen(ns[i])) && strchr(link_of(path), '['));
    }
    RET("missing_file", open("/proc/self/nothing", O_RDONLY));
    RET("missing_pid", open("/proc/4194304/stat", O_RDONLY));
    RET("create", open("/proc/self/new", O_RDWR | O_CREAT, 0600));
    RET("mkdir", mkdir("/proc/new", 0700));
    RET("unlink", unlink("/proc/self/stat"));
    RET("stat.size", stat("/proc/self/status", &st) ? -1 : (long)st.st_size);
    val("status.mode", "%o", st.st_mode);
    // A child's directory while it is a zombie, and afterwards.
    pid_t kid = fork();
    if (kid == 0) _exit(0);
    siginfo_t si;
    waitid(P_PID, kid, &si, WEXITED | WNOWAIT);
    snprintf(path, sizeof path, "/proc/%d/stat", kid);
    get_file(path, b, sizeof b);
    val("zombie.state", "%c", strrchr(b, ')')[2]);
    snprintf(path, sizeof path, "/proc/%d/cmdline", kid);
    get_file(path, b, sizeof b);
    val("zombie.cmdline", "[%s]", b);
    snprintf(path, sizeof path, "/proc/%d/exe", kid);
    val("zombie.exe", "%s", link_of(path));
    snprintf(path, sizeof path, "/proc/%d/stat", kid);
    int zf = open(path, O_RDONLY);
    wait_for(kid);
    RET("reaped.open", open(path, O_RDONLY));
    RET("reaped.read", read(zf, b, 10));
    return 0;
}
