// execve(2) and execveat(2): errnos for what cannot be executed, argument limits, empty argv, AT_EMPTY_PATH.
#include "../check.h"
#include <elf.h>

extern char **environ;
#define EXECVE(...) syscall(SYS_execve, __VA_ARGS__)
// A failed exec returns to the child, which reports; a successful one becomes `self ok`.
#define EXEC(name, path) CHILD(char *av_[] = {"x", "ok", NULL}; RET(name, EXECVE(path, av_, environ)))

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "ok")) {
        val("executed", "argc %d", argc);
        return 0;
    }
    if (argc == 1 && argv[0][0] == 0) {
        val("executed.empty_argv", "argc %d argv0 [%s]", argc, argv[0]);
        return 0;
    }
    tmp_enter();
    const char *self = self_path();
    EXEC("missing", "nothing");
    EXEC("empty_path", "");
    EXEC("null_path", NULL);
    EXEC("bad_pointer", (char *)8);
    MUST(mkdir("dir", 0755));
    EXEC("directory", "dir");
    put_file("plain", "just text\n", 0644);
    EXEC("no_x_bit", "plain");
    EXEC("not_a_directory", "plain/x");
    put_file("garbage", "just text\n", 0755);
    EXEC("no_format", "garbage");
    put_file("empty", "", 0755);
    EXEC("empty_file", "empty");
    put_file("short", "\177ELF", 0755);
    EXEC("elf_magic_only", "short");
    MUST(symlink("loop", "loop"));
    EXEC("symlink_loop", "loop");
    char longname[300];
    memset(longname, 'n', sizeof longname);
    longname[299] = 0;
    EXEC("name_too_long", longname);
    static char longpath[PATH_MAX + 10];
    memset(longpath, '/', sizeof longpath - 1);
    EXEC("path_too_long", longpath);
    EXEC("dev_null", "/dev/null");
    MUST(mkfifo("fifo", 0755));
    EXEC("fifo", "fifo");

    copy_file(self, "copy", 0755);
    EXEC("copy", "copy");
    int w = MUST(open("copy", O_WRONLY));
    EXEC("open_for_writing", "copy");
    close(w);
    MUST(symlink("copy", "link"));
    EXEC("symlink", "link");
    copy_file(self, "noread", 0111);
    EXEC("execute_only_as_root", "noread");
    copy_file(self, "noexec", 0600);
    EXEC("root_needs_an_x_bit", "noexec");

    // Broken ELF headers.
    static const struct { const char *name; size_t off; unsigned char byte; } bad[] = {
        {"elf.machine", offsetof(Elf64_Ehdr, e_machine), 0xb7},
        {"elf.type_rel", offsetof(Elf64_Ehdr, e_type), ET_REL},
        {"elf.phentsize", offsetof(Elf64_Ehdr, e_phentsize), 1},
        {"elf.no_phdrs", offsetof(Elf64_Ehdr, e_phnum), 0},
        {"elf.magic", 1, 'F'},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        copy_file(self, "bad", 0755);
        int fd = MUST(open("bad", O_RDWR));
        MUST(pwrite(fd, &bad[i].byte, 1, bad[i].off));
        if (!strcmp(bad[i].name, "elf.no_phdrs")) MUST(pwrite(fd, "\0\0", 2, bad[i].off));
        close(fd);
        EXEC(bad[i].name, "bad");
    }
    copy_file(self, "cut", 0755);
    MUST(truncate("cut", 100));
    EXEC("elf.cut_in_phdrs", "cut");

    // Argument limits: a single string of more than 128 KiB, or a quarter of the stack limit altogether.
    static char big[(128 << 10) + 1];
    memset(big, 'b', sizeof big - 1);
    CHILD(char *av[] = {"x", "ok", big, NULL}; RET("one_string_131072", EXECVE(self, av, environ)));
    big[(128 << 10) - 1] = 0;
    CHILD(char *av[] = {"x", "ok", big, NULL}; RET("one_string_131071", EXECVE(self, av, environ)));
    CHILD(char *av[] = {"x", "ok", NULL}; char *ev[] = {big, NULL}; RET("env_131071", EXECVE(self, av, ev)));
    struct rlimit rl = {1 << 20, 1 << 20};
    CHILD(setrlimit(RLIMIT_STACK, &rl); char *av[] = {"x", "ok", big, big, big, NULL};
          RET("total_over_quarter_of_stack", EXECVE(self, av, environ)));
    CHILD(setrlimit(RLIMIT_STACK, &rl); char *av[] = {"x", "ok", big, NULL};
          RET("total_within_quarter", EXECVE(self, av, environ)));
    static char *many[200000];
    for (size_t i = 0; i < COUNT(many) - 1; i++) many[i] = "";
    CHILD(setrlimit(RLIMIT_STACK, &rl); RET("many_empty_strings", EXECVE(self, many, environ)));
    CHILD(RET("bad_argv", EXECVE(self, (char **)8, environ)));
    CHILD(char *av[] = {"x", (char *)8, NULL}; RET("bad_string", EXECVE(self, av, environ)));
    CHILD(char *av[] = {"x", "ok", NULL}; RET("bad_envp", EXECVE(self, av, (char **)8)));
    CHILD(char *av[] = {NULL}; RET("empty_argv", EXECVE(self, av, environ)));

    char *av[] = {"x", "ok", NULL};
    int fd = MUST(open("copy", O_RDONLY | O_CLOEXEC)), dir = MUST(open(".", O_PATH)), opath = MUST(open("copy", O_PATH));
#define EXECAT(name, ...) CHILD(RET(name, syscall(SYS_execveat, __VA_ARGS__)))
    EXECAT("at.empty_path", fd, "", av, environ, AT_EMPTY_PATH);
    EXECAT("at.empty_path_opath", opath, "", av, environ, AT_EMPTY_PATH);
    EXECAT("at.empty_path_no_flag", fd, "", av, environ, 0);
    EXECAT("at.dirfd", dir, "copy", av, environ, 0);
    EXECAT("at.dirfd_is_file", fd, "copy", av, environ, 0);
    EXECAT("at.nofollow_link", dir, "link", av, environ, AT_SYMLINK_NOFOLLOW);
    EXECAT("at.follow_link", dir, "link", av, environ, 0);
    EXECAT("at.bad_fd", 999, "copy", av, environ, 0);
    EXECAT("at.bad_fd_absolute", 999, self, av, environ, 0);
    EXECAT("at.bad_flags", dir, "copy", av, environ, 0x8000000);
    EXECAT("at.cwd", AT_FDCWD, "copy", av, environ, 0);
    EXECAT("at.directory_fd", dir, "", av, environ, AT_EMPTY_PATH);
    // A memfd can be executed.
    int m = MUST(memfd_create("prog", MFD_CLOEXEC));
    char buf[4096];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;) MUST(write(m, buf, n));
    EXECAT("at.memfd_open_for_writing", m, "", av, environ, AT_EMPTY_PATH);
    snprintf(buf, sizeof buf, "/proc/self/fd/%d", m);
    int mro = MUST(open(buf, O_RDONLY | O_CLOEXEC));
    close(m);
    EXECAT("at.memfd", mro, "", av, environ, AT_EMPTY_PATH);
    return 0;
}
