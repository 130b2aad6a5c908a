// membarrier(2): registration, what needs it, and that a barrier passes by threads that spin.
#include "../check.h"

static long mb(int cmd) { return syscall(SYS_membarrier, cmd, 0, 0); }
static volatile int stop;
static void *spin(void *arg) {
    while (!stop) {}
    return arg;
}

int main(void) {
    long query = mb(0);
    YES("query", (query & 0x7f) == 0x7f);
    RET("private.unregistered", mb(8));
    RET("sync_core.unregistered", mb(32));
    RET("flags", syscall(SYS_membarrier, 8, 1, 0));
    RET("unknown", mb(1 << 20));
    RET("two_at_once", mb(3));
    RET("sync_core.register", mb(64));
    RET("private.still_unregistered", mb(8));
    RET("sync_core", mb(32));
    RET("private.register", mb(16));
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, spin, NULL);
    RET("private", mb(8));
    RET("sync_core.threads", mb(32));
    RET("global.register", mb(4));
    RET("global.expedited", mb(2));
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    RET("global", mb(1));
    val("fork", "%s", wname(CHILD({ RET("fork.inherits", mb(8)); })));
    return 0;
}
