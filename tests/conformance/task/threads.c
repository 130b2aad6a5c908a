// Threads: ids, exit of the leader, exec from a thread, exit_group from a thread, join, set_tid_address, robust lists,
// per-thread state. clone(2), execve(2), exit_group(2), get_robust_list(2).
#include "../check.h"
#include <linux/futex.h>
#include <sys/prctl.h>

static pid_t leader;
static baton go;

static void *t_ids(void *arg) {
    pid_t tid = syscall(SYS_gettid);
    YES("thread.getpid_same", getpid() == leader);
    YES("thread.gettid_differs", tid != leader);
    RET("thread.tgkill_self_0", syscall(SYS_tgkill, leader, tid, 0));
    RET("thread.tgkill_wrong_group", syscall(SYS_tgkill, leader + 100000, tid, 0));
    prctl(PR_SET_NAME, "worker");
    return arg;
}
static void *t_exit_group(void *arg) {
    _exit((int)(long)arg);
    return NULL;
}
static void *t_exec(void *arg) {
    char *av[] = {"x", "execd", arg, NULL};
    execv(self_path(), av);
    return NULL;
}
static void leader_has_exited(void) {
    char path[64], buf[512];
    snprintf(path, sizeof path, "/proc/%d/stat", leader);
    do get_file(path, buf, sizeof buf);
    while (strrchr(buf, ')')[2] != 'Z');
}
static void *t_after_leader(void *arg) {
    pid_t tid = syscall(SYS_gettid);
    (void)arg;
    leader_has_exited();
    YES("leader_gone.getpid", getpid() == leader);
    YES("leader_gone.gettid", tid != leader);
    RET("leader_gone.kill_self_0", kill(leader, 0));
    syscall(SYS_exit_group, 21);
    return NULL;
}
static void *t_last(void *arg) {
    leader_has_exited();
    syscall(SYS_exit, 33); // the group's code is the last thread's
    return arg;
}
static void *t_block(void *arg) {
    baton_pass(arg);
    for (;;) pause();
    return NULL;
}
static void *t_crash(void *arg) {
    *(volatile int *)8 = 1;
    return arg;
}
static __thread int tls_var = 5;
static void *t_tls(void *arg) {
    tls_var = 9;
    errno = EXDEV;
    return arg;
}
static struct robust_list_head *rl_head;
static struct { struct robust_list list; uint32_t word; } robust_lock;
static void *t_robust(void *arg) {
    (void)arg;
    static struct robust_list_head head;
    head.list.next = &robust_lock.list;
    robust_lock.list.next = &head.list;
    head.futex_offset = (char *)&robust_lock.word - (char *)&robust_lock.list;
    head.list_op_pending = NULL;
    RET("robust.set", syscall(SYS_set_robust_list, &head, sizeof head));
    size_t len = 0;
    RET("robust.get", syscall(SYS_get_robust_list, 0, &rl_head, &len));
    YES("robust.same", rl_head == &head && len == sizeof head);
    robust_lock.word = syscall(SYS_gettid) | FUTEX_WAITERS;
    return NULL;
}
static void *t_sum(void *arg) {
    long s = 0;
    for (long i = 0; i < 100000; i++) s += i ^ (long)arg;
    return (void *)s;
}
static volatile int counter;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static void *t_count(void *arg) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return arg;
}
static int turn;
static void *t_turn(void *arg) {
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != (int)(long)arg) pthread_cond_wait(&cond, &mutex);
        turn = !turn;
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "execd")) {
        YES("exec.pid_is_the_leader's", getpid() == atoi(argv[2]));
        YES("exec.tid_is_the_leader's", syscall(SYS_gettid) == getpid());
        char buf[4096];
        char *p = strstr(get_file("/proc/self/status", buf, sizeof buf), "Threads:");
        val("exec.threads", "%d", p ? atoi(p + 8) : -1);
        return 12;
    }
    pthread_t t, t2;
    leader = getpid();
    void *ret;
    int made = pthread_create(&t, NULL, t_ids, (void *)55);
    pthread_join(t, &ret);
    val("create_and_join", "%s %ld", ename(made), (long)ret);
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    YES("name.is_per_thread", strcmp(name, "worker"));
    YES("set_tid_address", syscall(SYS_set_tid_address, &(int){0}) == leader);
    errno = 0;
    pthread_create(&t, NULL, t_tls, NULL);
    pthread_join(t, NULL);
    val("tls", "%d errno %d", tls_var, errno);

    val("exit_group_from_thread", "%s", wname(CHILD(leader = getpid(); pthread_create(&t, NULL, t_exit_group, (void *)17); for (;;) pause())));
    val("crash_in_thread", "%s", wname(CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); pthread_create(&t, NULL, t_crash, NULL); for (;;) pause())));
    int st = CHILD(char pid[16]; snprintf(pid, sizeof pid, "%d", getpid()); pthread_create(&t, NULL, t_exec, pid); for (;;) pause());
    val("exec_from_thread", "%s", wname(st));
    st = CHILD(char pid[16]; snprintf(pid, sizeof pid, "%d", getpid()); go = baton_new(); pthread_create(&t, NULL, t_block, &go);
               baton_take(&go); t_exec(pid));
    val("exec_from_leader_with_blocked_thread", "%s", wname(st));
    st = CHILD(leader = getpid(); pthread_create(&t, NULL, t_after_leader, NULL); syscall(SYS_exit, 5));
    val("leader_exits_first", "%s", wname(st));
    st = CHILD(leader = getpid(); pthread_create(&t, NULL, t_last, NULL); syscall(SYS_exit, 5));
    val("last_thread_exits", "%s", wname(st));
    st = CHILD(go = baton_new(); pthread_create(&t, NULL, t_block, &go); baton_take(&go); _exit(6));
    val("exit_with_blocked_thread", "%s", wname(st));
    go = baton_new();
    pid_t pid = MUST(fork());
    if (pid == 0) {
        pthread_create(&t, NULL, t_block, &go);
        for (;;) pause();
    }
    baton_take(&go);
    kill(pid, SIGKILL);
    val("kill_with_threads", "%s", wname(wait_for(pid)));

    pthread_create(&t, NULL, t_robust, NULL);
    pthread_join(t, NULL);
    // The kernel walks the list when the thread dies, which join may not have waited for entirely.
    while (!(__atomic_load_n(&robust_lock.word, __ATOMIC_SEQ_CST) & FUTEX_OWNER_DIED)) sched_yield();
    val("robust.word", "%#x", robust_lock.word & ~FUTEX_WAITERS);
    RET("robust.bad_size", syscall(SYS_set_robust_list, &robust_lock, 10));
    RET("robust.get_bad_pid", syscall(SYS_get_robust_list, 1 << 22, &rl_head, &(size_t){0}));
    pthread_mutexattr_t ma;
    pthread_mutex_t *rm = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_init(&ma);
    pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(rm, &ma);
    CHILD(pthread_mutex_lock(rm));
    ERR("robust_mutex.owner_died", pthread_mutex_lock(rm));
    ERR("robust_mutex.consistent", pthread_mutex_consistent(rm));
    ERR("robust_mutex.unlock", pthread_mutex_unlock(rm));
    ERR("robust_mutex.lock", pthread_mutex_lock(rm));

    long sum = 0;
    pthread_t many[16];
    for (long i = 0; i < 16; i++) pthread_create(&many[i], NULL, t_sum, (void *)i);
    for (int i = 0; i < 16; i++) {
        pthread_join(many[i], &ret);
        sum += (long)ret;
    }
    val("many.sum", "%ld", sum);
    for (long i = 0; i < 4; i++) pthread_create(&many[i], NULL, t_count, NULL);
    for (int i = 0; i < 4; i++) pthread_join(many[i], NULL);
    val("mutex.counter", "%d", counter);
    pthread_create(&t, NULL, t_turn, (void *)0);
    pthread_create(&t2, NULL, t_turn, (void *)1);
    pthread_join(t, NULL);
    pthread_join(t2, NULL);
    val("condvar.turn", "%d", turn);
    ERR("condvar.timeout", ({
            struct timespec ts;
            clock_gettime(CLOCK_REALTIME, &ts);
            pthread_mutex_lock(&mutex);
            int e = pthread_cond_timedwait(&cond, &mutex, &ts);
            pthread_mutex_unlock(&mutex);
            e;
        }));
    // Fork from a process with threads: the child has one.
    go = baton_new();
    pthread_create(&t, NULL, t_block, &go);
    baton_take(&go);
    st = CHILD(char buf[4096]; char *p = strstr(get_file("/proc/self/status", buf, sizeof buf), "Threads:"); _exit(p ? atoi(p + 8) : 99));
    val("fork.one_thread", "%s", wname(st));
    return 0;
}
