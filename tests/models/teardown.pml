/* teardown.pml - the last bytes against FIN, close with bytes unread, and death, one direction.
 *
 * Mirrors
 *   conn_recv.c  look_at_tcp(), step_fused(): FIN counts only if the ring is still empty after it
 *   conn_end.c   lf_conn_shutdown(), lf_conn_before_close(), abandon_ring() (handed_on not set),
 *                grant() and take_back() for `closed`, reset_if_unread(), lf_conn_peer_gone(),
 *                tcp_has_ended(), bell_hung_up()
 *   conn_send.c  put(), after_put()
 *
 * The writer puts 0 to BYTES bytes into the ring, then shuts down (and goes on to wait for the
 * reader's end), closes, or is killed at any step. The reader reads; it closes or is killed at any
 * step, also of its close. Of the kernel there is: FIN, RST and bytes in each direction, and a hang-up of the bell once
 * a process is gone. A store in a dead thread's buffer still reaches memory, before its FIN.
 *
 * Checked
 *   - the reader is told the end of the stream only with all bytes read that the writer had
 *     published before it ended in whatever way;
 *   - a writer that lives to see the reader's end learns of bytes that nobody read: by RST, from the
 *     kernel or as the library acts it; and it is not told of RST when all had been read and it had
 *     sent no more;
 *   - nobody waits for ever (invalid end states), nobody looks into the ring after its end.
 */
#ifndef BYTES
#define BYTES 3
#endif

#define HEAD 0
#define MARK 1
#define END_POS 2
#define TAIL 3
#define CLOSED 4
#define BY_TCP 5 /* a byte, from the writer */
#define FIN 6    /* the writer's, by shutdown, close or death */
#define PEERS_FIN 7    /* the reader's: FIN */
#define PEERS_RST 8    /* or RST; both also mean that its socket is gone */
#define PEERS_BELL 9
#define VARIABLES 10
#define THREADS 2
#define WRITER 0
#define READER 1
#define MARK_FUSED 1
#define MARK_ENDED 2
#define TOLD 1
#define CLOSING 2
/* Bytes that reach a socket which is gone are answered by RST. */
#define AFTER_FLUSH(variable, value) \
	if \
	:: variable == BY_TCP && !mem[PEERS_FIN] && !mem[PEERS_RST] -> tcp ! value \
	:: variable == BY_TCP && (mem[PEERS_FIN] || mem[PEERS_RST]) -> mem[PEERS_RST] = 1 \
	/* close with bytes in TCP's receive queue is RST */ \
	:: variable == PEERS_FIN && nempty(tcp) -> mem[PEERS_RST] = 1 \
	:: else -> mem[variable] = value \
	fi
chan tcp = [BYTES + 1] of { byte };
#include "memory.pml"

byte ring[BYTES + 1];
byte tx_head;
bool fused = true;   /* lf_tx() */
byte published;      /* bytes that the writer's program has sent, or nearly */
bool writer_shut;    /* FIN is out */
bool writer_gone, reader_gone;
bool reset;          /* slot->reset: as after RST */
bool writer_told;    /* the writer has learned of the reader's end */
byte rx_tail;        /* with the bytes that came by TCP: what the program has read */
byte read_by_tcp;
bool end_of_stream;  /* the reader was told */
bool kill_reader, kill_writer;
bool reader_killed, writer_killed;

/* --- the writer --- */

inline put()
{
	ring[tx_head] = tx_head;
	tx_head++;
	atomic { STORE(WRITER, HEAD, tx_head); published++ }
}

/* Under tx_lock: one thread. */
inline take_back()
{
	if
	:: writer_shut -> STORE(WRITER, END_POS, tx_head); STORE(WRITER, MARK, MARK_ENDED)
	:: else ->
		n = mem[TAIL];
		STORE(WRITER, END_POS, n);
		STORE(WRITER, MARK, MARK_ENDED);
		do
		:: n < tx_head -> STORE(WRITER, BY_TCP, ring[n]); FENCE(WRITER); n++
		:: else -> break
		od;
		n = 0
	fi;
	fused = false
}

/* lf_conn_service() */
inline service()
{
	if
	:: fused && mem[CLOSED] -> take_back()
	:: else
	fi
}

#define ALL_READ (mem[TAIL] == tx_head)
/* has_bytes_for_peer() */
#define UNREAD (fused -> !ALL_READ : mem[MARK] == MARK_ENDED && mem[END_POS] != mem[TAIL])

/* lf_conn_peer_gone(), after the bell's hang-up: */
inline peer_gone()
{
	/* tcp_has_ended(): the kernel closes all that a process had */
	mem[PEERS_FIN] || mem[PEERS_RST];
	/* reset_if_unread() */
	if
#ifdef MUTATE_DEATH_IS_AN_END
	:: fused -> take_back()
#else
	:: UNREAD && mem[CLOSED] != TOLD -> reset = true; fused = false
	:: fused && (ALL_READ || mem[CLOSED] == TOLD) -> take_back()
#endif
	:: else
	fi
}

