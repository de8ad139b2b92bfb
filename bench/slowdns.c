/*
 * slowdns: a name server that takes its time. It answers every question of type A, MX, PTR, TXT and NS alike, but
 * for names below listed.example, which do not exist, except for the point that a list must have (RFC 5782, 5).
 *
 * usage: slowdns PORT MILLISECONDS        (UDP, on 127.0.0.1)
 *
 * One thread. All answers take equally long, so they leave in the order of the questions. No error handling beyond
 * the start: it serves the benchmark and nobody else, and should take as little of the machine as it can.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define MOST 512             /* octets of a message over UDP (RFC 1035, 2.3.4) */
#define WAITING (1 << 14)    /* answers that wait; who asks more gets none */
#define HEADER 12
#define TTL 0, 0, 14, 16     /* an hour: what is known must last as long as a measurement */
#define POINTER 0xc0, HEADER /* the name in the question (RFC 1035, 4.1.4) */
#define HOST 4, 'm', 'a', 'i', 'l', 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', 3, 'n', 'e', 't', 0

enum { A = 1, NS = 2, SOA = 6, PTR = 12, MX = 15, TXT = 16 };

static const unsigned char ADDRESS[] = {POINTER, 0, A, 0, 1, TTL, 0, 4, 198, 51, 100, 7};
static const unsigned char LISTED[] = {POINTER, 0, A, 0, 1, TTL, 0, 4, 127, 0, 0, 2};
static const unsigned char SERVER[] = {POINTER, 0, NS, 0, 1, TTL, 0, 18, HOST};
static const unsigned char NAME[] = {POINTER, 0, PTR, 0, 1, TTL, 0, 18, HOST};
static const unsigned char EXCHANGE[] = {POINTER, 0, MX, 0, 1, TTL, 0, 20, 0, 10, HOST};
static const unsigned char RECORD[] = {POINTER, 0, TXT, 0, 1, TTL, 0, 32, 31, 'v', '=', 's', 'p', 'f', '1', ' ',
    'i', 'p', '4', ':', '1', '9', '2', '.', '0', '.', '2', '.', '0', '/', '2', '4', ' ', 'm', 'x', ' ', '-', 'a',
    'l', 'l'};
/* That there is nothing, for an hour (RFC 2308). */
static const unsigned char NOTHING[] = {POINTER, 0, SOA, 0, 1, TTL, 0, 22, 0, 0, 0, 0, 0, 1, 0, 0, 0, 60, 0, 0, 0,
    60, 0, 0, 0, 60, TTL};
static const unsigned char ZONE[] = "\6listed\7example";
static const unsigned char POINT[] = "\0012\0010\0010\003127";

static struct Answer {
    double due;
    struct sockaddr_in client;
    size_t length;
    unsigned char octets[MOST];
} waiting[WAITING];
static unsigned first, last;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Make the reply of a question, in its place. The length, 0 for what is no question. */
static size_t reply(unsigned char *octets, size_t length)
{
    const unsigned char *record = NULL;
    size_t size = 0, end = HEADER;
    unsigned char name[MOST];
    while (end < length && octets[end] != 0)
        end += 1 + octets[end];
    if (end + 5 > length)
        return 0;
    int kind = octets[end + 2];
    end += 5;
    for (size_t place = HEADER; place < end; place++)
        name[place] = tolower(octets[place]);
    if (memmem(name + HEADER, end - HEADER, ZONE, sizeof ZONE) != NULL) {
        if (kind == A && memcmp(name + HEADER, POINT, sizeof POINT - 1) == 0)
            record = LISTED, size = sizeof LISTED;
    } else {
        switch (kind) {
        case A: record = ADDRESS, size = sizeof ADDRESS; break;
        case NS: record = SERVER, size = sizeof SERVER; break;
        case PTR: record = NAME, size = sizeof NAME; break;
        case MX: record = EXCHANGE, size = sizeof EXCHANGE; break;
        case TXT: record = RECORD, size = sizeof RECORD; break;
        }
    }
    const unsigned char found[] = {0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0};
    const unsigned char none[] = {0x81, 0x83, 0, 1, 0, 0, 0, 1, 0, 0};
    memcpy(octets + 2, record == NULL ? none : found, sizeof found);
    if (record == NULL)
        record = NOTHING, size = sizeof NOTHING;
    if (end + size > MOST)
        return 0;
    memcpy(octets + end, record, size);
    return end + size;
}

static void receive(int server, double delay)
{
    while (last - first < WAITING) {
        struct Answer *answer = &waiting[last % WAITING];
        socklen_t size = sizeof answer->client;
        ssize_t length = recvfrom(
            server, answer->octets, MOST, MSG_DONTWAIT, (struct sockaddr *)&answer->client, &size);
        if (length < 0)
            return;
        answer->length = reply(answer->octets, length);
        answer->due = now() + delay;
        last += answer->length > 0;
    }
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: slowdns PORT MILLISECONDS\n");
        return 2;
    }
    double delay = atof(words[2]) / 1000;
    int room = 8 << 20; /* without it questions are lost when many come at once */
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(words[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(server, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(server, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room); /* for root, beyond the system's bound */
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("bind");
        return 1;
    }
    struct pollfd polled = {.fd = server, .events = POLLIN};
    for (;;) {
        double left = first == last ? 3600 : waiting[first % WAITING].due - now();
        if (left > 0) {
            struct timespec pause = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
            ppoll(&polled, 1, &pause, NULL);
        }
        receive(server, delay);
        for (double time = now(); first != last && waiting[first % WAITING].due <= time; first++) {
            struct Answer *answer = &waiting[first % WAITING];
            sendto(server, answer->octets, answer->length, MSG_DONTWAIT, (struct sockaddr *)&answer->client,
                sizeof answer->client);
        }
    }
}
