/* counter.h - instructions of this thread by the CPU's own counters, in user space and in the
 * kernel apart, where the machine has them and lets us read them.
 */
#ifndef BENCH_COUNTER_H
#define BENCH_COUNTER_H

#include <stdint.h>

enum counter_of { COUNTER_USER, COUNTER_KERNEL, COUNTERS };

/* Asks for both; each may be refused. */
void counter_open(void);

/* What lies between these two is added up. Neither goes through a C library's function that a
 * preloaded library may have taken over. */
void counter_go(void);
void counter_halt(void);

/* Counted so far; -1: refused, and counter_refusal() says why. */
int64_t counter_read(enum counter_of which);

/* An errno, 0 if the user's instructions are counted. */
int counter_refusal(void);

#endif
