// The guest's end of the vsock boot tests: serves and connects, many connections at a time, and
// checks every byte. One thread; connections are taken in turn by epoll.
//
//   vsock-peer serve PORT          serves until it is ended; "ready" when it listens
//   vsock-peer get PORT COUNT      connects to the host, says "G COUNT\n", and checks what comes
//   vsock-peer put PORT COUNT      connects, says "P COUNT\n", and sends so much
//   vsock-peer echo PORT COUNT     sends so much and checks what comes back, a half-close each
//   vsock-peer many PORT COUNT     COUNT connections at once; one byte through each, both ways
//   vsock-peer refused PORT        the host refuses: prints the errno
//
// A connection to `serve` begins with a line of one letter and a number:
//   G n   gets n bytes of the pattern          P n   sends n bytes, and gets "ok n\n"
//   E 0   gets back what it sends              S n   as P, but the server first waits n ms
// The pattern's byte at offset i is (i * 2654435761) >> 13, so that a lost, doubled or moved piece
// shows.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

enum { chunk = 256 << 10 };
static unsigned char buffer[chunk];

static unsigned char pattern(uint64_t offset) {
    return (unsigned char)((offset * 2654435761u) >> 13);
}

static void fill(uint64_t offset, size_t count) {
    for (size_t i = 0; i < count; i++) buffer[i] = pattern(offset + i);
}

static void check(uint64_t offset, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (buffer[i] == pattern(offset + i)) continue;
        printf("failed: byte %llu is wrong\n", (unsigned long long)(offset + i));
        fflush(stdout);
        exit(1);
    }
}

static int make_socket(int flags) {
    int fd = socket(AF_VSOCK, SOCK_STREAM | flags, 0);
    if (fd < 0) fail("socket");
    return fd;
}

static struct sockaddr_vm address(unsigned cid, unsigned port) {
    struct sockaddr_vm result = {0};
    result.svm_family = AF_VSOCK;
    result.svm_cid = cid;
    result.svm_port = port;
    return result;
}

static int connect_to(unsigned port) {
    int fd = make_socket(0);
    struct sockaddr_vm host = address(VMADDR_CID_HOST, port);
    if (connect(fd, (struct sockaddr *)&host, sizeof host) != 0) fail("connect");
    return fd;
}

static void put_pattern(int fd, uint64_t total) {
    for (uint64_t offset = 0; offset < total;) {
        size_t part = total - offset < chunk ? (size_t)(total - offset) : chunk;
        fill(offset, part);
        put(fd, buffer, part);
        offset += part;
    }
}

// Reads to the end of the stream; the number of bytes, which were checked.
static uint64_t get_pattern(int fd) {
    uint64_t offset = 0;
    for (;;) {
        ssize_t moved = recv(fd, buffer, chunk, 0);
        if (moved < 0) fail("receive");
        if (moved == 0) return offset;
        check(offset, (size_t)moved);
        offset += (uint64_t)moved;
    }
}

// What a served connection does.
struct peer {
    int fd;
    char line[32];
    size_t length;
    char command;
    uint64_t total, done;
    char *kept; // echoed bytes that were not taken yet
    size_t kept_first, kept_end;
    int has_ended;
};

static void finish(struct peer *peer) {
    close(peer->fd);
    free(peer->kept);
    free(peer);
}

static int would_wait(ssize_t moved) { return moved < 0 && (errno == EAGAIN || errno == EINTR); }

// One step; 0 when the connection waits for its next event, -1 when it is over.
static int read_line(struct peer *peer) {
    ssize_t moved = recv(peer->fd, peer->line + peer->length, 1, 0);
    if (would_wait(moved)) return 0;
    if (moved <= 0 || peer->length + 2 > sizeof peer->line) return -1;
    if (peer->line[peer->length++] != '\n') return 1;
    peer->command = peer->line[0];
    peer->total = strtoull(peer->line + 1, NULL, 10);
    if (peer->command == 'S') {
        // Everything else stands still, too: a guest that does not read.
        struct timespec pause = {
            (time_t)(peer->total / 1000), (long)(peer->total % 1000) * 1000000};
        nanosleep(&pause, NULL);
        peer->command = 'P';
    }
    if (peer->command == 'E' && !(peer->kept = malloc(chunk))) fail("memory");
    return 1;
}

static int serve_get(struct peer *peer) {
    if (peer->done == peer->total) return -1;
    size_t part = peer->total - peer->done < chunk ? (size_t)(peer->total - peer->done) : chunk;
    fill(peer->done, part);
    ssize_t moved = send(peer->fd, buffer, part, MSG_NOSIGNAL);
    if (would_wait(moved)) return 0;
    if (moved <= 0) return -1;
    peer->done += (uint64_t)moved;
    return 1;
}

