/* work_stream.c - bytes in one direction as fast as they go.
 *
 * They come in batches, each behind a header that tells its length. The server answers a
 * batch with one byte once it has it all, and compares those that it is told to compare.
 * The batch that is measured ends with the stream; the server then tells how much came, and
 * the clock stops when the client hears it: bytes still under way are not counted as moved.
 */
#define _GNU_SOURCE
#include "channel.h"
#include "meter.h"
#include "work.h"

#include "../csrc/clock.h"

#include <string.h>

static char buffer[MEASURE_BIGGEST];

enum { WRITES_PER_LOOK = 16, BATCH = 4 << 20, GOOD = 'g', BAD = 'b' };

struct header {
	uint64_t length; /* 0: until the end of the stream */
	uint64_t compare;
};

static char expected(size_t i)
{
	return (char)(i * 31 + i / 251);
}

static char take_batch(const struct channel *channel, const struct header *header)
{
	char answer = GOOD;
	for (uint64_t got = 0; got < header->length;) {
		uint64_t left = header->length - got;
		size_t n = channel_some(channel, buffer,
					left < sizeof(buffer) ? (size_t)left : sizeof(buffer));
		if (n == 0)
			measure_wrong("the stream ended in the middle of a batch");
		for (size_t i = 0; header->compare && i < n; i++)
			if (buffer[i] != expected((size_t)got + i))
				answer = BAD;
		got += n;
	}
	return answer;
}

void work_stream_serve(const struct measure_order *order)
{
	struct channel channel = channel_serve(order);
	struct header header;
	bool more;
	while ((more = channel_take(&channel, (char *)&header, sizeof(header))) && header.length) {
		char answer = take_batch(&channel, &header);
		channel_put(&channel, &answer, 1);
	}
	if (!more)
		return channel_close(&channel);
	uint64_t count = 0;
	for (size_t n; (n = channel_some(&channel, buffer, sizeof(buffer))) > 0;)
		count += n;
	channel_put(&channel, (const char *)&count, sizeof(count));
	/* The client closes first, or memory that it wants to read about would be gone. */
	measure_hold();
	channel_close(&channel);
}

static void send_batch(const struct channel *channel, const struct measure_order *order,
		       int writes, bool compare)
{
	struct header header = {.length = order->size * (size_t)writes, .compare = compare};
	char answer = 0;
	channel_put(channel, (const char *)&header, sizeof(header));
	for (int i = 0; i < writes; i++)
		channel_put(channel, buffer, order->size);
	if (!channel_take(channel, &answer, 1) || answer != GOOD)
		measure_wrong("the stream did not arrive as it was sent");
}

/* Connected and warmed up. */
static struct channel begin(const struct measure_order *order)
{
	struct channel channel = channel_connect(order);
	for (size_t i = 0; i < order->size; i++)
		buffer[i] = expected(i);
	send_batch(&channel, order, 1, true);
	while (measure_warming())
		send_batch(&channel, order, WRITES_PER_LOOK, false);
	send_batch(&channel, order, 1, true);
	return channel;
}

/* The stream does not end with a measurement, so that there can be another one. */
void work_batches_ask(const struct measure_order *order)
{
	struct channel channel = begin(order);
	const int writes = BATCH / (int)order->size;
	do {
		struct meter meter;
		uint64_t batches = 0;
		meter_start(&meter, order);
		for (; !meter_over(&meter, lf_now()); batches++)
			send_batch(&channel, order, writes, false);
		meter_stop(&meter);
		send_batch(&channel, order, 1, true);
		meter_print(&meter, batches * (uint64_t)writes,
			    batches * (uint64_t)writes * order->size, NULL);
	} while (measure_again());
	channel_close(&channel);
}

void work_stream_ask(const struct measure_order *order)
{
	struct channel channel = begin(order);
	struct meter meter;
	uint64_t writes = 0, arrived = 0;
	struct header endless = {.length = 0};
	channel_put(&channel, (const char *)&endless, sizeof(endless));
	meter_start(&meter, order);
	while (!meter_over(&meter, lf_now()))
		for (int i = 0; i < WRITES_PER_LOOK; i++, writes++)
			channel_put(&channel, buffer, order->size);
	channel_finish(&channel);
	if (!channel_take(&channel, (char *)&arrived, sizeof(arrived)))
		measure_wrong("the server did not say how much it received");
	meter_stop(&meter);
	if (arrived != writes * order->size)
		measure_wrong("not as many bytes arrived as were sent");
	meter_print(&meter, writes, arrived, NULL);
	measure_hold();
	channel_close(&channel);
}
