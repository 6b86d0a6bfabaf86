/* held.c - see held.h. */
#define _GNU_SOURCE
#include "held.h"
#include "clock.h"
#include "invariant.h"
#include "real.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* As full as a segment gets: what a packet of 64 KiB, lo's, has room for. */
enum { FULL = 65483 };
/* tcp(7): "a 200 millisecond ceiling". */
#define CEILING_NS (INT64_C(200) * 1000 * 1000)

/* TCP, too, calls half of a small window full, tcp_bound_to_half_wnd(): a sender that waits until it
 * may send is not to wait for a reader that sees nothing yet. */
static uint32_t full(const struct lf_slot *slot)
{
	uint32_t half = atomic_load_explicit(&slot->tx_limit, memory_order_relaxed) / 2;
	return half < FULL ? half : FULL;
}

/* Not when it can't be asked: then the ring goes by its own time. */
static bool tcp_holds_some(int fd)
{
	int unsent = 0;
	return lf_real.ioctl(fd, SIOCOUTQNSD, &unsent) == 0 && unsent > 0;
}

bool lf_held_begin(struct lf_sock *sock, int fd, uint64_t head, size_t n)
{
	struct lf_slot *slot = sock->slot;
	uint64_t held = atomic_load_explicit(&slot->tx_held, memory_order_relaxed);
	LF_INVARIANT(lf_lock_is_mine(&slot->tx_lock));
	LF_INVARIANT(held == 0 || head - ~held < FULL);
	/* Behind what was read though it was held, since the time was over, others begin. */
	if (held && (int64_t)(atomic_load_explicit(&sock->out->t.tail, memory_order_relaxed) - ~held) > 0)
		held = 0;
	if (n == 0 || (held ? head - ~held : 0) + n >= full(slot))
		return false;
	if (held)
		return true;
	/* The ring's first bytes come with those that TCP itself keeps back before them: nobody sees
	 * the one before the other, and TCP's time runs already. */
	if (head == 0 && tcp_holds_some(fd))
		return false;
	atomic_store_explicit(&sock->out->arrivals.held_at, lf_now(), memory_order_relaxed);
	atomic_store_explicit(&slot->tx_held, ~head, memory_order_relaxed);
	atomic_store_explicit(&sock->out->p.held, ~head, memory_order_relaxed);
	return true;
}

bool lf_held_end(struct lf_sock *sock)
{
	LF_INVARIANT(lf_lock_is_mine(&sock->slot->tx_lock));
	if (!atomic_load_explicit(&sock->slot->tx_held, memory_order_relaxed))
		return false;
	/* The segment first: whoever takes over from one that died in between does it again. */
	atomic_store_explicit(&sock->out->p.held, 0, memory_order_release);
	atomic_store_explicit(&sock->slot->tx_held, 0, memory_order_relaxed);
	return true;
}

/* Several threads may look at once: one of them may take the other's time for its own, and be early. */
static bool is_over(const struct lf_sock *sock, uint64_t held)
{
	struct lf_slot *slot = sock->slot;
	if (atomic_load_explicit(&slot->rx_not_held, memory_order_relaxed) == held)
		return true;
	int64_t now = lf_now();
	int64_t since = atomic_load_explicit(&slot->rx_held_since, memory_order_relaxed);
	if (atomic_load_explicit(&slot->rx_held, memory_order_relaxed) != held) {
		atomic_store_explicit(&slot->rx_held_since, since = now, memory_order_relaxed);
		atomic_store_explicit(&slot->rx_held, held, memory_order_relaxed);
	}
	/* Who shares the slot may have another clock: unsigned. */
	if ((uint64_t)(now - since) < CEILING_NS &&
	    now - atomic_load_explicit(&sock->in->arrivals.held_at, memory_order_relaxed) < CEILING_NS)
		return false;
	atomic_store_explicit(&slot->rx_not_held, held, memory_order_relaxed);
	return true;
}

uint64_t lf_held_without(const struct lf_sock *sock, uint64_t head, uint64_t held)
{
	uint64_t from = ~held;
	uint64_t tail = atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed);
	/* The peer's word: never before what we have read, and never more than there is. */
	if ((int64_t)(from - tail) < 0)
		from = tail;
	if ((int64_t)(head - from) <= 0 || is_over(sock, held))
		return head;
	/* acquire: the last head. */
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_ENDED)
		return atomic_load_explicit(&sock->in->p.head, memory_order_relaxed);
	return from;
}

void lf_held_ignore(const struct lf_sock *sock)
{
	atomic_store_explicit(&sock->slot->rx_not_held,
			      atomic_load_explicit(&sock->in->p.held, memory_order_relaxed),
			      memory_order_relaxed);
}

bool lf_held_from_us(const struct lf_sock *sock)
{
	if (!lf_sock_paired(sock))
		return false;
	uint64_t held = atomic_load_explicit(&sock->in->p.held, memory_order_relaxed);
	/* Its end is rung for. */
	if (!held ||
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_FUSED)
		return false;
	uint64_t head = atomic_load_explicit(&sock->in->p.head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed);
	return (int64_t)(head - ~held) > 0 && head != tail;
}
