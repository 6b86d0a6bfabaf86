/* lock.c - see lock.h. */
#define _GNU_SOURCE
#include "lock.h"

#include "invariant.h"
#include "pause.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The word is laid out as the kernel wants it of a robust futex. */
#define WAITERS FUTEX_WAITERS
#define TID(word) ((word) & FUTEX_TID_MASK)

enum { SPINS = 200, CHECK_OWNER_MS = 5, CHECKS_PER_PIDFD = 8 };

static _Thread_local uint32_t this_tid __attribute__((tls_model("initial-exec")));

uint32_t lf_lock_tid(void)
{
	if (!this_tid)
		this_tid = (uint32_t)syscall(SYS_gettid);
	return this_tid;
}

/* --- owners that die ---
 *
 * A thread that exits or is killed has the kernel look through its list of robust futexes
 * (get_robust_list(2)). The list is the C library's; beside it there is a place for one futex
 * that is just being locked or unlocked, free at nearly all times. We borrow that for our lock:
 * if the word holds the dying thread's id, the kernel makes it FUTEX_OWNER_DIED and wakes a
 * waiter. That is the one way that can't take whoever got the same id later for the owner.
 *
 * Where the place is taken or there is no list (musl makes it late), waiters ask now and then
 * whether the owner still lives. */

/* This process has been forked or has forked: others may wait for its locks. Alone it need not
 * prepare, since its death ends all. */
static _Atomic bool may_leave_heirs;

static _Thread_local struct robust_list_head *robust __attribute__((tls_model("initial-exec")));
static _Thread_local bool robust_known __attribute__((tls_model("initial-exec")));

void lf_lock_after_fork_in_parent(void)
{
	atomic_store_explicit(&may_leave_heirs, true, memory_order_relaxed);
}

void lf_lock_after_fork_in_child(void)
{
	atomic_store_explicit(&may_leave_heirs, true, memory_order_relaxed);
	this_tid = 0;
	robust_known = false;
}

static __attribute__((noinline)) void look_up_robust_list(void)
{
	int saved = errno;
	size_t size = 0;
	if (syscall(SYS_get_robust_list, 0, &robust, &size) == -1 || size != sizeof(*robust))
		robust = NULL;
	robust_known = true;
	errno = saved;
}

static struct robust_list *robust_entry(struct lf_lock *lock)
{
	/* The kernel finds the word futex_offset bytes behind the entry. */
	return (struct robust_list *)((uintptr_t)&lock->word - (uintptr_t)robust->futex_offset);
}

/* Before the word can hold our id. The kernel looks when this very thread is dead, so program
 * order is enough, kept by the compiler. */
static void announce(struct lf_lock *lock)
{
	if (!robust_known)
		look_up_robust_list();
	struct robust_list *volatile *place = robust ? &robust->list_op_pending : NULL;
	if (place && !*place)
		*place = robust_entry(lock);
	atomic_signal_fence(memory_order_seq_cst);
}

/* After the word has ceased to hold our id. */
static void withdraw(struct lf_lock *lock)
{
	atomic_signal_fence(memory_order_seq_cst);
	struct robust_list *volatile *place = robust ? &robust->list_op_pending : NULL;
	if (place && *place == robust_entry(lock))
		*place = NULL;
}

/* Dead, but its parent has not waited for it yet: kill() still finds it. Threads beside the
 * first of a process do not stay on like that. */
static bool is_zombie(pid_t pid, bool thoroughly)
{
	siginfo_t info = {0};
	if (syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, NULL) == 0)
		return info.si_pid == pid;
	/* Not our child. A descriptor would be seen by a thread that counts on the lowest free
	 * number, so only now and then, and for a moment. */
	int fd = -1;
#ifdef SYS_pidfd_open
	if (thoroughly)
		fd = (int)syscall(SYS_pidfd_open, pid, 0);
#endif
	if (fd == -1)
		return false;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec now = {0, 0};
	bool dead = syscall(SYS_ppoll, &p, 1, &now, NULL, 0) == 1;
	syscall(SYS_close, fd);
	return dead;
}

static bool owner_is_dead(uint32_t tid, bool thoroughly)
{
	if (syscall(SYS_kill, (pid_t)tid, 0) == -1 && errno == ESRCH)
		return true;
	return is_zombie((pid_t)tid, thoroughly);
}

/* Slow path: somebody holds it. Not inlined, to keep the other path short. `frame`: of the
 * lf_lock_acquire() that found it held, to compare with the one that was there before. */
static __attribute__((noinline)) bool acquire_contended(struct lf_lock *lock, uint32_t tid,
							uintptr_t frame)
{
	for (int spins = 0, checks = 0;; spins++) {
		uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
		if (TID(seen) == 0) { /* free, or left behind: FUTEX_OWNER_DIED */
			/* Others may be asleep: keep the bit, an extra wake-up is harmless. */
			uint32_t mine = spins > SPINS ? tid | WAITERS : tid | (seen & WAITERS);
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
		struct lf_defer_pause pause = lf_defer_pause();
		/* Not FUTEX_PRIVATE: forked processes wait here too. */
		long r = syscall(SYS_futex, &lock->word, FUTEX_WAIT, seen, &ts, NULL, 0);
		lf_defer_resume(pause);
		bool dead = r == -1 && errno == ETIMEDOUT &&
			    owner_is_dead(TID(seen), ++checks % CHECKS_PER_PIDFD == 0);
		errno = saved;
		if (dead && atomic_compare_exchange_strong_explicit(&lock->word, &seen, tid | WAITERS,
								    memory_order_acquire,
								    memory_order_relaxed))
			break;
	}
	return true;
}

bool lf_lock_is_mine(const struct lf_lock *lock)
{
	return TID(atomic_load_explicit(&lock->word, memory_order_relaxed)) == lf_lock_tid();
}

bool lf_lock_is_elsewhere(const struct lf_lock *lock)
{
	uint32_t owner = TID(atomic_load_explicit(&lock->word, memory_order_relaxed));
	int saved = errno;
	bool elsewhere = owner != 0 && owner != lf_lock_tid() && !owner_is_dead(owner, false);
	errno = saved;
	return elsewhere;
}

bool lf_lock_acquire(struct lf_lock *lock, enum lf_rank rank)
{
	uint32_t tid = lf_lock_tid(), free = 0;
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
	lf_defer_begin_handlers();
	if (atomic_load_explicit(&may_leave_heirs, memory_order_relaxed))
		announce(lock);
	if (!atomic_compare_exchange_strong_explicit(&lock->word, &free, tid, memory_order_acquire,
						      memory_order_relaxed) &&
	    !acquire_contended(lock, tid, frame)) {
		lf_defer_end_handlers();
		return false;
	}
	atomic_store_explicit(&lock->frame, frame, memory_order_relaxed);
	lf_rank_take(rank);
	return true;
}

void lf_lock_release(struct lf_lock *lock, enum lf_rank rank)
{
	lf_rank_give(rank);
	LF_INVARIANT(lf_lock_is_mine(lock));
	/* release: what was done under the lock is visible to the next owner's acquire. */
	uint32_t was = atomic_exchange_explicit(&lock->word, 0, memory_order_release);
	if (was & WAITERS) {
		int saved = errno;
		(void)syscall(SYS_futex, &lock->word, FUTEX_WAKE, 1, NULL, NULL, 0);
		errno = saved;
	}
	if (atomic_load_explicit(&may_leave_heirs, memory_order_relaxed))
		withdraw(lock);
	lf_defer_end_handlers();
}
