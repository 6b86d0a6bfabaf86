/* lock.c - see lock.h. */
#define _GNU_SOURCE
#include "lock.h"

#include "invariant.h"
#include "pause.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WAITERS 0x80000000u
#define TID(word) ((word) & ~WAITERS)

enum { SPINS = 200, CHECK_OWNER_MS = 5 };

static _Thread_local uint32_t this_tid __attribute__((tls_model("initial-exec")));

uint32_t lf_lock_tid(void)
{
	if (!this_tid)
		this_tid = (uint32_t)syscall(SYS_gettid);
	return this_tid;
}

void lf_lock_after_fork(void)
{
	this_tid = 0;
}

static bool owner_is_dead(uint32_t tid)
{
	return syscall(SYS_kill, (pid_t)tid, 0) == -1 && errno == ESRCH;
}

/* Slow path: somebody holds it. Not inlined, to keep the other path short. `frame`: of the
 * lf_lock_acquire() that found it held, to compare with the one that was there before. */
static __attribute__((noinline)) bool acquire_contended(struct lf_lock *lock, uint32_t tid,
							uintptr_t frame)
{
	for (int spins = 0;; spins++) {
		uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
		if (seen == 0) {
			/* Others may be asleep: keep the bit, an extra wake-up is harmless. */
			uint32_t mine = spins > SPINS ? tid | WAITERS : tid;
			if (atomic_compare_exchange_weak_explicit(&lock->word, &seen, mine,
								  memory_order_acquire,
								  memory_order_relaxed))
				break;
			continue;
		}
		if (TID(seen) == tid) {
			/* Stacks grow down on every Linux port: a handler's frame lies below. */
			return frame >= atomic_load_explicit(&lock->frame, memory_order_relaxed);
		}
		if (spins < SPINS) {
			lf_pause();
			continue;
		}
		if (!(seen & WAITERS) &&
		    !atomic_compare_exchange_weak(&lock->word, &seen, seen | WAITERS))
			continue;
		seen |= WAITERS;
		struct timespec ts = {0, CHECK_OWNER_MS * 1000000L};
		int saved = errno;
		/* Not FUTEX_PRIVATE: forked processes wait here too. */
		long r = syscall(SYS_futex, &lock->word, FUTEX_WAIT, seen, &ts, NULL, 0);
		bool dead = r == -1 && errno == ETIMEDOUT && owner_is_dead(TID(seen));
		errno = saved;
		if (dead && atomic_compare_exchange_strong_explicit(&lock->word, &seen, tid | WAITERS,
								    memory_order_acquire,
								    memory_order_relaxed))
			break;
	}
	return true;
}

bool lf_lock_is_elsewhere(const struct lf_lock *lock)
{
	uint32_t owner = TID(atomic_load_explicit(&lock->word, memory_order_relaxed));
	int saved = errno;
	bool elsewhere = owner != 0 && owner != lf_lock_tid() && !owner_is_dead(owner);
	errno = saved;
	return elsewhere;
}

bool lf_lock_acquire(struct lf_lock *lock, enum lf_rank rank)
{
	uint32_t tid = lf_lock_tid(), free = 0;
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
	if (!atomic_compare_exchange_strong_explicit(&lock->word, &free, tid, memory_order_acquire,
						      memory_order_relaxed) &&
	    !acquire_contended(lock, tid, frame))
		return false;
	atomic_store_explicit(&lock->frame, frame, memory_order_relaxed);
	lf_rank_take(rank);
	return true;
}

void lf_lock_release(struct lf_lock *lock, enum lf_rank rank)
{
	lf_rank_give(rank);
	LF_INVARIANT(TID(atomic_load_explicit(&lock->word, memory_order_relaxed)) == lf_lock_tid());
	/* release: what was done under the lock is visible to the next owner's acquire. */
	uint32_t was = atomic_exchange_explicit(&lock->word, 0, memory_order_release);
	if (was & WAITERS) {
		int saved = errno;
		(void)syscall(SYS_futex, &lock->word, FUTEX_WAKE, 1, NULL, NULL, 0);
		errno = saved;
	}
}
