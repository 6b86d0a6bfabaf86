/* states.h - the one place where the states of an end change. In the invariants build each
 * change is looked up in the tables of states.c (docs/architecture.md draws them), and who makes
 * it must hold the lock that the state belongs to.
 *
 * Only what is our own is checked here: what the segment says, the other end may have written.
 */
#ifndef LF_STATES_H
#define LF_STATES_H

#include "sock.h"

#ifdef LF_INVARIANTS
void lf_states_check_tx(struct lf_slot *slot, enum lf_tx to);
void lf_states_check_rx(struct lf_slot *slot, enum lf_rx to);
void lf_states_check_mark(struct lf_slot *slot, enum lf_mark to);
void lf_states_check_pairing(enum lf_pairing from, enum lf_pairing to);
void lf_states_check_end(struct lf_slot *slot);
#else
static inline void lf_states_check_tx(struct lf_slot *slot, enum lf_tx to) { (void)slot, (void)to; }
static inline void lf_states_check_rx(struct lf_slot *slot, enum lf_rx to) { (void)slot, (void)to; }
static inline void lf_states_check_mark(struct lf_slot *slot, enum lf_mark to)
{
	(void)slot, (void)to;
}
static inline void lf_states_check_pairing(enum lf_pairing from, enum lf_pairing to)
{
	(void)from, (void)to;
}
static inline void lf_states_check_end(struct lf_slot *slot) { (void)slot; }
#endif

/* Under tx_lock. seq_cst, for lf_conn_try_fuse(). */
static inline void lf_states_enter_tx(struct lf_slot *slot, enum lf_tx to)
{
	lf_states_check_tx(slot, to);
	atomic_store(&slot->tx, (uint32_t)to);
}

/* Under rx_lock. seq_cst, for lf_conn_try_ready(). A sender that finds the ring corrupt ends both
 * directions without that lock; so it stays, if that comes in between. */
static inline void lf_states_enter_rx(struct lf_slot *slot, enum lf_rx to)
{
	uint32_t was = atomic_load(&slot->rx);
	lf_states_check_rx(slot, to);
	(void)atomic_compare_exchange_strong(&slot->rx, &was, (uint32_t)to);
}

/* Both for good, under either lock: `reset` says already that the connection is over. */
static inline void lf_states_end(struct lf_slot *slot)
{
	lf_states_check_end(slot);
	atomic_store(&slot->tx, LF_TX_ENDED);
	atomic_store(&slot->rx, LF_RX_ENDED);
}

/* What the peer is told of how far we have come; under tx_lock. seq_cst, see conn_end.c and
 * conn_fuse.c: what it covers was stored before. */
static inline void lf_states_tell(struct lf_sock *sock, enum lf_mark to)
{
	lf_states_check_mark(sock->slot, to);
	atomic_store(&sock->out->p.mark, (uint32_t)to);
}

/* False: another thread has moved it on. */
static inline bool lf_states_pair(struct lf_sock *sock, enum lf_pairing from, enum lf_pairing to)
{
	uint32_t was = (uint32_t)from;
	lf_states_check_pairing(from, to);
	return atomic_compare_exchange_strong(&sock->pairing, &was, (uint32_t)to);
}

#endif
