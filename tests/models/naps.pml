/* naps.pml - a byte that its sender holds back (held.h), and several threads in one epoll set.
 * Nobody rings when its time is over, so one of those that sleep there must do so for moments only.
 *
 * Mirrors
 *   held.c         lf_held_without(), lf_held_from_us()
 *   epoll_entry.c  make_cold(), lf_entry_make_all_cold(), lf_entry_tell_sleepers(),
 *                  lf_entry_have_one_nap(), lf_entry_poke()
 *   epoll_wait.c   wait_in_any(), look(), sleep_in_kernel(), wake_up(), get_up(), bell_event()
 *   epoll_control.c  what arms a one-shot entry again
 *
 * Checked: while a thread waits the byte is taken once its time is over (otherwise somebody sleeps for
 * ever: an invalid end state), whatever else wakes threads and lets them leave the set for good; at the
 * end nobody is counted as asleep. Memory is in order here: sleep.pml has the flag, the bell and their
 * fences. Bell and poke are level-triggered, so whoever sleeps may be the one whom they wake.
 */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef OTHERS /* events of another descriptor, one for each who comes; who gets one leaves the set */
#define OTHERS 1
#endif

bool held, due, taken;
bool armed, bell, poked;
#ifdef REARM
bool off = true, hot; /* an entry that has told once */
#else
bool off, hot = true;
#endif
bool lock;
byte sleepers, nappers, others = OTHERS, left;

#define UNREAD (held && !taken)
#define SHOWN (UNREAD && due)
#ifdef MUTATE_KEPT_BY_THE_CLOCK
#define KEPT (UNREAD && !due)
#else
#define KEPT UNREAD
#endif

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

/* The time may be over between any two of these steps. */
inline make_all_cold(ready, capped)
{
	ready = false;
	if
	:: hot ->
		armed = true;
		ready = SHOWN;
		if
		:: !ready && KEPT -> capped = true
		:: else ->
			if
			:: !ready -> hot = false
			:: else
			fi
		fi
	:: else
	fi
}

inline have_one_nap()
{
	if
	:: sleepers > 0 && nappers == 0 && hot && KEPT -> poked = true
	:: else
	fi
}

inline tell_sleepers()
{
	ready = false;
	if
	:: sleepers > 0 -> make_all_cold(ready, ignored)
	:: else
	fi;
	if
	:: ready -> poked = true
	:: else ->
#ifndef MUTATE_LEAVE_WITHOUT_A_WORD
		have_one_nap()
#else
		skip
#endif
	fi
}

/* What the kernel has told of bell and poke. */
inline hear()
{
	atomic {
		if
		:: (bell || poked) && !off -> hot = true
		:: else
		fi;
		bell = false;
		poked = false
	}
}

/* look(), harvest_rings() */
inline harvest()
{
	if
	:: hot && SHOWN -> taken = true; told = true
	:: else
	fi
}

proctype waiter()
{
	bool is_nap, ready, ignored, told;
again:
	acquire();
	if
	:: hear() /* it is the kernel's turn */
	:: true
	fi;
	harvest();
	if
	:: told -> tell_sleepers(); release(); goto out
	:: else ->
#ifndef MUTATE_LOOK_AND_LEAVE
		have_one_nap()
#else
		skip
#endif
	fi;
	release();
	if
	:: goto out /* a handler has run, or the time limit is over */
	:: true
	fi;
	/* sleep_in_kernel() */
	acquire();
	is_nap = false;
	make_all_cold(ready, is_nap);
	if
	:: ready -> release(); goto again
	:: else
	fi;
	sleepers++;
	nappers = nappers + is_nap;
	release();
	if
	:: bell || poked
	:: atomic { others > 0 -> others--; told = true }
	:: is_nap
	:: taken
	fi;
	/* wake_up() */
	acquire();
	hear();
	harvest();
	if
	:: told -> sleepers--; tell_sleepers(); sleepers++
	:: else
	fi;
	/* get_up() */
#ifndef MUTATE_COUNT_NAPS_FOR_EVER
	nappers = nappers - is_nap;
#endif
	sleepers--;
#ifndef MUTATE_GET_UP_AND_LEAVE
	if
	:: is_nap -> have_one_nap()
	:: else
	fi;
#endif
	release();
	if
	:: told || taken -> goto out
	:: else -> goto again
	fi;
out:
	left++
}

proctype sender()
{
	atomic {
		held = true;
		if
		:: armed -> armed = false; bell = true
		:: else
		fi
	};
	due = true
}

proctype rearmer()
{
	bool ready, ignored;
	acquire();
	off = false;
	hot = true;
#ifndef MUTATE_ARM_WITHOUT_A_WORD
	tell_sleepers();
#endif
	release()
}

init {
	byte i;
	atomic {
		for (i : 1 .. THREADS) { run waiter() }
		run sender();
#ifdef REARM
		run rearmer();
#endif
		i = 0
	}
	left == THREADS -> assert(sleepers == 0 && nappers == 0)
}
