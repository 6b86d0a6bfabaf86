/* counter.c - see counter.h. */
#define _GNU_SOURCE
#include "counter.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long fds[COUNTERS] = {-1, -1};
static int refusal;

void counter_open(void)
{
	for (int which = 0; which < COUNTERS; which++) {
		struct perf_event_attr attr = {
			.type = PERF_TYPE_HARDWARE,
			.size = sizeof(attr),
			.config = PERF_COUNT_HW_INSTRUCTIONS,
			.disabled = 1,
			.pinned = 1, /* counted all the time, or an error */
			.exclude_user = which != COUNTER_USER,
			.exclude_kernel = which != COUNTER_KERNEL,
			.exclude_hv = 1,
		};
		fds[which] = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
		if (which == COUNTER_USER && fds[which] == -1)
			refusal = errno;
	}
}

static void tell(unsigned long order)
{
	for (int which = 0; which < COUNTERS; which++)
		if (fds[which] != -1)
			syscall(SYS_ioctl, fds[which], order, 0);
}

void counter_go(void)
{
	tell(PERF_EVENT_IOC_ENABLE);
}

void counter_halt(void)
{
	tell(PERF_EVENT_IOC_DISABLE);
}

int64_t counter_read(enum counter_of which)
{
	int64_t value;
	if (fds[which] == -1 ||
	    syscall(SYS_read, fds[which], &value, sizeof(value)) != (long)sizeof(value))
		return -1;
	return value;
}

int counter_refusal(void)
{
	return refusal;
}
