// #! scripts: arguments handed to the interpreter, white space, nesting and its limit, missing interpreters, long
// lines, execveat(2) of a script. execve(2), "Interpreter scripts".
#include "../check.h"

extern char **environ;
static const char *self;

static void script(const char *name, const char *fmt, ...) {
    static char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put_file(name, text, 0755);
}
static void run(const char *name, const char *path) {
    char *av[] = {"argv-zero", "one", "two", NULL};
    val("run", "%s", name);
    CHILD(RET(name, execve(path, av, environ)));
}

int main(int argc, char **argv) {
    // As an interpreter: print what came in. The first argument that we put into #! lines starts with "INTERP".
    if (argc > 1 && getenv("AS_INTERP")) {
        val("argc", "%d", argc);
        for (int i = 0; i < argc; i++) {
            const char *a = argv[i], *slash = strrchr(a, '/');
            if (a[0] == '/' && !strncmp(a, "/dev/fd/", 8)) val("arg", "%d [/dev/fd/N%s]", i, strchr(a + 8, '/') ? strchr(a + 8, '/') : "");
            else if (i == 0 && slash && strcmp(slash, "/interp")) val("arg", "%d [/...%s]", i, slash);
            else if (a[0] == '/') val("arg", "%d [/...%s]", i, slash);
            else val("arg", "%d [%s]", i, a);
        }
        const char *fn = (const char *)getauxval(AT_EXECFN);
        val("execfn", "%s", strncmp(fn, "/dev/fd/", 8) ? fn : "/dev/fd/N");
        return 0;
    }
    tmp_enter();
    self = self_path();
    char cwd[PATH_MAX];
    MUST(getcwd(cwd, sizeof cwd) ? 0 : -1);
    MUST(symlink(self, "interp")); // keeps the #! line short whatever the program's own path
    setenv("AS_INTERP", "1", 1);
    script("plain", "#!%s/interp\nbody\n", cwd);
    run("plain", "./plain");
    script("arg", "#!%s/interp INTERP\n", cwd);
    run("arg", "./arg");
    script("spaces", "#! \t %s/interp \t INTERP with  spaces\t \n", cwd);
    run("spaces", "./spaces");
    script("nonewline", "#!%s/interp INTERP", cwd);
    run("nonewline", "./nonewline");
    script("relative", "#!interp INTERP\n");
    run("relative", "./relative");
    script("nest1", "#!./plain N1\n");
    run("nest1", "./nest1");
    for (int i = 2; i <= 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "nest%d", i);
        script(name, "#!./nest%d N%d\n", i - 1, i);
    }
    run("nest3", "./nest3");
    run("nest4", "./nest4");
    run("nest5", "./nest5");
    run("nest6", "./nest6");
    script("selfish", "#!./selfish\n");
    run("selfish", "./selfish");
    script("missing", "#!/no/such/interpreter\n");
    run("missing", "./missing");
    script("empty", "#!\n");
    run("empty", "./empty");
    script("blank", "#!   \n");
    run("blank", "./blank");
    script("only", "#!");
    run("only", "./only");
    script("dirinterp", "#!/\n");
    run("dirinterp", "./dirinterp");
    put_file("nox", "#!./interp\n", 0644);
    run("nox", "./nox");
    put_file("noxinterp", "text\n", 0644);
    script("badinterp", "#!./noxinterp\n");
    run("badinterp", "./badinterp");
    script("garbageinterp", "#!./garbage\n");
    put_file("garbage", "text\n", 0755);
    run("garbageinterp", "./garbageinterp");
    script("crlf", "#!./interp INTERP\r\n");
    run("crlf", "./crlf");
    // The kernel looks at 256 bytes: a longer argument is cut, a longer interpreter name is refused.
    char buf[600];
    memset(buf, 'a', sizeof buf);
    buf[500] = 0;
    script("longarg", "#!./interp %s\n", buf);
    char *av[] = {"z", NULL};
    setenv("AS_INTERP", "1", 1);
    CHILD(RET("longarg", execve("./longarg", av, environ)));
    script("longname", "#!/%s\n", buf);
    run("longname", "./longname");
    // Through a directory descriptor and AT_EMPTY_PATH.
    char *av3[] = {"argv-zero", "one", NULL};
    int dir = MUST(open(".", O_PATH)), fd = MUST(open("plain", O_RDONLY)), cl = MUST(open("plain", O_RDONLY | O_CLOEXEC));
    CHILD(RET("at.dirfd", syscall(SYS_execveat, dir, "plain", av3, environ, 0)));
    CHILD(RET("at.empty", syscall(SYS_execveat, fd, "", av3, environ, AT_EMPTY_PATH)));
    CHILD(RET("at.cloexec", syscall(SYS_execveat, cl, "", av3, environ, AT_EMPTY_PATH)));
    // A script that is open for writing, and an empty argv.
    int w = MUST(open("plain", O_WRONLY));
    CHILD(RET("open_for_writing", execve("./plain", av3, environ)));
    close(w);
    char *none[] = {NULL};
    CHILD(RET("empty_argv", execve("./plain", none, environ)));
    return 0;
}
