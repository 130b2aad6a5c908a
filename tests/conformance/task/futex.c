// futex(2): wait, wake, bitsets, requeue, wake_op, timeouts, errnos, private and shared, waking across processes.
#include "../check.h"
#include <linux/futex.h>

static uint32_t *w; // words in shared memory
static int futex(uint32_t *a, int op, uint32_t v, const void *t, uint32_t *b, uint32_t v3) {
    return syscall(SYS_futex, a, op, v, t, b, v3);
}
#define F(name, ...) RET(name, futex(__VA_ARGS__))

struct waiter { pthread_t t; pid_t tid; uint32_t *addr; int op; uint32_t val3; int ret; baton up; };
static void *wait_thread(void *arg) {
    struct waiter *me = arg;
    __atomic_store_n(&me->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    baton_pass(&me->up);
    me->ret = futex(me->addr, me->op, 0, NULL, NULL, me->val3) ? errno : 0;
    return NULL;
}
// Starts a thread that waits, and returns when it sleeps.
static void start(struct waiter *me, uint32_t *addr, int op, uint32_t val3) {
    *me = (struct waiter){.addr = addr, .op = op, .val3 = val3, .up = baton_new()};
    pthread_create(&me->t, NULL, wait_thread, me);
    baton_take(&me->up);
    wait_blocked(getpid(), me->tid);
}

int main(void) {
    w = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct timespec zero = {0, 0}, ms1 = {0, 1000000}, bad = {0, 1000000000}, neg = {-1, 0}, now;
    struct waiter a, b, c;

    F("wait.wrong_value", w, FUTEX_WAIT, 1, NULL, NULL, 0);
    F("wait.timeout", w, FUTEX_WAIT, 0, &ms1, NULL, 0);
    F("wait.zero_timeout", w, FUTEX_WAIT, 0, &zero, NULL, 0);
    F("wait.bad_nsec", w, FUTEX_WAIT, 0, &bad, NULL, 0);
    F("wait.negative", w, FUTEX_WAIT, 0, &neg, NULL, 0);
    F("wait.bad_timeout_pointer", w, FUTEX_WAIT, 0, (void *)8, NULL, 0);
    F("wait.unaligned", (uint32_t *)((char *)w + 1), FUTEX_WAIT, 0, NULL, NULL, 0);
    F("wait.null", NULL, FUTEX_WAIT, 0, NULL, NULL, 0);
    F("wait.unmapped", (uint32_t *)8, FUTEX_WAIT, 0, NULL, NULL, 0);
    F("wait.kernel", (uint32_t *)0xffff800000000000, FUTEX_WAIT, 0, NULL, NULL, 0);
    F("wake.nobody", w, FUTEX_WAKE, 1, NULL, NULL, 0);
    F("wake.zero", w, FUTEX_WAKE, 0, NULL, NULL, 0);
    F("wake.unaligned", (uint32_t *)((char *)w + 2), FUTEX_WAKE, 1, NULL, NULL, 0);
    F("wake.private_unmapped", (uint32_t *)8, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
    F("wake.shared_unmapped", (uint32_t *)8, FUTEX_WAKE, 1, NULL, NULL, 0);
    F("bad_op", w, 100, 0, NULL, NULL, 0);
    F("fd_op_is_gone", w, FUTEX_FD, 0, NULL, NULL, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    F("wait_bitset.past", w, FUTEX_WAIT_BITSET, 0, &now, NULL, ~0U);
    clock_gettime(CLOCK_REALTIME, &now);
    F("wait_bitset.realtime_past", w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &now, NULL, ~0U);
    F("wait_bitset.zero_mask", w, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0);
    F("wake_bitset.zero_mask", w, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0);
    F("wait.clock_realtime", w, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0);
    F("wake.clock_realtime", w, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0);

    start(&a, w, FUTEX_WAIT, 0);
    start(&b, w, FUTEX_WAIT, 0);
    F("wake.one", w, FUTEX_WAKE, 1, NULL, NULL, 0);
    F("wake.rest", w, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    pthread_join(a.t, NULL);
    pthread_join(b.t, NULL);
    val("wake.results", "%d %d", a.ret, b.ret);
    // Private waiters and shared wakers do not meet.
    uint32_t local = 0;
    start(&a, &local, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0);
    F("private.shared_wake", &local, FUTEX_WAKE, 1, NULL, NULL, 0);
    F("private.other_word", &local + 1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
    F("private.wake", &local, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
    pthread_join(a.t, NULL);

    start(&a, w, FUTEX_WAIT_BITSET, 1);
    start(&b, w, FUTEX_WAIT_BITSET, 2);
    start(&c, w, FUTEX_WAIT, 0);
    F("bitset.plain_matches_any", w, FUTEX_WAKE_BITSET, 10, NULL, NULL, 8);
    F("bitset.second", w, FUTEX_WAKE_BITSET, 10, NULL, NULL, 2);
    F("bitset.nobody_left", w, FUTEX_WAKE_BITSET, 10, NULL, NULL, 4);
    F("bitset.plain_wake", w, FUTEX_WAKE, 10, NULL, NULL, 0);
    pthread_join(a.t, NULL);
    pthread_join(b.t, NULL);
    pthread_join(c.t, NULL);

    // Requeue: wake one, move the others to a second word.
    start(&a, w, FUTEX_WAIT, 0);
    start(&b, w, FUTEX_WAIT, 0);
    start(&c, w, FUTEX_WAIT, 0);
    F("cmp_requeue.wrong_value", w, FUTEX_CMP_REQUEUE, 1, (void *)10, w + 1, 99);
    F("cmp_requeue", w, FUTEX_CMP_REQUEUE, 1, (void *)1, w + 1, 0);
    F("cmp_requeue.on_first", w, FUTEX_WAKE, 10, NULL, NULL, 0);
    F("cmp_requeue.on_second", w + 1, FUTEX_WAKE, 10, NULL, NULL, 0);
    pthread_join(a.t, NULL);
    pthread_join(b.t, NULL);
    pthread_join(c.t, NULL);
    start(&a, w, FUTEX_WAIT, 0);
    F("requeue.none_woken", w, FUTEX_REQUEUE, 0, (void *)10, w + 1, 0);
    F("requeue.wake_second", w + 1, FUTEX_WAKE, 10, NULL, NULL, 0);
    pthread_join(a.t, NULL);
    F("requeue.negative_wake", w, FUTEX_CMP_REQUEUE, -1, (void *)1, w + 1, 0);
    F("requeue.negative_count", w, FUTEX_CMP_REQUEUE, 1, (void *)-1, w + 1, 0);

    // WAKE_OP: changes the second word, wakes the first, and the second if the comparison holds.
    start(&a, w, FUTEX_WAIT, 0);
    start(&b, w + 1, FUTEX_WAIT, 0);
    w[1] = 0;
    F("wake_op.add_and_true", w, FUTEX_WAKE_OP, 1, (void *)1, w + 1, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0));
    val("wake_op.word", "%u", w[1]);
    pthread_join(a.t, NULL);
    pthread_join(b.t, NULL);
    static const struct { const char *name; int op, oparg; } ops[] = {
        {"set", FUTEX_OP_SET, 12}, {"add", FUTEX_OP_ADD, 0xfff}, {"or", FUTEX_OP_OR, 0x10}, {"andn", FUTEX_OP_ANDN, 4},
        {"xor", FUTEX_OP_XOR, 0xff}, {"set_shift", FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 7},
    };
    for (size_t i = 0; i < COUNT(ops); i++) {
        char name[32];
        w[1] = 0x2c;
        snprintf(name, sizeof name, "wake_op.%s", ops[i].name);
        int r = futex(w, FUTEX_WAKE_OP, 1, (void *)1, w + 1, FUTEX_OP(ops[i].op, ops[i].oparg, FUTEX_OP_CMP_LT, 0));
        val(name, "%d -> %#x", r, w[1]);
    }
    F("wake_op.bad_cmp", w, FUTEX_WAKE_OP, 1, (void *)1, w + 1, FUTEX_OP(FUTEX_OP_SET, 0, 9, 0));
    F("wake_op.bad_op", w, FUTEX_WAKE_OP, 1, (void *)1, w + 1, FUTEX_OP(6, 0, FUTEX_OP_CMP_EQ, 0));

    // Between processes: one word at different addresses.
    w[0] = 0;
    uint32_t *other = mremap(w, 0, PAGE, MREMAP_MAYMOVE);
    pid_t pid = MUST(fork());
    if (pid == 0) _exit(futex(other, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 1 : 2);
    wait_blocked(pid, pid);
    F("process.private_wake", w, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
    F("process.shared_wake", w, FUTEX_WAKE, 1, NULL, NULL, 0);
    val("process.child", "%s", wname(wait_for(pid)));
    // In a shared file mapping.
    int m = MUST(memfd_create("f", 0));
    MUST(ftruncate(m, PAGE));
    uint32_t *f1 = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
    pid = MUST(fork());
    if (pid == 0) {
        uint32_t *f2 = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, m, 0);
        _exit(futex(f2, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 1 : 2);
    }
    wait_blocked(pid, pid);
    F("file.wake", f1, FUTEX_WAKE, 1, NULL, NULL, 0);
    val("file.child", "%s", wname(wait_for(pid)));
    return 0;
}
