// Load for the network's measurements and tests; the same program is on both ends.
//
//   traffic serve PORT                    serves by TCP and vsock until it is ended; "ready" when
//                                         it listens
//   traffic push|pull ADDRESS MS          bytes to the server or from it, as many as go
//   traffic flood|drain ADDRESS MS SIZE   UDP datagrams of SIZE bytes to the server or from it
//   traffic ping ADDRESS MS               one byte there and back, again and again
//   traffic connect ADDRESS MS            the same, with a new connection each time
//
// ADDRESS is tcp:IP:PORT, vsock:CID:PORT or unix:PATH:PORT, which is vsock by a Unix socket
// (docs/VSOCK.md). Each prints one line of JSON. A connection to `serve` begins with a line: a
// letter and three numbers. What is counted is what has arrived.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

enum { chunk = 256 << 10, batch = 64, most_samples = 1 << 20 };
static char buffer[chunk];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Streams.

static int connect_to(const struct sockaddr *address, socklen_t length) {
    int fd = socket(address->sa_family, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, address, length) != 0) fail("connect");
    int on = 1;
    if (address->sa_family == AF_INET) setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

// False at the end of the stream.
static int get_line(int fd, char *line, size_t room) {
    for (size_t length = 0; length + 1 < room; length++) {
        if (recv(fd, line + length, 1, 0) != 1) return 0;
        if (line[length] != '\n') continue;
        line[length] = 0;
        return 1;
    }
    return 0;
}

static int is(const char *address, const char *kind) {
    return !strncmp(address, kind, strlen(kind));
}

// Takes the parts of ADDRESS behind its kind; `host` holds 108 bytes.
static unsigned parts(const char *address, char *host) {
    const char *first = strchr(address, ':'), *last = strrchr(address, ':');
    if (!first || first == last || last - first > 108) fail("address");
    memcpy(host, first + 1, (size_t)(last - first - 1));
    host[last - first - 1] = 0;
    return (unsigned)strtoul(last + 1, NULL, 10);
}

// A connection on which the server is told what to do.
static int begin(const char *address, char command, long long a, long long b, long long c) {
    char host[109], line[96];
    unsigned port = parts(address, host);
    int fd;
    if (is(address, "tcp:")) {
        struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
        inet_pton(AF_INET, host, &peer.sin_addr);
        fd = connect_to((struct sockaddr *)&peer, sizeof peer);
    } else if (is(address, "vsock:")) {
        struct sockaddr_vm peer = {.svm_family = AF_VSOCK, .svm_port = port};
        peer.svm_cid = (unsigned)strtoul(host, NULL, 10);
        fd = connect_to((struct sockaddr *)&peer, sizeof peer);
    } else {
        struct sockaddr_un peer = {.sun_family = AF_UNIX};
        memcpy(peer.sun_path, host, strnlen(host, sizeof peer.sun_path - 1));
        fd = connect_to((struct sockaddr *)&peer, sizeof peer);
        put(fd, line, (size_t)snprintf(line, sizeof line, "CONNECT %u\n", port));
        if (!get_line(fd, line, sizeof line) || strncmp(line, "OK ", 3)) fail("hybrid vsock");
    }
    put(fd, line, (size_t)snprintf(line, sizeof line, "%c %lld %lld %lld\n", command, a, b, c));
    return fd;
}

static void source(int fd, double seconds) {
    for (double end = now() + seconds; now() < end;) {
        if (send(fd, buffer, chunk, MSG_NOSIGNAL) <= 0) return;
    }
}

static unsigned long long sink(int fd) {
    unsigned long long total = 0;
    ssize_t moved;
    while ((moved = recv(fd, buffer, chunk, 0)) > 0) total += (unsigned long long)moved;
    return total;
}

static long long answer(int fd) {
    char line[32];
    if (!get_line(fd, line, sizeof line)) fail("answer");
    return strtoll(line, NULL, 10);
}

static void say(int fd, unsigned long long number) {
    char line[32];
    put(fd, line, (size_t)snprintf(line, sizeof line, "%llu\n", number));
}

// Datagrams.

static struct mmsghdr messages[batch];
static struct iovec pieces[batch];

static void prepare(size_t size, struct sockaddr_in *peer) {
    for (int i = 0; i < batch; i++) {
        pieces[i] = (struct iovec){buffer, size};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
        if (!peer) continue;
        messages[i].msg_hdr.msg_name = peer;
        messages[i].msg_hdr.msg_namelen = sizeof *peer;
    }
}

static int udp_socket(unsigned port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (bind(fd, (struct sockaddr *)&any, sizeof any) != 0) fail("bind");
    return fd;
}

// Sends for that long to `port` of whoever is at the other end of `control`.
static unsigned long long flood(int control, double seconds, unsigned port, size_t size) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    if (getpeername(control, (struct sockaddr *)&peer, &length) != 0) fail("peer");
    peer.sin_port = htons((in_port_t)port);
    prepare(size, &peer);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned long long total = 0;
    for (double end = now() + seconds; now() < end;) {
        int count = sendmmsg(fd, messages, batch, 0);
        if (count > 0) total += (unsigned long long)count;
    }
    close(fd);
    return total;
}

// Counts what comes until the other end of `control` says something.
static unsigned long long count_datagrams(int control, int fd) {
    struct pollfd both[] = {{fd, POLLIN, 0}, {control, POLLIN, 0}};
    unsigned long long total = 0;
    prepare(chunk / batch, NULL);
    while (poll(both, 2, -1) > 0) {
        int count;
        while ((count = recvmmsg(fd, messages, batch, MSG_DONTWAIT, NULL)) > 0)
            total += (unsigned long long)count;
        if (both[1].revents) break;
    }
    return total;
}

