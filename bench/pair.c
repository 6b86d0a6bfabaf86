/* pair.c - two processes, one TCP connection: round trips or a one-way stream.
 *
 *   pair server PORT
 *   pair client PORT rtt BYTES SECONDS       prints microseconds per round trip
 *   pair client PORT stream BYTES SECONDS    prints bytes per second
 *
 * Knows nothing of loopfuse. The first tenth of a second is not counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BIGGEST = 1 << 20 };
static char buffer[BIGGEST];

struct order {
	uint32_t stream, size;
};

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int take(int fd, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t r = recv(fd, buffer + got, n - got, 0);
		if (r <= 0)
			return 0;
		got += (size_t)r;
	}
	return 1;
}

static void put(int fd, size_t n)
{
	for (size_t sent = 0; sent < n;) {
		ssize_t r = send(fd, buffer + sent, n - sent, MSG_NOSIGNAL);
		if (r <= 0)
			exit(1);
		sent += (size_t)r;
	}
}

static void serve(int fd)
{
	struct order order;
	if (recv(fd, &order, sizeof(order), MSG_WAITALL) != sizeof(order))
		return;
	if (order.stream) {
		while (recv(fd, buffer, sizeof(buffer), 0) > 0)
			;
		return;
	}
	while (take(fd, order.size))
		put(fd, order.size);
}

static void ask(int fd, int stream, size_t size, double seconds)
{
	struct order order = {(uint32_t)stream, (uint32_t)size};
	if (send(fd, &order, sizeof(order), 0) != sizeof(order))
		exit(1);
	double start = now() + 0.1, at;
	uint64_t count = 0;
	while ((at = now()) < start + seconds) {
		if (at < start)
			count = 0;
		for (int i = 0; i < 16; i++, count++) {
			put(fd, size);
			if (!stream && !take(fd, size))
				exit(1);
		}
	}
	at -= start;
	printf("%.3f\n", stream ? (double)count * (double)size / at : at * 1e6 / (double)count);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)atoi(argv[2])),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	if (strcmp(argv[1], "client") == 0 && argc == 6) {
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
			return perror("pair: connect"), 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		ask(fd, strcmp(argv[3], "stream") == 0, strtoul(argv[4], NULL, 10), atof(argv[5]));
		return 0;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 16))
		return perror("pair: bind"), 1;
	for (;;) {
		int connection = accept(fd, NULL, NULL);
		setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		serve(connection);
		close(connection);
	}
}
