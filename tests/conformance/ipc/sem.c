// System V semaphores: sets, values, atomic operations, waiting, undo, removal. semget(2), semop(2), semctl(2).
#include "../check.h"
#include <sys/ipc.h>
#include <sys/sem.h>

static int id;
static long op1(int num, int by, int flags) {
    struct sembuf op = {num, by, flags};
    return semop(id, &op, 1);
}
static void *wait_op(void *arg) {
    struct sembuf *op = arg;
    return (void *)(long)(semop(id, op, 1) == 0 ? 0 : errno);
}
static const char *joined(pthread_t t) {
    void *r;
    pthread_join(t, &r);
    return ename((long)r);
}
// Until so many wait for the semaphore to grow, or to be zero.
static void until(int num, int what, int count) {
    while (semctl(id, num, what) != count) sched_yield();
}
static void on_signal(int sig) { (void)sig; }

int main(void) {
    key_t key = 0x52000000 | (getpid() & 0xffffff);
    struct semid_ds ds;
    unsigned short all[3] = {1, 2, 3};
    pthread_t t, u;
    RET("absent", semget(key, 1, 0));
    RET("none", semget(key, 0, IPC_CREAT | 0600));
    RET("negative", semget(key, -1, IPC_CREAT | 0600));
    RET("too_many", semget(key, 32001, IPC_CREAT | 0600));
    id = OK("create", semget(key, 3, IPC_CREAT | 0640));
    RET("exclusive", semget(key, 3, IPC_CREAT | IPC_EXCL | 0600));
    YES("found", semget(key, 0, 0) == id);
    RET("found.larger", semget(key, 4, 0));
    RET("stat", semctl(id, 0, IPC_STAT, &ds));
    val("stat", "nsems %lu mode %o otime %d", ds.sem_nsems, ds.sem_perm.mode, ds.sem_otime != 0);
    RET("getval", semctl(id, 0, GETVAL));
    RET("getpid.fresh", semctl(id, 0, GETPID));
    RET("setval", semctl(id, 1, SETVAL, 7));
    RET("setval.negative", semctl(id, 1, SETVAL, -1));
    RET("setval.too_large", semctl(id, 1, SETVAL, 32768));
    RET("setval.no_such", semctl(id, 3, SETVAL, 1));
    YES("getpid", semctl(id, 1, GETPID) == getpid());
    RET("setall", semctl(id, 0, SETALL, all));
    memset(all, 0, sizeof all);
    RET("getall", semctl(id, 0, GETALL, all));
    val("getall", "%d %d %d", all[0], all[1], all[2]);
    RET("ctl.unknown", syscall(SYS_semctl, id, 0, 77, 0));
    RET("op.none", syscall(SYS_semop, id, all, 0));
    struct sembuf many[501] = {{0, 0, IPC_NOWAIT}};
    RET("op.too_many", semop(id, many, 501));
    RET("op.bad_pointer", syscall(SYS_semop, id, 16, 1));
    RET("op.no_such", op1(3, 1, 0));
    RET("op.bad_id", syscall(SYS_semop, -1, many, 1));
    RET("op.no_such_id", syscall(SYS_semop, 0x7ffffff0, many, 1));
    RET("down", op1(0, -1, 0));
    RET("down.would_wait", op1(0, -1, IPC_NOWAIT));
    RET("zero", op1(0, 0, 0));
    RET("zero.would_wait", op1(1, 0, IPC_NOWAIT));
    RET("up.range", op1(1, 32766, 0));
    struct sembuf both[2] = {{1, -1, IPC_NOWAIT}, {0, -1, IPC_NOWAIT}};
    RET("atomic", semop(id, both, 2));
    RET("atomic.untouched", semctl(id, 1, GETVAL));
    struct sembuf twice[3] = {{0, 2, 0}, {0, -1, 0}, {0, -1, IPC_NOWAIT}};
    RET("in_order", semop(id, twice, 3));
    RET("in_order.value", semctl(id, 0, GETVAL));
    struct timespec soon = {0, 5000000}, bad = {0, -1};
    RET("timeout", semtimedop(id, &(struct sembuf){0, -1, 0}, 1, &soon));
    RET("timeout.bad", semtimedop(id, &(struct sembuf){0, -1, 0}, 1, &bad));
    RET("timeout.unneeded", semtimedop(id, &(struct sembuf){0, 0, 0}, 1, &soon));

    struct sembuf down = {0, -1, 0}, zero = {1, 0, 0};
    pthread_create(&t, NULL, wait_op, &down);
    pthread_create(&u, NULL, wait_op, &zero);
    until(0, GETNCNT, 1);
    until(1, GETZCNT, 1);
    RET("waiting.other_kind", semctl(id, 0, GETZCNT));
    RET("wake", op1(0, 1, 0));
    val("woken", "%s", joined(t));
    RET("wake.zero", semctl(id, 1, SETVAL, 0));
    val("woken.zero", "%s", joined(u));
    RET("taken", semctl(id, 0, GETVAL));
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &sa, NULL);
    pthread_create(&t, NULL, wait_op, &down);
    until(0, GETNCNT, 1);
    pthread_kill(t, SIGUSR1);
    val("interrupted", "%s", joined(t));
    RET("interrupted.nobody_waits", semctl(id, 0, GETNCNT));

    RET("undo.set", semctl(id, 2, SETVAL, 5));
    val("undo.child", "%s", wname(CHILD({
        RET("undo.down", op1(2, -3, SEM_UNDO));
        RET("undo.up_without", op1(2, 1, 0));
        RET("undo.value", semctl(id, 2, GETVAL));
    })));
    RET("undone", semctl(id, 2, GETVAL));
    val("undo.killed", "%s", wname(CHILD({
        op1(2, -2, SEM_UNDO);
        raise(SIGKILL);
    })));
    RET("undone.killed", semctl(id, 2, GETVAL));
    baton held = baton_new(), go = baton_new();
    pid_t child = MUST(fork());
    if (child == 0) {
        op1(2, -6, SEM_UNDO);
        baton_pass(&held);
        baton_take(&go);
        _exit(0);
    }
    baton_take(&held);
    RET("undo.forgotten", semctl(id, 2, SETVAL, 4));
    baton_pass(&go);
    wait_for(child);
    RET("undo.forgotten_value", semctl(id, 2, GETVAL));
    YES("otime", semctl(id, 0, IPC_STAT, &ds) == 0 && ds.sem_otime != 0);
    val("other", "%s", wname(CHILD({
        MUST(setgid(65534));
        MUST(setuid(65534));
        RET("other.get", semget(key, 0, 0444));
        RET("other.op", op1(2, 1, 0));
        RET("other.zero", op1(0, 0, IPC_NOWAIT));
        RET("other.getval", semctl(id, 0, GETVAL));
        RET("other.remove", semctl(id, 0, IPC_RMID));
    })));
    pthread_create(&t, NULL, wait_op, &down);
    until(0, GETNCNT, 1);
    RET("remove", semctl(id, 0, IPC_RMID));
    val("removed.waiter", "%s", joined(t));
    YES("removed", op1(0, 1, 0) == -1 && (errno == EINVAL || errno == EIDRM));
    RET("removed.by_key", semget(key, 0, 0));
    return 0;
}
