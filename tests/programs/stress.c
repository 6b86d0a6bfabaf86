/* stress.c - both ends of connections that send and receive in every way at once and
 * check each byte. Knows nothing of loopfuse: run it plain or preloaded.
 *
 *   stress server PORT CONNECTIONS
 *   stress client PORT CONNECTIONS BYTES SEED [duplex|pingpong]
 *
 * Each connection carries BYTES of a pseudo-random stream each way; sizes and calls are
 * drawn from SEED. Exit status 0: every byte came, once and in order.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BIGGEST = 300000 };

struct rng {
	uint64_t state;
};

static uint64_t next(struct rng *rng)
{
	rng->state ^= rng->state << 13;
	rng->state ^= rng->state >> 7;
	rng->state ^= rng->state << 17;
	return rng->state;
}

/* Mostly small, sometimes large. */
static size_t some_size(struct rng *rng)
{
	switch (next(rng) % 8) {
	case 0:
		return 1;
	case 1:
		return 1 + next(rng) % BIGGEST;
	case 2:
		return 1 + next(rng) % 20000;
	default:
		return 1 + next(rng) % 700;
	}
}

static uint8_t byte_at(uint64_t stream, uint64_t position)
{
	uint64_t x = (position >> 3) * 0x9e3779b97f4a7c15u ^ stream;
	x ^= x >> 29;
	return (uint8_t)((x * 0xbf58476d1ce4e5b9u) >> (8 * (position & 7)));
}

struct side {
	int fd;
	uint64_t bytes, seed, stream;
	const char *what;
};

static _Noreturn void fail(const char *what, const struct side *side, uint64_t at)
{
	fprintf(stderr, "stress: %s %s at byte %llu: %s\n", side->what, what, (unsigned long long)at,
		strerror(errno));
	_exit(1);
}

static void wait_until(int fd, short events, struct rng *rng)
{
	uint64_t how = next(rng) % 3;
	if (how == 0) {
		struct pollfd p = {.fd = fd, .events = events};
		poll(&p, 1, 10000);
	} else if (how == 1) {
		fd_set set;
		FD_ZERO(&set);
		FD_SET(fd, &set);
		struct timeval tv = {10, 0};
		select(fd + 1, events == POLLIN ? &set : NULL, events == POLLOUT ? &set : NULL, NULL, &tv);
	} else {
		struct pollfd p = {.fd = fd, .events = events};
		struct timespec ts = {10, 0};
		ppoll(&p, 1, &ts, NULL);
	}
}

static ssize_t send_somehow(int fd, const uint8_t *buf, size_t n, struct rng *rng)
{
	struct iovec iov[3] = {{(void *)(uintptr_t)buf, n / 3},
			       {(void *)(uintptr_t)(buf + n / 3), n / 3},
			       {(void *)(uintptr_t)(buf + 2 * (n / 3)), n - 2 * (n / 3)}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 3};
	switch (next(rng) % 6) {
	case 0:
		return write(fd, buf, n);
	case 1:
		return send(fd, buf, n, MSG_NOSIGNAL);
	case 2:
		return send(fd, buf, n, MSG_DONTWAIT | MSG_MORE);
	case 3:
		return writev(fd, iov, 3);
	case 4:
		return sendmsg(fd, &msg, 0);
	default:
		return sendto(fd, buf, n, 0, NULL, 0);
	}
}

static void *sender(void *arg)
{
	const struct side *side = arg;
	struct rng rng = {side->seed | 1};
	uint8_t *buf = malloc(BIGGEST);
	uint64_t at = 0;
	while (at < side->bytes) {
		size_t n = some_size(&rng);
		if (n > side->bytes - at)
			n = (size_t)(side->bytes - at);
		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(side->stream, at + i);
		for (size_t done = 0; done < n;) {
			ssize_t r = send_somehow(side->fd, buf + done, n - done, &rng);
			if (r > 0)
				done += (size_t)r;
			else if (errno == EAGAIN)
				wait_until(side->fd, POLLOUT, &rng);
			else if (errno != EINTR)
				fail("send", side, at + done);
		}
		at += n;
		if (next(&rng) % 64 == 0)
			usleep((useconds_t)(next(&rng) % 300));
	}
	free(buf);
	return NULL;
}

