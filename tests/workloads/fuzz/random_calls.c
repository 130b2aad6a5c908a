// Drives the whole system call table with hostile arguments. The kernel below must survive; what the calls answer
// does not matter. Only ever run in a sandbox: as root on a host it would do harm, so it refuses to run as anything but init.
//
//     random_calls SECONDS SEED
//
// Each round is a process with a seed of its own, printed before it starts, so that the last line of a run that ends badly names the
// round: `random_calls 1 SEED` begins with it. A round is two processes of three threads each, which share files, memory and signals. Half
// of the calls get arguments of the right kind (`shapes.h`), with a wrong one now and then; the others get anything.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define AREA (16 * PAGE)
#define MAPPED (64 * PAGE)
#define CALLS 2000
#define THREADS 3
#define HIGHEST 470
#define SA_RESTORER_BIT 0x04000000UL

static __thread uint64_t state;

static uint64_t rnd(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t limit) {
    return rnd() % limit;
}

static __thread char *area;
static char *areas, *mapped, *readonly;
static uint64_t *calls;

static const char *const paths[] = {
    "/", ".", "..", "", "/proc/self/maps", "/proc/self/fd", "/proc/self/mem", "/proc/self/exe", "/dev/null", "/dev/zero", "/dev/ptmx",
    "/dev/full", "/sys", "f", "f/g", "d", "d/e", "l", "/tmp", "/proc/1/stat", "/etc/passwd", "/dev/tty", "/proc/self/ns/pid", "/does/not/exist",
    "a", "a/b", "a/b/c", "loop", "fifo", "s0", "d/f", "/proc/self/cwd/f", "/proc/self/root", "/proc/thread-self/status", "/proc/self/fd/5",
    "/proc/self/fdinfo/7", "/proc/self/smaps", "/proc/self/pagemap", "/proc/self/stat", "/proc/self/environ", "/proc/self/cmdline", "/proc/self/task",
    "/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/mountinfo", "/proc/self/limits", "/proc/self/uid_map", "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/pid_max", "/proc/net/unix", "/proc/net/tcp", "/proc/meminfo", "/proc/stat", "/proc/locks",
    "/dev/pts/0", "/dev/pts", "/dev/urandom", "/dev/shm/x", "/dev/console", "/sys/devices/system/cpu", "/proc/self/attr/current", "/proc/self/clear_refs",
};
#define PATHS (sizeof paths / sizeof *paths)

static void nothing(int signal) {
    (void)signal;
}

__asm__("give_back: mov $15, %eax\n syscall\n");
extern char give_back[];
static char *restorer(void) {
    return give_back;
}

#include "arguments.h"
#include "shapes.h"

// Fills the area with things that system calls may find meaningful: pointers into itself, small numbers, paths, noise.
static void scribble(void) {
    uint64_t *words = (uint64_t *)area;
    for (size_t i = 0; i < AREA / 8; i++)
        switch (below(6)) {
        case 0: words[i] = (uint64_t)area + below(AREA); break;
        case 1: words[i] = below(64); break;
        case 2: words[i] = rnd(); break;
        case 3: words[i] = below(20) | below(20) << 32; break;
        default: words[i] = 0;
        }
    for (int i = 0; i < 24; i++)
        strcpy(area + 64 * below(AREA / 64), paths[below(PATHS)]);
}

// Something behind the low descriptor numbers.
static void open_things(void) {
    int fds[2];
    if (pipe(fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds))
        return;
    mkdir("d", 0755);
    mkdir("a", 0755);
    mkdir("a/b", 0755);
    symlink("loop", "loop");
    symlink("d/../a", "l");
    mkfifo("fifo", 0600);
    open("f", O_RDWR | O_CREAT, 0600);
    open(".", O_RDONLY | O_DIRECTORY);
    open("/proc/self/status", O_RDONLY);
    eventfd(0, EFD_NONBLOCK);
    syscall(SYS_epoll_create1, 0);
    syscall(SYS_epoll_create1, 0);
    syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0);
    int memory = (int)syscall(SYS_memfd_create, "m", 3);
    if (ftruncate(memory, 1 << 20))
        return;
    socket(AF_INET, SOCK_STREAM, 0);
    socket(AF_INET6, SOCK_DGRAM, 0);
    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_NETLINK, SOCK_RAW, 0);
    posix_openpt(O_RDWR | O_NOCTTY);
    open("/proc/self/mem", O_RDWR);
    open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    open("fifo", O_RDWR | O_NONBLOCK);
    uint64_t mask = ~0UL;
    syscall(SYS_signalfd4, -1, &mask, 8, 0);
    syscall(SYS_pidfd_open, getpid(), 0);
    open("d", O_PATH | O_DIRECTORY);
    open("/dev/zero", O_RDWR);
}

static __thread sigjmp_buf after_fault;

