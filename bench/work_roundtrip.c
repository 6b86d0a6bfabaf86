/* work_roundtrip.c - a message goes out and comes back: between two processes, or between
 * two sockets of this one, where what it costs is the code alone.
 */
#define _GNU_SOURCE
#include "channel.h"
#include "meter.h"
#include "sockmap.h"
#include "work.h"

#include "../csrc/clock.h"

#include <string.h>

static char there[MEASURE_BIGGEST], back[MEASURE_BIGGEST];

enum { ROUNDS_PER_LOOK = 64 };

void work_roundtrip_serve(const struct measure_order *order)
{
	struct channel channel = channel_serve(order);
	if (order->sockmap >= 0)
		sockmap_join_as_server(order->sockmap, channel.fd);
	while (channel_take(&channel, there, order->size))
		channel_put(&channel, there, order->size);
	channel_close(&channel);
}

static void trip(const struct channel *channel, size_t size)
{
	channel_put(channel, there, size);
	if (!channel_take(channel, back, size))
		measure_wrong("the server has closed the connection");
}

/* Messages that no two of are alike, and their echoes. */
static void compare(const struct channel *channel, size_t size)
{
	static unsigned seed;
	seed++;
	for (size_t i = 0; i < size; i++)
		there[i] = (char)(i * 31 + i / 251 + seed * 7);
	memset(back, 0, size);
	trip(channel, size);
	if (memcmp(there, back, size) != 0)
		measure_wrong("a message did not come back as it was sent");
}

void work_roundtrip_ask(const struct measure_order *order)
{
	static struct histogram latencies;
	struct channel channel = channel_connect(order);
	struct meter meter;
	if (order->sockmap >= 0)
		sockmap_join_as_client(order->sockmap, channel.fd);
	compare(&channel, order->size);
	while (measure_warming())
		for (int i = 0; i < ROUNDS_PER_LOOK; i++)
			trip(&channel, order->size);
	do {
		latencies = (struct histogram){0};
		meter_start(&meter, order);
		int64_t before = meter.start;
		while (!meter_over(&meter, before)) {
			trip(&channel, order->size);
			int64_t now = lf_now();
			histogram_add(&latencies, (uint64_t)(now - before));
			before = now;
		}
		meter_stop(&meter);
		compare(&channel, order->size);
		if (order->sockmap >= 0 &&
		    sockmap_bytes_by_tcp(channel.fd) > order->size * latencies.count / 2)
			measure_wrong("the bytes went by TCP, not by the sockmap");
		meter_print(&meter, latencies.count, latencies.count * order->size * 2, &latencies);
	} while (measure_again());
	channel_close(&channel);
}

void work_self_ask(const struct measure_order *order)
{
	static struct histogram latencies;
	struct channel ends[2];
	struct meter meter;
	channel_pair(order, ends);
	while (measure_warming())
		;
	meter_start(&meter, order);
	int64_t before = meter.start;
	while (!meter_over(&meter, before)) {
		for (int from = 0; from < 2; from++) {
			channel_put(&ends[from], there, order->size);
			if (!channel_take(&ends[!from], back, order->size))
				measure_wrong("the other socket of this process is closed");
		}
		int64_t now = lf_now();
		histogram_add(&latencies, (uint64_t)(now - before));
		before = now;
	}
	meter_stop(&meter);
	meter_print(&meter, latencies.count, latencies.count * order->size * 2, &latencies);
	measure_hold();
}
