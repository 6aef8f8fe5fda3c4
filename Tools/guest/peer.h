// What the programs for guests share: a failure ends the program, and all of a buffer is sent.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void fail(const char *what) {
    printf("failed: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static void put(int fd, const void *bytes, size_t count) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t moved = send(fd, next, count, MSG_NOSIGNAL);
        if (moved <= 0) fail("send");
        next += moved;
        count -= (size_t)moved;
    }
}
