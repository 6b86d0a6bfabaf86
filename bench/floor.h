/* floor.h - the floor: what shared memory gives when nothing else is asked of it. One ring
 * each way, the library's own copying, and its way to wait: spin, giving way now and then,
 * for as long as it does (LOOPFUSE_SPIN_US), then sleep. No sockets, no semantics.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include "measure.h"

enum { FLOOR_MEMORY = 1 << 20 };

struct floor_end;

/* Maps the memory behind the descriptor that the order names: zeroed, and at least FLOOR_MEMORY
 * bytes of it. */
struct floor_end *floor_open(const struct measure_order *order);

/* Copies at most n bytes in, or out; waits until it can move one at least. 0 from
 * floor_take(): the writer has finished and everything is read. */
size_t floor_put(struct floor_end *end, const char *bytes, size_t n);
size_t floor_take(struct floor_end *end, char *bytes, size_t n);

void floor_finish(struct floor_end *end);

#endif
