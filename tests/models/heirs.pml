/* heirs.pml - two processes share the sending end; one is killed at any step, the other goes on.
 *
 * Mirrors
 *   lock.c       lf_lock_acquire(), lf_lock_release(): the word holds the owner, a dead owner's lock
 *                is taken over (robust list, or owner_is_dead())
 *   conn_send.c  before_put(), put(), rest by TCP once the ring has ended
 *   conn.h       lf_conn_publish(): the slot's position, then the segment's
 *   conn_end.c   grant(), take_back(), mark_end(), go_on_in_tcp(), lf_conn_is_resending(),
 *                lf_conn_finish_resending(), lf_conn_end_tx()
 *   conn_resend.c lf_conn_resend_by_tcp(), lf_conn_note_what_tcp_has()
 *
 * Both send their own numbered bytes, one at a time; one may end the ring on its own account, without
 * a wish. The reader wishes its unread bytes back at any step, or never, and reads what is its own; or
 * leaves after its second has passed. Stores are seen at once: the order of a dead process's
 * stores is what matters here (its buffer drains in order; the lock's word comes last).
 *
 * Checked: each byte of a send that has returned arrives once and in its sender's order; of the one
 * during which its sender was killed, at most once; nothing that was not sent; nobody waits for
 * ever. A process may also be killed between the kernel's send of a byte taken back and the note of it
 * (slot->resent): the heir goes by the kernel's count (lf_conn_note_what_tcp_has()).
 */
#ifndef BYTES /* of each process */
#define BYTES 2
#endif
#define NOBODY 2
#define SLOTS (2 * BYTES + 2)

chan tcp = [SLOTS * 2] of { byte };
byte ring[SLOTS];
/* The segment. */
byte head, tail, end_pos;
bool ended;
byte wish; /* 0 none, 2 take back, 3 taken, 4 taken late */
bool may_end = true; /* on its own account, once */
/* The slot. */
byte lock = NOBODY;
bool dead[2];
byte tx_head, resent, resend_from;
byte given; /* the kernel's count of bytes by TCP; there were none before the ring */
bool tx_fused = true, resending;

byte returned[2]; /* bytes of sends that have returned */
byte begun[2];
byte came[2];     /* bytes that have arrived */
byte done;
byte rx_tail;
bool rx_ring = true; /* the reader's place is the ring */
bool kill_now;
byte victim = NOBODY;

#define HELD_BY_LIVING (lock != NOBODY && !dead[lock])

/* Process `number / BYTES` has sent it. */
inline arrive(number)
{
	atomic {
		assert(number / BYTES < 2);
		assert(number % BYTES == came[number / BYTES]);
		came[number / BYTES]++
	}
}

inline mark_end(position)
{
#ifdef MUTATE_MARK_BEFORE_END_POS
	ended = true;
	end_pos = position
#else
	end_pos = position;
	ended = true
#endif
}

inline resend()
{
	do
	:: resent < tx_head ->
		atomic {
			tcp ! ring[resent];
			given++
		}
		resent++
	:: else -> break
	od
}

inline go_on_in_tcp()
{
	tx_fused = false;
	resending = false
}

/* What the reader has wished back since, though the end was to be at tx_head. */
inline take_back_late()
{
	if
	:: atomic { wish == 2 -> wish = 4 }
	:: wish == 4
	:: wish != 2 && wish != 4 -> goto nothing_late
	fi;
	resend_from = tail;
	resent = resend_from;
	end_pos = resent;
nothing_late:
	skip
}

/* lf_conn_finish_resending() */
inline finish_resending()
{
	if
	:: !ended -> mark_end(resent)
	:: else
	fi;
#ifndef MUTATE_HEIR_FORGETS_THE_WISH
	take_back_late();
#endif
#ifndef MUTATE_HEIR_GOES_BY_THE_NOTE
	resent = resend_from + given;
#endif
	resend();
	go_on_in_tcp()
}

