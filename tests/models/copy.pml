/* copy.pml - a ring that ends with bytes unread, by FIN or since its writer leaves it: TCP gets a copy, and the
 * reader may hand on.
 *
 * Mirrors
 *   conn_end.c   copy_what_is_unread(), end_with_a_copy(), go_on_in_tcp(), take_back_late(), decide_late(), mark_end(),
 *                lf_conn_shutdown(), grant(), take_back(), lf_conn_finish_resending(), leave_ring(),
 *                leave_unless_stuck()
 *   conn_recv.c  lf_conn_skip_copy(), step_fused(), look_at_tcp()
 *   conn_resend.c lf_conn_resend_by_tcp(), lf_conn_note_what_tcp_has()
 *
 * The writer puts 0 to BYTES bytes into the ring and shuts down; with LEAVES it may leave the ring before, and
 * send one more byte by TCP. It may be killed at any step, before its FIN; then a process that shares its end goes
 * on: it finishes what was begun, sends one byte more, and shuts down. The reader reads what it likes in the ring, then goes on there to the end, or hands the
 * socket on to somebody who knows only TCP: it wishes its bytes back, waits for the mark, or has waited for
 * long enough (whoever sends was held up). TCP has room for all.
 *
 * Checked: whoever reads last has read each byte once and in order when he meets FIN; nobody waits for
 * ever.
 */
#ifndef BYTES
#define BYTES 3
#endif

#define HEAD 0
#define MARK 1
#define END_POS 2
#define COPIED 3
#define TAIL 4
#define BY_TCP 5
#define FIN 6
#define VARIABLES 7
#define THREADS 3
#define WRITER 0
#define HEIR 1
#define READER 2
#define MARK_FUSED 1
#define MARK_ENDED 2
#define COPY_PROMISED 3
#define COPYING 4
#define RESENDING 1
#define TAKE_BACK 2
#define TAKEN 3
#define TAKEN_LATE 4
#define AFTER_FLUSH(variable, value) \
	if \
	:: variable == BY_TCP -> tcp ! value \
	:: else -> mem[variable] = value \
	fi
chan tcp = [2 * BYTES + 3] of { byte };
#include "memory.pml"

byte ring[BYTES + 1];
/* The slot of the sending end. */
byte tx_head, resent, resend_from, resending;
byte given; /* the kernel's count of what TCP has */
bool kill_now, killed, shut;
bool left; /* the state ENDED */
/* Changed by locked instructions alone, which empty the buffer of who makes them. */
byte wish;
/* The receiving end. */
byte rx_tail, skipped;
byte came; /* the next byte that is due */
bool over;

inline arrive(number)
{
	atomic { assert(number == came); came++ }
}

inline mark_end(thread, position)
{
	STORE(thread, END_POS, position);
	STORE_SC(thread, MARK, MARK_ENDED)
}

inline give(thread)
{
	do
	:: resent < tx_head ->
		atomic { STORE(thread, BY_TCP, ring[resent]); given++ }
		resent++
	:: else -> break
	od
}

inline take_back_late(thread)
{
#ifndef MUTATE_NO_LATE_LOOK
	if
	:: atomic { empty(buffer[thread]) && (wish == TAKE_BACK || wish == TAKEN_LATE) -> wish = TAKEN_LATE }
		n = mem[TAIL];
		resend_from = n;
		resent = n;
		resending = RESENDING;
		STORE(thread, COPIED, 0);
		STORE(thread, END_POS, n)
	:: empty(buffer[thread]) && wish != TAKE_BACK && wish != TAKEN_LATE
	fi
#else
	skip
#endif
}

inline decide_late(thread)
{
	if
#ifndef MUTATE_HEIR_LOOKS_AGAIN
	:: resending == COPYING
#endif
	:: else ->
		take_back_late(thread);
		if
		:: resending == COPY_PROMISED -> resending = COPYING
		:: else
		fi
	fi
}

inline begin_copy(thread)
{
	n = mem[TAIL];
	STORE(thread, HEAD, tx_head); /* a dead one may have told the slot only */
	resend_from = n;
	resent = n;
	resending = COPY_PROMISED;
#ifdef MUTATE_MARK_BEFORE_COPIED
	mark_end(thread, tx_head);
	STORE(thread, COPIED, tx_head - resend_from)
#else
	STORE(thread, COPIED, tx_head - resend_from);
#ifdef MUTATE_COPY_BEFORE_MARK
	give(thread);
#endif
	mark_end(thread, tx_head)
#endif
}

/* Where a ring has ended, a byte may come behind it. */
inline send_on(thread)
{
	if
	:: resending ->
		atomic { resending = 0; left = true }
		atomic { STORE(thread, BY_TCP, tx_head); tx_head++ }
	:: true
	fi
}

/* lf_conn_service(), then copy_what_is_unread(); or lf_conn_leave_tx(). */
inline say_last(thread)
{
	if
	:: atomic { empty(buffer[thread]) && (wish == TAKE_BACK || wish == TAKEN) -> wish = TAKEN }
		n = mem[TAIL];
		resend_from = n;
		resent = n;
		resending = RESENDING;
		mark_end(thread, n);
		give(thread)
	:: empty(buffer[thread]) && wish != TAKE_BACK && wish != TAKEN ->
		n = mem[TAIL];
		if
		:: n < tx_head ->
			begin_copy(thread);
			decide_late(thread);
#ifdef MUTATE_SEND_ON_BEFORE_THE_COPY
			send_on(thread);
#endif
			give(thread)
		:: else
		fi
	fi;
#ifdef LEAVES
#ifndef MUTATE_SEND_ON_BEFORE_THE_COPY
	send_on(thread);
#endif
#endif
	STORE(thread, FIN, 1);
	shut = true;
	n = 0
}

