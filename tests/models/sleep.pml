/* sleep.pml - the armed/doorbell sleep of readers: several threads and a cold epoll entry on one
 * side, several ringers on the other.
 *
 * Mirrors
 *   wait.c         lf_wait(), start_waiting(), lf_wait_begin(), lf_wait_arm(), sleep_once(),
 *                  lf_wait_drain(), lf_wait_disarm_reader()
 *   bell.c         lf_bell_wake(), lf_bell_ring_always(), lf_bell_drain()
 *   conn_send.c    put() as one byte, after_put(), wake_reader()
 *   lock.c, lock.h lf_lock_release(), lf_lock_fence_released(): the release is an ordinary buffered
 *                  store here, weaker than x86's exchange, so the fence is needed
 *   epoll_entry.c  lf_entry_make_all_cold(), lf_entry_heat_cooled(), lf_epoll_stop_counting()
 *   epoll_wait.c   look(), sleep_in_kernel(), bell_event()
 *
 * Checked: whoever sleeps while bytes lie there is woken (a lost wake-up is an invalid end state),
 * each byte is taken once, the flag and the counts are as they must be at the end; `live`: under
 * weak fairness all readers finish. With IDLE, where fewer bytes come than the reader wants:
 * `rests`: it ends up asleep, not in a loop around a bell that nobody may empty, though the thread
 * with the epoll set has left its entry cold and gone on to other things. (Two that both wait for
 * ever can, in lockstep, each leave the bell to the other: that takes a scheduler which never
 * breaks step, and is left out; lf_wait_give_way() breaks it, by naps of threads that are not counted.)
 *
 * A receive that may not rely on the bell (lf_wait_begin() false: LF_SHARED_SLEEP_NS) may wake at
 * any moment; every other sleep ends by the bell alone.
 */
#ifndef READERS
#define READERS 2
#endif
#ifndef RINGERS
#define RINGERS 1
#endif
#ifndef BYTES /* each ringer sends so many */
#define BYTES 2
#endif
#ifndef WANT /* bytes that each reader wants; all together are as many as come, but for IDLE */
#define WANT 1
#endif
#ifndef EPOLL /* bytes that the thread with the epoll set wants; 0: there is none */
#define EPOLL 0
#endif

#define HEAD 0
#define ARMED 1
#define TX_LOCK 2
#define VARIABLES 3
#define THREADS (READERS + 1 + RINGERS)
#include "memory.pml"

#define TOTAL (RINGERS * BYTES)
#if EPOLL
#define PARTIES (READERS + RINGERS + 1)
#else
#define PARTIES (READERS + RINGERS)
#endif

byte tx_head;          /* slot->tx_head, under tx_lock */
byte tail;             /* slot->rx_tail, under rx_lock */
byte bell;             /* bytes in it; a third would tell nothing new */
byte waiters, drains;
bool counted;          /* the epoll entry is cold, hence one of the waiters */
bool hot = true;
byte sleepers;         /* threads asleep in the set */
byte finished;
byte asleep;

#define UNREAD (mem[HEAD] != tail)

/* lf_wait_drain(): `mine` of the waiters are the caller itself. */
inline drain(thread, mine)
{
	FENCE(thread);
#ifndef MUTATE_DRAIN_UNANNOUNCED
	drains++;
#endif
#ifdef MUTATE_DRAIN_ALWAYS
	bell = 0;
#else
	if
	:: waiters > mine
	:: else -> bell = 0
	fi;
#endif
#ifndef MUTATE_DRAIN_UNANNOUNCED
	drains--
#endif
}

/* lf_wait_arm() */
inline arm(thread)
{
	STORE(thread, ARMED, 1);
#ifndef MUTATE_ARM_WITHOUT_FENCE
	FENCE(thread)
#endif
}

/* lf_entry_heat_cooled(), lf_wait_disarm_reader() */
inline disarm(thread)
{
	FENCE(thread);
#ifndef MUTATE_DISARM_UNANNOUNCED
	drains++;
#endif
	if
#ifndef MUTATE_DISARM_ALWAYS
	:: waiters > 1 ->
#ifndef MUTATE_DISARM_UNANNOUNCED
		drains--
#else
		skip
#endif
#endif
	:: else ->
		atomic { FENCE(thread) -> mem[ARMED] = 0 };
#ifndef MUTATE_DISARM_UNANNOUNCED
		drains--;
#endif
		atomic { hot = true; counted = false; waiters-- }
	fi
}

