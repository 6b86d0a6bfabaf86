/* work_idle.c - connections on which nobody says anything: both ends sleep, in recv on one
 * connection and in epoll_wait on several, until a signal wakes the client, which then asks
 * once more on each. Whoever started us looks meanwhile at what sleeping costs: one that looked
 * at itself would not be asleep.
 */
#define _GNU_SOURCE
#include "channel.h"
#include "work.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static char there[MEASURE_BIGGEST], back[MEASURE_BIGGEST];

void work_idle_serve(const struct measure_order *order)
{
	if (order->connections == 1)
		work_roundtrip_serve(order);
	else
		work_many_serve(order);
}

static void ask_all(const struct measure_order *order, const struct channel *channels)
{
	for (int i = 0; i < order->connections; i++) {
		there[0]++;
		channel_put(&channels[i], there, order->size);
		if (!channel_take(&channels[i], back, order->size) ||
		    memcmp(there, back, order->size) != 0)
			measure_wrong("a message did not come back as it was sent");
	}
}

static void woken(int number)
{
	(void)number;
}

/* One call that lasts until the signal. */
static void sleep_in_one_call(const struct measure_order *order, int fd, int ep)
{
	struct epoll_event event;
	ssize_t n = order->connections == 1 ? recv(fd, back, 1, 0) : epoll_wait(ep, &event, 1, -1);
	if (n >= 0)
		measure_wrong("something came on an idle connection");
	if (errno != EINTR)
		measure_fail("sleeping");
}

void work_idle_ask(const struct measure_order *order)
{
	struct channel *channels = calloc((size_t)order->connections, sizeof(*channels));
	struct sigaction action = {.sa_handler = woken}; /* no SA_RESTART: the call ends */
	int ep = epoll_create1(EPOLL_CLOEXEC);
	if (!channels || ep == -1 || sigaction(SIGALRM, &action, NULL))
		measure_fail("preparing to sleep");
	for (int i = 0; i < order->connections; i++) {
		struct epoll_event event = {.events = EPOLLIN};
		channels[i] = channel_connect(order);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, channels[i].fd, &event))
			measure_fail("epoll_ctl");
	}
	do
		ask_all(order, channels);
	while (measure_warming());
	puts("asleep");
	fflush(stdout);
	sleep_in_one_call(order, channels[0].fd, ep);
	ask_all(order, channels);
	puts("awake");
	measure_hold();
}
