/* invariant.c - how a broken invariant is reported; see invariant.h. */
#define _GNU_SOURCE
#include "invariant.h"

#ifdef LF_INVARIANTS
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

_Noreturn void lf_invariant_failed(const char *what, const char *file, int line)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "loopfuse: invariant broken: %s (%s:%d)\n", what, file,
			 line);
	if (n > 0)
		(void)syscall(SYS_write, 2, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text));
	abort();
}
#endif

/* ISO C wants something in every translation unit. */
typedef int lf_invariant_unit;
