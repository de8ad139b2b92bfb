/*
 * floor: the smallest policy server. It finds the blank line and answers dunno: what the kernel and the
 * loopback cost, and what no server with work to do can beat.
 *
 * usage: floor PORT        (listens on 127.0.0.1)
 *
 * One thread, epoll, one request in one segment, as policyload and Postfix send it. No error handling beyond
 * the start: it serves the benchmark and nobody else.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char ANSWER[] = "action=dunno\n\n";
static char buffer[65536];
static int poller;

static void watch(int socket)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event);
}

static int listenOn(int port)
{
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("bind");
        exit(1);
    }
    listen(listener, 1024);
    return listener;
}

static void welcome(int listener)
{
    int one = 1;
    int client = accept(listener, NULL, NULL);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(client);
}

static void serve(int client)
{
    ssize_t length = recv(client, buffer, sizeof buffer - 1, 0);
    if (length <= 0) {
        close(client);
        return;
    }
    buffer[length] = 0;
    if (strstr(buffer, "\n\n"))
        send(client, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    int listener = listenOn(atoi(argv[1]));
    struct epoll_event ready[64];
    poller = epoll_create1(0);
    watch(listener);
    for (;;) {
        int count = epoll_wait(poller, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener)
                welcome(listener);
            else
                serve(ready[i].data.fd);
        }
    }
}
