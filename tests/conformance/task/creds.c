// Credentials: set*id(2) for root and for ordinary users, saved and file-system ids, groups, capabilities over id changes,
// capget(2), capset(2). credentials(7), capabilities(7).
// needs: no_new_privs not set for the container
#include "../check.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void ids(const char *name) {
    uid_t r, e, s;
    gid_t gr, ge, gs;
    getresuid(&r, &e, &s);
    getresgid(&gr, &ge, &gs);
    val(name, "uid %d %d %d fs %d gid %d %d %d fs %d", (int)r, (int)e, (int)s, setfsuid(-1), (int)gr, (int)ge, (int)gs, setfsgid(-1));
}
// Only those capabilities that a container has by default are looked at.
int capget(struct __user_cap_header_struct *h, struct __user_cap_data_struct *d);
int capset(struct __user_cap_header_struct *h, const struct __user_cap_data_struct *d);
static void caps(const char *name) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {{0}};
    if (capget(&h, d)) val(name, "-1 %s", ename(errno));
    else val(name, "effective chown %d kill %d setuid %d permitted chown %d kill %d setuid %d inheritable chown %d", d[0].effective >> CAP_CHOWN & 1, d[0].effective >> CAP_KILL & 1, d[0].effective >> CAP_SETUID & 1,
             d[0].permitted >> CAP_CHOWN & 1, d[0].permitted >> CAP_KILL & 1, d[0].permitted >> CAP_SETUID & 1, d[0].inheritable >> CAP_CHOWN & 1);
}
#define SET(name, call) CHILD(RET(name, call); ids(name ".ids"))
#define USER(...) CHILD(MUST(setresgid(10, 20, 30)); MUST(setgroups(0, NULL)); MUST(setresuid(1000, 2000, 3000)); __VA_ARGS__)

int main(int argc, char **argv) {
    if (argc > 1) {
        ids("exec.ids");
        caps("exec.caps");
        val("exec.at_secure", "%lu", getauxval(AT_SECURE));
        return 0;
    }
    self_path();
    SET("root.setuid", setuid(5));
    SET("root.seteuid", seteuid(5));
    SET("root.setreuid", setreuid(5, 6));
    SET("root.setreuid_minus", setreuid(-1, 6));
    SET("root.setreuid_real_only", setreuid(5, -1));
    SET("root.setresuid", setresuid(5, 6, 7));
    SET("root.setresuid_partial", setresuid(-1, 6, -1));
    SET("root.setgid", setgid(5));
    SET("root.setegid", setegid(5));
    SET("root.setregid", setregid(5, 6));
    SET("root.setresgid", setresgid(5, 6, 7));
    SET("root.setfsuid", setfsuid(9));
    SET("root.setfsgid", setfsgid(9));
    SET("root.setuid_minus_one", setuid(-1));
    USER(ids("user"); RET("user.setuid_real", setuid(1000)); ids("user.setuid_real.ids"));
    USER(RET("user.setuid_saved", setuid(3000)); ids("user.setuid_saved.ids"));
    USER(RET("user.setuid_foreign", setuid(4000)));
    USER(RET("user.setuid_root", setuid(0)));
    USER(RET("user.setreuid_swap", setreuid(2000, 1000)); ids("user.setreuid_swap.ids"));
    USER(RET("user.setreuid_saved_as_real", setreuid(3000, -1)));
    USER(RET("user.setreuid_saved_as_effective", setreuid(-1, 3000)); ids("user.setreuid_saved.ids"));
    USER(RET("user.setresuid_permute", setresuid(3000, 1000, 2000)); ids("user.setresuid_permute.ids"));
    USER(RET("user.setresuid_one_foreign", setresuid(1000, 2000, 4000)); ids("user.setresuid_unchanged.ids"));
    USER(RET("user.setgid_saved", setgid(30)); ids("user.setgid_saved.ids"));
    USER(RET("user.setgid_foreign", setgid(99)));
    USER(RET("user.setregid_swap", setregid(20, 10)); ids("user.setregid_swap.ids"));
    USER(RET("user.setresgid_permute", setresgid(30, 10, 20)); ids("user.setresgid_permute.ids"));
    USER(RET("user.setfsuid_real", setfsuid(1000)); RET("user.setfsuid_now", setfsuid(-1)); RET("user.setfsuid_foreign", setfsuid(4000)); RET("user.setfsuid_same", setfsuid(-1)));
    USER(RET("user.setgroups", setgroups(1, (gid_t[]){5})));
    // Groups.
    CHILD(gid_t g[8] = {0}; RET("setgroups", setgroups(3, (gid_t[]){30, 10, 20})); RET("getgroups.count", getgroups(0, NULL)); RET("getgroups", getgroups(8, g));
          val("getgroups.sorted", "%d %d %d", g[0], g[1], g[2]); RET("getgroups.small", getgroups(2, g)); RET("getgroups.negative", syscall(SYS_getgroups, -1, g));
          RET("setgroups.too_many", syscall(SYS_setgroups, 65537, g)); RET("setgroups.bad_pointer", syscall(SYS_setgroups, 2, 8)); RET("setgroups.none", setgroups(0, NULL)); RET("getgroups.none", getgroups(8, g)));
    RET("getresuid.bad_pointer", syscall(SYS_getresuid, 8, 8, 8));
    // Capabilities over id changes.
    caps("caps.root");
    CHILD(MUST(setresuid(1000, 1000, 1000)); caps("caps.all_nonzero"));
    CHILD(MUST(seteuid(1000)); caps("caps.effective_nonzero"); MUST(seteuid(0)); caps("caps.effective_back"));
    CHILD(MUST(setresuid(1000, 1000, 0)); caps("caps.saved_zero"); MUST(setresuid(-1, 0, -1)); caps("caps.regained"));
    CHILD(RET("keepcaps", prctl(PR_SET_KEEPCAPS, 1)); MUST(setresuid(1000, 1000, 1000)); caps("caps.kept");
          struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0}; struct __user_cap_data_struct d[2]; capget(&h, d); d[0].effective = 1 << CAP_KILL;
          RET("caps.raise_kept", capset(&h, d)); caps("caps.raised"); RET("caps.still_no_setuid", setuid(5)););
    CHILD(struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0}; struct __user_cap_data_struct d[2]; capget(&h, d); d[0].effective &= ~(1 << CAP_CHOWN); RET("caps.lower_effective", capset(&h, d));
          caps("caps.lowered"); d[0].effective |= 1 << CAP_CHOWN; RET("caps.raise_again", capset(&h, d)); d[0].permitted &= ~(1 << CAP_CHOWN); d[0].effective &= ~(1 << CAP_CHOWN); RET("caps.drop_permitted", capset(&h, d));
          d[0].permitted |= 1 << CAP_CHOWN; RET("caps.regain_permitted", capset(&h, d)); d[0].permitted &= ~(1 << CAP_CHOWN); d[0].effective |= 1 << CAP_CHOWN; RET("caps.effective_beyond_permitted", capset(&h, d)););
    struct __user_cap_header_struct h = {0x12345678, 0};
    struct __user_cap_data_struct d[2];
    RET("capget.bad_version", capget(&h, d));
    val("capget.told_version", "%#x", h.version);
    h.version = 0x12345678;
    RET("capget.bad_version_null", capget(&h, NULL));
    h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 1 << 22};
    RET("capget.no_process", capget(&h, d));
    h.pid = -1;
    RET("capget.negative", capget(&h, d));
    h.pid = 0;
    RET("capget.bad_pointer", syscall(SYS_capget, 8, d));
    h.version = _LINUX_CAPABILITY_VERSION_1;
    RET("capget.version_1", capget(&h, d));
    h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, getppid() + (1 << 21)};
    RET("capset.other", capset(&h, d));
    // exec: root gets everything back, others lose it; the bounding set limits.
    char *av[] = {"x", "again", NULL};
