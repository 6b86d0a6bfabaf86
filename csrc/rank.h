/* rank.h - in which order locks may be taken; checked at run time in the invariants build.
 *
 * A thread takes locks in rising rank only, so no two can wait for each other. Locks that
 * are only ever tried (the broker's) can't take part in a deadlock and have no rank: fork alone waits
 * for that one, before it takes any other. Nor do fork's locks of all epoll sets, of which it takes
 * many: see epoll_set.c.
 *
 * Nor does a thread sleep while it holds one, but where lf_defer_pause() says so.
 */
#ifndef LF_RANK_H
#define LF_RANK_H

#include "defer.h"

#include <pthread.h>

enum lf_rank {
	LF_RANK_RX = 1, /* a slot's rx_lock */
	LF_RANK_TX,     /* a slot's tx_lock */
	LF_RANK_GATE,   /* sockets entering and leaving the table, fork */
	LF_RANK_EPOLL,  /* an epoll set */
	LF_RANK_LEAF,   /* pools and the like: nothing is taken inside */
};

#ifdef LF_INVARIANTS
void lf_rank_take(enum lf_rank rank);
void lf_rank_give(enum lf_rank rank);
/* In a forked child: what the parent's thread held is not held here. */
void lf_rank_after_fork(void);
/* About to sleep. */
void lf_rank_sleeps(void);
#else
static inline void lf_rank_take(enum lf_rank rank) { (void)rank; }
static inline void lf_rank_give(enum lf_rank rank) { (void)rank; }
static inline void lf_rank_after_fork(void) {}
static inline void lf_rank_sleeps(void) {}
#endif

static inline void lf_mutex_take(pthread_mutex_t *mutex, enum lf_rank rank)
{
	lf_rank_take(rank);
	pthread_mutex_lock(mutex);
}

static inline void lf_mutex_give(pthread_mutex_t *mutex, enum lf_rank rank)
{
	pthread_mutex_unlock(mutex);
	lf_rank_give(rank);
}

/* While one is held, this thread's signal handlers wait, and it can't be cancelled. */
static inline void lf_mutex_lock(pthread_mutex_t *mutex, enum lf_rank rank)
{
	lf_defer_begin();
	lf_mutex_take(mutex, rank);
}

static inline void lf_mutex_unlock(pthread_mutex_t *mutex, enum lf_rank rank)
{
	lf_mutex_give(mutex, rank);
	lf_defer_end();
}

/* The same for lf_defer_begin_briefly(). */
static inline void lf_mutex_lock_briefly(pthread_mutex_t *mutex, enum lf_rank rank)
{
	lf_defer_begin_briefly();
	lf_mutex_take(mutex, rank);
}

static inline void lf_mutex_unlock_briefly(pthread_mutex_t *mutex, enum lf_rank rank)
{
	lf_mutex_give(mutex, rank);
	lf_defer_end_briefly();
}

#endif
