/* histogram.c - see histogram.h. */
#include "histogram.h"

#include <stdio.h>

enum { HALF = HISTOGRAM_STEPS / 2 };

/* The middle of a step. */
static double middle(unsigned step)
{
	if (step < HISTOGRAM_STEPS)
		return (double)step;
	unsigned power = step / HALF - 1;
	double least = (double)(step - power * HALF) * (double)(1ULL << power);
	return least + (double)(1ULL << power) / 2;
}

double histogram_percentile(const struct histogram *h, double share)
{
	uint64_t seen = 0;
	double wanted = share * (double)h->count;
	for (unsigned i = 0; i < HISTOGRAM_POWERS * HISTOGRAM_STEPS; i++) {
		seen += h->steps[i];
		if (seen && (double)seen >= wanted)
			return middle(i) < (double)h->greatest ? middle(i) : (double)h->greatest;
	}
	return 0;
}

void histogram_print(const struct histogram *h)
{
	printf("{\"p50\": %.0f, \"p90\": %.0f, \"p99\": %.0f, \"p999\": %.0f, \"max\": %.0f}",
	       histogram_percentile(h, 0.5), histogram_percentile(h, 0.9),
	       histogram_percentile(h, 0.99), histogram_percentile(h, 0.999),
	       (double)h->greatest);
}
