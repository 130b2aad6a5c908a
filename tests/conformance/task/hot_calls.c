// System calls that are made so often, from one place, that a kernel may be tempted to do something about it: what they answer after
// fork, execve-free changes of identity and the end of a parent; registers, flags, red zone and vector state; jumps into the
// middle of such a place; storms of signals; code that is read, rewritten, moved and shared. getpid(2), getppid(2),
// setresuid(2), syscall(2), signal(7), mprotect(2), mremap(2), proc_pid_mem(5).
#include "../check.h"
#include <sys/time.h>
#include <ucontext.h>

#define MANY 400

// ---- A place of our own, in the program's text ----

// rdi..r9 are the call's; enters at the mov, or at the instruction itself with the number in rax.
asm(".pushsection .text\n"
    ".globl hot_getpid, hot_getpid_call, hot_getpid_end\n"
    "hot_getpid: mov $39, %eax\n"
    "hot_getpid_call: syscall\n"
    "hot_getpid_end: ret\n"
    ".globl hot_read\n"
    "hot_read: mov $0, %eax\n"
    "syscall\n"
    "ret\n"
    // loop(stop, counters): calls until *stop; counters[0]: calls, [1]: wrong results. r12: the pid. The stack pointer is a
    // number that is no address while it calls, and comes back as it was.
    ".globl hot_loop, hot_loop_end\n"
    "hot_loop: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rdi, %r13; mov %rsi, %r14; mov %rdx, %r12\n"
    "1: mov $0x1111, %ebx; mov $0x2222, %ebp; mov $0x3333, %r15d\n"
    "mov $0x77, %edi; movq %rdi, %xmm7\n"
    "stc\n"
    "mov $39, %eax\n"
    "syscall\n"
    "jnc 2f\n"
    "cmp %r12, %rax; jne 2f\n"
    "cmp $0x1111, %ebx; jne 2f\n"
    "cmp $0x2222, %ebp; jne 2f\n"
    "cmp $0x3333, %r15d; jne 2f\n"
    "movq %xmm7, %rax; cmp $0x77, %rax; jne 2f\n"
    "jmp 3f\n"
    "2: incq 8(%r14)\n"
    "3: incq (%r14)\n"
    "cmpl $0, (%r13); je 1b\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "hot_loop_end: ret\n"
    ".popsection\n");
extern char hot_getpid[], hot_getpid_call[], hot_getpid_end[], hot_loop[], hot_loop_end[];
extern long hot_read(int fd, void *buf, size_t len);
void hot_loop_run(volatile int *stop, volatile long *counters, long pid) __asm__("hot_loop");

static long call_at(void *entry, long rax) {
    long result = rax;
    asm volatile("call *%1" : "+a"(result) : "r"(entry) : "rcx", "r11", "memory");
    return result;
}

