// Futexes with an owner: taking, waiting, handing over, owners that end, and glibc's priority-inheriting mutexes on top.
// futex(2), pthread_mutexattr_setprotocol(3).
#include "../check.h"
#include <linux/futex.h>

static uint32_t word;
static pid_t main_tid;
static long fut(int op, void *timeout) { return syscall(SYS_futex, &word, op, 0, timeout, NULL, 0); }
static pid_t tid(void) { return syscall(SYS_gettid); }

// `free`, or whose it is and the flags.
static void state(const char *name, pid_t owner) {
    uint32_t w = __atomic_load_n(&word, __ATOMIC_SEQ_CST), t = w & FUTEX_TID_MASK;
    val(name, "%s%s%s", t == 0 ? "free" : t == (uint32_t)owner ? "owned" : "other's", w & FUTEX_WAITERS ? " waiters" : "",
        w & FUTEX_OWNER_DIED ? " died" : "");
}
static baton owned, told;
static volatile int *asking;
static void *lock_unlock(void *arg) {
    long locked = fut(FUTEX_LOCK_PI_PRIVATE, NULL);
    baton_take(&told);
    val("thread.lock", "%ld", locked);
    state("thread.state", tid());
    RET("thread.unlock", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    return arg;
}
// Until the main thread waits for what it was about to ask for.
static void wait_asked(pid_t who) {
    while (!*asking) sched_yield();
    wait_blocked(who, who);
}
static void *give_up(void *arg) {
    struct timespec ts, past = {1, 0};
    RET("thread.try", fut(FUTEX_TRYLOCK_PI_PRIVATE, NULL));
    RET("thread.past", fut(FUTEX_LOCK_PI_PRIVATE, &past));
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_nsec += 5000000;
    if (ts.tv_nsec >= 1000000000) ts.tv_sec++, ts.tv_nsec -= 1000000000;
    RET("thread.soon", fut(FUTEX_LOCK_PI_PRIVATE, &ts));
    RET("thread.unlock_of_others", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    return arg;
}
static void *die_owning(void *arg) {
    RET("dying.lock", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    baton_pass(&owned);
    wait_asked(main_tid);
    return arg;
}
static volatile pid_t waiter_tid;
static void *wait_in(void *arg) {
    waiter_tid = tid();
    baton_pass(&owned);
    return lock_unlock(arg);
}
static pthread_mutex_t mutex;
static int count;
static void *add(void *arg) {
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&mutex);
        count++;
        if (i % 64 == 0) sched_yield();
        pthread_mutex_unlock(&mutex);
    }
    return arg;
}
static void *lock_and_end(void *arg) {
    ERR("robust.lock", pthread_mutex_lock(&mutex));
    return arg;
}
static void on_signal(int sig) { (void)sig; }

int main(void) {
    pthread_t t, many[4];
    main_tid = tid();
    owned = baton_new(), told = baton_new();
    asking = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    RET("lock", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    state("lock", main_tid);
    RET("lock.again", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    RET("try.again", fut(FUTEX_TRYLOCK_PI_PRIVATE, NULL));
    RET("unlock", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    state("unlock", main_tid);
    RET("unlock.again", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    RET("try", fut(FUTEX_TRYLOCK_PI_PRIVATE, NULL));
    pthread_create(&t, NULL, give_up, NULL);
    pthread_join(t, NULL);
    state("given_up", main_tid);
    RET("wake_nobody", fut(FUTEX_WAKE_PRIVATE, NULL));
    pthread_create(&t, NULL, wait_in, NULL);
    baton_take(&owned);
    wait_blocked(getpid(), waiter_tid);
    state("contended", main_tid);
    RET("wake_of_waiters", syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    pthread_kill(t, SIGUSR1);
    wait_blocked(getpid(), waiter_tid);
    RET("hand_over", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    baton_pass(&told);
    pthread_join(t, NULL);
    word = 0x3ffffff0;
    RET("no_such_owner", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    word = FUTEX_OWNER_DIED;
    RET("died_free", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    state("died_free", main_tid);
    word = 0;
    pthread_create(&t, NULL, die_owning, NULL);
    baton_take(&owned);
    *asking = 1;
    RET("owner_ends", fut(FUTEX_LOCK_PI_PRIVATE, NULL));
    state("owner_ends", main_tid);
    pthread_join(t, NULL);
    RET("owner_ends.unlock", fut(FUTEX_UNLOCK_PI_PRIVATE, NULL));
    RET("unaligned", syscall(SYS_futex, (char *)&word + 1, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    RET("unmapped", syscall(SYS_futex, PAGE, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    RET("unmapped.unlock", syscall(SYS_futex, PAGE, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));

    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    ERR("mutex.protocol", pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT));
    ERR("mutex.init", pthread_mutex_init(&mutex, &attr));
    for (int i = 0; i < 4; i++) pthread_create(&many[i], NULL, add, NULL);
    for (int i = 0; i < 4; i++) pthread_join(many[i], NULL);
    val("mutex.count", "%d", count);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    ERR("robust.init", pthread_mutex_init(&mutex, &attr));
    pthread_create(&t, NULL, lock_and_end, NULL);
    pthread_join(t, NULL);
    ERR("robust.owner_dead", pthread_mutex_lock(&mutex));
    ERR("robust.consistent", pthread_mutex_consistent(&mutex));
    ERR("robust.unlock", pthread_mutex_unlock(&mutex));
    ERR("robust.lock_again", pthread_mutex_trylock(&mutex));

    // Between processes, the owner killed.
    pthread_mutex_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    ERR("shared.init", pthread_mutex_init(shared, &attr));
    *asking = 0;
    pid_t child = MUST(fork());
    if (child == 0) {
        pthread_mutex_lock(shared);
        baton_pass(&owned);
        wait_asked(main_tid);
        raise(SIGKILL);
    }
    baton_take(&owned);
    *asking = 1;
    ERR("shared.owner_killed", pthread_mutex_lock(shared));
    val("shared.child", "%s", wname(wait_for(child)));
    return 0;
}
