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
	volatile int depth;      /* sections this thread is in */
	volatile bool held;      /* signals are blocked until the outermost one ends */
	uint64_t mask;           /* held: the thread's mask as it was */
	int cancel_state;        /* likewise, from the outermost section on */
	volatile uint32_t calls; /* of the program's handlers, ever */
};
extern _Thread_local struct lf_defer lf_defer __attribute__((tls_model("initial-exec")));

void lf_defer_enter_outermost(void);
void lf_defer_leave_outermost(void);

/* They nest. */
static inline void lf_defer_begin(void)
{
	/* A handler that comes in between leaves the count as it found it. */
	int depth = lf_defer.depth;
	lf_defer.depth = depth + 1;
	atomic_signal_fence(memory_order_seq_cst);
	if (depth == 0)
		lf_defer_enter_outermost();
}

static inline void lf_defer_end(void)
{
	if (lf_defer.depth == 1)
		lf_defer_leave_outermost();
	else
		lf_defer.depth = lf_defer.depth - 1;
}

/* In a forked child: the sections of fork itself are over. */
void lf_defer_after_fork(void);

/* How often a handler has run in this thread. Two equal answers: none in between. */
static inline uint32_t lf_defer_calls(void)
{
	return lf_defer.calls;
}

/* sigaction(2), with the program's handlers entered through ours. */
int lf_defer_sigaction(int signal, const struct sigaction *action, struct sigaction *old);
/* Is it ours, as the kernel knows it? */
bool lf_defer_is_ours(void (*handler)(int));

#endif