/* lf_conn_end_tx(), FUSED */
inline end_tx()
{
	head = tx_head; /* a dead one may have told the slot only */
#ifdef MUTATE_END_WITHOUT_A_NOTE
	mark_end(tx_head);
	go_on_in_tcp()
#else
	resend_from = tx_head;
	resent = tx_head;
	resending = true;
	finish_resending()
#endif
}

/* grant(), under the lock, FUSED */
inline grant()
{
	if
	:: resending -> finish_resending()
	:: !resending && wish == 3 -> take_back()
	:: atomic { !resending && wish == 2 -> wish = 3 }
		take_back()
	:: !resending && wish == 0
	fi
}

inline take_back()
{
	resend_from = tail;
	resent = resend_from;
	resending = true;
#ifdef MUTATE_ENDED_BEFORE_RESENT
	tx_fused = false;
#endif
	mark_end(resent);
	resend();
	go_on_in_tcp()
}

proctype process(byte me)
{
	byte i;
	{
	do
	:: i == BYTES -> break
	:: i < BYTES ->
		if
		:: tx_fused ->
			/* lf_lock_acquire() */
			atomic { !HELD_BY_LIVING -> lock = me };
			if
			:: tx_fused && (resending || wish != 0) -> grant()
			:: tx_fused && !resending && wish == 0 && may_end -> may_end = false; end_tx()
			:: tx_fused && !resending && wish == 0 ->
				ring[tx_head] = me * BYTES + i;
				begun[me] = i + 1;
#ifdef MUTATE_SEGMENT_BEFORE_SLOT
				head = tx_head + 1;
				tx_head++;
#else
				tx_head++;
				head = tx_head;
#endif
				atomic { i++; returned[me] = i }
			:: !tx_fused
			fi;
			lock = NOBODY
		:: !tx_fused ->
			atomic { begun[me] = i + 1; tcp ! me * BYTES + i; given++; i++; returned[me] = i }
		fi
	od;
	/* Later calls: for the wish, and for what a dead one has left behind. */
	do
	:: tx_fused && (wish >= 2 || resending) && !HELD_BY_LIVING ->
		atomic { !HELD_BY_LIVING -> lock = me };
		if
		:: tx_fused -> grant()
		:: else
		fi;
		lock = NOBODY
	:: done == 1 && (!tx_fused || (wish < 2 && !resending)) -> break
	od
	} unless { atomic { kill_now && victim == me -> dead[me] = true } }
}

proctype killer()
{
	if
	:: atomic { victim = 0; kill_now = true }
	:: atomic { victim = 1; kill_now = true }
	:: true
	fi
}

/* All that is ever to come. */
#define ALL_CAME ((dead[0] || came[0] == BYTES) && (dead[1] || came[1] == BYTES) && \
		  came[0] >= returned[0] && came[1] >= returned[1])

proctype reader()
{
	bool may_wish = true;
	byte got;
	do
	:: may_wish && rx_ring -> may_wish = false; wish = 2
	:: atomic { rx_ring && ended && wish == 2 -> wish = 0 } /* too late: lf_conn_take_turn() */
	:: atomic { rx_ring && !ended && wish == 2 -> rx_ring = false } /* after a second */
	:: rx_ring && wish == 0 && head > rx_tail && (!ended || end_pos > rx_tail) ->
		got = ring[rx_tail];
		arrive(got);
		got = 0;
		rx_tail++;
		tail = rx_tail
	:: rx_ring && ended && end_pos == rx_tail -> rx_ring = false
	:: !rx_ring && nempty(tcp) -> tcp ? got; arrive(got); got = 0
	:: ALL_CAME && empty(tcp) && (!may_wish || !rx_ring) -> break
	:: ALL_CAME && empty(tcp) && may_wish && head == rx_tail -> break
	od;
	done = 1
}

init {
	atomic { run process(0); run process(1); run reader(); run killer() }
	_nr_pr == 1 ->
	do
	:: nempty(tcp) ->
		byte late;
		tcp ? late;
		arrive(late)
	:: else -> break
	od;
	assert(came[0] >= returned[0] && came[0] <= begun[0]);
	assert(came[1] >= returned[1] && came[1] <= begun[1])
}