proctype writer()
{
	byte n;
	{
	do
	:: tx_head < BYTES ->
		ring[tx_head] = tx_head;
		tx_head++;
		STORE(WRITER, HEAD, tx_head)
	:: true -> break
	od;
	say_last(WRITER)
	} unless { atomic { kill_now && !shut -> killed = true } }
}

/* The lock of a dead process is taken over; its stores have got there before. */
proctype heir()
{
	byte n;
	do
	:: shut -> goto end
	:: killed && empty(buffer[WRITER]) && !mem[FIN] -> break
	:: killed && empty(buffer[WRITER]) && mem[FIN] -> goto end
	od;
	if
	:: left ->
		atomic { STORE(HEIR, BY_TCP, tx_head); tx_head++ }
		STORE(HEIR, FIN, 1)
	:: !left && resending ->
		/* lf_conn_finish_resending() */
		if
		:: mem[MARK] != MARK_ENDED ->
			if
#ifndef MUTATE_HEIR_ENDS_AT_THE_COPY
			:: resending == COPY_PROMISED -> begin_copy(HEIR)
			:: resending != COPY_PROMISED -> mark_end(HEIR, resent)
#else
			:: true -> mark_end(HEIR, resent)
#endif
			fi;
			decide_late(HEIR)
		:: else ->
			decide_late(HEIR);
			resent = resend_from + given
		fi;
#ifndef MUTATE_HEIR_FORGETS_THE_COPY
		give(HEIR);
#endif
		/* It goes on by TCP. */
		STORE(HEIR, BY_TCP, tx_head);
		tx_head++;
		STORE(HEIR, FIN, 1)
	:: else ->
		/* lf_conn_publish(): the dead one may have told the slot only. */
		ring[tx_head] = tx_head;
		tx_head++;
		STORE(HEIR, HEAD, tx_head);
		FENCE(HEIR);
		say_last(HEIR)
	fi;
	n = 0;
end:
	skip
}

proctype reader()
{
	byte head, due, got;
	bool handed_on;
	do
	:: atomic { FENCE(READER) -> true }
		/* take_from_ring() */
		head = mem[HEAD];
		if
		:: mem[MARK] == MARK_ENDED && mem[END_POS] < head -> head = mem[END_POS]
		:: else
		fi;
		if
		:: head > rx_tail ->
			arrive(ring[rx_tail]);
			rx_tail++;
			STORE(READER, TAIL, rx_tail)
		:: mem[MARK] == MARK_ENDED && mem[END_POS] == rx_tail -> break
		:: else ->
			/* look_at_tcp(): what it shows counts if the ring is still empty afterwards. */
			if
			:: nempty(tcp) ->
				if
				:: mem[HEAD] != rx_tail || mem[MARK] == MARK_ENDED
				:: else -> tcp ? got; arrive(got); got = 0
				fi
			:: mem[FIN] && empty(tcp) && mem[HEAD] == rx_tail && mem[MARK] != MARK_ENDED -> goto end
			:: mem[HEAD] != rx_tail || mem[MARK] == MARK_ENDED
			fi
		fi
	/* leave_ring() */
	:: atomic { empty(buffer[READER]) && !handed_on && wish == 0 -> wish = TAKE_BACK; handed_on = true }
		if
		:: mem[HEAD] != rx_tail || mem[MARK] == MARK_ENDED -> mem[MARK] == MARK_ENDED
		:: true /* nothing unread, or time is up */
		fi;
		/* leave_unless_stuck() */
		if
		:: mem[MARK] == MARK_ENDED && mem[COPIED] ->
#ifdef MUTATE_COPY_WITHOUT_SWAP
			wish = 0;
			break
#else
			if
			:: atomic { wish == TAKE_BACK -> wish = 0 }
				break
			:: wish != TAKE_BACK -> goto by_tcp
			fi
#endif
		:: else -> goto by_tcp
		fi
	od;
	/* lf_conn_skip_copy() */
	due = mem[COPIED];
#ifndef MUTATE_SKIP_ALL
	due = (due == 0 -> 0 : due - (mem[END_POS] - rx_tail));
#endif
#ifdef MUTATE_KEEP_THE_COPY
	due = 0;
#endif
	do
	:: skipped < due ->
		tcp ? got;
		skipped++;
		got = 0
	:: else -> break
	od;
by_tcp:
	do
	:: nempty(tcp) -> tcp ? got; arrive(got); got = 0
	:: mem[FIN] && empty(tcp) -> break
	od;
end:
	head = 0;
	due = 0;
	handed_on = false;
	over = true
}

proctype killer()
{
	if
	:: kill_now = true
	:: true
	fi
}

init {
	atomic {
		mem[MARK] = MARK_FUSED;
		run flusher(WRITER);
		run flusher(HEIR);
		run flusher(READER);
		run writer();
		run heir();
		run reader();
		run killer()
	}
	over -> assert(came == tx_head)
}
