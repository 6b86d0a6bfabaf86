/* states.c - which changes of state there are; see states.h. */
#define _GNU_SOURCE
#include "states.h"

#ifdef LF_INVARIANTS
#include "invariant.h"

#define TO(state) (1u << (state))

/* ENDED is final. To be told so twice is no change. */
static const uint32_t tx_may_go[] = {
	[LF_TX_PLAIN] = TO(LF_TX_FUSED) | TO(LF_TX_ENDED),
	/* Back only from a try: see lf_conn_try_fuse(). */
	[LF_TX_FUSED] = TO(LF_TX_PLAIN) | TO(LF_TX_ENDED),
	[LF_TX_ENDED] = TO(LF_TX_ENDED),
};

static const uint32_t rx_may_go[] = {
	[LF_RX_PLAIN] = TO(LF_RX_READY) | TO(LF_RX_ENDED),
	/* Back only from a try: see lf_conn_try_ready(). */
	[LF_RX_READY] = TO(LF_RX_PLAIN) | TO(LF_RX_DRAIN) | TO(LF_RX_ENDED),
	[LF_RX_DRAIN] = TO(LF_RX_FUSED) | TO(LF_RX_ENDED),
	[LF_RX_FUSED] = TO(LF_RX_ENDED),
	[LF_RX_ENDED] = TO(LF_RX_ENDED),
};

static const uint32_t pairing_may_go[] = {
	[LF_PAIRING_FRESH] = TO(LF_PAIRING_TRACKED) | TO(LF_PAIRING_DECLINED),
	[LF_PAIRING_TRACKED] = TO(LF_PAIRING_CLAIMED) | TO(LF_PAIRING_DECLINED),
	/* Back where no broker answers, and in a forked child, whose claim it was not. */
	[LF_PAIRING_CLAIMED] = TO(LF_PAIRING_TRACKED) | TO(LF_PAIRING_PAIRED) |
			       TO(LF_PAIRING_DECLINED),
	[LF_PAIRING_PAIRED] = 0,
	[LF_PAIRING_DECLINED] = 0,
};

static bool is_over(struct lf_slot *slot)
{
	return atomic_load(&slot->reset) != 0;
}

void lf_states_check_tx(struct lf_slot *slot, enum lf_tx to)
{
	enum lf_tx was = (enum lf_tx)atomic_load(&slot->tx);
	LF_INVARIANT(lf_lock_is_mine(&slot->tx_lock));
	LF_INVARIANT((tx_may_go[was] & TO(to)) || is_over(slot));
	/* What the peer may have seen is not taken back. */
	LF_INVARIANT(to != LF_TX_PLAIN || atomic_load(&slot->tx_head) == 0);
}

void lf_states_check_rx(struct lf_slot *slot, enum lf_rx to)
{
	enum lf_rx was = (enum lf_rx)atomic_load(&slot->rx);
	LF_INVARIANT(lf_lock_is_mine(&slot->rx_lock));
	LF_INVARIANT((rx_may_go[was] & TO(to)) || is_over(slot));
	/* The ring's bytes come behind all that were promised by TCP. */
	LF_INVARIANT(to != LF_RX_FUSED || atomic_load(&slot->rx_tcp_left) == 0);
}

/* FUSED is told once it is so, and ENDED before it is. */
void lf_states_check_mark(struct lf_slot *slot, enum lf_mark to)
{
	LF_INVARIANT(lf_lock_is_mine(&slot->tx_lock));
	LF_INVARIANT(to != LF_MARK_PLAIN);
	LF_INVARIANT(atomic_load(&slot->tx) == LF_TX_FUSED || is_over(slot));
	LF_INVARIANT(to != LF_MARK_FUSED || atomic_load(&slot->tx_head) == 0);
}

void lf_states_check_pairing(enum lf_pairing from, enum lf_pairing to)
{
	LF_INVARIANT(pairing_may_go[from] & TO(to));
}

void lf_states_check_end(struct lf_slot *slot)
{
	LF_INVARIANT(lf_lock_is_mine(&slot->tx_lock) || lf_lock_is_mine(&slot->rx_lock));
	LF_INVARIANT(is_over(slot));
}
#endif

/* ISO C wants something in every translation unit. */
typedef int lf_states_unit;