static ssize_t receive_somehow(int fd, uint8_t *buf, size_t n, struct rng *rng)
{
	struct iovec iov[2] = {{buf, n / 2}, {buf + n / 2, n - n / 2}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	switch (next(rng) % 7) {
	case 0:
		return read(fd, buf, n);
	case 1:
		return recv(fd, buf, n, MSG_DONTWAIT);
	case 2:
		return readv(fd, iov, 2);
	case 3:
		return recvmsg(fd, &msg, 0);
	case 4: {
		ssize_t seen = recv(fd, buf, n < 64 ? n : 64, MSG_PEEK);
		if (seen <= 0)
			return seen;
		uint8_t copy[64];
		memcpy(copy, buf, (size_t)seen);
		ssize_t r = recv(fd, buf, n, 0);
		if (r <= 0 || memcmp(copy, buf, (size_t)(r < seen ? r : seen)) != 0)
			errno = EBADMSG, r = -1;
		return r;
	}
	case 5:
		wait_until(fd, POLLIN, rng);
		return recvfrom(fd, buf, n, MSG_DONTWAIT, NULL, NULL);
	default:
		return recv(fd, buf, n, 0);
	}
}

static void *receiver(void *arg)
{
	const struct side *side = arg;
	struct rng rng = {(side->seed * 31) | 1};
	uint8_t *buf = malloc(BIGGEST);
	uint64_t at = 0;
	while (at < side->bytes) {
		ssize_t r = receive_somehow(side->fd, buf, some_size(&rng), &rng);
		if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
			wait_until(side->fd, POLLIN, &rng);
			continue;
		}
		if (r <= 0)
			fail(r ? "receive" : "early end of file", side, at);
		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != byte_at(side->stream, at + (uint64_t)i))
				fail("wrong byte", side, at + (uint64_t)i);
		at += (uint64_t)r;
		if (next(&rng) % 64 == 0)
			usleep((useconds_t)(next(&rng) % 300));
	}
	free(buf);
	return NULL;
}

struct order { /* what the client tells the server first */
	uint64_t bytes, seed;
};

struct job {
	int fd;
	bool client;
	struct order order;
};

static void *connection(void *arg)
{
	struct job *job = arg;
	if (job->client) {
		if (send(job->fd, &job->order, sizeof(job->order), 0) != sizeof(job->order))
			_exit(1);
	} else if (recv(job->fd, &job->order, sizeof(job->order), MSG_WAITALL) != sizeof(job->order)) {
		_exit(1);
	}
	uint64_t seed = job->order.seed;
	struct side out = {job->fd, job->order.bytes, seed + job->client, seed ^ job->client,
			   job->client ? "client" : "server"};
	struct side in = {job->fd, job->order.bytes, seed + job->client + 7, seed ^ !job->client,
			  out.what};
	pthread_t thread;
	pthread_create(&thread, NULL, sender, &out);
	receiver(&in);
	pthread_join(thread, NULL);
	/* Half-close, then nothing but end of file may come. */
	shutdown(job->fd, SHUT_WR);
	char byte;
	ssize_t r = recv(job->fd, &byte, 1, 0);
	if (r != 0)
		fail(r < 0 ? "end" : "a byte after the last", &in, in.bytes);
	close(job->fd);
	free(job);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	bool client = strcmp(argv[1], "client") == 0;
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)atoi(argv[2])),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int n = atoi(argv[3]), listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!client && (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 128)))
		return perror("stress: bind"), 1;
	pthread_t *threads = calloc((size_t)n, sizeof(*threads));
	for (int i = 0; i < n; i++) {
		struct job *job = calloc(1, sizeof(*job));
		job->client = client;
		if (client) {
			job->order = (struct order){strtoull(argv[4], NULL, 10),
						    strtoull(argv[5], NULL, 10) * 1000003 + (uint64_t)i};
			job->fd = socket(AF_INET, SOCK_STREAM, 0);
			if (connect(job->fd, (struct sockaddr *)&addr, sizeof(addr)))
				return perror("stress: connect"), 1;
		} else {
			job->fd = accept(listener, NULL, NULL);
		}
		pthread_create(&threads[i], NULL, connection, job);
	}
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	puts("ok");
	return 0;
}
