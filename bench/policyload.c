/*
 * policyload: a closed-loop load generator for Postfix's policy delegation protocol.
 *
 * One process, epoll, some connections, one outstanding request on each.
 *
 * usage: policyload [-c connections] [-d seconds] [-n requests] [-m mode] [-p population] [-s seed]
 *                   [-k pid]... [-e state] [-r rate] HOST:PORT | /unix/socket
 *
 * -c   connections (8)
 * -d   seconds (5)
 * -n   stop after so many requests, if that is earlier
 * -m   mode:
 *        same  one identical request, over and over (the instance changes)
 *        uniq  every request a new triplet of client, sender and recipient (another -s, other triplets)
 *        zipf  triplets drawn from a population of -p by a Zipf(1.0) law (the default)
 *        each  the triplets of this population one after the other, and again
 * -p   population for zipf and each (10000)
 * -s   seed
 * -k   add up the CPU time, user and system, of this process and its children before and after, and print
 *      the CPU microseconds a request; may be given several times
 * -e   protocol_state (RCPT)
 * -r   at most so many requests a second, over all connections together; the latency then tells what a
 *      request costs while the server has time to spare
 *
 * It prints one line: requests/s, latency percentiles in microseconds, CPU, a count for each action, errors.
 * The exit code is 1 when there were errors.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIDS 64
#define MAX_ACTIONS 64
#define MAX_LATENCIES (1L << 22)
#define MAX_DEPTH 20            /* of children of children */
#define PATIENCE 10.0           /* seconds to wait for answers after the end */

typedef struct {
    int fd;
    char in[16384];
    int inLength;
    double sentAt;
} Connection;

/* What the command line says. */
static int connections = 8;
static double seconds = 5;
static long limit = 0;
static const char *mode = "zipf";
static int population = 10000;
static uint64_t seed = 88172645463325252ull;
static int pids[MAX_PIDS];
static int pidCount = 0;
static const char *state = "RCPT";
static double paceRate = 0;
static const char *target;

/* What is under way. */
static Connection *all;
static int poller;
static int openCount;
static int *idle;               /* connections that wait for their turn, with -r */
static int idleCount = 0;
static double begin, end;

/* What was counted. */
static long sent = 0;
static long done = 0;
static long errors = 0;
static double *latencies;
static long latencyCount = 0;
static struct {
    char name[48];
    long count;
} actions[MAX_ACTIONS];
static int actionCount = 0;


/* Requests */

static double *cumulated;       /* the Zipf law */
static long lastUnique = 0;
static long serial = 0;

