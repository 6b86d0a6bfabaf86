/* clock.h - monotonic time in nanoseconds, and deadlines made of it. */
#ifndef LF_CLOCK_H
#define LF_CLOCK_H

#include <stdint.h>
#include <time.h>

#define LF_FOREVER INT64_MAX

static inline int64_t lf_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The same, as of the last timer tick: some ms behind, but cheaper by half. */
static inline int64_t lf_now_coarse(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A deadline ns from now; LF_FOREVER stays so. */
static inline int64_t lf_deadline(int64_t ns)
{
	int64_t now = lf_now();
	return ns >= LF_FOREVER - now ? LF_FOREVER : now + ns;
}

static inline struct timespec lf_timespec(int64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

#endif
