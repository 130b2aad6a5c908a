// Memory changes seen by other threads at once: mprotect, munmap, madvise and fork while another thread uses the pages
// (translation caches of other processors must not keep old rights), first touches by many threads, mapping races.
#include "../fault.h"

static volatile long *word;
static volatile int stop, faults, go;
static volatile long last_written;
static sigjmp_buf jump[8];
static __thread int my_slot;

static void on_fault(int sig, siginfo_t *si, void *uc) {
    (void)sig;
    (void)si;
    (void)uc;
    __atomic_fetch_add(&faults, 1, __ATOMIC_SEQ_CST);
    siglongjmp(jump[my_slot], 1);
}
// Waits until the writer has written anew: the first round that is seen to end may have written before.
static void next_rounds(void) {
    for (int i = 0; i < 2; i++) {
        go = 0;
        while (!go) sched_yield();
    }
}
static void *writer(void *arg) {
    my_slot = (int)(long)arg;
    volatile long n = 0;
    if (sigsetjmp(jump[my_slot], 1)) sched_yield();
    while (!stop) {
        n = n + 1;
        *word = n;
        last_written = n;
        go = 1;
    }
    return NULL;
}
static char *arena;
static void *toucher(void *arg) {
    long id = (long)arg;
    for (int i = 0; i < 256; i++) arena[i * PAGE + id] = id + 1;
    return NULL;
}
static void *mapper(void *arg) {
    long bad = 0;
    (void)arg;
    for (int i = 0; i < 300; i++) {
        char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return (void *)1000L;
        for (int k = 0; k < 4; k++) {
            bad += p[k * PAGE] != 0;
            p[k * PAGE] = k + 1;
        }
        if (i % 3 == 0) mprotect(p + PAGE, PAGE, PROT_READ);
        for (int k = 0; k < 4; k++) bad += p[k * PAGE] != k + 1;
        bad += munmap(p, 4 * PAGE) != 0;
    }
    return (void *)bad;
}
static void *counter(void *arg) {
    volatile long *c = arg;
    while (!stop) *c = *c + 1;
    return NULL;
}

int main(void) {
    const int rw = PROT_READ | PROT_WRITE;
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, NULL);
    pthread_t t, many[8];
    word = mmap(NULL, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_create(&t, NULL, writer, (void *)0);
    while (!go) sched_yield();
    // After mprotect returns nobody may write.
    int changed = 0;
    for (int i = 0; i < 20; i++) {
        int before = faults;
        MUST(mprotect((void *)word, PAGE, PROT_READ));
        long a = *word;
        while (faults == before) sched_yield();
        for (int k = 0; k < 2000; k++) changed += *word != a;
        MUST(mprotect((void *)word, PAGE, rw));
        go = 0;
        while (!go) sched_yield();
    }
    val("mprotect.writes_after", "%d", changed);
    YES("mprotect.writer_faulted", faults >= 20);
    // After MADV_DONTNEED or a new mapping the page is a new one: what is written lands there.
    MUST(madvise((void *)word, PAGE, MADV_DONTNEED));
    next_rounds();
    YES("dontneed.new_page_is_written", *word != 0);
    char *fresh = mmap((void *)word, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    next_rounds();
    YES("fixed.new_page_is_written", *(volatile long *)fresh != 0);
    // munmap: the writer faults until there is something again.
    faults = 0;
    MUST(munmap((void *)word, PAGE));
    while (faults < 3) sched_yield();
    val("munmap.faults", "yes");
    YES("munmap.map_again", mmap((void *)word, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)word);
    go = 0;
    while (!go) sched_yield();
    YES("munmap.goes_on", *word != 0);
    // fork while it writes: the child's copy stands still.
    int moved = 0;
    for (int i = 0; i < 5; i++) {
        int st = CHILD(long a = *word; for (int k = 0; k < 3000; k++) if (*word != a) _exit(1));
        moved += st != 0;
        go = 0;
        while (!go) sched_yield();
    }
    val("fork.child_page_moves", "%d", moved);
    // And the child's writes are not seen here.
    int st = CHILD(for (int k = 0; k < 1000; k++) *word = -5; _exit(*word == -5 ? 0 : 1));
    val("fork.child_writes", "%s", wname(st));
    YES("fork.not_seen", *word != -5);
    stop = 1;
    pthread_join(t, NULL);

    // Many threads touch the same fresh pages first.
    arena = mmap(NULL, 256 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long i = 0; i < 8; i++) pthread_create(&many[i], NULL, toucher, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(many[i], NULL);
    long wrong = 0;
    for (int p = 0; p < 256; p++)
        for (int i = 0; i < 8; i++) wrong += arena[p * PAGE + i] != i + 1;
    val("first_touch.lost", "%ld", wrong);
    // The same on copy-on-write pages after a fork.
    st = CHILD(for (int p = 0; p < 256; p++) memset(arena + p * PAGE, 0, 8); for (long i = 0; i < 8; i++) pthread_create(&many[i], NULL, toucher, (void *)i);
               for (int i = 0; i < 8; i++) pthread_join(many[i], NULL); long bad = 0; for (int p = 0; p < 256; p++) for (int i = 0; i < 8; i++) bad += arena[p * PAGE + i] != i + 1; _exit(bad != 0));
    val("first_touch.after_fork", "%s", wname(st));
    // Threads that map, split and unmap at the same time.
    void *bad;
    long sum = 0;
    for (long i = 0; i < 4; i++) pthread_create(&many[i], NULL, mapper, NULL);
    for (int i = 0; i < 4; i++) {
        pthread_join(many[i], &bad);
        sum += (long)bad;
    }
    val("mapping_race.wrong", "%ld", sum);
    // exit_group while threads run.
    stop = 0;
    static volatile long counters[4];
    st = CHILD(for (long i = 0; i < 4; i++) pthread_create(&many[i], NULL, counter, (void *)&counters[i]); while (!counters[0] || !counters[3]) sched_yield(); _exit(9));
    val("exit_group.running_threads", "%s", wname(st));
    st = CHILD(for (long i = 0; i < 4; i++) pthread_create(&many[i], NULL, counter, (void *)&counters[i]); while (!counters[0] || !counters[3]) sched_yield(); kill(getpid(), SIGKILL));
    val("sigkill.running_threads", "%s", wname(st));
    return 0;
}