static int serve_put(struct peer *peer) {
    ssize_t moved = recv(peer->fd, buffer, chunk, 0);
    if (would_wait(moved)) return 0;
    if (moved < 0) return -1;
    if (moved > 0) {
        check(peer->done, (size_t)moved);
        peer->done += (uint64_t)moved;
        return 1;
    }
    char answer[40];
    int length = snprintf(answer, sizeof answer, "ok %llu\n", (unsigned long long)peer->done);
    put(peer->fd, answer, (size_t)length);
    return -1;
}

static int serve_echo(struct peer *peer) {
    if (peer->kept_first < peer->kept_end) {
        ssize_t moved = send(
            peer->fd, peer->kept + peer->kept_first, peer->kept_end - peer->kept_first,
            MSG_NOSIGNAL);
        if (would_wait(moved)) return 0;
        if (moved <= 0) return -1;
        peer->kept_first += (size_t)moved;
        return 1;
    }
    ssize_t moved = recv(peer->fd, peer->kept, chunk, 0);
    if (would_wait(moved)) return 0;
    if (moved <= 0) return -1;
    peer->kept_first = 0;
    peer->kept_end = (size_t)moved;
    return 1;
}

static int step(struct peer *peer) {
    switch (peer->command) {
    case 0: return read_line(peer);
    case 'G': return serve_get(peer);
    case 'P': return serve_put(peer);
    case 'E': return serve_echo(peer);
    default: return -1;
    }
}

static void serve(unsigned port) {
    int listener = make_socket(SOCK_NONBLOCK);
    struct sockaddr_vm any = address(VMADDR_CID_ANY, port);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0) fail("bind");
    if (listen(listener, 20000) != 0) fail("listen");
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(set, events, 64, -1);
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                if (!(peer = calloc(1, sizeof *peer))) fail("memory");
                peer->fd = fd;
                event = (struct epoll_event){
                    .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = peer};
                epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
            }
            int state;
            while ((state = step(peer)) > 0) {}
            if (state < 0) finish(peer);
        }
    }
}

static void many(unsigned port, int count) {
    int *fds = calloc((size_t)count, sizeof *fds);
    if (!fds) fail("memory");
    for (int i = 0; i < count; i++) {
        fds[i] = connect_to(port);
        unsigned char byte = (unsigned char)i;
        put(fds[i], &byte, 1);
    }
    for (int i = 0; i < count; i++) {
        unsigned char byte;
        if (recv(fds[i], &byte, 1, 0) != 1 || byte != (unsigned char)i) fail("byte");
    }
    for (int i = 0; i < count; i++) close(fds[i]);
    printf("many %d\n", count);
}

static void echo(unsigned port, uint64_t total) {
    int fd = connect_to(port);
    // Both at once: what comes back must not wait until all is sent.
    if (fork() == 0) {
        put_pattern(fd, total);
        shutdown(fd, SHUT_WR);
        _exit(0);
    }
    printf("echo %llu\n", (unsigned long long)get_pattern(fd));
}

int main(int count, char **words) {
    struct rlimit descriptors = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &descriptors);
    if (count < 3) return 2;
    unsigned port = (unsigned)strtoul(words[2], NULL, 10);
    unsigned long long total = count > 3 ? strtoull(words[3], NULL, 10) : 0;
    char line[32];
    int length = snprintf(line, sizeof line, "%c %llu\n", words[1][0] == 'g' ? 'G' : 'P', total);
    if (!strcmp(words[1], "serve")) {
        serve(port);
    } else if (!strcmp(words[1], "get")) {
        int fd = connect_to(port);
        put(fd, line, (size_t)length);
        printf("get %llu\n", (unsigned long long)get_pattern(fd));
    } else if (!strcmp(words[1], "put")) {
        int fd = connect_to(port);
        put(fd, line, (size_t)length);
        put_pattern(fd, total);
        close(fd);
        printf("put %llu\n", total);
    } else if (!strcmp(words[1], "many")) {
        many(port, (int)total);
    } else if (!strcmp(words[1], "echo")) {
        echo(port, total);
    } else if (!strcmp(words[1], "refused")) {
        int fd = make_socket(0);
        struct sockaddr_vm host = address(VMADDR_CID_HOST, port);
        int result = connect(fd, (struct sockaddr *)&host, sizeof host);
        printf("refused %d\n", result == 0 ? 0 : errno);
    } else {
        return 2;
    }
    return 0;
}
