# gcc: compile, link and run; a static and a shared library; an error; make-like staging with ar and ld.
set -u
export LC_ALL=C
cat >main.c <<'EOT'
#include <pthread.h>
#include <stdio.h>
#include <math.h>
int square(int);
static void *run(void *arg) { *(int *)arg = square(*(int *)arg); return NULL; }
int main(int argc, char **argv) {
    int value = argc + 6;
    pthread_t thread;
    pthread_create(&thread, NULL, run, &value);
    pthread_join(thread, NULL);
    printf("%d %.3f %s\n", value, sqrt(value), argc > 1 ? argv[1] : "none");
    return value & 3;
}
EOT
echo 'int square(int x) { return x * x; }' >square.c
gcc -O1 -Wall -pthread -o dynamic main.c square.c -lm; echo "gcc: $?"; ./dynamic arg; echo "exit: $?"
gcc -c -g square.c && ar rcs libsquare.a square.o && gcc -static -pthread -o static main.c -L. -lsquare -lm && ./static; echo "exit: $?"
gcc -shared -fPIC -o libsquare.so square.c && gcc -pthread -o shared main.c -L. -l:libsquare.so -lm -Wl,-rpath,"$PWD" && ./shared; echo "exit: $?"
echo 'int main(void) { return undefined; }' >bad.c; gcc -c bad.c 2>/dev/null; echo "error: $?"
echo 'int f(void); int main(void) { return f(); }' >unlinked.c; gcc -o unlinked unlinked.c 2>/dev/null; echo "link error: $?"
gcc -E - <<<'#define X 42
X' | tail -n 1; gcc -S -O1 -o - square.c | grep -c imul; nm square.o | awk '{ print $2, $3 }'; strip -o stripped dynamic && ./stripped x; readelf -h dynamic | grep -c 'ELF64'
echo 'int main(void) { return *(volatile int *)0; }' >crash.c; gcc -o crash crash.c; (ulimit -c 0; ./crash) 2>/dev/null; echo "crash: $?"
rm -f ./*; ls -A
