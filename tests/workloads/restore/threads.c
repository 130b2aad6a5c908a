/* Thirty threads: some that count, some that hand a number around with a mutex and a condition, some that sleep, some that
   wait at a barrier that only opens after the restore. It waits for the file that its argument names. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COUNTERS = 8, RING = 10, SLEEPERS = 6, BARRIER = 5, ALL = COUNTERS + RING + SLEEPERS + BARRIER };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static atomic_int stop, passed;
static atomic_ulong counts[COUNTERS], slept[SLEEPERS];
static unsigned long turn;
static _Thread_local unsigned long mine;

static void *count(void *arg)
{
    double sum = 0;
    while (!stop) {
        mine++;
        sum += 1.0 / (double)mine;
        if (mine % 1000 == 0) usleep(100);
        if (atomic_fetch_add((atomic_ulong *)arg, 1) + 1 != mine) _exit(2);
    }
    return sum > 0 ? NULL : arg;
}

static void *ring(void *arg)
{
    unsigned long own = (unsigned long)arg;
    pthread_mutex_lock(&mutex);
    while (!stop) {
        while (turn % RING != own && !stop) pthread_cond_wait(&turned, &mutex);
        if (!stop) turn++;
        pthread_cond_broadcast(&turned);
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *sleeps(void *arg)
{
    while (!stop) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += 3000000;
        if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
        if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) _exit(3);
        atomic_fetch_add((atomic_ulong *)arg, 1);
    }
    return NULL;
}

static void *waits(void *arg)
{
    pthread_barrier_wait(&barrier);
    passed++;
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t threads[ALL];
    int n = 0;
    if (argc < 2) return 1;
    pthread_barrier_init(&barrier, NULL, BARRIER + 1);
    for (unsigned long i = 0; i < COUNTERS; i++) pthread_create(&threads[n++], NULL, count, &counts[i]);
    for (unsigned long i = 0; i < RING; i++) pthread_create(&threads[n++], NULL, ring, (void *)i);
    for (unsigned long i = 0; i < SLEEPERS; i++) pthread_create(&threads[n++], NULL, sleeps, &slept[i]);
    for (unsigned long i = 0; i < BARRIER; i++) pthread_create(&threads[n++], NULL, waits, NULL);
    while (counts[0] < 10 || slept[0] < 3) usleep(1000);
    puts("ready");
    fflush(stdout);
    while (access(argv[1], F_OK)) usleep(10000);
    /* Everybody goes on. */
    unsigned long before[COUNTERS], slept_before[SLEEPERS], turn_before;
    for (int i = 0; i < COUNTERS; i++) before[i] = counts[i];
    for (int i = 0; i < SLEEPERS; i++) slept_before[i] = slept[i];
    pthread_mutex_lock(&mutex);
    turn_before = turn;
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < COUNTERS; i++) while (counts[i] < before[i] + 10) usleep(1000);
    for (int i = 0; i < SLEEPERS; i++) while (slept[i] < slept_before[i] + 3) usleep(1000);
    for (int done = 0; !done; usleep(1000)) {
        pthread_mutex_lock(&mutex);
        done = turn >= turn_before + 2 * RING;
        pthread_mutex_unlock(&mutex);
    }
    if (passed) return 4;
    pthread_barrier_wait(&barrier);
    stop = 1;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    puts(passed == BARRIER ? "ok" : "the barrier");
    return 0;
}
