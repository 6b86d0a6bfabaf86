/* departure.c - see departure.h. */
#define _GNU_SOURCE
#include "departure.h"

#include "defer.h"
#include "lock.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>

enum { DEPARTURES = 64 }; /* bits of slot->departing */

/* In memory that all forked processes share. NULL: nobody has forked, or there was none. */
static pthread_mutex_t *departures;

void lf_departures_before_fork(void)
{
	/* Once: had an older child none, or others of its own, a slot's bits would not mean the same. */
	static bool tried;
	if (tried)
		return;
	tried = true;
	int saved = errno;
	pthread_mutex_t *at = mmap(NULL, DEPARTURES * sizeof(*at), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	errno = saved;
	if (at == MAP_FAILED)
		return;
	pthread_mutexattr_t kind;
	pthread_mutexattr_init(&kind);
	if (pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED) == 0 &&
	    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST) == 0) {
		for (int i = 0; i < DEPARTURES; i++)
			pthread_mutex_init(&at[i], &kind);
		departures = at;
	}
	pthread_mutexattr_destroy(&kind);
}

/* Only ever tried, so it can't take part in a deadlock, and has no rank. */
static bool take(int departure)
{
	/* A handler that departs, too, is not to find the thread's list of them half changed. */
	lf_defer_begin_briefly();
	int r = pthread_mutex_trylock(&departures[departure]);
	if (r == EOWNERDEAD)
		r = pthread_mutex_consistent(&departures[departure]);
	lf_defer_end_briefly();
	return r == 0;
}

void lf_departure_end(int departure)
{
	if (departure == LF_NO_DEPARTURE)
		return;
	lf_defer_begin_briefly();
	pthread_mutex_unlock(&departures[departure]);
	lf_defer_end_briefly();
}

int lf_departure_begin(void)
{
	if (!departures)
		return LF_NO_DEPARTURE;
	/* Not always the same, so that a slot's old bits mean nobody, mostly. */
	uint32_t first = lf_lock_tid();
	for (uint32_t i = 0; i < DEPARTURES; i++) {
		int departure = (int)((first + i) % DEPARTURES);
		if (take(departure))
			return departure;
	}
	return LF_NO_DEPARTURE;
}

void lf_departure_leaves(int departure, struct lf_slot *slot)
{
	if (departure == LF_NO_DEPARTURE)
		return;
	atomic_fetch_or(&slot->departing, UINT64_C(1) << departure);
	atomic_fetch_add(&slot->departures, 1);
}

void lf_departure_returns(int departure, struct lf_slot *slot)
{
	if (departure != LF_NO_DEPARTURE)
		atomic_fetch_and(&slot->departing, ~(UINT64_C(1) << departure));
}

bool lf_departure_pending(struct lf_slot *slot)
{
	uint64_t departing = atomic_load(&slot->departing);
	for (; departing; departing &= departing - 1) {
		int departure = __builtin_ctzll(departing);
		if (!take(departure))
			return true;
		/* While we have it, nobody sets out with it. */
		lf_departure_returns(departure, slot);
		lf_departure_end(departure);
	}
	return false;
}