proctype writer()
{
	byte n, sent;
	{
	do
	:: sent < BYTES && !mem[PEERS_RST] && !reset ->
		if
		:: fused && !mem[CLOSED] ->
			put();
#ifndef MUTATE_PUT_WITHOUT_FENCE
			FENCE(WRITER);
#endif
			service();
			sent++
		:: fused && mem[CLOSED] -> service()
		:: !fused ->
			atomic { STORE(WRITER, BY_TCP, sent); published++ }
			FENCE(WRITER);
			sent++
		fi
	:: true -> break
	od;
	/* shutdown(SHUT_WR), or close; both service() before */
	service();
#ifdef MUTATE_FIN_BEFORE_LAST_BYTE
	STORE(WRITER, FIN, 1);
	if
	:: fused && !mem[CLOSED] ->
		put()
	:: else
	fi;
#else
	STORE(WRITER, FIN, 1);
#endif
	FENCE(WRITER);
	writer_shut = true;
	/* It waits for the reader's end: TCP's, the bell's, or `closed`. */
	do
	:: mem[PEERS_RST] || reset -> break
	:: mem[PEERS_FIN] && mem[PEERS_BELL] && !reset && !mem[PEERS_RST] ->
		peer_gone();
		break
	od;
	writer_told = true
	} unless { kill_writer && !writer_told -> writer_killed = true; STORE(WRITER, FIN, 1) };
	FENCE(WRITER);
	writer_gone = true
}

/* --- the reader --- */

proctype reader()
{
	bool unread, lingers, closing;
	byte head, got;
	{
	do
	:: atomic { FENCE(READER) -> true }
		/* step_fused(): take_from_ring() */
		head = mem[HEAD];
		if
		:: mem[MARK] == MARK_ENDED && mem[END_POS] < head -> head = mem[END_POS]
		:: else
		fi;
		if
		:: head > rx_tail ->
			assert(ring[rx_tail] == rx_tail);
			rx_tail++;
			STORE(READER, TAIL, rx_tail)
		:: else ->
			/* look_at_tcp() */
			if
			:: nempty(tcp) ->
				if
				:: mem[HEAD] != rx_tail && mem[MARK] != MARK_ENDED
				:: else -> atomic { tcp ? got; read_by_tcp++; got = 0 }
				fi
			:: mem[FIN] && empty(tcp) ->
#ifndef MUTATE_FIN_COUNTS_AT_ONCE
				if
				:: mem[HEAD] > rx_tail && (mem[MARK] != MARK_ENDED || mem[END_POS] > rx_tail)
				:: else -> end_of_stream = true; break
				fi
#else
				end_of_stream = true; break
#endif
			fi
		fi
	:: true -> break /* it has had enough */
	od;
	/* lf_conn_before_close(), abandon_ring() */
#ifdef MUTATE_CLOSED_AT_ONCE
	STORE(READER, CLOSED, TOLD);
#else
	STORE(READER, CLOSED, CLOSING);
#endif
#ifndef MUTATE_CLOSE_WITHOUT_FENCE
	FENCE(READER);
#endif
#ifdef MUTATE_CLOSE_IGNORES_UNREAD
	unread = false;
#else
	unread = mem[HEAD] > rx_tail && (mem[MARK] != MARK_ENDED || mem[END_POS] > rx_tail);
#endif
	lingers = unread; /* SO_LINGER 0 */
	STORE(READER, CLOSED, TOLD);
	closing = true;
	if
	:: unread -> STORE(READER, PEERS_RST, 1)
	:: else -> STORE(READER, PEERS_FIN, 1)
	fi;
	STORE(READER, PEERS_BELL, 1)
	} unless { atomic { kill_reader && !closing -> reader_killed = true };
		/* the kernel closes socket and bell in any order */
		if
		:: lingers -> STORE(READER, PEERS_RST, 1); STORE(READER, PEERS_BELL, 1)
		:: lingers -> STORE(READER, PEERS_BELL, 1); STORE(READER, PEERS_RST, 1)
		:: !lingers -> STORE(READER, PEERS_FIN, 1); STORE(READER, PEERS_BELL, 1)
		:: !lingers -> STORE(READER, PEERS_BELL, 1); STORE(READER, PEERS_FIN, 1)
		fi
	};
	unread = false;
	lingers = false;
	FENCE(READER);
	reader_gone = true
}

/* At any step, or never. */
proctype killer()
{
	if
	:: kill_reader = true
	:: kill_writer = true
	:: true
	fi
}

init {
	atomic {
		mem[MARK] = MARK_FUSED;
		run flusher(WRITER);
		run flusher(READER);
		run writer();
		run reader();
		run killer()
	}
	writer_gone && reader_gone ->
	assert(!end_of_stream || rx_tail + read_by_tcp == published);
	assert(writer_killed || reader_killed || rx_tail + read_by_tcp == published || reset ||
	       mem[PEERS_RST]);
	/* What the writer can know of a killed reader: the tail that it had published. */
	assert(writer_killed || !reader_killed || mem[TAIL] + read_by_tcp == published || reset ||
	       mem[PEERS_RST]);
	assert(!reset || reader_killed);
	assert(!reset || !ALL_READ)
}
