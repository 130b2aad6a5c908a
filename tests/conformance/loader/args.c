// The initial stack: argc, argv, envp and their terminators, as execve(2) hands them over. The program executes itself
// with arguments and an environment of its own choosing.
#include "../check.h"

int main(int argc, char **argv, char **envp) {
    if (argc > 1 && !strcmp(argv[1], "child")) {
        val("argc", "%d", argc);
        for (int i = 0; i < argc; i++) val("argv", "%d [%s]", i, argv[i]);
        YES("argv.terminated", argv[argc] == NULL);
        YES("envp.follows", envp == argv + argc + 1);
        for (int i = 0; envp[i]; i++) val("envp", "%d [%s]", i, envp[i]);
        YES("strings.in_order", argv[0] + strlen(argv[0]) + 1 == argv[1]);
        return 7;
    }
    if (argc == 1 || (argc > 1 && !strcmp(argv[1], "empty"))) {
        const char *self = self_path();
        char *av[] = {"zero", "child", "", "two words", "\xc3\xa9\x01", NULL};
        char *ev[] = {"A=1", "B=", "NOEQUALS", "A=2", "PATH=/x", NULL};
        int st = CHILD(execve(self, av, ev); _exit(99));
        val("exit", "%s", wname(st));
        char *none[] = {NULL};
        char *av2[] = {"zero", "child", NULL};
        st = CHILD(execve(self, av2, none); _exit(99));
        val("exit.no_env", "%s", wname(st));
        st = CHILD(execve(self, av2, NULL); _exit(99));
        val("exit.null_env", "%s", wname(st));
    }
    return 0;
}
