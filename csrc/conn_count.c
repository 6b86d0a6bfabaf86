/* conn_count.c - what lies in the rings, and what ever went through them, for queries. What TCP has a
 * copy of is counted there. */
#define _GNU_SOURCE
#include "conn.h"
#include "held.h"

size_t lf_conn_unread(struct lf_sock *sock)
{
	if (!lf_sock_paired(sock) || lf_rx(sock) == LF_RX_ENDED || lf_rx(sock) == LF_RX_PLAIN ||
	    lf_conn_taken_back(sock))
		return 0;
	lf_conn_show_at_the_end(sock, lf_sock_named(sock, atomic_load(&sock->fd)));
	uint64_t unread = lf_held_shown_head(sock) - atomic_load(&sock->slot->rx_tail);
	return unread <= sock->ring_size ? (size_t)unread : 0;
}

/* Of a direction that has ended. */
static uint64_t by_ring_alone(const struct lf_direction *direction)
{
	uint64_t end = atomic_load_explicit(&direction->p.end_pos, memory_order_relaxed);
	uint64_t given = atomic_load_explicit(&direction->arrivals.given, memory_order_relaxed);
	return given < end ? end - given : 0;
}

uint64_t lf_conn_ring_received(struct lf_sock *sock)
{
	if (!lf_sock_paired(sock))
		return 0;
	/* acquire: end_pos was stored before the mark. */
	switch (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire)) {
	case LF_MARK_FUSED:
		return atomic_load_explicit(&sock->in->p.head, memory_order_relaxed);
	case LF_MARK_ENDED:
		return by_ring_alone(sock->in);
	default:
		return 0;
	}
}

static bool has_left_a_copy(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->out->p.mark, memory_order_relaxed) == LF_MARK_ENDED &&
	       atomic_load_explicit(&sock->out->arrivals.copied, memory_order_relaxed) != 0;
}

uint64_t lf_conn_ring_sent(struct lf_sock *sock)
{
	if (!lf_sock_paired(sock))
		return 0;
	if (lf_tx(sock) == LF_TX_FUSED && !lf_conn_is_resending(sock))
		return atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed);
	return atomic_load_explicit(&sock->out->p.mark, memory_order_relaxed) == LF_MARK_ENDED ?
		       by_ring_alone(sock->out) :
		       0;
}

size_t lf_conn_unsent(struct lf_sock *sock)
{
	uint64_t sent = lf_conn_ring_sent(sock);
	if (sent == 0 || has_left_a_copy(sock)) /* then TCP counts them */
		return 0;
	uint64_t unread = sent - atomic_load_explicit(&sock->out->t.tail, memory_order_acquire);
	uint32_t share = lf_conn_peer_share(sock);
	return unread > share && unread <= sock->ring_size ? (size_t)(unread - share) : 0;
}
