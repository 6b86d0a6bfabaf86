/* floor.c - see floor.h.
 *
 * Each way has one writer and one reader. The writer's release of `head` pairs with the
 * reader's acquire: bytes are visible before the position that covers them; `tail` the
 * other way round. Who is about to sleep says so in `sleeps`, then looks once more; who has
 * moved a position then looks at `sleeps`. Full fences between the two steps of each: at
 * least one of them sees the other.
 */
#define _GNU_SOURCE
#include "floor.h"

#include "../csrc/clock.h"
#include "../csrc/copy.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Both rings and what is copied from and to fit a small second-level cache. */
enum { RING = 256 << 10, LOOKS_PER_YIELD = 32, SPIN_US = 60 };

/* What is published at once: the reader copies a piece out while the writer copies the next. */
enum { PIECE = 16 << 10 };

struct way {
	alignas(128) _Atomic uint64_t head;
	_Atomic uint32_t finished;
	alignas(128) _Atomic uint64_t tail;
	alignas(128) _Atomic uint32_t reader_sleeps;
	alignas(128) _Atomic uint32_t writer_sleeps;
	alignas(4096) char bytes[RING];
};

struct floor_end {
	struct way *out, *in;
	int64_t spin_ns;
};

struct floor_end *floor_open(const struct measure_order *order)
{
	static struct floor_end end;
	struct way *ways = mmap(NULL, 2 * sizeof(struct way), PROT_READ | PROT_WRITE, MAP_SHARED,
				atoi(order->at), 0);
	if (ways == MAP_FAILED)
		measure_fail("mmap of the ring");
	const char *spin = getenv("LOOPFUSE_SPIN_US");
	end.out = &ways[order->server];
	end.in = &ways[!order->server];
	end.spin_ns = (spin ? atoi(spin) : SPIN_US) * (int64_t)1000;
	return &end;
}

static uint64_t unread(struct way *way)
{
	return atomic_load_explicit(&way->head, memory_order_acquire) -
	       atomic_load_explicit(&way->tail, memory_order_acquire);
}

static bool readable(struct way *way)
{
	return unread(way) || atomic_load_explicit(&way->finished, memory_order_acquire);
}

static bool writable(struct way *way)
{
	return unread(way) < RING;
}

static void wait_for(const struct floor_end *end, bool (*look)(struct way *), struct way *way,
		     _Atomic uint32_t *sleeps)
{
	for (int64_t until = lf_now() + end->spin_ns; lf_now() < until; sched_yield())
		for (int i = 0; i < LOOKS_PER_YIELD; i++) {
			if (look(way))
				return;
			measure_busy();
		}
	while (!look(way)) {
		atomic_store(sleeps, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (!look(way))
			syscall(SYS_futex, sleeps, FUTEX_WAIT, 1, NULL, NULL, 0);
	}
	atomic_store_explicit(sleeps, 0, memory_order_relaxed);
}

static void wake(_Atomic uint32_t *sleeps)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(sleeps, memory_order_relaxed) && atomic_exchange(sleeps, 0))
		syscall(SYS_futex, sleeps, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t floor_put(struct floor_end *end, const char *bytes, size_t n)
{
	struct way *way = end->out;
	if (!writable(way))
		wait_for(end, writable, way, &way->writer_sleeps);
	uint64_t head = atomic_load_explicit(&way->head, memory_order_relaxed);
	size_t place = (size_t)(head % RING);
	n = least(least(n, PIECE), least(RING - (size_t)unread(way), RING - place));
	lf_copy(way->bytes + place, bytes, n);
	atomic_store_explicit(&way->head, head + n, memory_order_release);
	wake(&way->reader_sleeps);
	return n;
}

size_t floor_take(struct floor_end *end, char *bytes, size_t n)
{
	struct way *way = end->in;
	if (!readable(way))
		wait_for(end, readable, way, &way->reader_sleeps);
	/* `finished` was stored after the last position: look at that again. */
	uint64_t tail = atomic_load_explicit(&way->tail, memory_order_relaxed);
	size_t place = (size_t)(tail % RING);
	n = least(least(n, PIECE), least((size_t)unread(way), RING - place));
	lf_copy(bytes, way->bytes + place, n);
	atomic_store_explicit(&way->tail, tail + n, memory_order_release);
	if (n)
		wake(&way->writer_sleeps);
	return n;
}

void floor_finish(struct floor_end *end)
{
	atomic_store_explicit(&end->out->finished, 1, memory_order_release);
	wake(&end->out->reader_sleeps);
}
