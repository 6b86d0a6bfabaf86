/* channel.c - see channel.h. */
#define _GNU_SOURCE
#include "channel.h"
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_un un;
};

static socklen_t address_of(const struct measure_order *order, union address *address)
{
	memset(address, 0, sizeof(*address));
	if (order->over == OVER_TCP) {
		address->in.sin_family = AF_INET;
		address->in.sin_port = htons((uint16_t)atoi(order->at));
		address->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(address->in);
	}
	address->un.sun_family = AF_UNIX;
	if (strlen(order->at) >= sizeof(address->un.sun_path))
		measure_wrong("the path of the socket is too long");
	strcpy(address->un.sun_path, order->at);
	return sizeof(address->un);
}

static struct channel over_socket(const struct measure_order *order, int fd)
{
	int one = 1;
	if (order->over == OVER_TCP)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return (struct channel){.fd = fd, .polling = order->polling};
}

int channel_listen(const struct measure_order *order)
{
	union address address;
	socklen_t length = address_of(order, &address);
	int flags = SOCK_STREAM | SOCK_CLOEXEC | (order->polling ? SOCK_NONBLOCK : 0);
	int listener = socket(address.any.sa_family, flags, 0), one = 1;
	if (listener == -1)
		measure_fail("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, &address.any, length) || listen(listener, 4096))
		measure_fail("bind");
	if (order->over == OVER_TCP) {
		char port[16];
		if (getsockname(listener, &address.any, &length))
			measure_fail("getsockname");
		snprintf(port, sizeof(port), "%u", (unsigned)ntohs(address.in.sin_port));
		measure_ready(port);
	} else {
		measure_ready(order->at);
	}
	return listener;
}

struct channel channel_accept(const struct measure_order *order, int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL,
				 SOCK_CLOEXEC | (order->polling ? SOCK_NONBLOCK : 0));
		if (fd >= 0)
			return over_socket(order, fd);
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			measure_fail("accept");
		measure_busy();
	}
}

struct channel channel_serve(const struct measure_order *order)
{
	if (order->over == OVER_RING) {
		struct floor_end *floor = floor_open(order);
		measure_ready(order->at);
		return (struct channel){.fd = -1, .floor = floor};
	}
	int listener = channel_listen(order);
	struct channel channel = channel_accept(order, listener);
	close(listener);
	return channel;
}

struct channel channel_connect(const struct measure_order *order)
{
	if (order->over == OVER_RING)
		return (struct channel){.fd = -1, .floor = floor_open(order)};
	union address address;
	socklen_t length = address_of(order, &address);
	int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1 || connect(fd, &address.any, length))
		measure_fail("connect");
	/* Only now: a connect(2) that does not wait would be another measurement. */
	if (order->polling && fcntl(fd, F_SETFL, O_NONBLOCK))
		measure_fail("fcntl");
	return over_socket(order, fd);
}

void channel_pair(const struct measure_order *order, struct channel ends[2])
{
	struct measure_order there = *order;
	union address address;
	socklen_t length = sizeof(address);
	char port[16];
	int listener = channel_listen(order);
	if (order->over == OVER_TCP) {
		if (getsockname(listener, &address.any, &length))
			measure_fail("getsockname");
		snprintf(port, sizeof(port), "%u", (unsigned)ntohs(address.in.sin_port));
		there.at = port;
	}
	ends[0] = channel_connect(&there);
	ends[1] = channel_accept(order, listener);
	close(listener);
}

/* Is a call that failed to be tried again? */
static bool again(const struct channel *channel)
{
	if (errno == EAGAIN && channel->polling) {
		measure_busy();
		return true;
	}
	return errno == EINTR;
}

void channel_put(const struct channel *channel, const char *bytes, size_t n)
{
	while (n) {
		ssize_t done;
		if (channel->floor)
			done = (ssize_t)floor_put(channel->floor, bytes, n);
		else
			done = send(channel->fd, bytes, n, MSG_NOSIGNAL);
		if (done < 0 && again(channel))
			continue;
		if (done < 0)
			measure_fail("send");
		bytes += done;
		n -= (size_t)done;
	}
}

size_t channel_some(const struct channel *channel, char *bytes, size_t n)
{
	if (channel->floor)
		return floor_take(channel->floor, bytes, n);
	for (;;) {
		ssize_t done = recv(channel->fd, bytes, n, 0);
		if (done >= 0)
			return (size_t)done;
		if (!again(channel))
			measure_fail("recv");
	}
}

bool channel_take(const struct channel *channel, char *bytes, size_t n)
{
	for (size_t got = 0; got < n;) {
		size_t done = channel_some(channel, bytes + got, n - got);
		if (done == 0 && got)
			measure_wrong("the other end closed in the middle of a message");
		if (done == 0)
			return false;
		got += done;
	}
	return true;
}

void channel_finish(const struct channel *channel)
{
	if (channel->floor)
		floor_finish(channel->floor);
	else if (shutdown(channel->fd, SHUT_WR))
		measure_fail("shutdown");
}

void channel_close(struct channel *channel)
{
	if (channel->floor)
		floor_finish(channel->floor);
	else
		close(channel->fd);
}
