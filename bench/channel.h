/* channel.h - one connection of a measurement, whatever it goes over: a socket that sleeps or
 * is polled, or the bare ring of floor.h.
 */
#ifndef BENCH_CHANNEL_H
#define BENCH_CHANNEL_H

#include "measure.h"

struct floor_end;

struct channel {
	int fd; /* of a socket; -1 for a ring */
	bool polling;
	struct floor_end *floor;
};

/* A listening socket for what the order says, not blocking if it is to be polled; tells
 * where it is (measure_ready()). There is none for a ring. */
int channel_listen(const struct measure_order *order);

/* The next connection of a listening socket. */
struct channel channel_accept(const struct measure_order *order, int listener);

/* The server's end of the only connection that there will be. */
struct channel channel_serve(const struct measure_order *order);

/* A client's end. */
struct channel channel_connect(const struct measure_order *order);

/* Both ends of a connection in this one process. */
void channel_pair(const struct measure_order *order, struct channel ends[2]);

/* Sends n bytes, however many calls that takes. */
void channel_put(const struct channel *channel, const char *bytes, size_t n);

/* Receives exactly n bytes. False: the other end has closed; never between two of them. */
bool channel_take(const struct channel *channel, char *bytes, size_t n);

/* Receives what there is, at most n bytes, waiting for the first; 0: the end. */
size_t channel_some(const struct channel *channel, char *bytes, size_t n);

/* Sends no more. */
void channel_finish(const struct channel *channel);

void channel_close(struct channel *channel);

#endif
