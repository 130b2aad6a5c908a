// What execve(2) keeps and what it resets: descriptors, close-on-exec, signal handlers, ignored signals, mask, pending
// signals, alternate stack, pid, umask, cwd, locks of memory, timers, name, dumpable, mappings.
#include "../check.h"
#include <sys/prctl.h>
#include <sys/time.h>

extern char **environ;
static void handler(int sig) { (void)sig; }

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "child")) {
        val("pid_is_kept", "%s", getpid() == atoi(argv[2]) ? "yes" : "no");
        RET("fd_kept", fcntl(100, F_GETFD));
        RET("fd_cloexec", fcntl(101, F_GETFD));
        RET("fd_cloexec_dup", fcntl(102, F_GETFD));
        val("fd_offset", "%ld", (long)lseek(100, 0, SEEK_CUR));
        struct sigaction sa;
        sigaction(SIGUSR1, NULL, &sa);
        val("handler_is_reset", "%s flags %d", sa.sa_handler == SIG_DFL ? "default" : "other", sa.sa_flags & ~0x04000000);
        sigaction(SIGUSR2, NULL, &sa);
        val("ignored_stays", "%s", sa.sa_handler == SIG_IGN ? "ignore" : "other");
        sigaction(SIGCHLD, NULL, &sa);
        val("sigchld", "%s", sa.sa_handler == SIG_DFL ? "default" : sa.sa_handler == SIG_IGN ? "ignore" : "other");
        sigset_t set;
        sigprocmask(SIG_BLOCK, NULL, &set);
        val("mask", "%d %d", sigismember(&set, SIGTERM), sigismember(&set, SIGHUP));
        sigpending(&set);
        val("pending", "%d %d", sigismember(&set, SIGTERM), sigismember(&set, SIGHUP));
        stack_t ss;
        sigaltstack(NULL, &ss);
        val("altstack", "%s", ss.ss_flags == SS_DISABLE ? "disabled" : "other");
        mode_t um = umask(0);
        val("umask", "%o", um);
        char cwd[PATH_MAX] = "";
        getcwd(cwd, sizeof cwd);
        YES("cwd", !strcmp(cwd, argv[3]));
        char name[17] = "";
        prctl(PR_GET_NAME, name);
        val("name", "%s", name);
        RET("dumpable", prctl(PR_GET_DUMPABLE));
        RET("keepcaps", prctl(PR_GET_KEEPCAPS));
        RET("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        RET("child_subreaper", ({ int v = -1; prctl(PR_GET_CHILD_SUBREAPER, &v); v; }));
        RET("pdeathsig", ({ int v = -1; prctl(PR_GET_PDEATHSIG, &v); v; }));
        struct itimerval it;
        getitimer(ITIMER_REAL, &it);
        YES("itimer_kept", it.it_value.tv_sec > 500 && it.it_interval.tv_sec == 77);
        RET("posix_timer_gone", syscall(SYS_timer_gettime, 0, &(struct itimerspec){0}));
        struct rlimit rl;
        getrlimit(RLIMIT_FSIZE, &rl);
        val("rlimit", "%ld", (long)rl.rlim_cur);
        RET("mapping_gone", mincore((void *)0x10000000000, PAGE, (unsigned char[1]){0}));
        RET("nice", getpriority(PRIO_PROCESS, 0));
        val("env", "%s", getenv("KEPT") ? getenv("KEPT") : "none");
        return 5;
    }
    tmp_enter();
    const char *self = self_path();
    copy_file(self, "averyverylongprogramname", 0755);
    put_file("f", "0123456789", 0644);
    char cwd[PATH_MAX];
    MUST(getcwd(cwd, sizeof cwd) ? 0 : -1);
    int st = CHILD(
        int fd = open("f", O_RDONLY); lseek(fd, 4, SEEK_SET); dup2(fd, 100); dup3(fd, 101, O_CLOEXEC);
        dup2(101, 102); signal(SIGUSR1, handler);
        struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_NODEFER}; sigaction(SIGUSR1, &sa, NULL);
        signal(SIGUSR2, SIG_IGN); signal(SIGCHLD, SIG_IGN);
        sigset_t set; sigemptyset(&set); sigaddset(&set, SIGTERM); sigprocmask(SIG_SETMASK, &set, NULL);
        raise(SIGTERM); static char stk[65536]; stack_t ss = {.ss_sp = stk, .ss_size = sizeof stk};
        sigaltstack(&ss, NULL); umask(031); prctl(PR_SET_NAME, "renamed"); prctl(PR_SET_DUMPABLE, 0);
        prctl(PR_SET_KEEPCAPS, 1); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_CHILD_SUBREAPER, 1);
        prctl(PR_SET_PDEATHSIG, SIGHUP);
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = 1000, .it_interval.tv_sec = 77}, NULL);
        timer_t t; timer_create(CLOCK_MONOTONIC, &(struct sigevent){.sigev_notify = SIGEV_NONE}, &t);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){123456, 123456});
        mmap((void *)0x10000000000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        setpriority(PRIO_PROCESS, 0, 3); char pid[16]; snprintf(pid, sizeof pid, "%d", getpid());
        char *av[] = {"whatever", "child", pid, cwd, NULL}; char *ev[] = {"KEPT=yes", NULL};
        execve("./averyverylongprogramname", av, ev); _exit(99));
    val("child", "%s", wname(st));
    return 0;
}
