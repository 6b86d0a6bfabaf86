/* switch.pml - one direction, plain -> fused -> plain, with everything that may end the ring.
 *
 * Mirrors
 *   conn_fuse.c  lf_conn_try_ready(), lf_conn_try_fuse() (the counts agree)
 *   conn_send.c  lf_conn_enter_plain_tx(), plain_send(), fused_send(), before_put(), put(),
 *                after_put(); a send moves one byte, the ring is as large as needed
 *   conn_recv.c  step_ready(), step_drain(), step_fused(), take_from_ring(), unread_in_ring(),
 *                ring_is_over(), look_at_tcp()
 *   conn_end.c   lf_conn_end_tx(), mark_end(), go_on_in_tcp(), take_back(), take_back_late(),
 *                grant(), lf_conn_service(), leave_ring(), await_end_of_ring(), wish_all_back(),
 *                leave_unless_stuck(), lf_conn_take_turn(), lf_conn_ask_again(),
 *                lf_conn_has_been_taken_back(), end_both()
 *   conn_resend.c lf_conn_resend_by_tcp()
 *
 * The producer's end is one thread, or with SECOND two; either may end the ring on its own at any
 * step (BROKER). The consumer may at any step, once, wish: the end of the ring (PLAIN), or all unread
 * bytes back by TCP, as one that stays with the socket or as one that knows only TCP from then on. Waiting is a wait for the thing itself: sleep.pml and room.pml show that who
 * waits is woken.
 *
 * A send of the kernel's is a store in the sender's buffer, so it may become visible late, but
 * never before what the thread stored earlier; a receive of the kernel's is a full fence.
 *
 * A consumer that leaves waits a second at the most for its unread bytes. That may pass at any moment,
 * also while the producer stands between its look at the wish and the end mark.
 *
 * Checked: bytes arrive in each sender's order, each once, none is lost (the consumer ends with all
 * of them; a wait for ever is an invalid end state), no TCP byte appears around a live ring, nobody
 * looks into a ring that was taken back; `live`: under weak fairness all bytes arrive.
 */
#ifndef BYTES /* of the first sender */
#define BYTES 3
#endif
#ifndef SECOND /* bytes of the second sender; 0: there is none */
#define SECOND 0
#endif

#define TCP_TOTAL 0
#define MARK 1
#define HEAD 2
#define END_POS 3
#define REASON 4
#define READY 5
#define TAIL 6
#define BY_TCP 7 /* the kernel's send */
#define VARIABLES 8
#define THREADS 3
#define SENDER 0
#define SENDER2 1
#define RECEIVER 2
#define AFTER_FLUSH(variable, value) \
	if \
	:: variable == BY_TCP -> tcp ! value \
	:: else -> mem[variable] = value \
	fi

#define ALL (BYTES + SECOND)
chan tcp = [ALL + 1] of { byte };
#define FIRST_OF_SECOND 16 /* its bytes are numbered from here on */
#include "memory.pml"

#define MARK_PLAIN 0
#define MARK_FUSED 1
#define MARK_ENDED 2
#define WISH_NONE 0
#define WISH_PLAIN 1
#define WISH_TAKE_BACK 2
#define WISH_TAKEN 3
#define WISH_TAKEN_LATE 4
#define TX_PLAIN 0
#define TX_FUSED 1
#define TX_ENDED 2
#define RX_PLAIN 0
#define RX_READY 1
#define RX_DRAIN 2
#define RX_FUSED 3
#define RX_ENDED 4

/* c.wish changes by compare-and-swap only, and by seq_cst stores of the consumer: no buffer. */
byte wish;
bool broker_wish;
byte ring[ALL + 1];

/* The producer's slot. */
bool tx_lock;
byte tx, tx_inside, tcp_sent, tx_head, resent;
bool resending;
byte senders_left;

/* The consumer's slot. */
byte rx, tcp_rcvd, rx_tail, left;
byte next = 0, next2 = FIRST_OF_SECOND; /* the bytes that have to come */
bool only_tcp; /* the program that goes on knows nothing of rings */
bool all_read;

inline lock_tx(thread) { atomic { FENCE(thread) && !tx_lock -> tx_lock = true } }
inline unlock_tx(thread) { atomic { FENCE(thread) -> tx_lock = false } }

