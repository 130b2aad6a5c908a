// shm_open(3) and named and unnamed process-shared semaphores, barriers, rwlocks and condition variables: futexes and
// /dev/shm as libc uses them. sem_overview(7), shm_overview(7).
#include "../check.h"
#include <semaphore.h>

struct shared {
    sem_t sem;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    pthread_barrier_t barrier;
    pthread_rwlock_t rwlock;
    int turn, value, inside, most;
};

int main(void) {
    char name[64];
    snprintf(name, sizeof name, "/qs-test-%d", getpid());
    shm_unlink(name);
    RET("shm.missing", shm_open(name, O_RDWR, 0));
    int fd = OK("shm.create", shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    RET("shm.exclusive", shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    RET("shm.cloexec", fcntl(fd, F_GETFD));
    RET("shm.size", ftruncate(fd, PAGE));
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHILD(int f2 = shm_open(name, O_RDWR, 0); char *q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f2, 0); strcpy(q, "from the child"));
    val("shm.shared", "%s", p);
    RET("shm.unlink", shm_unlink(name));
    RET("shm.unlink_again", shm_unlink(name));
    val("shm.mapping_stays", "%s", p);
    RET("shm.bad_name", shm_open("/a/b", O_RDWR | O_CREAT, 0600));

    sem_t *s = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
    YES("sem.create", s != SEM_FAILED);
    YES("sem.exclusive", sem_open(name, O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED && errno == EEXIST);
    YES("sem.same", sem_open(name, 0) == s);
    RET("sem.wait", sem_wait(s));
    RET("sem.trywait", sem_trywait(s));
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    RET("sem.timedwait_past", sem_timedwait(s, &ts));
    ts.tv_nsec = -1;
    RET("sem.timedwait_bad", sem_timedwait(s, &ts));
    pid_t pid = fork();
    if (pid == 0) _exit(sem_wait(s) == 0 ? 0 : 1);
    wait_blocked(pid, pid);
    RET("sem.post", sem_post(s));
    val("sem.child", "%s", wname(wait_for(pid)));
    int v = -1;
    sem_getvalue(s, &v);
    val("sem.value", "%d", v);
    RET("sem.close", sem_close(s));
    RET("sem.unlink", sem_unlink(name));
    RET("sem.unlink_again", sem_unlink(name));

    struct shared *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t ma;
    pthread_condattr_t ca;
    pthread_barrierattr_t ba;
    pthread_rwlockattr_t ra;
    pthread_mutexattr_init(&ma);
    pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
    pthread_condattr_init(&ca);
    pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
    pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
    pthread_barrierattr_init(&ba);
    pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED);
    pthread_rwlockattr_init(&ra);
    pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&m->mutex, &ma);
    pthread_cond_init(&m->cond, &ca);
    pthread_barrier_init(&m->barrier, &ba, 3);
    pthread_rwlock_init(&m->rwlock, &ra);
    sem_init(&m->sem, 1, 2);
    // Two processes take turns a hundred times.
    pid = fork();
    for (int i = 0; i < 100; i++) {
        pthread_mutex_lock(&m->mutex);
        while (m->turn != (pid == 0)) pthread_cond_wait(&m->cond, &m->mutex);
        m->turn = !m->turn;
        m->value++;
        pthread_cond_broadcast(&m->cond);
        pthread_mutex_unlock(&m->mutex);
    }
    if (pid == 0) _exit(0);
    int st = wait_for(pid);
    val("condvar", "%s value %d", wname(st), m->value);
    // Never more than two inside, of four processes.
    pid_t k[4];
    for (int i = 0; i < 4; i++)
        if ((k[i] = fork()) == 0) {
            for (int r = 0; r < 200; r++) {
                sem_wait(&m->sem);
                int n = __atomic_add_fetch(&m->inside, 1, __ATOMIC_SEQ_CST), old = m->most;
                while (n > old && !__atomic_compare_exchange_n(&m->most, &old, n, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
                    ;
                if (r % 16 == 0) sched_yield();
                __atomic_sub_fetch(&m->inside, 1, __ATOMIC_SEQ_CST);
                sem_post(&m->sem);
            }
            _exit(0);
        }
    for (int i = 0; i < 4; i++) wait_for(k[i]);
    YES("semaphore.at_most_two", m->most >= 1 && m->most <= 2 && m->inside == 0);
    // A barrier of three processes, five times.
    m->value = 0;
    int order_wrong = 0;
    for (int i = 0; i < 2; i++)
        if ((k[i] = fork()) == 0) {
            for (int r = 0; r < 5; r++) {
                __atomic_add_fetch(&m->value, 1, __ATOMIC_SEQ_CST);
                pthread_barrier_wait(&m->barrier);
                pthread_barrier_wait(&m->barrier);
            }
            _exit(0);
        }
    for (int r = 0; r < 5; r++) {
        pthread_barrier_wait(&m->barrier);
        order_wrong += m->value != 2 * (r + 1);
        pthread_barrier_wait(&m->barrier);
    }
    st = wait_for(k[0]);
    val("barrier", "%s %s wrong %d", wname(st), wname(wait_for(k[1])), order_wrong);
    ERR("rwlock.read", pthread_rwlock_rdlock(&m->rwlock));
    val("rwlock.child", "%s", wname(CHILD(_exit(pthread_rwlock_tryrdlock(&m->rwlock) * 10 + (pthread_rwlock_unlock(&m->rwlock), pthread_rwlock_trywrlock(&m->rwlock) == EBUSY)))));
    ERR("rwlock.unlock", pthread_rwlock_unlock(&m->rwlock));
    clock_gettime(CLOCK_MONOTONIC, &ts);
    pthread_mutex_lock(&m->mutex);
    ERR("condvar.monotonic_timeout", pthread_cond_timedwait(&m->cond, &m->mutex, &ts));
    ERR("mutex.trylock_in_child", ({ st = CHILD(_exit(pthread_mutex_trylock(&m->mutex))); WEXITSTATUS(st); }));
    return 0;
}
