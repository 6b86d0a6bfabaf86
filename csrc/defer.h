/* defer.h - signal handlers and cancellation wait while a lock of ours is held.
 *
 * A handler may call close(), read() or fork(), which need the very lock that the thread below
 * it holds; it may also siglongjmp() away and never give it back. And pthread_cancel() ends a
 * thread in the midst of whatever may sleep. So handlers of asynchronous signals run only
 * between such sections: the program's handlers are entered through one of ours
 * (lf_defer_handler()), which in a section makes the signal pending again, blocked until the
 * section's end. That costs the section itself no system call, and a signal nothing but a
 * function call. Sections are short and never sleep.
 *
 * Not deferred: signals that tell of the running instruction (SIGSEGV and its like, SIGABRT),
 * handlers with SA_RESETHAND, and those installed past the C library.
 */
#ifndef LF_DEFER_H
#define LF_DEFER_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lf_defer {
	volatile int depth;        /* sections this thread is in */
	volatile int uncancelable; /* those of them in which it can't be cancelled */
	volatile bool held;        /* signals are blocked until the outermost one ends */
	bool cancels_anywhere;     /* PTHREAD_CANCEL_ASYNCHRONOUS */
	uint64_t mask;             /* held: the thread's mask as it was */
	int cancel_state;          /* uncancelable: likewise */
	volatile uint32_t calls;   /* of the program's handlers, ever */
	volatile uint32_t ends;    /* of those that end a receive or send */
};
extern _Thread_local struct lf_defer lf_defer __attribute__((tls_model("initial-exec")));

void lf_defer_let_go(void);
void lf_defer_disable_cancel(void);
void lf_defer_restore_cancel(void);

/* Sections nest. In these, only handlers wait. */
static inline void lf_defer_begin_handlers(void)
{
	/* A handler that comes in between leaves the count as it found it. */
	lf_defer.depth = lf_defer.depth + 1;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void lf_defer_end_handlers(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	int depth = lf_defer.depth - 1;
	lf_defer.depth = depth;
	atomic_signal_fence(memory_order_seq_cst);
	/* A signal before that store is held, one after it is not: looked at after it, none is
	 * left behind. */
	if (depth == 0 && lf_defer.held)
		lf_defer_let_go();
}

/* In these, cancellation waits as well. */
static inline void lf_defer_begin(void)
{
	lf_defer_begin_handlers();
	if (lf_defer.uncancelable++ == 0)
		lf_defer_disable_cancel();
}

static inline void lf_defer_end(void)
{
	if (--lf_defer.uncancelable == 0)
		lf_defer_restore_cancel();
	lf_defer_end_handlers();
}

/* Sections of a few instructions, in which nothing is called that a cancellation acts in: it has to
 * wait only in a thread that wants it to act anywhere. */
static inline void lf_defer_begin_briefly(void)
{
	if (lf_defer.cancels_anywhere)
		lf_defer_begin();
	else
		lf_defer_begin_handlers();
}

static inline void lf_defer_end_briefly(void)
{
	if (lf_defer.cancels_anywhere)
		lf_defer_end();
	else
		lf_defer_end_handlers();
}

/* Around a sleep in a section: meanwhile handlers run and cancellation acts. A handler that finds
 * the section's lock held by its own thread sees that by the stack, see lf_lock_acquire(). */
struct lf_defer_pause {
	int depth, uncancelable;
};
struct lf_defer_pause lf_defer_pause(void);
void lf_defer_resume(struct lf_defer_pause pause);

/* In a forked child: the sections of fork itself are over. */
void lf_defer_after_fork(void);

/* How often a handler has run in this thread. Two equal answers: none in between. */
static inline uint32_t lf_defer_calls(void)
{
	return lf_defer.calls;
}

/* The same for handlers after which a receive or send fails with EINTR (lf_signals_returning()). */
static inline uint32_t lf_defer_ends(void)
{
	return lf_defer.ends;
}

/* What has run of this thread's handlers, to be compared later. */
struct lf_handlers {
	uint32_t calls, ends;
};
static inline struct lf_handlers lf_handlers_so_far(void)
{
	return (struct lf_handlers){lf_defer_calls(), lf_defer_ends()};
}

/* Has one run since that ends a call? Any does of which part has been moved, or that has a time limit. */
static inline bool lf_handlers_end(const struct lf_handlers *since, bool by_any)
{
	return by_any ? lf_defer_calls() != since->calls : lf_defer_ends() != since->ends;
}

/* Nothing has been moved yet: those after which the call is begun anew have had that. */
static inline void lf_handlers_begin_anew(struct lf_handlers *since)
{
	uint32_t calls = lf_defer_calls(); /* first: one that runs in between is not forgotten */
	if (lf_defer_ends() == since->ends)
		since->calls = calls;
}

/* pthread_setcanceltype(3) is about to set it, or has. */
static inline void lf_defer_cancels_anywhere(bool anywhere)
{
	lf_defer.cancels_anywhere = anywhere;
}

/* sigaction(2), with the program's handlers entered through ours. */
int lf_defer_sigaction(int signal, const struct sigaction *action, struct sigaction *old);
/* Is it ours, as the kernel knows it? */
bool lf_defer_is_ours(void (*handler)(int));

#endif