#define WISHED (wish != WISH_NONE || broker_wish)

/* --- the producer --- */

inline mark_end(thread, position)
{
#ifdef MUTATE_MARK_BEFORE_END_POS
	STORE(thread, MARK, MARK_ENDED);
	STORE(thread, END_POS, position);
#else
	STORE(thread, END_POS, position);
	STORE(thread, REASON, 1);
	STORE(thread, MARK, MARK_ENDED);
#endif
}

/* A release store: nobody sees it before what came before it. */
inline go_on_in_tcp(thread)
{
	FENCE(thread);
	tx = TX_ENDED;
	resending = false
}

/* lf_conn_resend_by_tcp() */
inline resend(thread)
{
	do
	:: resent < tx_head -> STORE(thread, BY_TCP, ring[resent]); FENCE(thread); resent++
	:: else -> break
	od
}

/* Under tx_lock. */
inline end_tx(thread)
{
	if
	:: tx == TX_FUSED ->
#ifdef MUTATE_TCP_BEFORE_MARK
		tx = TX_ENDED;
#endif
		mark_end(thread, tx_head);
#ifndef MUTATE_END_WITHOUT_A_LOOK
		FENCE(thread);
		/* take_back_late() */
		if
		:: atomic { wish == WISH_TAKE_BACK -> wish = WISH_TAKEN_LATE }
			resent = mem[TAIL];
			STORE(thread, END_POS, resent);
			resend(thread)
		:: else
		fi;
#endif
		go_on_in_tcp(thread)
	:: tx == TX_PLAIN -> tx = TX_ENDED; STORE_SC(thread, REASON, 1)
	:: else
	fi
}

inline take_back(thread)
{
	resent = mem[TAIL];
	resending = true;
	mark_end(thread, resent);
	resend(thread);
	go_on_in_tcp(thread)
}

/* lf_conn_service(), grant() */
inline service(thread)
{
	lock_tx(thread);
	if
	:: tx == TX_FUSED && WISHED ->
		if
		:: atomic { wish == WISH_TAKE_BACK ->
#ifndef MUTATE_TAKE_WITHOUT_SWAP
			wish = WISH_TAKEN
#endif
		   }
			take_back(thread)
		:: wish != WISH_TAKE_BACK -> end_tx(thread)
		fi
	:: else
	fi;
	unlock_tx(thread)
}

proctype sender(byte thread; byte byte_number; byte end)
{
	do
	:: byte_number == end -> break
	:: else ->
		if
		:: tx == TX_PLAIN && mem[READY] == 1 ->
			/* try_fuse() */
			lock_tx(thread);
			if
			:: tx == TX_PLAIN ->
#ifdef MUTATE_FUSE_LOOKS_FIRST
				if
				:: tx_inside != 0
				:: else ->
					tx = TX_FUSED;
					STORE(thread, TCP_TOTAL, tcp_sent);
					STORE_SC(thread, MARK, MARK_FUSED)
				fi
#else
				tx = TX_FUSED;
				if
				:: tx_inside != 0 -> tx = TX_PLAIN
				:: else ->
#ifdef MUTATE_MARK_BEFORE_TOTAL
					STORE(thread, MARK, MARK_FUSED);
					STORE(thread, TCP_TOTAL, tcp_sent)
#else
					STORE(thread, TCP_TOTAL, tcp_sent);
					STORE_SC(thread, MARK, MARK_FUSED)
#endif
				fi
#endif
			:: else
			fi;
			unlock_tx(thread)
		:: else
		fi;
		if
		:: tx == TX_FUSED ->
			/* fused_send(): put(), then after_put() */
			lock_tx(thread);
			if
			:: tx == TX_FUSED && !resending && !WISHED ->
				ring[tx_head] = byte_number;
				tx_head++;
				byte_number++;
#ifdef MUTATE_PUT_WITHOUT_FENCE
				STORE(thread, HEAD, tx_head);
				tx_lock = false
#else
				STORE(thread, HEAD, tx_head);
				unlock_tx(thread);
				FENCE(thread)
#endif
			:: else -> unlock_tx(thread)
			fi;
			if
			:: WISHED && tx == TX_FUSED -> service(thread)
			:: else
			fi
		:: else ->
			/* plain_send() */
			atomic { FENCE(thread) -> tx_inside++ }
			if
			:: tx != TX_FUSED ->
				STORE(thread, BY_TCP, byte_number);
				atomic { FENCE(thread) -> tcp_sent++ }
				byte_number++
			:: else
			fi;
			tx_inside--
		fi
	od;
	/* The program's later calls, each of which looks for wishes. */
	senders_left--;
end_idle:
	do
	:: atomic { WISHED && tx == TX_FUSED -> skip }
		service(thread)
	:: all_read -> break
	od
}

