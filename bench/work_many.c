/* work_many.c - many connections, by epoll on both sides. In each round a message goes out
 * on every active one, then all the echoes are taken in; the others idle.
 */
#define _GNU_SOURCE
#include "channel.h"
#include "meter.h"
#include "work.h"

#include "../csrc/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256 };

static char buffer[MEASURE_BIGGEST];

static int epoll_wait_as(const struct measure_order *order, int ep, struct epoll_event *events)
{
	int n = epoll_wait(ep, events, EVENTS, order->polling ? 0 : -1);
	if (n < 0 && errno != EINTR)
		measure_fail("epoll_wait");
	if (n <= 0)
		measure_busy();
	return n;
}

static void add(int ep, int fd, int name)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = name};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event))
		measure_fail("epoll_ctl");
}

static void accept_all(int ep, int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		add(ep, fd, fd);
	if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		measure_fail("accept");
}

/* Echoes what has come, which the socket's buffer has room for: the client waits for it. */
static void echo(int fd)
{
	ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
	if (n > 0 && send(fd, buffer, (size_t)n, MSG_NOSIGNAL) != n)
		measure_fail("send of an echo");
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		close(fd);
}

void work_many_serve(const struct measure_order *order)
{
	struct measure_order listening = *order;
	listening.polling = true; /* accept4() until there is nobody */
	int listener = channel_listen(&listening), ep = epoll_create1(EPOLL_CLOEXEC);
	add(ep, listener, listener);
	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait_as(order, ep, events);
		for (int i = 0; i < n; i++)
			if (events[i].data.fd == listener)
				accept_all(ep, listener);
			else
				echo(events[i].data.fd);
	}
}

struct crowd {
	const struct measure_order *order;
	struct channel *channels;
	int64_t *sent_at;
	char *wanted; /* the message of a round, but for its first bytes */
	int ep;
	uint64_t round;
	struct histogram latencies;
};

/* A message's first bytes name connection and round, as far as they fit. */
static void mark(const struct crowd *crowd, int connection)
{
	struct {
		uint32_t connection, round;
	} name = {(uint32_t)connection, (uint32_t)crowd->round};
	size_t size = crowd->order->size;
	memcpy(crowd->wanted, &name, size < sizeof(name) ? size : sizeof(name));
}

static void take_echo(struct crowd *crowd, int connection)
{
	size_t size = crowd->order->size;
	if (!channel_take(&crowd->channels[connection], buffer, size))
		measure_wrong("the server has closed a connection");
	mark(crowd, connection);
	if (memcmp(buffer, crowd->wanted, size) != 0)
		measure_wrong("a message did not come back as it was sent");
	histogram_add(&crowd->latencies, (uint64_t)(lf_now() - crowd->sent_at[connection]));
}

/* `active` connections, spread over all. */
static void one_round(struct crowd *crowd, int active)
{
	const struct measure_order *order = crowd->order;
	int step = order->connections / active;
	crowd->round++;
	for (int i = 0; i < active; i++) {
		int connection = i * step;
		mark(crowd, connection);
		crowd->sent_at[connection] = lf_now();
		channel_put(&crowd->channels[connection], crowd->wanted, order->size);
	}
	for (int left = active; left > 0;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait_as(order, crowd->ep, events);
		for (int i = 0; i < n; i++, left--)
			take_echo(crowd, events[i].data.fd);
	}
}

void work_many_ask(const struct measure_order *order)
{
	static struct crowd crowd;
	size_t n = (size_t)order->connections;
	struct meter meter;
	crowd.order = order;
	crowd.ep = epoll_create1(EPOLL_CLOEXEC);
	crowd.channels = calloc(n, sizeof(*crowd.channels));
	crowd.sent_at = calloc(n, sizeof(*crowd.sent_at));
	crowd.wanted = calloc(1, MEASURE_BIGGEST);
	if (crowd.ep == -1 || !crowd.channels || !crowd.sent_at || !crowd.wanted)
		measure_fail("memory for the connections");
	for (int i = 0; i < order->connections; i++) {
		crowd.channels[i] = channel_connect(order);
		add(crowd.ep, crowd.channels[i].fd, i);
	}
	/* All of them, so that those that will idle have talked too. */
	do
		one_round(&crowd, order->connections);
	while (measure_warming());
	memset(&crowd.latencies, 0, sizeof(crowd.latencies));
	meter_start(&meter, order);
	do
		one_round(&crowd, order->active);
	while (!meter_over(&meter, lf_now()));
	meter_stop(&meter);
	uint64_t count = crowd.latencies.count;
	meter_print(&meter, count, count * order->size * 2, &crowd.latencies);
	measure_hold();
	for (int i = 0; i < order->connections; i++)
		channel_close(&crowd.channels[i]);
}
