/* lock.h - a small lock in memory that forked processes share.
 *
 * It serialises the threads and processes of one *end*; the other end never sees it.
 * The word holds the owner's thread id, so that the kernel can say, or a waiter find out,
 * that the owner is dead (SIGKILL between lock and unlock); then a waiter takes over. An owner
 * that is merely stopped keeps the others waiting. What the lock guards is
 * written so that taking over is safe at every instruction: positions move by single
 * stores, after the bytes they cover.
 */
#ifndef LF_LOCK_H
#define LF_LOCK_H

#include "rank.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lf_lock {
	_Atomic uint32_t word; /* 0, or the owner's tid, with FUTEX_WAITERS or'ed in */
	uint32_t pad;
	_Atomic uintptr_t frame; /* the owner's stack position when it took the lock */
};

/* This thread's id; cached, refreshed in a forked child. */
uint32_t lf_lock_tid(void);
/* From a fork on, locks are taken so that an heir learns of their owner's death. */
void lf_lock_after_fork_in_parent(void);
void lf_lock_after_fork_in_child(void);

/* Takes the lock. False: this very thread holds it already further up its stack, that
 * is, we are in a signal handler that interrupted the holder; the caller must behave
 * as if the operation would block. A lock left behind by a longjmp out of such a
 * place is recognised by the stack position and taken over. */
bool lf_lock_acquire(struct lf_lock *lock, enum lf_rank rank);
void lf_lock_release(struct lf_lock *lock, enum lf_rank rank);
/* This thread holds it, here or further up its stack. */
bool lf_lock_is_mine(const struct lf_lock *lock);
/* Another thread that lives holds it. */
bool lf_lock_is_elsewhere(const struct lf_lock *lock);

/* Right after lf_lock_release(): a full fence between what was stored before it and what is
 * loaded from here on. The exchange there is one already on x86, where each locked instruction
 * is; elsewhere an exchange with release order is not. */
static inline void lf_lock_fence_released(void)
{
#if defined(__x86_64__) || defined(__i386__)
	atomic_signal_fence(memory_order_seq_cst); /* the compiler keeps to it, too */
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

#endif
