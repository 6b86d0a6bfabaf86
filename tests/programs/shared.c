/* shared.c - one TCP connection, many threads at each end: writers, readers, and others that
 * look at it in passing.
 *
 *   shared server PORT BYTES
 *   shared client PORT BYTES
 *
 * Each writer sends BYTES bytes of its own value; the readers together must count exactly so
 * many of each. Prints "ok". Knows nothing of loopfuse.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WRITERS = 3, READERS = 3, LARGEST = 5000 };

static int sock;
static size_t share;
static _Atomic size_t counted[WRITERS];
static _Atomic int done;

static void check(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

static void *writer(void *arg)
{
	int me = (int)(intptr_t)arg;
	unsigned seed = (unsigned)me + 1;
	char piece[LARGEST];
	memset(piece, me, sizeof(piece));
	for (size_t sent = 0; sent < share;) {
		size_t n = 1 + (size_t)rand_r(&seed) % LARGEST;
		if (n > share - sent)
			n = share - sent;
		ssize_t r = rand_r(&seed) % 2 ? send(sock, piece, n, MSG_NOSIGNAL) : write(sock, piece, n);
		check(r > 0, "send");
		sent += (size_t)r;
	}
	return NULL;
}

static void *reader(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg + 100;
	unsigned char piece[LARGEST];
	for (;;) {
		size_t n = 1 + (size_t)rand_r(&seed) % LARGEST;
		ssize_t r = rand_r(&seed) % 2 ? recv(sock, piece, n, 0) : read(sock, piece, n);
		check(r >= 0, "recv");
		if (r == 0)
			return NULL;
		for (ssize_t i = 0; i < r; i++) {
			check(piece[i] < WRITERS, "a foreign byte");
			atomic_fetch_add(&counted[piece[i]], 1);
		}
	}
}

/* Calls that must not disturb anybody. */
static void *onlooker(void *arg)
{
	(void)arg;
	int ep = epoll_create1(0);
	while (!atomic_load(&done)) {
		int copy = dup(sock), n = 0, error = 0;
		socklen_t len = sizeof(error);
		struct pollfd p = {.fd = copy, .events = POLLIN | POLLOUT};
		struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
		char byte;
		check(copy >= 0, "dup");
		check(poll(&p, 1, 1) >= 0, "poll");
		check(ioctl(copy, FIONREAD, &n) == 0 && n >= 0, "FIONREAD");
		check(getsockopt(copy, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && !error, "SO_ERROR");
		(void)!recv(copy, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, sock, &event) == 0) {
			check(epoll_wait(ep, &event, 1, 1) >= 0, "epoll_wait");
			check(epoll_ctl(ep, EPOLL_CTL_DEL, sock, NULL) == 0, "epoll_ctl");
		}
		check(close(copy) == 0, "close");
	}
	close(ep);
	return NULL;
}

/* One after the other, so that lazy pairing gets its chance before the crowd comes in. */
static void warm_up(int client)
{
	char byte = 0;
	for (int i = 0; i < 300; i++) {
		if (client)
			check(send(sock, &byte, 1, 0) == 1, "send");
		check(recv(sock, &byte, 1, MSG_WAITALL) == 1, "recv");
		if (!client)
			check(send(sock, &byte, 1, 0) == 1, "send");
		if (i < 20)
			usleep(1000);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int client = strcmp(argv[1], "client") == 0, one = 1;
	share = strtoul(argv[3], NULL, 10);
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)atoi(argv[2])),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	sock = socket(AF_INET, SOCK_STREAM, 0);
	if (client) {
		check(connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0, "connect");
	} else {
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		check(bind(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0, "bind");
		check(listen(sock, 1) == 0, "listen");
		sock = accept(sock, NULL, NULL);
		check(sock >= 0, "accept");
	}
	warm_up(client);
	pthread_t writers[WRITERS], readers[READERS], other;
	pthread_create(&other, NULL, onlooker, NULL);
	for (intptr_t i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, reader, (void *)i);
	for (intptr_t i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, writer, (void *)i);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	check(shutdown(sock, SHUT_WR) == 0, "shutdown");
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	atomic_store(&done, 1);
	pthread_join(other, NULL);
	for (int i = 0; i < WRITERS; i++)
		check(atomic_load(&counted[i]) == share, "bytes lost or doubled");
	close(sock);
	puts("ok");
	return 0;
}