// The server: a process for each connection.

static void serve_one(int fd, unsigned port) {
    char line[96], command = 0;
    long long a = 0, b = 0, c = 0;
    int on = 1, datagrams;
    setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
    if (!get_line(fd, line, sizeof line)) return;
    if (sscanf(line, "%c %lld %lld %lld", &command, &a, &b, &c) != 4) return;
    double seconds = (double)a / 1000;
    switch (command) {
    case 'R': source(fd, seconds); break;
    case 'W': say(fd, sink(fd)); break;
    case 'E':
        while (recv(fd, buffer, 1, 0) == 1) put(fd, buffer, 1);
        break;
    case 'F': say(fd, flood(fd, seconds, (unsigned)b, (size_t)c)); break;
    case 'C':
        datagrams = udp_socket(port);
        put(fd, "0\n", 2); // The other side may begin.
        say(fd, count_datagrams(fd, datagrams));
    }
}

static int listen_at(const struct sockaddr *address, socklen_t length) {
    int fd = socket(address->sa_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0) return -1; // A guest without such a device.
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address, length) != 0 || listen(fd, 4096) != 0) fail("listen");
    return fd;
}

static void serve(unsigned port) {
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    struct sockaddr_vm vsock = {
        .svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY};
    struct pollfd listeners[] = {
        {listen_at((struct sockaddr *)&tcp, sizeof tcp), POLLIN, 0},
        {listen_at((struct sockaddr *)&vsock, sizeof vsock), POLLIN, 0}};
    signal(SIGCHLD, SIG_IGN);
    puts("ready");
    fflush(stdout);
    while (poll(listeners, 2, -1) > 0) {
        for (int i = 0; i < 2; i++) {
            if (!listeners[i].revents) continue;
            int fd = accept(listeners[i].fd, NULL, NULL);
            if (fd >= 0 && fork() == 0) {
                serve_one(fd, port);
                _exit(0);
            }
            if (fd >= 0) close(fd);
        }
    }
}

// The client.

static void push(const char *address, long long ms) {
    int fd = begin(address, 'W', 0, 0, 0);
    double start = now();
    source(fd, (double)ms / 1000);
    shutdown(fd, SHUT_WR);
    long long bytes = answer(fd);
    printf("{\"bytes\": %lld, \"seconds\": %.6f}\n", bytes, now() - start);
}

static void pull(const char *address, long long ms) {
    int fd = begin(address, 'R', ms, 0, 0);
    double start = now();
    unsigned long long bytes = sink(fd);
    printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", bytes, now() - start);
}

static void send_datagrams(const char *address, long long ms, long long size) {
    char host[109];
    unsigned port = parts(address, host);
    int fd = begin(address, 'C', 0, 0, 0);
    answer(fd);
    double start = now();
    unsigned long long sent = flood(fd, (double)ms / 1000, port, (size_t)size);
    double seconds = now() - start;
    usleep(200000); // What is on its way.
    put(fd, "\n", 1);
    printf("{\"packets\": %lld, \"sent\": %llu, \"seconds\": %.6f}\n", answer(fd), sent, seconds);
}

static void receive_datagrams(const char *address, long long ms, long long size) {
    char host[109];
    unsigned port = parts(address, host);
    int datagrams = udp_socket(port);
    int fd = begin(address, 'F', ms, port, size);
    double start = now();
    unsigned long long packets = count_datagrams(fd, datagrams);
    double seconds = now() - start;
    printf("{\"packets\": %llu, \"sent\": %lld, \"seconds\": %.6f}\n", packets, answer(fd), seconds);
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void report(double *samples, size_t count, double seconds) {
    qsort(samples, count, sizeof *samples, compare);
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += samples[i];
    if (count == 0) fail("no round trip");
    printf("{\"trips\": %zu, \"seconds\": %.6f, \"mean_us\": %.1f, \"p99_us\": %.1f}\n", count,
           seconds, sum / (double)count * 1e6, samples[count * 99 / 100] * 1e6);
}

// Round trips, each on a connection of its own if so wished.
static void ping(const char *address, long long ms, int connects) {
    double *samples = malloc(most_samples * sizeof *samples), start = now(), last = start;
    double end = start + (double)ms / 1000;
    size_t count = 0;
    int fd = -1;
    while (samples && last < end && count < most_samples) {
        if (fd < 0) fd = begin(address, 'E', 0, 0, 0);
        put(fd, "x", 1);
        if (recv(fd, buffer, 1, 0) != 1) fail("receive");
        if (connects) {
            close(fd);
            fd = -1;
        }
        double time = now();
        samples[count++] = time - last;
        last = time;
    }
    report(samples, count, last - start);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    const char *action = words[1], *address = words[2];
    long long ms = count > 3 ? strtoll(words[3], NULL, 10) : 0;
    long long size = count > 4 ? strtoll(words[4], NULL, 10) : 0;
    if (!strcmp(action, "serve")) serve((unsigned)strtoul(address, NULL, 10));
    else if (!strcmp(action, "push")) push(address, ms);
    else if (!strcmp(action, "pull")) pull(address, ms);
    else if (!strcmp(action, "flood")) send_datagrams(address, ms, size);
    else if (!strcmp(action, "drain")) receive_datagrams(address, ms, size);
    else if (!strcmp(action, "ping")) ping(address, ms, 0);
    else if (!strcmp(action, "connect")) ping(address, ms, 1);
    else return 2;
    return 0;
}
