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

/* Counts on, at a rate that differs between machines, and does not cost a clock: to learn that
 * at least a moment has passed. May jump between CPUs; take differences, unsigned. */
static inline uint64_t lf_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t ticks;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
#else
	return (uint64_t)lf_now();
#endif
}

/* To put what several processes do into order: counts on in steps of 1 to 64 ns, and comes around
 * after some seconds or a minute. Compare by difference. */
static inline uint32_t lf_arrival_steps(uint64_t ticks)
{
#if defined(__aarch64__)
	return (uint32_t)ticks;
#else
	return (uint32_t)(ticks >> 6);
#endif
}

/* Some 30 us of them: 13 to 65 where the time stamp counter runs at 5 to 1 GHz. */
static inline uint64_t lf_moment(void)
{
#if defined(__x86_64__)
	return 1 << 16;
#elif defined(__aarch64__)
	uint64_t per_second;
	__asm__("mrs %0, cntfrq_el0" : "=r"(per_second));
	return per_second >> 15;
#else
	return 30000;
#endif
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
