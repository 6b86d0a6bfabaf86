/* counters.c - see counters.h: what is counted on the way into and out of sleep. */
#define _GNU_SOURCE
#include "counters.h"

#include "clock.h"

/* More is not a wake-up, but a peer that lies, or that is in another time namespace. */
static const int64_t longest = INT64_C(10) * 1000000000;

void lf_counters_ring(struct lf_armed_line *line)
{
	/* The doorbell's byte carries this to the sleeper: it is sent and received after. */
	atomic_store_explicit(&line->rung_at, (uint64_t)lf_now(), memory_order_relaxed);
	atomic_fetch_add_explicit(&line->rings, 1, memory_order_relaxed);
}

static void add_wake(struct lf_waits *waits, int64_t ns)
{
	static const int64_t bounds[LF_WAKE_BUCKETS - 1] = LF_WAKE_BOUNDS_NS;
	int bucket = 0;
	while (bucket < LF_WAKE_BUCKETS - 1 && ns > bounds[bucket])
		bucket++;
	lf_counter_add(&waits->wake_ns, (uint64_t)ns);
	uint32_t before = atomic_load_explicit(&waits->wakes[bucket], memory_order_relaxed);
	atomic_store_explicit(&waits->wakes[bucket], before + 1, memory_order_relaxed);
}

/* One doorbell serves both directions; a ring that was seen before was for the other one. */
static void look_at(struct lf_armed_line *line, struct lf_waits *waits, _Atomic uint64_t *seen,
		    bool slept)
{
	uint64_t rung = atomic_load_explicit(&line->rung_at, memory_order_relaxed);
	if (atomic_exchange_explicit(seen, rung, memory_order_relaxed) == rung || !slept)
		return;
	int64_t now = lf_now();
	if (rung <= (uint64_t)now && (uint64_t)now - rung < (uint64_t)longest)
		add_wake(waits, now - (int64_t)rung);
}

void lf_counters_rung(struct lf_sock *sock, bool slept)
{
	look_at(&sock->in->reader, &sock->in->t.waits, &sock->rung_read, slept);
	look_at(&sock->out->writer, &sock->out->p.waits, &sock->rung_write, slept);
}