#define EXEC execv(self_path(), av)
    CHILD(EXEC);
    CHILD(MUST(setresuid(1000, 1000, 1000)); EXEC);
    CHILD(MUST(prctl(PR_SET_KEEPCAPS, 1)); MUST(setresuid(1000, 1000, 1000)); EXEC);
    CHILD(MUST(setresuid(1000, 0, 0)); EXEC);
    CHILD(MUST(setresuid(0, 1000, 1000)); EXEC);
    CHILD(RET("bounding.drop", prctl(PR_CAPBSET_DROP, CAP_CHOWN)); RET("bounding.read", prctl(PR_CAPBSET_READ, CAP_CHOWN)); RET("bounding.read_other", prctl(PR_CAPBSET_READ, CAP_KILL));
          RET("bounding.bad", prctl(PR_CAPBSET_READ, 64)); RET("bounding.drop_bad", prctl(PR_CAPBSET_DROP, 64)); caps("bounding.caps_stay"); EXEC);
    CHILD(MUST(setresuid(1000, 1000, 1000)); RET("bounding.drop_unprivileged", prctl(PR_CAPBSET_DROP, CAP_CHOWN)));
    // Ambient.
    CHILD(RET("ambient.not_inheritable", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); struct __user_cap_header_struct hh = {_LINUX_CAPABILITY_VERSION_3, 0}; capget(&hh, d); d[0].inheritable |= 1 << CAP_KILL | 1 << CAP_CHOWN; RET("ambient.make_inheritable", capset(&hh, d));
          RET("ambient.raise", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); RET("ambient.is_set", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0)); RET("ambient.is_not_set", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
          RET("ambient.bad", prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)); MUST(prctl(PR_SET_KEEPCAPS, 1)); MUST(setresuid(1000, 1000, 1000)); RET("ambient.after_setuid", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0));
          RET("ambient.raise_as_user", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); EXEC);
    CHILD(RET("ambient.clear_all", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)));
    // A set-user-id program, and no_new_privs which makes it powerless.
    tmp_enter();
    chmod(".", 0755);
    copy_file(self_path(), "suid", 04755);
    copy_file(self_path(), "sgid", 02755);
    chown("suid", 77, 0);
    chmod("suid", 04755);
    chown("sgid", 0, 88);
    chmod("sgid", 02755);
    char *sv[] = {"x", "again", NULL};
    CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(setresuid(1000, 1000, 1000)); execv("./suid", sv));
    CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(setresuid(1000, 1000, 1000)); execv("./sgid", sv));
    CHILD(MUST(setresgid(1000, 1000, 1000)); MUST(setresuid(1000, 1000, 1000)); MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); execv("./suid", sv));
    // Signals between users.
    baton b = baton_new(), c = baton_new();
    pid_t pid = fork();
    if (pid == 0) {
        MUST(setresuid(3000, 3000, 3000));
        baton_pass(&b);
        baton_take(&c);
        _exit(0);
    }
    baton_take(&b);
    USER(RET("kill.saved_uid_is_no_help", kill(pid, 0)));
    CHILD(MUST(setresuid(3000, 1000, 1000)); RET("kill.real_matches_real", kill(pid, 0)));
    CHILD(MUST(setresuid(1000, 3000, 1000)); RET("kill.effective_matches", kill(pid, 0)));
    CHILD(MUST(setresuid(1000, 1000, 1000)); RET("kill.foreign", kill(pid, 0)); RET("kill.foreign_cont", kill(pid, SIGCONT)));
    baton_pass(&c);
    wait_for(pid);
    return 0;
}
