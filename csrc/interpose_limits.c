/* interpose_limits.c - the libc names for resource limits. The soft limit of descriptors is ours for
 * a moment now and then (table.c): the program must neither see that nor have its own undone. */
#define _GNU_SOURCE
#include "real.h"
#include "start.h"
#include "table.h"

#include <sys/resource.h>

#ifdef __GLIBC__
typedef __rlimit_resource_t resource;
#else
typedef int resource;
#endif

LF_EXPORT int prlimit(pid_t pid, resource which, const struct rlimit *new, struct rlimit *old)
{
	lf_start();
	if (!lf_started || which != RLIMIT_NOFILE)
		return lf_real.prlimit(pid, (int)which, new, old);
	sigset_t before;
	lf_table_hold_limit(&before);
	int r = lf_real.prlimit(pid, (int)which, new, old);
	lf_table_release_limit(&before);
	return r;
}

LF_EXPORT int getrlimit(resource which, struct rlimit *limit)
{
	return prlimit(0, which, NULL, limit);
}

LF_EXPORT int setrlimit(resource which, const struct rlimit *limit)
{
	return prlimit(0, which, limit, NULL);
}

#ifdef __GLIBC__ /* elsewhere these are other words for the same names */
_Static_assert(sizeof(struct rlimit) == sizeof(struct rlimit64), "LP64 only");

LF_EXPORT int prlimit64(pid_t pid, resource which, const struct rlimit64 *new, struct rlimit64 *old)
{
	return prlimit(pid, which, (const struct rlimit *)new, (struct rlimit *)old);
}

LF_EXPORT int getrlimit64(resource which, struct rlimit64 *limit)
{
	return prlimit(0, which, NULL, (struct rlimit *)limit);
}

LF_EXPORT int setrlimit64(resource which, const struct rlimit64 *limit)
{
	return prlimit(0, which, (const struct rlimit *)limit, NULL);
}
#endif