#ifdef BROKER
/* `loopfuse defuse`, or a call that a ring can't honour; or never. */
proctype broker()
{
	if
	:: broker_wish = true
	:: true
	fi
}
#endif

/* --- the consumer --- */

#define HAS_UNREAD (!TAKEN_BACK && mem[HEAD] != rx_tail)
#define TAKEN_BACK (wish == WISH_TAKEN_LATE || \
		    wish == WISH_TAKEN && (mem[MARK] != MARK_ENDED || mem[END_POS] == rx_tail))
#define RING_IS_OVER (mem[MARK] == MARK_ENDED && mem[END_POS] == rx_tail)

inline came(number)
{
	if
	:: number >= FIRST_OF_SECOND -> assert(number == next2); next2++
	:: else -> assert(number == next); next++
	fi
}

inline leave_unless_stuck()
{
	/* not hung up: a live producer */
	if
	:: mem[MARK] == MARK_ENDED && mem[END_POS] != rx_tail
	:: else -> rx = RX_ENDED
	fi
}

/* Peeks at TCP, or takes a byte. */
inline recv_tcp()
{
	tcp ? number;
	tcp_rcvd++;
	came(number)
}

/* One try, under rx_lock: it is one thread. `waits`: EAGAIN. */
inline step()
{
	waits = false;
	if
	:: rx == RX_READY ->
		if
		:: mem[REASON] && mem[MARK] == MARK_PLAIN -> rx = RX_ENDED
		:: else ->
			if
			:: mem[MARK] == MARK_PLAIN ->
				peeked = nempty(tcp);
				if
				:: !peeked -> waits = true; goto stepped
#ifdef MUTATE_READY_LOOKS_ONCE
				:: peeked -> recv_tcp(); goto stepped
#else
				:: peeked && mem[MARK] == MARK_PLAIN -> recv_tcp(); goto stepped
				:: peeked && mem[MARK] != MARK_PLAIN
#endif
				fi
			:: else
			fi;
			assert(mem[TCP_TOTAL] >= tcp_rcvd);
			left = mem[TCP_TOTAL] - tcp_rcvd;
			rx = RX_DRAIN
		fi
	:: rx == RX_DRAIN ->
		if
		:: left == 0 -> rx = RX_FUSED
		:: left > 0 && nempty(tcp) -> left--; recv_tcp()
		:: left > 0 && empty(tcp) -> waits = true
		fi
	:: rx == RX_FUSED ->
		if
		:: TAKEN_BACK ->
			if
			:: RING_IS_OVER -> rx = RX_ENDED
			:: else -> waits = true
			fi
		:: else ->
			/* take_from_ring(): head before the mark */
			head = mem[HEAD];
			if
			:: mem[MARK] == MARK_ENDED && mem[END_POS] - rx_tail < head - rx_tail ->
				head = mem[END_POS]
			:: else
			fi;
			if
			:: head != rx_tail ->
				assert(!only_tcp && head > rx_tail);
				number = ring[rx_tail];
				came(number);
				rx_tail++;
				STORE(RECEIVER, TAIL, rx_tail)
			:: head == rx_tail && RING_IS_OVER -> rx = RX_ENDED
			:: else ->
				/* look_at_tcp() */
				peeked = nempty(tcp);
				if
				:: !peeked -> waits = true
#ifndef MUTATE_TCP_COUNTS_AT_ONCE
				:: peeked && (mem[HEAD] != rx_tail || RING_IS_OVER)
				:: atomic { peeked && !(mem[HEAD] != rx_tail || RING_IS_OVER) ->
					assert(false) } /* TCP bytes around a live ring */
#else
				:: peeked -> recv_tcp()
#endif
				fi
			fi
		fi
	:: rx == RX_ENDED || rx == RX_PLAIN ->
		if
		:: nempty(tcp) -> recv_tcp()
		:: empty(tcp) -> waits = true
		fi
	fi;
stepped:
	number = 0;
	head = 0;
	peeked = false
}

