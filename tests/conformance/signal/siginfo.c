// What siginfo says of each source of a signal: kill, tgkill, sigqueue, timers, SIGCHLD, faults, traps. sigaction(2).
#include "../check.h"
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

static siginfo_t got;
static volatile int count;
static sigjmp_buf env;
static uintptr_t got_rip;
static long got_trapno, got_err;

static void handler(int sig, siginfo_t *si, void *uc) {
    (void)sig;
    (void)uc;
    got = *si;
    count++;
}
static void jumper(int sig, siginfo_t *si, void *uc) {
    (void)sig;
    got = *si;
    got_rip = ((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP];
    got_trapno = ((ucontext_t *)uc)->uc_mcontext.gregs[REG_TRAPNO];
    got_err = ((ucontext_t *)uc)->uc_mcontext.gregs[REG_ERR];
    siglongjmp(env, 1);
}
static void install(int sig, void (*fn)(int, siginfo_t *, void *)) {
    struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO};
    sigaction(sig, &sa, NULL);
}
static const char *who(void) { return got.si_pid == getpid() ? "self" : got.si_pid == 0 ? "0" : "other"; }
static void show(const char *name) {
    val(name, "%s code %d pid %s uid %d errno %d calls %d", sname(got.si_signo), got.si_code, who(),
        got.si_uid == getuid() ? 0 : -1, got.si_errno, count);
    count = 0;
    memset(&got, 0, sizeof got);
}
#define FAULT(name, ...)                                                                                            \
    do {                                                                                                            \
        if (!sigsetjmp(env, 1)) {                                                                                   \
            __VA_ARGS__;                                                                                                 \
            val(name, "no signal");                                                                                 \
        } else {                                                                                                    \
            val(name, "%s code %d trapno %ld err %ld", sname(got.si_signo), got.si_code, got_trapno, got_err);      \
        }                                                                                                           \
    } while (0)

static void *thread(void *arg) {
    syscall(SYS_tgkill, getpid(), (pid_t)(long)arg, SIGUSR1);
    return NULL;
}

