/* invariant.h - what must hold, checked at run time in the invariants build only. */
#ifndef LF_INVARIANT_H
#define LF_INVARIANT_H

#include <stdatomic.h>
#include <stdint.h>

#ifdef LF_INVARIANTS
/* Says what is broken in one line, on stderr and at the end of the file that
 * LOOPFUSE_INVARIANTS_LOG names, and aborts: the one place where the data plane speaks. */
_Noreturn void lf_invariant_failed(const char *what, const char *file, int line);
#define LF_INVARIANT(cond) ((cond) ? (void)0 : lf_invariant_failed(#cond, __FILE__, __LINE__))
#else
#define LF_INVARIANT(cond) ((void)sizeof(cond))
#endif

/* One less of what is counted; there must have been one. How many there were before. */
static inline uint32_t lf_count_down(_Atomic uint32_t *count)
{
	uint32_t was = atomic_fetch_sub(count, 1);
	LF_INVARIANT(was != 0);
	return was;
}

#endif
