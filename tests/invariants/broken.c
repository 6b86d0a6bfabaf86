/* broken.c - uses of the library's insides that break what must hold, one by one; linked with the
 * library built with invariants.
 *
 *   broken USE            must abort, with one line that names what is broken
 *   broken USE right      the same as it ought to be: must not
 */
#define _GNU_SOURCE
#include "conn.h"
#include "invariant.h"
#include "lock.h"
#include "rank.h"
#include "states.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lf_slot slot;
static struct lf_segment segment;
static struct lf_sock sock = {.slot = &slot, .out = &segment.dir[0], .in = &segment.dir[1], .ring_size = 4096};
static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER, second = PTHREAD_MUTEX_INITIALIZER;

static void take_tx(void) { lf_lock_acquire(&slot.tx_lock, LF_RANK_TX); }
static void give_tx(void) { lf_lock_release(&slot.tx_lock, LF_RANK_TX); }
static void take_rx(void) { lf_lock_acquire(&slot.rx_lock, LF_RANK_RX); }
static void give_rx(void) { lf_lock_release(&slot.rx_lock, LF_RANK_RX); }

/* --- the order of locks --- */

static void order(bool right)
{
	if (right)
		take_rx(), take_tx();
	else
		take_tx(), take_rx();
}

static void two_of_a_rank(bool right)
{
	lf_mutex_lock(&first, LF_RANK_EPOLL);
	lf_mutex_lock(&second, right ? LF_RANK_LEAF : LF_RANK_EPOLL);
}

static void inside_a_leaf(bool right)
{
	lf_mutex_lock(&first, LF_RANK_LEAF);
	if (right)
		lf_mutex_unlock(&first, LF_RANK_LEAF);
	lf_mutex_lock(&second, LF_RANK_GATE);
}

static void given_but_not_taken(bool right)
{
	if (right)
		lf_mutex_lock(&first, LF_RANK_GATE);
	else
		pthread_mutex_lock(&first), lf_defer_begin();
	lf_mutex_unlock(&first, LF_RANK_GATE);
}

static void *take_tx_in_a_thread(void *unused)
{
	(void)unused;
	take_tx();
	return NULL;
}

static void given_by_another_thread(bool right)
{
	pthread_t thread;
	if (right) {
		take_tx();
	} else {
		pthread_create(&thread, NULL, take_tx_in_a_thread, NULL);
		pthread_join(thread, NULL);
		lf_rank_take(LF_RANK_TX);
	}
	give_tx();
}

static void asleep_with_a_lock(bool right)
{
	take_rx();
	if (right)
		give_rx();
	lf_rank_sleeps();
}

static void asleep_in_a_pause(bool right)
{
	take_rx();
	struct lf_defer_pause pause = lf_defer_pause();
	if (!right)
		lf_defer_resume(pause);
	lf_rank_sleeps();
}

/* --- states --- */

static void tx_without_its_lock(bool right)
{
	if (right)
		take_tx();
	else
		take_rx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
}

static void tx_fused_again(bool right)
{
	take_tx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
	lf_states_enter_tx(&slot, LF_TX_ENDED);
	if (!right)
		lf_states_enter_tx(&slot, LF_TX_FUSED);
}

static void tx_back_after_bytes(bool right)
{
	take_tx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
	if (!right)
		lf_conn_publish(&sock, 100, 1);
	lf_states_enter_tx(&slot, LF_TX_PLAIN);
}

static void rx_without_its_lock(bool right)
{
	if (right)
		take_rx();
	lf_states_enter_rx(&slot, LF_RX_READY);
}

static void rx_skips_what_tcp_has(bool right)
{
	take_rx();
	lf_states_enter_rx(&slot, LF_RX_READY);
	if (right)
		lf_states_enter_rx(&slot, LF_RX_DRAIN);
	lf_states_enter_rx(&slot, LF_RX_FUSED);
}

static void rx_goes_back(bool right)
{
	take_rx();
	lf_states_enter_rx(&slot, LF_RX_READY);
	lf_states_enter_rx(&slot, LF_RX_DRAIN);
	lf_states_enter_rx(&slot, right ? LF_RX_ENDED : LF_RX_READY);
}

static void rx_fused_too_early(bool right)
{
	take_rx();
	lf_states_enter_rx(&slot, LF_RX_READY);
	lf_states_enter_rx(&slot, LF_RX_DRAIN);
	atomic_store(&slot.rx_tcp_left, right ? 0 : 5);
	lf_states_enter_rx(&slot, LF_RX_FUSED);
}

