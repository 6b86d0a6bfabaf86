/* histogram.h - latencies counted in 32 steps for each power of two: within 3 % of what
 * was measured, at the price of one increment.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_POWERS = 40 };

struct histogram {
	uint64_t count, greatest;
	uint64_t steps[HISTOGRAM_POWERS * HISTOGRAM_STEPS];
};

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	unsigned power = ns < HISTOGRAM_STEPS ? 0 : 58U - (unsigned)__builtin_clzll(ns);
	/* Half of the steps are new with each power: the upper half of its range. */
	uint64_t step = power ? (uint64_t)power * (HISTOGRAM_STEPS / 2) + (ns >> power) : ns;
	uint64_t last = HISTOGRAM_POWERS * HISTOGRAM_STEPS - 1;
	h->steps[step < last ? step : last]++;
	h->count++;
	if (ns > h->greatest)
		h->greatest = ns;
}

/* The latency that `share` (0 to 1) of all stay at or below, in ns; 0 if there are none. */
double histogram_percentile(const struct histogram *h, double share);

/* {"p50": ..., "p90": ..., "p99": ..., "p999": ..., "max": ...} on standard output. */
void histogram_print(const struct histogram *h);

#endif
