/* invariant.h - what must hold, checked at run time in the invariants build only. */
#ifndef LF_INVARIANT_H
#define LF_INVARIANT_H

#ifdef LF_INVARIANTS
/* Prints one line to stderr and aborts: the one place where the data plane speaks. */
_Noreturn void lf_invariant_failed(const char *what, const char *file, int line);
#define LF_INVARIANT(cond) ((cond) ? (void)0 : lf_invariant_failed(#cond, __FILE__, __LINE__))
#else
#define LF_INVARIANT(cond) ((void)sizeof(cond))
#endif

#endif