/* lf_conn_defuse(), leave_ring(): `stay` */
inline leave_ring(stay)
{
	if
	:: rx == RX_PLAIN -> rx = RX_ENDED
	:: rx == RX_ENDED
	:: else ->
		/* wish_all_back() */
		atomic {
			FENCE(RECEIVER) ->
			if
			:: wish != WISH_TAKEN && wish != WISH_TAKEN_LATE -> wish = WISH_TAKE_BACK
			:: else
			fi
		}
		if
		:: mem[MARK] == MARK_FUSED && HAS_UNREAD ->
			/* await_end_of_ring(), for as long as it likes */
			if
			:: mem[MARK] != MARK_FUSED
			:: true
			fi;
			if
			:: stay && mem[MARK] == MARK_FUSED
			:: else -> leave_unless_stuck()
			fi
		:: else -> leave_unless_stuck()
		fi
	fi;
	only_tcp = !stay && rx == RX_ENDED
}

proctype receiver()
{
	bool waits, peeked, asked, swapped;
#ifdef NO_WISHES
	bool may_leave = false;
#else
	bool may_leave = true;
#endif
	byte number, head;
	/* lf_conn_try_ready() */
	rx = RX_READY;
	STORE(RECEIVER, READY, 1);
again:
	do
	:: next == BYTES && next2 == FIRST_OF_SECOND + SECOND -> break
	:: may_leave -> /* at any step, or never */
		may_leave = false;
		if
		:: /* end_both() */
			atomic {
				FENCE(RECEIVER) ->
				if
				:: wish == WISH_NONE -> wish = WISH_PLAIN
				:: else
				fi
			}
			if
			:: rx == RX_PLAIN || mem[MARK] == MARK_PLAIN -> rx = RX_ENDED
			:: else
			fi
		:: skip; leave_ring(true)
		:: skip; leave_ring(false)
		fi
	:: else ->
receive:
		/* lf_conn_take_turn() */
		asked = false;
#ifdef MUTATE_READ_WITHOUT_TURN
		skip;
#else
		if
		:: rx != RX_PLAIN && rx != RX_ENDED ->
			atomic {
				FENCE(RECEIVER) ->
				if
				:: wish == WISH_TAKE_BACK -> wish = WISH_NONE; asked = true
				:: else
				fi
			}
		:: else
		fi;
#endif
		step();
		if
		:: asked ->
			/* lf_conn_ask_again() */
			swapped = false;
			atomic {
#ifndef MUTATE_ASK_BEFORE_TAIL
				FENCE(RECEIVER) ->
#endif
				if
				:: wish == WISH_NONE -> wish = WISH_TAKE_BACK; swapped = true
				:: else
				fi
			}
			if
			:: swapped && !(mem[MARK] == MARK_FUSED && HAS_UNREAD) && rx != RX_ENDED ->
				leave_unless_stuck()
			:: else
			fi
		:: else
		fi;
		if
		:: waits && next + next2 < ALL + FIRST_OF_SECOND ->
			/* lf_wait(): the kernel's receive, or the ring with its doorbell */
			if
			:: nempty(tcp)
			:: rx == RX_READY && mem[MARK] != MARK_PLAIN
			:: rx == RX_FUSED && (HAS_UNREAD || RING_IS_OVER)
			:: may_leave -> goto again
			fi
		:: else
		fi;
		if
		:: may_leave -> goto receive
		:: goto again
		fi
	od;
	assert(empty(tcp));
	all_read = true
}

init {
	atomic {
		run flusher(SENDER);
		run flusher(RECEIVER);
		senders_left = 1;
		run sender(SENDER, 0, BYTES);
#if SECOND
		run flusher(SENDER2);
		senders_left++;
		run sender(SENDER2, FIRST_OF_SECOND, FIRST_OF_SECOND + SECOND);
#endif
#ifdef BROKER
		run broker();
#endif
		run receiver()
	}
	/* Nothing came twice. */
	all_read && senders_left == 0 && empty(buffer[SENDER]) && empty(buffer[SENDER2]) && !tx_lock ->
	assert(empty(tcp))
}

#ifdef LIVE
ltl live { <> all_read }
#endif
