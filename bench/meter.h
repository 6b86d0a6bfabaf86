/* meter.h - what a stretch of work took: time, the CPU time of both processes, their sleeps
 * and memory; and the JSON object that tells it.
 */
#ifndef BENCH_METER_H
#define BENCH_METER_H

#include "histogram.h"
#include "measure.h"

#include <time.h>

struct meter {
	const struct measure_order *order;
	clockid_t peer;
	int64_t start, end;
	double cpu[2]; /* seconds, ours and the peer's; a running total until meter_stop() */
	long sleeps;   /* voluntary context switches of both, the same */
};

/* Everything of the stretch lies between these two. order->peer may be 0: one process. */
void meter_start(struct meter *meter, const struct measure_order *order);
void meter_stop(struct meter *meter);

/* Is the time that the order gives over? `now` is lf_now(). */
bool meter_over(const struct meter *meter, int64_t now);

/* The result, on standard output: `units` of work that moved `bytes` of payload in all; when
 * it began is told by the monotonic clock, which is the same for all who measure at once;
 * `latencies` may be NULL. */
void meter_print(const struct meter *meter, uint64_t units, uint64_t bytes,
		 const struct histogram *latencies);

#endif
