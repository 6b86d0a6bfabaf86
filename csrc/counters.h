/* counters.h - what `loopfuse top` and the metrics show beside bytes: messages, spins, sleeps,
 * doorbells, wake-ups. Nothing in the library goes by them.
 *
 * They lie in the segment, where the broker reads them, each on a line that its writer writes
 * at that moment anyhow, and are counted up by a relaxed load and a relaxed store: one
 * instruction each, no lock prefix. Where two threads of an end wait for the same direction
 * at the same moment, a count may be lost; only who rings, which costs a system call anyhow,
 * counts by an atomic addition.
 */
#ifndef LF_COUNTERS_H
#define LF_COUNTERS_H

#include "segment.h"
#include "sock.h"

#include <stdbool.h>

static inline void lf_counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, before + n, memory_order_relaxed);
}

/* A spin is over: it found what it waited for, or did not. One for many connections counts at
 * the one that ended it, or else at the first it looked at. */
static inline void lf_counters_spun(struct lf_waits *waits, bool paid)
{
	lf_counter_add(paid ? &waits->spins_paid : &waits->spins_vain, 1);
}

/* Armed, looked once more, found nothing: it lies down until it is rung for. */
static inline void lf_counters_sleeps(struct lf_waits *waits)
{
	lf_counter_add(&waits->sleeps, 1);
}

/* The doorbell is about to be rung for who sleeps at this line. */
void lf_counters_ring(struct lf_armed_line *line);
/* Our doorbell has rung. If we `slept` until then: how long did it take to wake up? A flag that
 * nobody has taken down since an earlier sleep has us rung for while we are busy elsewhere. */
void lf_counters_rung(struct lf_sock *sock, bool slept);

#endif