static void identity(void) {
    pid_t pid = getpid(), parent = getppid();
    int wrong = 0;
    for (int i = 0; i < MANY; i++) {
        wrong += call_at(hot_getpid, 0) != pid;
        wrong += syscall(SYS_getppid) != parent;
        wrong += syscall(SYS_gettid) != pid;
        wrong += getuid() != 0;
    }
    val("hot.same", "%d", wrong);
    int status, ends[2];
    if (pipe(ends)) exit(100);
    pid_t child = fork();
    if (child == 0) {
        pid_t own = call_at(hot_getpid, 0);
        for (int i = 0; i < MANY; i++)
            wrong += call_at(hot_getpid, 0) != own || syscall(SYS_getppid) != pid || syscall(SYS_gettid) != own;
        if (write(ends[1], &own, sizeof own) != sizeof own) _exit(1);
        _exit(wrong);
    }
    pid_t told = 0;
    if (read(ends[0], &told, sizeof told) != sizeof told) exit(100);
    waitpid(child, &status, 0);
    val("hot.fork", "%d %d", told == child, status);
    child = vfork();
    if (child == 0) _exit(call_at(hot_getpid, 0) == pid || syscall(SYS_getppid) != pid);
    waitpid(child, &status, 0);
    val("hot.vfork", "%d %d", call_at(hot_getpid, 0) == pid, status);
    // The parent ends while the child asks for it all the time.
    child = fork();
    if (child == 0) {
        pid_t middle = getpid();
        if (fork() == 0) {
            // The first to ask may already be an orphan.
            while (syscall(SYS_getppid) == middle)
                ;
            pid_t now = getppid();
            int same = 0;
            for (int i = 0; i < MANY; i++) same += syscall(SYS_getppid) == now;
            if (write(ends[1], &same, sizeof same) != sizeof same) _exit(1);
            _exit(0);
        }
        for (int i = 0; i < MANY; i++) call_at(hot_getpid, 0);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (read(ends[0], &told, sizeof told) != sizeof told) exit(100);
    val("hot.orphan", "%d", told);
    child = fork();
    if (child == 0) {
        for (int i = 0; i < MANY; i++) geteuid(), getegid();
        if (syscall(SYS_setresgid, -1, 77, -1) || syscall(SYS_setresuid, -1, 4711, -1)) _exit(1);
        wrong = 0;
        for (int i = 0; i < MANY; i++)
            wrong += geteuid() != 4711 || getegid() != 77 || getuid() != 0 || getgid() != 0;
        if (syscall(SYS_setresuid, -1, 0, -1)) _exit(2);
        wrong += geteuid() != 0;
        _exit(wrong ? 3 : 0);
    }
    waitpid(child, &status, 0);
    val("hot.setresuid", "%d", status);
    close(ends[0]);
    close(ends[1]);
}

static void middle(void) {
    pid_t pid = getpid(), parent = getppid();
    int wrong = 0;
    for (int i = 0; i < MANY; i++) {
        wrong += call_at(hot_getpid, 0) != pid;
        wrong += call_at(hot_getpid_call, 39) != pid;
        wrong += call_at(hot_getpid_call, SYS_getppid) != parent;
        wrong += call_at(hot_getpid_call, 100000) != -ENOSYS;
    }
    val("hot.middle", "%d", wrong);
}

// What a call leaves: flags as they were, rcx the next instruction, r11 the flags; nothing below the stack pointer changes.
static void machine(void) {
    long wrong = 0;
    for (int i = 0; i < MANY; i++) {
        for (unsigned long set = 0; set < 6; set++) {
            static const unsigned long flags[] = {0, 1, 0x40, 0x80 | 0x4, 0x800 | 0x10, 0x400};
            unsigned long before = 0x202 | flags[set], after, rcx, r11, next;
            asm volatile("mov %%rsp, %%rbx\n"
                         "lea -1024(%%rsp), %%rsp\n"
                         "movq $0x5a5a, -8(%%rsp)\n"
                         "movq $0x6b6b, -128(%%rsp)\n"
                         "lea 1f(%%rip), %3\n"
                         "mov %%rsp, %%r12\n"
                         "push %4; popfq\n"
                         "movq $0x5a5a, -8(%%rsp)\n"
                         "mov $39, %%eax\n"
                         "syscall\n"
                         "1:\n"
                         "mov %%rcx, %1; mov %%r11, %2\n"
                         "movq -8(%%rsp), %%rcx; movq -128(%%rsp), %%r11\n"
                         "pushfq; pop %0\n"
                         "cld\n"
                         "xor $0x5a5a, %%rcx; xor $0x6b6b, %%r11; or %%rcx, %%r11; cmp $0, %%r11; je 2f\n"
                         "xor %0, %0\n"
                         "2: mov %%rbx, %%rsp\n"
                         : "=&r"(after), "=&r"(rcx), "=&r"(r11), "=&r"(next)
                         : "r"(before)
                         : "rax", "rbx", "rcx", "r11", "r12", "memory", "cc");
            wrong += after != before || rcx != next || r11 != before;
        }
    }
    val("hot.flags", "%ld", wrong);
    pid_t pid = getpid();
    wrong = 0;
    for (int i = 0; i < MANY; i++) {
        long result, sp;
        asm volatile("mov %%rsp, %%rbx; mov $24, %%esp\n"
                     "mov $39, %%eax; syscall\n"
                     "mov %%rsp, %1; mov %%rbx, %%rsp"
                     : "=&a"(result), "=&r"(sp)
                     :
                     : "rbx", "rcx", "r11", "memory");
        wrong += result != pid || sp != 24;
    }
    val("hot.no_stack", "%ld", wrong);
}

// ---- Signals at any moment ----

static volatile int stop;
static volatile long seen, elsewhere;

static void on_alarm(int sig, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    char *at = (char *)uc->uc_mcontext.gregs[REG_RIP];
    (void)sig, (void)info;
    elsewhere += at < hot_loop || at > hot_loop_end;
    // It makes some itself.
    for (int i = 0; i < 3; i++) call_at(hot_getpid, 0);
    if (++seen == 300) stop = 1;
}

static void storm(void) {
    struct sigaction action = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    volatile long counters[2] = {0, 0};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    // The first may come before the loop does.
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    stop = 0;
    seen = elsewhere = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    hot_loop_run(&stop, counters, getpid());
    sigprocmask(SIG_BLOCK, &set, &old);
    setitimer(ITIMER_REAL, &never, NULL);
    val("storm.wrong", "%ld", counters[1]);
    val("storm.seen", "%d", seen >= 300);
    // Those before and after the loop are none of its.
    val("storm.elsewhere", "%d", elsewhere > 20);
    struct timespec zero = {0, 0};
    while (sigtimedwait(&set, NULL, &zero) == SIGALRM)
        ;
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static int restart_end;
static void on_usr1(int sig) {
    (void)sig;
    if (write(restart_end, "x", 1) != 1) _exit(1);
}

static void restart(void) {
    int ends[2];
    char byte = 0;
    if (pipe(ends)) exit(100);
    for (int i = 0; i < MANY; i++) hot_read(-1, &byte, 1);
    restart_end = ends[1];
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pid_t pid = getpid(), child = fork();
    if (child == 0) {
        char path[64], state[512];
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        for (;;) {
            int fd = open(path, O_RDONLY);
            ssize_t n = read(fd, state, sizeof state - 1);
            close(fd);
            state[n > 0 ? n : 0] = 0;
            char *end = strrchr(state, ')');
            if (end && end[2] == 'S') break;
            sched_yield();
        }
        kill(pid, SIGUSR1);
        _exit(0);
    }
    long n = hot_read(ends[0], &byte, 1);
    val("hot.restart", "%ld %c", n, byte);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
}

// ---- Code of our own making ----

static const unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};

static int differs(const unsigned char *at, int number) {
    unsigned char bytes[sizeof code], wanted[sizeof code];
    memcpy(wanted, code, sizeof code);
    wanted[1] = number;
    int ends[2], fd = open("/proc/self/mem", O_RDONLY), result = 0;
    if (fd < 0 || pipe(ends)) return -1;
    if (pread(fd, bytes, sizeof bytes, (off_t)at) != sizeof bytes || memcmp(bytes, wanted, sizeof bytes)) result |= 1;
    if (write(ends[1], at, sizeof bytes) != sizeof bytes || read(ends[0], bytes, sizeof bytes) != sizeof bytes ||
        memcmp(bytes, wanted, sizeof bytes))
        result |= 2;
    close(fd);
    close(ends[0]);
    close(ends[1]);
    return result;
}

static void own_code(void) {
    pid_t pid = getpid(), parent = getppid();
    unsigned char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int wrong = 0, status;
    memcpy(page, code, sizeof code);
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != pid;
    val("code.calls", "%d", wrong);
    val("code.read", "%d", differs(page, 39));
    pid_t child = fork();
    if (child == 0) {
        pid_t own = getpid();
        for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != own;
        _exit(wrong || differs(page, 39));
    }
    waitpid(child, &status, 0);
    val("code.fork", "%d", status);
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    val("code.loads", "%d", memcmp(page, code, sizeof code));
    page[1] = SYS_getppid;
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != parent;
    val("code.rewritten", "%d %d", wrong, differs(page, SYS_getppid));
    int fd = open("/proc/self/mem", O_RDWR);
    unsigned char number = SYS_getuid;
    val("code.mem_write", "%zd", pwrite(fd, &number, 1, (off_t)page + 1));
    close(fd);
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != 0;
    val("code.mem_written", "%d %d", wrong, differs(page, SYS_getuid));
    unsigned char *place = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    place = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    for (int i = 0; i < MANY; i++) wrong += call_at(place, 0) != 0;
    val("code.moved", "%d %d", wrong, differs(place, SYS_getuid));
    // The same code, mapped anew where it was hot, is other code.
    page = mmap(place, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    memcpy(page, code, sizeof code);
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != pid;
    val("code.anew", "%d %d", wrong, differs(page, 39));
    munmap(page, PAGE);
    // Shared with others, who look at it and write to it.
    int memory = memfd_create("code", 0);
    if (memory < 0 || write(memory, code, sizeof code) != sizeof code || ftruncate(memory, PAGE)) exit(100);
    page = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, memory, 0);
    unsigned char *writable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != pid;
    val("code.shared", "%d %d %d", wrong, memcmp(page, code, sizeof code), memcmp(writable, code, sizeof code));
    writable[1] = SYS_getppid;
    for (int i = 0; i < MANY; i++) wrong += call_at(page, 0) != parent;
    val("code.shared_write", "%d", wrong);
    munmap(page, PAGE);
    munmap(writable, PAGE);
    close(memory);
    // Where nobody maps anything by himself.
    page = mmap((void *)0x60000, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page != MAP_FAILED) {
        val("code.low", "%d", page[0]);
        page[0] = 1;
        wrong += call_at(hot_getpid, 0) != pid;
        munmap(page, PAGE);
    } else {
        val("code.low", "%s", ename(errno));
    }
    val("code.after", "%d", wrong);
}

// ---- Several threads, of which some come to the middle, while the page changes its protection ----

static unsigned char *text;
static volatile int over;

static void *runs(void *arg) {
    pid_t pid = getpid();
    long wrong = 0, into = (long)arg;
    while (!over) {
        wrong += call_at(text, 0) != pid;
        if (into) wrong += call_at(text + 5, 39) != pid;
    }
    return (void *)wrong;
}

static void threads(void) {
    pthread_t ids[3];
    long wrong = 0;
    void *result;
    int failed = 0, status;
    text = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(text, code, sizeof code);
    mprotect(text, PAGE, PROT_READ | PROT_EXEC);
    over = 0;
    for (long i = 0; i < 3; i++) pthread_create(&ids[i], NULL, runs, (void *)i);
    for (int i = 0; i < 40; i++) {
        for (int j = 0; j < 30; j++) wrong += call_at(text, 0) != getpid();
        if (i % 4 == 3) mprotect(text, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
        if (i % 4 == 3) mprotect(text, PAGE, PROT_READ | PROT_EXEC);
        if (i % 10 == 5) {
            pid_t child = fork();
            if (child == 0) _exit(call_at(text, 0) != getpid());
            waitpid(child, &status, 0);
            failed += status != 0;
        }
    }
    over = 1;
    for (int i = 0; i < 3; i++) {
        pthread_join(ids[i], &result);
        wrong += (long)result;
    }
    val("threads.wrong", "%ld %d", wrong, failed);
    munmap(text, PAGE);
}

int main(void) {
    identity();
    middle();
    machine();
    storm();
    restart();
    threads();
    own_code();
    return 0;
}
