/* copy.h - copying payload into and out of rings. */
#ifndef LF_COPY_H
#define LF_COPY_H

#include <stddef.h>

/* Copies n bytes; the areas do not overlap. Not the C library's memcpy for large n:
 * that one may choose `rep movsb`, which between cores ran at an eighth of the speed
 * of a plain vector loop where it was measured (docs/performance.md). */
void lf_copy(void *to, const void *from, size_t n);

/* Lets the routines that run on this CPU race, and uses the fastest from then on: some 10 us,
 * once in a process, when its first connection is paired. */
void lf_copy_choose(void);

#endif
