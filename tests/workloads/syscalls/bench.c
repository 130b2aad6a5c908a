// What single operations cost, in nanoseconds: one line "name ns" each, the mean over a batch, best of a few batches (a batch that was
// interrupted by something else says nothing about the operation). The same binary runs natively and in every sandbox.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BATCHES 5

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int data_fd;
static char buffer[PAGE];
static char *memory;
static size_t next_page;
static int there[2], back[2];
static uint32_t word;

static void do_getppid(void) {
    syscall(SYS_getppid);
}

static void do_pread(void) {
    if (pread(data_fd, buffer, PAGE, 0) != PAGE)
        die("pread");
}

static void do_mmap(void) {
    char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        die("mmap");
    *map = 1;
    munmap(map, PAGE);
}

static void do_fault(void) {
    memory[PAGE * next_page++] = 1;
}

static void do_fork(void) {
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        _exit(0);
    if (waitpid(child, NULL, 0) != child)
        die("waitpid");
}

static void *nothing(void *arg) {
    return arg;
}

static void do_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
        die("pthread");
}

static void do_ping_pong(void) {
    char byte = 0;
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
        die("ping-pong");
}

static void do_open(void) {
    int fd = open("bench.data", O_RDONLY);
    if (fd < 0)
        die("open");
    close(fd);
}

static void do_stat(void) {
    struct stat st;
    if (stat("bench.data", &st))
        die("stat");
}

static void do_futex(void) {
    syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

static void measure(const char *name, void (*operation)(void), int count) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < count / 10 + 1; i++)
        operation();
    for (int batch = 0; batch < BATCHES; batch++) {
        int64_t start = now_ns();
        for (int i = 0; i < count; i++)
            operation();
        int64_t took = now_ns() - start;
        best = took < best ? took : best;
    }
    printf("%s %.1f\n", name, (double)best / count);
    fflush(stdout);
}

// The other end of the ping-pong: sends every byte back until its pipe is closed.
static pid_t start_echo(void) {
    if (pipe(there) || pipe(back))
        die("pipe");
    pid_t echo = fork();
    if (echo < 0)
        die("fork");
    if (echo == 0) {
        char byte;
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    return echo;
}

int main(int argc, char **argv) {
    // A divisor for quick runs where only the working matters.
    int divisor = argc > 1 ? atoi(argv[1]) : 1;
    int faults = 2000 / divisor + 1;
    if (divisor < 1)
        return 2;
    if (chdir("/tmp"))
        die("chdir");
    data_fd = open("bench.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (data_fd < 0 || write(data_fd, buffer, PAGE) != PAGE)
        die("bench.data");

    measure("getppid", do_getppid, 20000 / divisor + 1);
    measure("pread 4 KiB", do_pread, 10000 / divisor + 1);
    measure("open+close", do_open, 2000 / divisor + 1);
    measure("stat", do_stat, 5000 / divisor + 1);
    measure("futex wake", do_futex, 20000 / divisor + 1);
    measure("mmap+touch+munmap", do_mmap, 1000 / divisor + 1);

    size_t size = (size_t)PAGE * (size_t)(faults * (BATCHES + 1));
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE))
        die("memory");
    measure("page fault", do_fault, faults);
    munmap(memory, size);

    measure("fork+exit+wait", do_fork, 100 / divisor + 1);
    measure("thread create+join", do_thread, 200 / divisor + 1);
    pid_t echo = start_echo();
    measure("pipe ping-pong", do_ping_pong, 2000 / divisor + 1);
    close(there[1]);
    waitpid(echo, NULL, 0);
    unlink("bench.data");
    return 0;
}
