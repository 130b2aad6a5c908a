// What reaches for the machine itself needs a capability: without it, EPERM comes first. swapon(2), reboot(2),
// acct(2), vhangup(2), adjtimex(2), unshare(2), setns(2), process_madvise(2).
#include "../check.h"
#include <sched.h>
#include <sys/timex.h>
#include <sys/uio.h>

int main(void) {
    int pidfd = MUST(syscall(SYS_pidfd_open, getpid(), 0));
    char *p = (char *)MUST(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct iovec iov[2] = {{p, PAGE}, {p + PAGE, PAGE}};
    RET("process_madvise.cold", syscall(SYS_process_madvise, pidfd, iov, 2, MADV_COLD, 0));
    RET("process_madvise.willneed", syscall(SYS_process_madvise, pidfd, iov, 1, MADV_WILLNEED, 0));
    RET("process_madvise.unknown", syscall(SYS_process_madvise, pidfd, iov, 1, 12345, 0));
    RET("process_madvise.flags", syscall(SYS_process_madvise, pidfd, iov, 1, MADV_COLD, 1));
    RET("process_madvise.no_pidfd", syscall(SYS_process_madvise, 0, iov, 1, MADV_COLD, 0));
    RET("process_madvise.bad_fd", syscall(SYS_process_madvise, -1, iov, 1, MADV_COLD, 0));
    RET("process_madvise.too_many", syscall(SYS_process_madvise, pidfd, iov, 1025, MADV_COLD, 0));
    RET("process_madvise.bad_pointer", syscall(SYS_process_madvise, pidfd, 16, 1, MADV_COLD, 0));
    munmap(p + PAGE, PAGE);
    RET("process_madvise.half", syscall(SYS_process_madvise, pidfd, iov, 2, MADV_COLD, 0));
    RET("process_madvise.hole", syscall(SYS_process_madvise, pidfd, iov + 1, 1, MADV_COLD, 0));
    RET("setns.not_a_namespace", setns(0, 0));
    RET("setns.bad_fd", setns(-1, 0));
    RET("unshare.nothing", unshare(0));
    RET("unshare.fs", unshare(CLONE_FS));
    RET("unshare.files", unshare(CLONE_FILES));
    RET("unshare.unknown", unshare(0x100));
    val("unprivileged", "%s", wname(CHILD({
        MUST(setgid(65534));
        MUST(setuid(65534));
        RET("swapon", syscall(SYS_swapon, "/", 0));
        RET("swapoff", syscall(SYS_swapoff, "/"));
        RET("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
        RET("acct", syscall(SYS_acct, NULL));
        RET("vhangup", syscall(SYS_vhangup));
        RET("unshare.uts", unshare(CLONE_NEWUTS));
        RET("unshare.net", unshare(CLONE_NEWNET));
        RET("unshare.pid", unshare(CLONE_NEWPID));
        RET("sethostname", sethostname("x", 1));
        RET("settimeofday", syscall(SYS_settimeofday, &(struct timeval){1, 0}, NULL));
        struct timex tx = {.modes = ADJ_FREQUENCY};
        RET("adjtimex.change", syscall(SYS_adjtimex, &tx));
    })));
    struct timex tx = {.modes = 0};
    YES("adjtimex.read", syscall(SYS_adjtimex, &tx) >= 0);
    YES("adjtimex.time", llabs((long long)tx.time.tv_sec - time(NULL)) < 5);
    val("adjtimex.tick", "%ld", tx.tick);
    RET("adjtimex.bad_pointer", syscall(SYS_adjtimex, 16));
    tx.modes = 0;
    RET("clock_adjtime.monotonic", syscall(SYS_clock_adjtime, CLOCK_MONOTONIC, &tx));
    RET("clock_adjtime.unknown", syscall(SYS_clock_adjtime, 99, &tx));
    return 0;
}
