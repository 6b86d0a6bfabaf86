/* flip.c - writes two values in turn to each of some places, as fast as it can, beside a process
 * that reads them: what is looked at twice there is not the same twice. */
#include <stdint.h>
#include <time.h>

struct place {
	void *at;
	uint64_t values[2];
	uint32_t wide; /* 1: 64 bits, 0: 32 */
};

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void flip(const struct place *places, unsigned count, int64_t ns)
{
	for (int64_t end = now() + ns; now() < end;)
		for (unsigned i = 0; i < 200; i++)
			for (const struct place *p = places; p < places + count; p++) {
				if (p->wide)
					*(volatile uint64_t *)p->at = p->values[i & 1];
				else
					*(volatile uint32_t *)p->at = (uint32_t)p->values[i & 1];
			}
}
