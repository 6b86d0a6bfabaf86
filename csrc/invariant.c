/* invariant.c - how a broken invariant is reported; see invariant.h. */
#define _GNU_SOURCE
#include "invariant.h"

#ifdef LF_INVARIANTS
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(int fd, const char *text, size_t n)
{
	(void)syscall(SYS_write, fd, text, n);
}

_Noreturn void lf_invariant_failed(const char *what, const char *file, int line)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "loopfuse: invariant broken: %s (%s:%d) in %s, pid %d\n", what,
			 file, line, program_invocation_short_name, (int)getpid());
	size_t size = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
	/* Servers have no stderr that anybody reads. Past the library: its own open() and write()
	 * may be what is broken. */
	const char *log = secure_getenv("LOOPFUSE_INVARIANTS_LOG");
	int fd = log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC,
				    0666) :
		       -1;
	if (fd >= 0)
		say(fd, text, size);
	say(2, text, size);
	abort();
}
#endif

/* ISO C wants something in every translation unit. */
typedef int lf_invariant_unit;
