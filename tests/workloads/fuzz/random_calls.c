// Drives the whole system call table with random numbers and hostile arguments. The kernel below must survive; what the calls answer
// does not matter. Only ever run in a sandbox: as root on a host it would do harm, so it refuses to run as anything but init.
//
//     random_calls SECONDS SEED
//
// Each round is a child with a seed of its own, printed before it starts, so that the last line of a run that ends badly names the
// round: `random_calls 1 SEED` begins with it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define AREA (16 * PAGE)
#define CALLS 3000
#define HIGHEST 470

static uint64_t state;

static uint64_t rnd(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t limit) {
    return rnd() % limit;
}

static char *area, *readonly;
static uint64_t *calls;

static const char *const paths[] = {
    "/", ".", "..", "", "/proc/self/maps", "/proc/self/fd", "/proc/self/mem", "/proc/self/exe", "/dev/null", "/dev/zero", "/dev/ptmx",
    "/dev/full", "/sys", "f", "f/g", "d", "d/e", "l", "/tmp", "/proc/1/stat", "/etc/passwd", "/dev/tty", "/proc/self/ns/pid", "/does/not/exist",
};

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
        strcpy(area + 64 * below(AREA / 64), paths[below(sizeof paths / sizeof *paths)]);
}

static uint64_t pointer(void) {
    switch (below(12)) {
    case 0: return 0;
    case 1: return (uint64_t)readonly + below(PAGE);
    case 2: return (uint64_t)area + AREA - below(16);
    case 3: return 0xffff800000000000 + below(1 << 20);
    case 4: return 0x8000000000000000 + rnd() % (1UL << 40);
    case 5: return 0x7ffffffff000 - below(8192);
    case 6: return below(1 << 16);
    case 7: return (uint64_t)(uintptr_t)paths[below(sizeof paths / sizeof *paths)];
    default: return (uint64_t)area + 64 * below(AREA / 64);
    }
}

static uint64_t argument(void) {
    switch (below(10)) {
    case 0: return below(4);
    case 1: return below(24); // often a descriptor
    case 2: return -1 - below(4);
    case 3: return 1UL << below(64);
    case 4: return rnd();
    case 5: return (uint64_t)(int64_t)AT_FDCWD;
    case 6: return below(1 << 16);
    default: return pointer();
    }
}

// Something behind the low descriptor numbers.
static void open_things(void) {
    int fds[2];
    if (pipe(fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds))
        return;
    open("f", O_RDWR | O_CREAT, 0600);
    open(".", O_RDONLY | O_DIRECTORY);
    open("/proc/self/status", O_RDONLY);
    eventfd(0, EFD_NONBLOCK);
    syscall(SYS_epoll_create1, 0);
    syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0);
    syscall(SYS_memfd_create, "m", 3);
    socket(AF_INET, SOCK_STREAM, 0);
    socket(AF_INET6, SOCK_DGRAM, 0);
    posix_openpt(O_RDWR | O_NOCTTY);
}

static void nothing(int signal) {
    (void)signal;
}

// A call that waits is interrupted, again and again; what a round has done to the timer or its signal is undone now and then.
static void keep_moving(void) {
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval often = {{0, 5000}, {0, 5000}};
    sigset_t none;
    sigemptyset(&none);
    sigaction(SIGALRM, &action, NULL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void one_round(void) {
    struct rlimit memory = {1UL << 29, 1UL << 29}, file = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_FSIZE, &file);
    mkdir("/tmp/fuzz", 0755);
    if (chdir("/tmp/fuzz"))
        _exit(1);
    area = mmap(NULL, AREA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    readonly = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || readonly == MAP_FAILED)
        _exit(1);
    munmap(area + AREA, PAGE);
    open_things();
    scribble();
    long self = syscall(SYS_gettid);
    for (int i = 0; i < CALLS; i++) {
        uint64_t number = below(40) ? below(HIGHEST) : rnd();
        if (i % 16 == 0)
            keep_moving();
        // Ending the round early finds nothing.
        if (number == SYS_exit || number == SYS_exit_group || number == SYS_pause)
            continue;
        if (below(200) == 0 && mprotect(area, AREA, PROT_READ | PROT_WRITE) == 0)
            scribble();
        uint64_t args[6];
        for (int j = 0; j < 6; j++)
            args[j] = argument();
        // Nor does bringing down the process that keeps the rounds going.
        if (args[0] == 1 && (number == SYS_prlimit64 || number == SYS_ptrace || number == SYS_process_vm_writev ||
                             number == SYS_sched_setscheduler || number == SYS_sched_setattr))
            continue;
        __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED);
        syscall((long)number, args[0], args[1], args[2], args[3], args[4], args[5]);
        // A copy of this task ends: rounds must not multiply.
        if (syscall(SYS_gettid) != self)
            syscall(SYS_exit, 0);
    }
    _exit(0);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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
        if (pid == 0) {
            // Zero would stay zero, and neighbouring seeds should not begin alike.
            state = (seed + 1) * 0x9e3779b97f4a7c15;
            for (int i = 0; i < 8; i++)
                rnd();
            one_round();
        }
        // A round that waits for something is ended; so is whatever it left behind.
        struct timespec limit = {2, 0};
        int status;
        while (waitpid(pid, &status, WNOHANG) == 0)
            if (sigtimedwait(&child, NULL, &limit) < 0 && errno == EAGAIN)
                kill(pid, SIGKILL);
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0)
            ;
    }
    printf("survived %llu rounds, %llu calls\n", (unsigned long long)rounds, (unsigned long long)*calls);
    return 0;
}