proctype reader(byte thread; byte want)
{
	bool relies, rung;
again:
	/* step(), under rx_lock */
	atomic {
		if
		:: want == 0 -> goto out
		:: want > 0 && UNREAD -> tail++; want--; goto again
		:: else
		fi
	}
	/* start_waiting() */
	atomic { FENCE(thread) -> waiters++ }
	relies = drains == 0;
#ifdef MUTATE_RELY_DURING_DRAIN
	relies = true;
#endif
#ifdef MUTATE_LOOK_BEFORE_ARM
	if
	:: UNREAD -> goto stop
	:: else
	fi;
	arm(thread);
#else
	arm(thread);
	/* stirred() */
	if
	:: UNREAD ->
#ifdef MUTATE_SLEEPER_DISARMS
		/* takes down a flag that is perhaps another sleeper's */
		atomic { FENCE(thread) -> mem[ARMED] = 0 };
#endif
		goto stop
	:: else
	fi;
#endif
	/* sleep_once() */
	asleep++;
#ifdef IDLE
end_idle:
#endif
	if
	:: bell > 0 -> rung = true
	:: !relies -> rung = false
	fi;
	asleep--;
	if
	:: rung ->
#ifndef MUTATE_COUNT_COLD_FOR_EVER
		/* lf_epoll_stop_counting() */
		atomic {
			if
			:: waiters > 1 && counted && sleepers == 0 ->
				counted = false;
				hot = true;
				waiters--
			:: else
			fi
		};
#endif
		drain(thread, 1)
	:: else
	fi;
stop:
	waiters--;
	relies = false;
	rung = false;
	goto again;
out:
#ifdef IDLE
	asleep++;
#endif
	finished++
}

/* A thread with an epoll set, level-triggered; it reads one byte for each event. Between two
 * calls, other descriptors may have kept it from them: `other`. */
proctype epoller(byte thread)
{
	byte got;
	bool relies, rung;
	do
	:: got == EPOLL -> break
	:: got < EPOLL ->
		/* look(): hot rings only; then the kernel, which knows the bell */
		atomic {
			if
			:: hot && UNREAD -> tail++; got++; goto next
			:: else
			fi
		}
		/* sleep_in_kernel(), lf_entry_make_all_cold() */
		if
		:: hot ->
			atomic { FENCE(thread) -> waiters++ }
			relies = drains == 0;
			arm(thread);
			if
			:: UNREAD -> waiters--; goto next
			:: else
			fi;
			if
			:: relies -> atomic { hot = false; counted = true }
			:: else -> waiters--
			fi
		:: else -> relies = true
		fi;
		sleepers++;
		if
		:: bell > 0 -> rung = true
		:: !relies -> rung = false
		:: rung = bell > 0 /* another descriptor's event, and all there is with it */
		fi;
		if
		:: counted -> disarm(thread)
		:: else
		fi;
		if
		:: rung ->
			/* bell_event() */
			atomic {
				hot = true;
				if
				:: counted -> counted = false; waiters--
				:: else
				fi
			};
			drain(thread, 0)
		:: else
		fi;
		sleepers--;
#ifdef IDLE
		break; /* one call, and the program goes on to other things */
#endif
next:
		relies = false;
		rung = false
	od;
	finished++
}

proctype ringer(byte thread)
{
	byte sent;
	do
	:: sent == BYTES -> break
	:: else ->
		atomic { FENCE(thread) && mem[TX_LOCK] == 0 -> mem[TX_LOCK] = 1 }
		tx_head++;
		STORE(thread, HEAD, tx_head);
		STORE(thread, TX_LOCK, 0);
		sent++;
		/* after_put() */
#ifndef MUTATE_PUT_WITHOUT_FENCE
		FENCE(thread);
#endif
		if
		:: mem[ARMED] == 1 ->
			/* wake_reader(), lf_bell_wake() */
			atomic { FENCE(thread) && mem[TX_LOCK] == 0 -> mem[TX_LOCK] = 1 }
#ifdef MUTATE_RING_TWO_STEPS
			/* a load and a store instead of one exchange */
			if
			:: mem[ARMED] == 1 -> bell = (bell < 2 -> bell + 1 : 2); STORE(thread, ARMED, 0)
			:: else
			fi;
#else
			atomic {
				if
				:: mem[ARMED] == 1 ->
					mem[ARMED] = 0;
#ifndef MUTATE_DISARM_WITHOUT_RING
					bell = (bell < 2 -> bell + 1 : 2)
#endif
				:: else
				fi
			};
#endif
			STORE(thread, TX_LOCK, 0)
		:: else
		fi
	od;
	FENCE(thread);
	finished++
}

init {
	byte i;
	atomic {
		for (i : 0 .. THREADS - 1) { run flusher(i) }
		for (i : 0 .. READERS - 1) { run reader(i, WANT) }
		for (i : 0 .. RINGERS - 1) { run ringer(READERS + 1 + i) }
#if EPOLL
		run epoller(READERS)
#endif
		i = 0
	}
#ifndef IDLE
	finished == PARTIES ->
	assert(tail == READERS * WANT + EPOLL && drains == 0);
	assert(waiters == (counted -> 1 : 0))
#endif
}

#ifdef LIVE
#ifdef IDLE
ltl rests { <>[] (asleep == READERS) }
#else
ltl live { <> (finished == PARTIES) }
#endif
#endif