static void mark_before_the_state(bool right)
{
	take_tx();
	if (right)
		lf_states_enter_tx(&slot, LF_TX_FUSED);
	lf_states_tell(&sock, LF_MARK_FUSED);
}

static void mark_goes_back(bool right)
{
	take_tx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
	lf_states_tell(&sock, LF_MARK_FUSED);
	lf_states_tell(&sock, right ? LF_MARK_ENDED : LF_MARK_PLAIN);
}

static void mark_without_the_lock(bool right)
{
	take_tx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
	if (!right)
		give_tx();
	lf_states_tell(&sock, LF_MARK_FUSED);
}

static void fused_told_after_bytes(bool right)
{
	take_tx();
	lf_states_enter_tx(&slot, LF_TX_FUSED);
	if (!right)
		lf_conn_publish(&sock, 1, 1);
	lf_states_tell(&sock, LF_MARK_FUSED);
}

static void ended_without_a_lock(bool right)
{
	atomic_store(&slot.reset, 1);
	if (right)
		take_rx();
	lf_states_end(&slot);
}

static void ended_without_a_word(bool right)
{
	take_rx();
	atomic_store(&slot.reset, right);
	lf_states_end(&slot);
}

static void paired_without_a_claim(bool right)
{
	atomic_store(&sock.pairing, right ? LF_PAIRING_CLAIMED : LF_PAIRING_TRACKED);
	lf_states_pair(&sock, right ? LF_PAIRING_CLAIMED : LF_PAIRING_TRACKED, LF_PAIRING_PAIRED);
}

static void declined_after_it_was_paired(bool right)
{
	atomic_store(&sock.pairing, LF_PAIRING_PAIRED);
	lf_states_pair(&sock, right ? LF_PAIRING_CLAIMED : LF_PAIRING_PAIRED, LF_PAIRING_DECLINED);
}

/* --- positions and counts --- */

static void published_without_the_lock(bool right)
{
	if (right)
		take_tx();
	lf_conn_publish(&sock, 1, 1);
}

static void head_goes_back(bool right)
{
	take_tx();
	lf_conn_publish(&sock, 100, 1);
	lf_conn_publish(&sock, right ? 101 : 99, 1);
}

static void more_than_the_ring_holds(bool right)
{
	take_tx();
	lf_conn_publish(&sock, right ? 4096 : 4097, 1);
}

static void fewer_than_none(bool right)
{
	atomic_store(&slot.holders, right);
	(void)lf_slot_leave(&slot);
}

static const struct use {
	const char *name;
	void (*make)(bool right);
} uses[] = {
	{"locks-out-of-order", order},
	{"two-locks-of-a-rank", two_of_a_rank},
	{"a-lock-inside-a-leaf", inside_a_leaf},
	{"a-lock-given-but-not-taken", given_but_not_taken},
	{"a-lock-given-by-another-thread", given_by_another_thread},
	{"asleep-with-a-lock", asleep_with_a_lock},
	{"asleep-after-a-pause", asleep_in_a_pause},
	{"tx-without-its-lock", tx_without_its_lock},
	{"tx-fused-again", tx_fused_again},
	{"tx-back-after-bytes", tx_back_after_bytes},
	{"rx-without-its-lock", rx_without_its_lock},
	{"rx-skips-what-tcp-has", rx_skips_what_tcp_has},
	{"rx-goes-back", rx_goes_back},
	{"rx-fused-too-early", rx_fused_too_early},
	{"mark-before-the-state", mark_before_the_state},
	{"mark-goes-back", mark_goes_back},
	{"mark-without-the-lock", mark_without_the_lock},
	{"fused-told-after-bytes", fused_told_after_bytes},
	{"ended-without-a-lock", ended_without_a_lock},
	{"ended-without-a-word", ended_without_a_word},
	{"paired-without-a-claim", paired_without_a_claim},
	{"declined-after-it-was-paired", declined_after_it_was_paired},
	{"published-without-the-lock", published_without_the_lock},
	{"head-goes-back", head_goes_back},
	{"more-than-the-ring-holds", more_than_the_ring_holds},
	{"fewer-than-none", fewer_than_none},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(uses) / sizeof(*uses); i++)
		if (!strcmp(argv[1], uses[i].name)) {
			uses[i].make(argc > 2);
			_exit(0); /* locks are held */
		}
	return 2;
}
