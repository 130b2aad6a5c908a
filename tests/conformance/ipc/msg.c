// System V message queues: types, sizes, waiting, limits, removal. msgget(2), msgop(2), msgctl(2).
#include "../check.h"
#include <sys/ipc.h>
#include <sys/msg.h>

static int id;
static struct { long type; char text[8200]; } m;
static long send_text(long type, const char *text, int flags) {
    m.type = type;
    strcpy(m.text, text);
    return msgsnd(id, &m, strlen(text), flags);
}
static void receive(const char *name, size_t size, long type, int flags) {
    memset(&m, 0, sizeof m);
    errno = 0;
    ssize_t n = msgrcv(id, &m, size, type, flags);
    if (n < 0) val(name, "-1 %s", ename(errno));
    else val(name, "%zd type %ld %.*s", n, m.type, (int)n, m.text);
}
struct call { baton up; pid_t tid; int send; long result; };
static void *blocked(void *arg) {
    struct call *c = arg;
    struct { long type; char text[8192]; } own = {5, ""};
    c->tid = syscall(SYS_gettid);
    baton_pass(&c->up);
    errno = 0;
    c->result = c->send ? msgsnd(id, &own, 1, 0) : msgrcv(id, &own, sizeof own.text, 0, 0);
    if (c->result < 0) c->result = -errno;
    return NULL;
}
static pthread_t start(struct call *c, int send) {
    pthread_t t;
    *c = (struct call){.up = baton_new(), .send = send};
    pthread_create(&t, NULL, blocked, c);
    baton_take(&c->up);
    wait_blocked(getpid(), c->tid);
    return t;
}
static void ended(const char *name, pthread_t t, struct call *c) {
    pthread_join(t, NULL);
    if (c->result < 0) val(name, "-1 %s", ename(-c->result));
    else val(name, "%ld", c->result);
}
static void on_signal(int sig) { (void)sig; }

int main(void) {
    key_t key = 0x53000000 | (getpid() & 0xffffff);
    struct msqid_ds ds;
    struct call c;
    RET("absent", msgget(key, 0));
    id = OK("create", msgget(key, IPC_CREAT | 0640));
    RET("exclusive", msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    YES("found", msgget(key, 0) == id);
    RET("stat", msgctl(id, IPC_STAT, &ds));
    val("stat", "num %lu bytes %lu max %lu mode %o", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes, ds.msg_perm.mode);
    receive("empty", 100, 0, IPC_NOWAIT);
    RET("send.type_0", send_text(0, "x", 0));
    RET("send.type_negative", send_text(-3, "x", 0));
    m.type = 1;
    RET("send.too_large", msgsnd(id, &m, 8193, 0));
    RET("send.negative", syscall(SYS_msgsnd, id, &m, -1L, 0));
    RET("send.bad_pointer", syscall(SYS_msgsnd, id, 16, 1, 0));
    RET("send.bad_id", syscall(SYS_msgsnd, -1, &m, 1, 0));
    RET("send.no_such_id", syscall(SYS_msgsnd, 0x7ffffff0, &m, 1, 0));
    RET("send.empty", send_text(9, "", 0));
    for (long i = 1; i <= 5; i++) {
        char text[16];
        snprintf(text, sizeof text, "message %ld", i);
        RET("send", send_text(6 - i, text, 0));
    }
    RET("stat", msgctl(id, IPC_STAT, &ds));
    val("stat", "num %lu bytes %lu", ds.msg_qnum, ds.__msg_cbytes);
    YES("stat.sender", ds.msg_lspid == getpid() && ds.msg_lrpid == 0 && ds.msg_stime != 0);
    receive("first", 100, 0, 0);
    receive("by_type", 100, 3, 0);
    receive("by_type.absent", 100, 3, IPC_NOWAIT);
    receive("lowest", 100, -4, 0);
    receive("lowest.absent", 100, LONG_MIN, IPC_NOWAIT);
    receive("except", 100, 5, MSG_EXCEPT);
    receive("too_small", 3, 0, 0);
    receive("cut", 3, 0, MSG_NOERROR);
    receive("empty_again", 100, 0, IPC_NOWAIT);
    RET("receive.negative", syscall(SYS_msgrcv, id, &m, -1L, 0, 0));
    receive("copy_waits", 100, 0, MSG_COPY);
    pthread_t t = start(&c, 0);
    RET("wake", send_text(1, "hello", 0));
    ended("woken", t, &c);
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &sa, NULL);
    t = start(&c, 0);
    pthread_kill(t, SIGUSR1);
    ended("interrupted", t, &c);
    m.type = 1;
    RET("fill", msgsnd(id, &m, 8192, 0));
    RET("fill", msgsnd(id, &m, 8192, 0));
    RET("full", send_text(1, "x", IPC_NOWAIT));
    RET("full.empty", send_text(1, "", IPC_NOWAIT));
    t = start(&c, 1);
    YES("drain", msgrcv(id, &m, 8192, 1, 0) == 8192);
    ended("sent", t, &c);
    msgctl(id, IPC_STAT, &ds);
    ds.msg_qbytes = 100;
    RET("set", msgctl(id, IPC_SET, &ds));
    RET("set.now_full", send_text(1, "x", IPC_NOWAIT));
    val("other", "%s", wname(CHILD({
        MUST(setgid(65534));
        MUST(setuid(65534));
        RET("other.get", msgget(key, 0444));
        RET("other.send", send_text(1, "x", IPC_NOWAIT));
        RET("other.remove", msgctl(id, IPC_RMID, NULL));
    })));
    while (msgrcv(id, &m, 8192, 0, IPC_NOWAIT) >= 0) {}
    t = start(&c, 0);
    RET("remove", msgctl(id, IPC_RMID, NULL));
    ended("removed.waiter", t, &c);
    YES("removed", msgrcv(id, &m, 1, 0, IPC_NOWAIT) == -1 && (errno == EINVAL || errno == EIDRM));
    RET("removed.by_key", msgget(key, 0));
    return 0;
}
