/* config.c - reads the environment; see config.h. Anything unreadable is the default:
 * a preloaded library has nobody to complain to. */
#define _GNU_SOURCE
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_AFTER = 8, DEFAULT_EAGER_WAIT_MS = 1000, DEFAULT_SPIN_US = 60 };

struct lf_config lf_config;

static int64_t number(const char *name, int64_t fallback, int64_t greatest)
{
	const char *text = secure_getenv(name);
	if (!text || !*text)
		return fallback;
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || *end || value < 0 || value > greatest)
		return fallback;
	return value;
}

static bool one_cpu(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1;
}

void lf_config_init(void)
{
	/* Not of a setuid program, whose caller would choose who hands it its memory. */
	const char *path = secure_getenv("LOOPFUSE_BROKER");
	if (path && path[0] == '/' && strlen(path) < sizeof(lf_config.broker))
		strcpy(lf_config.broker, path);
	lf_config.eager = number("LOOPFUSE_EAGER", 0, 1) == 1;
	lf_config.after = (uint32_t)number("LOOPFUSE_AFTER", DEFAULT_AFTER, 1000000000);
	lf_config.eager_wait_ns =
		number("LOOPFUSE_EAGER_WAIT_MS", DEFAULT_EAGER_WAIT_MS, 3600000) * 1000000;
	lf_config.spin_ns = number("LOOPFUSE_SPIN_US", DEFAULT_SPIN_US, 1000000) * 1000;
	lf_config.one_cpu = one_cpu();
}
