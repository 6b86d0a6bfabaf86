/* many.c - many connections at once between two processes, each echoing, by epoll.
 * Knows nothing of loopfuse.
 *
 *   many server PORT
 *   many client PORT CONNECTIONS ROUNDS [hold]
 *
 * The client opens all connections, sends ROUNDS messages on each in turn and compares
 * the echoes. "hold": prints "ready" and waits for a line on standard input before it
 * sends the last round and closes. Exit status 0: every echo was right.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE = 64, EVENTS = 256 };

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "many: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void add(int ep, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static void serve(struct sockaddr_in *addr)
{
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)addr, sizeof(*addr)) || listen(listener, 4096))
		fail("bind");
	int ep = epoll_create1(EPOLL_CLOEXEC);
	add(ep, listener);
	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				int c;
				while ((c = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
					add(ep, c);
				if (errno != EAGAIN && errno != ECONNABORTED)
					fail("accept");
				continue;
			}
			char buf[4096];
			ssize_t r = read(fd, buf, sizeof(buf));
			if (r > 0 && write(fd, buf, (size_t)r) != r)
				fail("server write");
			if (r == 0 || (r < 0 && errno != EAGAIN))
				close(fd);
		}
	}
}

static void fill(char *message, int connection, int round)
{
	memset(message, 'a' + (connection + round) % 26, MESSAGE);
	memcpy(message, &connection, sizeof(connection));
	memcpy(message + sizeof(connection), &round, sizeof(round));
}

/* Sends on every connection, then takes every echo. */
static void one_round(int ep, const int *fds, int n, int round)
{
	char message[MESSAGE], echo[MESSAGE];
	for (int i = 0; i < n; i++) {
		fill(message, i, round);
		if (write(fds[i], message, MESSAGE) != MESSAGE)
			fail("client write");
	}
	for (int left = n; left > 0;) {
		struct epoll_event events[EVENTS];
		int got = epoll_wait(ep, events, EVENTS, 20000);
		if (got <= 0) {
			fprintf(stderr, "many: %d echoes missing in round %d\n", left, round);
			exit(1);
		}
		for (int k = 0; k < got; k++) {
			int i = events[k].data.fd;
			if (recv(fds[i], echo, MESSAGE, MSG_WAITALL) != MESSAGE)
				fail("client read");
			fill(message, i, round);
			if (memcmp(message, echo, MESSAGE)) {
				fprintf(stderr, "many: wrong echo on connection %d\n", i);
				exit(1);
			}
			left--;
		}
	}
}

static void ask(struct sockaddr_in *addr, int n, int rounds, bool hold)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), *fds = calloc((size_t)n, sizeof(*fds));
	for (int i = 0; i < n; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)addr, sizeof(*addr)))
			fail("connect");
		struct epoll_event event = {.events = EPOLLIN, .data.fd = i};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &event))
			fail("epoll_ctl");
	}
	for (int round = 0; round < rounds; round++)
		one_round(ep, fds, n, round);
	if (hold) {
		puts("ready");
		fflush(stdout);
		(void)getchar();
		one_round(ep, fds, n, rounds);
	}
	for (int i = 0; i < n; i++)
		close(fds[i]);
	puts("ok");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)atoi(argv[2])),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (strcmp(argv[1], "server") == 0)
		serve(&addr);
	else
		ask(&addr, atoi(argv[3]), atoi(argv[4]), argc > 5);
	return 0;
}