// A call took memory away that this program needs: what can be is mapped again.
static void repair(int signal) {
    mmap(area, AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    siglongjmp(after_fault, signal);
}

static int threads[THREADS];

// The timer's signal reaches one thread of the process; the others wait too.
static void pass_on(int signal) {
    (void)signal;
    for (int i = 0; i < THREADS; i++)
        if (threads[i])
            syscall(SYS_tgkill, getpid(), threads[i], SIGUSR2);
}

// A call that waits is interrupted, again and again; what a round has done to its timer and signals is undone now and then.
static void keep_moving(int everything) {
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval often = {{0, 10000}, {0, 10000}};
    sigset_t none;
    for (int i = everything ? 1 : 65; i < 65; i++)
        if (i != SIGCHLD && i != SIGSEGV && i != SIGBUS)
            sigaction(i, &action, NULL);
    action.sa_handler = pass_on;
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = repair;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static int is_wanted(uint64_t number, const uint64_t *args) {
    extern char __executable_start[], _end[];
    switch (number) {
    case SYS_mmap: case SYS_munmap: case SYS_mprotect: case SYS_mremap: case SYS_pkey_mprotect: case SYS_remap_file_pages: case 462:
        return args[0] + args[1] < (uint64_t)__executable_start || args[0] > (uint64_t)_end;
    case SYS_arch_prctl: return args[0] != 0x1002; // where this thread's variables are
    // Ending the round early finds nothing.
    case SYS_exit: case SYS_exit_group: case SYS_pause: case SYS_rt_sigreturn: case SYS_vfork: return 0;
    // Nor does a new program in its place, nor the end of all other rounds.
    case SYS_execve: case SYS_execveat: return below(50) == 0;
    // These take as long as a hundred others.
    case SYS_fork: case SYS_clone: case SYS_clone3: return below(6) == 0;
    case SYS_kill: return (int)args[1] != SIGKILL && (int)args[1] != SIGSTOP;
    case SYS_tkill: case SYS_tgkill: return below(4) == 0;
    case SYS_umount2: case SYS_pivot_root: case SYS_chroot: return below(20) == 0;
    // Nor does bringing down the process that keeps the rounds going.
    case SYS_prlimit64: case SYS_ptrace: case SYS_process_vm_writev: case SYS_sched_setscheduler: case SYS_sched_setattr: return args[0] != 1;
    default: return 1;
    }
}

static void one_call(void) {
    const struct shape *shape = NULL;
    uint64_t number = below(40) ? below(HIGHEST) : rnd(), args[6];
    if (below(4)) {
        shape = &shapes[below(sizeof shapes / sizeof *shapes)];
        number = (uint64_t)shape->number;
    }
    for (int i = 0; i < 6; i++)
        args[i] = argument();
    if (shape)
        for (int i = 0; shape->kinds[i] && i < 6; i++)
            args[i] = make(shape->kinds[i]);
    if (!is_wanted(number, args))
        return;
    __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED);
    syscall((long)number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static void *make_calls(void *seed) {
    state = (uint64_t)seed;
    unsigned index = (unsigned)(state % THREADS);
    for (int i = 0; i < 8; i++)
        rnd();
    area = areas + index * (AREA + PAGE);
    scribble();
    long self = syscall(SYS_gettid);
    threads[index] = (int)self;
    volatile int i = 0;
    sigsetjmp(after_fault, 0);
    for (; i < CALLS; i++) {
        if (i % 32 == 0)
            keep_moving(i % 512 == 0);
        if (below(200) == 0 && mprotect(area, AREA, PROT_READ | PROT_WRITE) == 0)
            scribble();
        // Room for new descriptors.
        if (below(300) == 0)
            syscall(SYS_close_range, 60, ~0U, 0);
        one_call();
        // A copy of this task ends soon: rounds must not multiply.
        if (syscall(SYS_gettid) != self) {
            state ^= (uint64_t)syscall(SYS_gettid) << 20;
            for (int j = 0; j < 30; j++)
                one_call();
            syscall(SYS_exit_group, 0);
        }
    }
    return NULL;
}

static void one_round(uint64_t seed) {
    struct rlimit memory = {1UL << 29, 1UL << 29}, file = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_FSIZE, &file);
    // What the calls write is not for whoever reads of the rounds.
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    mkdir("/tmp/fuzz", 0755);
    // A round before may have moved it away: then wherever this is.
    if (chdir("/tmp/fuzz"))
        mkdir("fuzz", 0755);
    areas = mmap(NULL, THREADS * (AREA + PAGE), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mapped = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    readonly = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (areas == MAP_FAILED || mapped == MAP_FAILED || readonly == MAP_FAILED)
        _exit(1);
    for (int i = 0; i < THREADS; i++)
        munmap(areas + (unsigned)i * (AREA + PAGE) + AREA, PAGE);
    open_things();
    fork();
    // Zero would stay zero, and neighbouring seeds should not begin alike.
    uint64_t base = (seed + 1) * 0x9e3779b97f4a7c15 ^ (uint64_t)(getpid() & 1) << 40;
    base -= base % THREADS;
    for (uint64_t i = 1; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, make_calls, (void *)(base + i)) == 0)
            pthread_detach(thread);
    }
    make_calls((void *)base);
    _exit(0);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int take_away(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)kind, (void)place;
    remove(path);
    return 0;
}

int main(int argc, char **argv) {
    // A round that executes this program again ends here too: it is not init.
    if (argc != 3 || getpid() != 1) {
        fprintf(stderr, "random_calls SECONDS SEED, as the first program of a sandbox only\n");
        return 2;
    }
    int64_t end = now_ms() + 1000 * atoll(argv[1]);
    uint64_t seed = strtoull(argv[2], NULL, 10), rounds = 0;
    calls = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED)
        return 1;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    for (; now_ms() < end; seed++, rounds++) {
        printf("round %llu\n", (unsigned long long)seed);
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) {
            perror("fork");
            return 1;
        }
        if (pid == 0)
            one_round(seed);
        // A round that waits for something is ended; so is whatever it left behind.
        struct timespec limit = {2, 0};
        int status;
        while (waitpid(pid, &status, WNOHANG) == 0)
            if (sigtimedwait(&child, NULL, &limit) < 0 && errno == EAGAIN)
                kill(pid, SIGKILL);
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0)
            ;
        // Files would add up to a full disk, which refuses everything.
        nftw("/tmp/fuzz", take_away, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    }
    // A round may have written to this stream too.
    printf("\nsurvived %llu rounds, %llu calls\n", (unsigned long long)rounds, (unsigned long long)*calls);
    return 0;
}