static uint64_t randomNumber(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void prepareDraw(void)
{
    double sum = 0;
    lastUnique = (long)((seed >> 20) & 0x3fffff) << 28;
    cumulated = malloc(sizeof(double) * population);
    for (int i = 0; i < population; i++) {
        sum += 1.0 / (i + 1);
        cumulated[i] = sum;
    }
}

/* The number of the triplet to send. */
static long draw(void)
{
    if (!strcmp(mode, "same"))
        return 0;
    if (!strcmp(mode, "uniq"))
        return ++lastUnique;
    if (!strcmp(mode, "each"))
        return serial % population + 1;
    double wanted = (randomNumber() >> 11) * (1.0 / 9007199254740992.0) * cumulated[population - 1];
    long low = 0;
    long high = population - 1;
    while (low < high) {
        long middle = (low + high) / 2;
        if (cumulated[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low + 1;
}

/* A request as Postfix 3.x sends it at RCPT over TLS, about 630 octets. */
static int buildRequest(char *buffer, int size)
{
    long k = draw();
    uint64_t hash = (uint64_t)k * 2654435761ull ^ (uint64_t)k << 7;
    int octet1 = 11 + (hash >> 3) % 180;
    int octet2 = (hash >> 11) & 255;
    int octet3 = (hash >> 19) & 255;
    int octet4 = 1 + (hash >> 27) % 250;
    int clientPort = 1024 + hash % 60000;
    long host = k % 977;
    long domain = k % 4999;
    serial++;
    return snprintf(
        buffer, size,
        "request=smtpd_access_policy\n"
        "protocol_state=%s\n"
        "protocol_name=ESMTP\n"
        "client_address=%d.%d.%d.%d\n"
        "client_name=mail%ld.example%ld.net\n"
        "client_port=%d\n"
        "reverse_client_name=mail%ld.example%ld.net\n"
        "server_address=192.0.2.25\n"
        "server_port=25\n"
        "helo_name=mail%ld.example%ld.net\n"
        "sender=user%ld@example%ld.net\n"
        "recipient=rcpt%ld@example.org\n"
        "recipient_count=0\n"
        "queue_id=\n"
        "instance=%lx.%lx.%lx.0\n"
        "size=%ld\n"
        "etrn_domain=\n"
        "stress=\n"
        "sasl_method=\n"
        "sasl_username=\n"
        "sasl_sender=\n"
        "ccert_subject=\n"
        "ccert_issuer=\n"
        "ccert_fingerprint=\n"
        "ccert_pubkey_fingerprint=\n"
        "encryption_protocol=TLSv1.3\n"
        "encryption_cipher=TLS_AES_256_GCM_SHA384\n"
        "encryption_keysize=256\n"
        "policy_context=\n"
        "\n",
        state,
        octet1, octet2, octet3, octet4,
        host, domain,
        clientPort,
        host, domain,
        host, domain,
        k % 7919, domain,
        k % 613,
        serial, (long)(hash & 0xffff), serial >> 5,
        10000 + k % 100000);
}


/* Time and CPU */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Parent and CPU seconds of a process, as /proc/PID/stat has them. */
static void readProcess(int pid, int *parent, double *cpu)
{
    char path[64];
    char text[1024];
    unsigned long user = 0;
    unsigned long system = 0;
    *parent = 0;
    *cpu = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *rest = strrchr(text, ')');    /* the name before it may hold blanks and parentheses */
    if (!rest)
        return;
    sscanf(rest + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", parent, &user, &system);
    *cpu = (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static int isAsked(int pid)
{
    for (int i = 0; i < pidCount; i++)
        if (pids[i] == pid)
            return 1;
    return 0;
}

static int isBelow(int pid)
{
    int parent;
    double cpu;
    for (int depth = 0; pid > 1 && depth < MAX_DEPTH; depth++) {
        if (isAsked(pid))
            return 1;
        readProcess(pid, &parent, &cpu);
        pid = parent;
    }
    return 0;
}

/* CPU seconds of all processes of -k and their children. */
static double cpuOfServers(void)
{
    double sum = 0;
    struct dirent *entry;
    if (!pidCount)
        return 0;
    DIR *folder = opendir("/proc");
    while ((entry = readdir(folder))) {
        int pid = atoi(entry->d_name);
        int parent;
        double cpu;
        if (pid <= 0 || !isBelow(pid))
            continue;
        readProcess(pid, &parent, &cpu);
        sum += cpu;
    }
    closedir(folder);
    return sum;
}


/* Connections */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int dialUnix(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, target, sizeof address.sun_path - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail("connect");
    return fd;
}

static int dialTcp(void)
{
    char host[256];
    int one = 1;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    snprintf(host, sizeof host, "%s", target);
    char *colon = strrchr(host, ':');
    if (!colon) {
        fprintf(stderr, "%s is neither HOST:PORT nor a path\n", target);
        exit(2);
    }
    *colon = 0;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        fprintf(stderr, "cannot resolve %s\n", target);
        exit(1);
    }
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    freeaddrinfo(found);
    return fd;
}

static void dialAll(void)
{
    all = calloc(connections, sizeof *all);
    idle = calloc(connections, sizeof *idle);
    poller = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        all[i].fd = target[0] == '/' ? dialUnix() : dialTcp();
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    openCount = connections;
}

static void hangUp(Connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
    openCount--;
}

static void sendRequest(Connection *connection)
{
    char request[4096];
    int length = buildRequest(request, sizeof request);
    connection->inLength = 0;
    connection->sentAt = now();
    if (send(connection->fd, request, length, MSG_NOSIGNAL) != length) {
        errors++;
        hangUp(connection);
        return;
    }
    sent++;
}

static int isOver(void)
{
    return now() >= end || (limit && sent >= limit);
}

static int isTooEarly(void)
{
    return paceRate > 0 && now() < begin + sent / paceRate;
}

/* A connection has nothing under way: the next request, now or when its turn has come, or the end. */
static void proceed(Connection *connection)
{
    if (isOver())
        hangUp(connection);
    else if (isTooEarly())
        idle[idleCount++] = connection - all;
    else
        sendRequest(connection);
}

static void proceedIdle(void)
{
    while (idleCount > 0 && (isOver() || !isTooEarly()))
        proceed(&all[idle[--idleCount]]);
}

static void countAction(const char *reply)
{
    char name[48] = "?";
    const char *action = strstr(reply, "action=");
    if (action) {
        size_t length = strcspn(action + 7, " \n");
        if (length > sizeof name - 1)
            length = sizeof name - 1;
        memcpy(name, action + 7, length);
        name[length] = 0;
    }
    for (int i = 0; i < actionCount; i++) {
        if (!strcmp(actions[i].name, name)) {
            actions[i].count++;
            return;
        }
    }
    if (actionCount < MAX_ACTIONS) {
        strcpy(actions[actionCount].name, name);
        actions[actionCount].count = 1;
        actionCount++;
    }
}

static void receive(Connection *connection)
{
    int space = sizeof connection->in - 1 - connection->inLength;
    ssize_t got = recv(connection->fd, connection->in + connection->inLength, space, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        errors++;
        hangUp(connection);
        return;
    }
    connection->inLength += got;
    connection->in[connection->inLength] = 0;
    if (connection->inLength < 2 || memcmp(connection->in + connection->inLength - 2, "\n\n", 2) != 0)
        return;
    if (latencyCount < MAX_LATENCIES)
        latencies[latencyCount++] = (now() - connection->sentAt) * 1e6;
    done++;
    countAction(connection->in);
    proceed(connection);
}

/* How long epoll may wait, in milliseconds. */
static int patience(void)
{
    if (idleCount == 0)
        return 2000;
    double left = begin + sent / paceRate - now();
    return left > 0 ? (int)ceil(left * 1000) : 0;
}

static void run(void)
{
    struct epoll_event events[256];
    for (int i = 0; i < connections; i++)
        proceed(&all[i]);
    while (openCount > 0) {
        int count = epoll_wait(poller, events, 256, patience());
        for (int i = 0; i < count; i++) {
            Connection *connection = &all[events[i].data.u32];
            if (connection->fd >= 0)
                receive(connection);
        }
        proceedIdle();
        if (count == 0 && now() > end + PATIENCE) {
            errors += openCount;
            return;
        }
    }
}


/* The result */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double part)
{
    return latencyCount ? latencies[(long)((latencyCount - 1) * part)] : 0;
}

static void report(double elapsed, double cpu)
{
    qsort(latencies, latencyCount, sizeof *latencies, compare);
    printf("%s c=%d mode=%s: %.0f req/s  n=%ld err=%ld", target, connections, mode, done / elapsed, done, errors);
    printf("  us p50=%.0f p90=%.0f p99=%.0f max=%.0f",
           percentile(.5), percentile(.9), percentile(.99), percentile(1));
    if (pidCount)
        printf("  cpu_us/req=%.1f", cpu * 1e6 / (done ? done : 1));
    printf("  actions:");
    for (int i = 0; i < actionCount; i++)
        printf(" %s=%ld", actions[i].name, actions[i].count);
    printf("\n");
}

static void readOptions(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "c:d:n:m:p:s:k:e:r:")) != -1) {
        switch (option) {
        case 'c':
            connections = atoi(optarg);
            break;
        case 'd':
            seconds = atof(optarg);
            break;
        case 'n':
            limit = atol(optarg);
            break;
        case 'm':
            mode = optarg;
            break;
        case 'p':
            population = atoi(optarg);
            break;
        case 's':
            seed ^= strtoull(optarg, NULL, 10) * 0x9e3779b97f4a7c15ull;
            break;
        case 'k':
            if (pidCount < MAX_PIDS)
                pids[pidCount++] = atoi(optarg);
            break;
        case 'e':
            state = optarg;
            break;
        case 'r':
            paceRate = atof(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (optind >= argc) {
        fprintf(stderr, "policyload: which server? HOST:PORT or /unix/socket\n");
        exit(2);
    }
    target = argv[optind];
}

int main(int argc, char **argv)
{
    readOptions(argc, argv);
    prepareDraw();
    latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    dialAll();
    double cpu = cpuOfServers();
    begin = now();
    end = begin + seconds;
    run();
    double elapsed = now() - begin;
    report(elapsed, cpuOfServers() - cpu);
    return errors ? 1 : 0;
}