int main(void) {
    install(SIGUSR1, handler);
    install(SIGRTMIN, handler);
    install(SIGALRM, handler);
    install(SIGCHLD, handler);
    kill(getpid(), SIGUSR1);
    show("kill");
    raise(SIGUSR1);
    show("raise");
    syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1);
    show("tkill");
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 4711});
    val("sigqueue.value", "%d", got.si_value.sival_int);
    show("sigqueue");
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_ptr = (void *)0x123456789abcdef});
    val("sigqueue.ptr", "%p", got.si_value.sival_ptr);
    show("sigqueue.rt");
    sigset_t usr1, old;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, &old);
    pthread_t t;
    pthread_create(&t, NULL, thread, (void *)(long)getpid());
    pthread_join(t, NULL);
    sigprocmask(SIG_SETMASK, &old, NULL);
    show("tgkill_from_thread");
    sigprocmask(SIG_BLOCK, &usr1, &old);
    int st = CHILD(sigqueue(getppid(), SIGUSR1, (union sigval){.sival_int = 1}));
    sigprocmask(SIG_SETMASK, &old, NULL);
    val("from_child", "pid %s value %d %s", got.si_pid != getpid() && got.si_pid ? "other" : "wrong", got.si_value.sival_int, wname(st));

    siginfo_t si = {.si_signo = SIGUSR1, .si_code = SI_USER};
    RET("queueinfo.self_si_user", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
    st = CHILD(RET("queueinfo.other_si_user", syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &si)); si.si_code = 1;
               RET("queueinfo.other_positive", syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &si)); si.si_code = SI_TKILL;
               RET("queueinfo.other_tkill", syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &si)));
    si.si_code = -77;
    count = 0;
    RET("queueinfo.own_code", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
    val("queueinfo.code", "%d", got.si_code);
    RET("tgsigqueueinfo", syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGUSR1, &si));
    RET("queueinfo.bad_pointer", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, 8));
    RET("queueinfo.bad_signal", syscall(SYS_rt_sigqueueinfo, getpid(), 65, &si));
    RET("queueinfo.no_process", syscall(SYS_rt_sigqueueinfo, 1 << 22, SIGUSR1, &si));

    // Timers.
    sigset_t alrm;
    sigemptyset(&alrm);
    sigaddset(&alrm, SIGALRM);
    sigaddset(&alrm, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &alrm, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 1000}, NULL);
    RET("itimer", sigwaitinfo(&alrm, &got));
    show("itimer.info");
    timer_t tm;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 99};
    timer_create(CLOCK_MONOTONIC, &ev, &tm);
    timer_settime(tm, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL);
    YES("timer", sigwaitinfo(&alrm, &got) == SIGRTMIN);
    val("timer.info", "code %d overrun %d value %d", got.si_code, got.si_overrun, got.si_value.sival_int);
    timer_delete(tm);

    // SIGCHLD.
    count = 0;
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    CHILD(_exit(7));
    RET("sigchld.exit", sigwaitinfo(&chld, &got));
    val("sigchld.exit_info", "code %d status %d", got.si_code, got.si_status);
    CHILD(raise(SIGKILL));
    sigwaitinfo(&chld, &got);
    val("sigchld.killed_info", "code %d status %d", got.si_code, got.si_status);
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    sigwaitinfo(&chld, &got);
    val("sigchld.stopped_info", "code %d status %d pid %s", got.si_code, got.si_status, got.si_pid == pid ? "child" : "other");
    kill(pid, SIGCONT);
    sigwaitinfo(&chld, &got);
    bool cont = got.si_code == CLD_CONTINUED && got.si_status == SIGCONT;
    waitpid(pid, NULL, 0);
    // The report of the exit may have been merged with that of the continuation.
    YES("sigchld.continued_or_exited", cont || got.si_code == CLD_EXITED);
    sigtimedwait(&chld, &got, &(struct timespec){0});

    // Faults.
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (size_t i = 0; i < COUNT(faults); i++) install(faults[i], jumper);
    volatile int zero = 0;
    FAULT("divide", asm volatile("xorl %%edx, %%edx\n movl $1, %%eax\n divl %0" ::"m"(zero) : "eax", "edx"));
    YES("divide.addr_is_rip", (uintptr_t)got.si_addr == got_rip);
    FAULT("divide_overflow", asm volatile("movl $0x80000000, %%eax\n cltd\n movl $-1, %%ecx\n idivl %%ecx" ::: "eax", "ecx", "edx"));
    FAULT("undefined", asm volatile("ud2"));
    YES("undefined.addr_is_rip", (uintptr_t)got.si_addr == got_rip);
    FAULT("breakpoint", asm volatile("int3"));
    FAULT("segv_read", asm volatile("movb 8, %%al" ::: "eax"));
    val("segv_read.addr", "%p", got.si_addr);
    FAULT("segv_write", asm volatile("movb %%al, 16" ::: "memory"));
    val("segv_write.addr", "%p", got.si_addr);
    FAULT("segv_jump", asm volatile("movq $32, %%rax\n jmp *%%rax" ::: "rax"));
    val("segv_jump.addr_and_rip", "%p %#lx", got.si_addr, (unsigned long)got_rip);
    FAULT("non_canonical", asm volatile("movq $0x8000000000000000, %%rax\n movb (%%rax), %%al" ::: "rax"));
    val("non_canonical.addr", "%p", got.si_addr);
    FAULT("kernel_address", asm volatile("movq $0xffff800000000000, %%rax\n movb (%%rax), %%al" ::: "rax"));
    FAULT("hlt", asm volatile("hlt"));
    FAULT("cli", asm volatile("cli"));
    FAULT("in", asm volatile("inb $0x80, %%al" ::: "eax"));
    FAULT("mov_cr3", asm volatile("movq %%cr3, %%rax" ::: "rax"));
    FAULT("rdmsr", asm volatile("rdmsr" ::: "eax", "edx", "ecx"));
    if (!sigsetjmp(env, 1)) asm volatile("int $0x81");
    val("int_0x81", "%s code %d trapno %ld", sname(got.si_signo), got.si_code, got_trapno); // emulators differ in the error code
    FAULT("bad_selector", asm volatile("movw $0x1234, %%ax\n movw %%ax, %%fs" ::: "eax"));
    FAULT("single_step", asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop" ::: "memory", "cc"));
    FAULT("x87_divide", { unsigned short cw = 0x37b; asm volatile("fldcw %0\n fldz\n fld1\n fdivp\n fwait" ::"m"(cw)); });
    asm volatile("fninit");
    FAULT("movaps_unaligned", asm volatile("movaps 1(%0), %%xmm0" ::"r"((uintptr_t)&zero & ~15UL) : "xmm0"));
    return 0;
}
