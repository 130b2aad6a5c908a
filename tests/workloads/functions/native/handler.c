// A small function in C, for hosts without Python: counts the words of {"text": "..."} and answers with JSON over HTTP.
// Prints "ready PORT" when it listens. One connection at a time, one request each.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

// Counts the words between the quotes after "text": (escapes are taken as separators, which is enough here).
static int count_words(const char *body) {
    const char *at = strstr(body, "\"text\"");
    int words = 0, inside = 0;
    if (!at || !(at = strchr(at + 6, '"')))
        return -1;
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++, inside = 0;
        else if (isalpha((unsigned char)*at))
            words += !inside, inside = 1;
        else
            inside = 0;
    }
    return words;
}

static void serve(int connection) {
    char request[65536];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(connection, request + have, sizeof request - 1 - have);
        if (got <= 0)
            return;
        request[have += (size_t)got] = 0;
        char *body = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
        if (body && (!length || strlen(body + 4) >= strtoul(length + 15, NULL, 10)))
            break;
        if (have == sizeof request - 1)
            return;
    }
    int words = count_words(strstr(request, "\r\n\r\n") + 4);
    char answer[128], response[512];
    if (words < 0)
        snprintf(answer, sizeof answer, "{\"error\": \"no text\"}");
    else
        snprintf(answer, sizeof answer, "{\"words\": %d, \"pid\": %d}", words, getpid());
    int size = snprintf(response, sizeof response,
                        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n%s",
                        words < 0 ? "400 Bad Request" : "200 OK", strlen(answer), answer);
    for (int sent = 0; sent < size;) {
        ssize_t count = write(connection, response + sent, (size_t)(size - sent));
        if (count <= 0)
            return;
        sent += (int)count;
    }
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    // The first process of a pid namespace does not die of a signal that it has no handler for.
    signal(SIGTERM, end);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        die("listening");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            die("accept");
        serve(connection);
        close(connection);
    }
}
