/* work_rate.c - connect, send, receive, close; one after the other, as fast as they go. */
#define _GNU_SOURCE
#include "channel.h"
#include "meter.h"
#include "work.h"

#include "../csrc/clock.h"

#include <string.h>

static char there[MEASURE_BIGGEST], back[MEASURE_BIGGEST];

void work_rate_serve(const struct measure_order *order)
{
	int listener = channel_listen(order);
	for (;;) {
		struct channel channel = channel_accept(order, listener);
		if (channel_take(&channel, there, order->size))
			channel_put(&channel, there, order->size);
		channel_close(&channel);
	}
}

static void once(const struct measure_order *order)
{
	struct channel channel = channel_connect(order);
	channel_put(&channel, there, order->size);
	if (!channel_take(&channel, back, order->size) || memcmp(there, back, order->size) != 0)
		measure_wrong("a message did not come back as it was sent");
	channel_close(&channel);
	there[0]++;
}

void work_rate_ask(const struct measure_order *order)
{
	static struct histogram latencies;
	struct meter meter;
	while (measure_warming())
		once(order);
	meter_start(&meter, order);
	int64_t before = meter.start;
	while (!meter_over(&meter, before)) {
		once(order);
		int64_t now = lf_now();
		histogram_add(&latencies, (uint64_t)(now - before));
		before = now;
	}
	meter_stop(&meter);
	meter_print(&meter, latencies.count, latencies.count * order->size * 2, &latencies);
	measure_hold();
}
