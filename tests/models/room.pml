/* room.pml - a small ring whose writer sleeps for room and whose reader sleeps for bytes.
 *
 * Mirrors
 *   conn_send.c   room(), full(), put(), stalled() (without an epoll set), after_put(),
 *                 lf_conn_say_when_writable(), lf_conn_writable()
 *   conn_recv.c   take_from_ring(), after_step(), lf_conn_writer_has_to_wait()
 *   wait.c        lf_wait_arm(), lf_wait(), sleep_once() with the bell alone: no LF_WRITER_SLEEP_NS
 *   bell.c        lf_bell_wake(), lf_bell_drain()
 *
 * Checked: neither sleeps for ever while it could go on (invalid end state), unread bytes never
 * exceed the limit, places are not overwritten before they are read, all bytes arrive in order;
 * `live`: under weak fairness all is sent and read.
 */
#ifndef LIMIT
#define LIMIT 3 /* sock->out_limit */
#endif
#ifndef TOTAL
#define TOTAL 6
#endif
#ifndef MOST /* bytes of one receive at the most */
#define MOST 2
#endif

#define HEAD 0
#define TAIL 1
#define READER_ARMED 2
#define WRITER_ARMED 3
#define BELOW 4
#define VARIABLES 5
#define THREADS 2
#define WRITER 0
#define READER 1
#include "memory.pml"

byte ring[LIMIT];
byte writers_bell, readers_bell;
byte read_so_far;
bool written, all_read;

/* lf_bell_wake() */
inline wake(armed, bell)
{
	atomic {
		if
		:: mem[armed] == 1 -> mem[armed] = 0; bell = (bell < 2 -> bell + 1 : 2)
		:: else
		fi
	}
}

proctype writer()
{
	byte head, tail; /* slot->tx_head, slot->tx_tail */
	byte below;
	do
	:: head == TOTAL -> break
	:: else ->
		/* room(): the tail as last seen does until it leaves too little */
		if
		:: head - tail > LIMIT / 2 -> tail = mem[TAIL]
		:: else
		fi;
		assert(head - tail <= LIMIT);
		if
		:: head - tail < LIMIT ->
			ring[head % LIMIT] = head;
			head++;
			STORE(WRITER, HEAD, head);
#ifndef MUTATE_PUT_WITHOUT_FENCE
			FENCE(WRITER);
#endif
			if
			:: mem[READER_ARMED] == 1 -> FENCE(WRITER); wake(READER_ARMED, readers_bell)
			:: else
			fi
		:: else ->
			/* lf_wait(): lf_conn_say_when_writable(), then the flag */
			below = LIMIT - LIMIT / 3;
			STORE(WRITER, BELOW, below);
			STORE(WRITER, WRITER_ARMED, 1);
#ifndef MUTATE_ARM_WITHOUT_FENCE
			FENCE(WRITER);
#endif
			/* lf_conn_writable() */
			if
			:: head - mem[TAIL] <= below -> tail = mem[TAIL]
			:: else ->
				writers_bell > 0 -> writers_bell = 0
			fi;
			below = 0
		fi
	od;
	FENCE(WRITER);
	written = true
}

proctype reader()
{
	byte tail, head, n; /* slot->rx_tail */
	do
	:: tail == TOTAL -> break
	:: else ->
		head = mem[HEAD];
		assert(head - tail <= LIMIT);
		if
		:: head > tail ->
			select(n : 1 .. MOST);
			n = (n < head - tail -> n : head - tail);
#ifdef MUTATE_TAIL_BEFORE_COPY
			STORE(READER, TAIL, tail + n);
#endif
			do
			:: n > 0 ->
				assert(ring[tail % LIMIT] == tail);
				tail++;
				n--
			:: else -> break
			od;
			read_so_far = tail;
#ifndef MUTATE_TAIL_BEFORE_COPY
			STORE(READER, TAIL, tail);
#endif
			/* after_step() */
#ifndef MUTATE_TAKE_WITHOUT_FENCE
			FENCE(READER);
#endif
			if
			:: mem[WRITER_ARMED] == 1 && mem[HEAD] - tail <= mem[BELOW] ->
				FENCE(READER);
				wake(WRITER_ARMED, writers_bell)
			:: else
			fi
		:: else ->
			STORE(READER, READER_ARMED, 1);
#ifndef MUTATE_ARM_WITHOUT_FENCE
			FENCE(READER);
#endif
			if
			:: mem[HEAD] != tail
			:: else -> readers_bell > 0 -> readers_bell = 0
			fi
		fi
	od;
	FENCE(READER);
	all_read = true
}

init {
	atomic {
		run flusher(WRITER);
		run flusher(READER);
		run writer();
		run reader()
	}
	written && all_read -> assert(read_so_far == TOTAL && mem[TAIL] == TOTAL && mem[HEAD] == TOTAL)
}

#ifdef LIVE
ltl live { <> (written && all_read) }
#endif
