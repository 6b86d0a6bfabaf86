/* defer.c - see defer.h. */
#define _GNU_SOURCE
#include "defer.h"

#include "real.h"
#include "signals.h"
#include "start.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

_Thread_local struct lf_defer lf_defer __attribute__((tls_model("initial-exec")));

/* One without SA_SIGINFO gets arguments that it does not look at. */
typedef void (*handler)(int, siginfo_t *, void *);

enum { SIGNALS = 64 };
static _Atomic(handler) handlers[SIGNALS + 1];
static _Atomic uint64_t resetting, with_siginfo; /* their flags; bit signal - 1 */

#define BIT(signal) (UINT64_C(1) << ((signal) - 1))
/* They tell of the instruction that runs; blocked, they kill. Sent by another process, they end calls. */
#define NEVER_DEFERRED                                                                          \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS) |  \
	 BIT(SIGABRT))

/* The kernel's mask is 64 bits wide, whatever sigset_t is. */
static uint64_t set_mask(int how, uint64_t mask)
{
	uint64_t before = 0;
	(void)syscall(SYS_rt_sigprocmask, how, &mask, &before, sizeof(mask));
	return before;
}

void lf_defer_disable_cancel(void)
{
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &lf_defer.cancel_state);
}

/* A cancellation that came meanwhile is for the next call that may act on one. */
void lf_defer_restore_cancel(void)
{
	(void)pthread_setcancelstate(lf_defer.cancel_state, NULL);
}

void lf_defer_let_go(void)
{
	int saved = errno;
	uint64_t mask = lf_defer.mask;
	lf_defer.held = false;
	(void)set_mask(SIG_SETMASK, mask); /* here the handlers run, and may not come back */
	errno = saved;
}

struct lf_defer_pause lf_defer_pause(void)
{
	struct lf_defer_pause pause = {lf_defer.depth, lf_defer.uncancelable};
	if (pause.uncancelable)
		lf_defer_restore_cancel();
	lf_defer.uncancelable = 0;
	lf_defer.depth = 0;
	atomic_signal_fence(memory_order_seq_cst);
	if (lf_defer.held)
		lf_defer_let_go();
	return pause;
}

void lf_defer_resume(struct lf_defer_pause pause)
{
	lf_defer.depth = pause.depth;
	atomic_signal_fence(memory_order_seq_cst);
	lf_defer.uncancelable = pause.uncancelable;
	if (pause.uncancelable)
		lf_defer_disable_cancel();
}

void lf_defer_after_fork(void)
{
	(void)lf_defer_pause();
}

static bool queue(int signal, siginfo_t *info)
{
	return syscall(SYS_rt_tgsigqueueinfo, (pid_t)syscall(SYS_getpid), (pid_t)syscall(SYS_gettid),
		       signal, info) == 0;
}

enum { LATER = 32 };

/* Real-time signals of one number come in order, signal(7): those that are pending already came
 * after this one. */
static bool queue_before_later_ones(int signal, siginfo_t *info)
{
	siginfo_t later[LATER];
	uint64_t only = BIT(signal);
	struct timespec now = {0, 0};
	int n = 0;
	while (n < LATER && syscall(SYS_rt_sigtimedwait, &only, &later[n], &now, sizeof(only)) == signal)
		n++;
	bool queued = queue(signal, info);
	for (int i = 0; i < n; i++)
		(void)queue(signal, &later[i]);
	return queued;
}

/* Makes the signal pending again, for this thread. False: it can't be. */
static bool hold(int signal, siginfo_t *info, ucontext_t *context)
{
	/* With SA_NODEFER it would come right back. If another signal was held first, in a frame
	 * that the kernel put on top of this one, this one's mask is the one to go back to. */
	uint64_t before = set_mask(SIG_BLOCK, ~NEVER_DEFERRED);
	if (signal < SIGRTMIN ? !queue(signal, info) : !queue_before_later_ones(signal, info)) {
		(void)set_mask(SIG_SETMASK, before);
		return false;
	}
	uint64_t mask;
	memcpy(&mask, &context->uc_sigmask, sizeof(mask));
	lf_defer.mask = mask;
	lf_defer.held = true;
	mask |= ~NEVER_DEFERRED;
	memcpy(&context->uc_sigmask, &mask, sizeof(mask));
	return true;
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	int saved = errno;
	uint64_t at_once = NEVER_DEFERRED | atomic_load(&resetting);
	if (lf_defer.depth && !(at_once & BIT(signal)) && hold(signal, info, context)) {
		errno = saved;
		return;
	}
	errno = saved;
	lf_defer.calls = lf_defer.calls + 1;
	if (lf_signals_returning() & BIT(signal))
		lf_defer.ends = lf_defer.ends + 1;
	atomic_load(&handlers[signal])(signal, info, context);
}

static handler own(void (*function)(int))
{
	return (handler)(void *)function;
}

static bool is_to_be_wrapped(int signal, handler function)
{
	/* A vfork child's dispositions are its own, but the memory is its parent's. */
	return lf_started && signal >= 1 && signal <= SIGNALS &&
	       function != own(SIG_DFL) && function != own(SIG_IGN) && function != own(SIG_ERR) &&
	       function != on_signal && !lf_in_borrowed_memory();
}

bool lf_defer_is_ours(void (*function)(int))
{
	return own(function) == on_signal;
}

static handler handler_of(const struct sigaction *action)
{
	return action->sa_flags & SA_SIGINFO ? action->sa_sigaction : own(action->sa_handler);
}

static void set_bit(_Atomic uint64_t *bits, int signal, bool on)
{
	if (on)
		atomic_fetch_or(bits, BIT(signal));
	else
		atomic_fetch_and(bits, ~BIT(signal));
}

/* What the program has been told that a signal has. */
struct program {
	handler function;
	bool siginfo;
};

/* Noted before the kernel hears of it: from then on the next signal may find it. */
static void note(int signal, const struct program *program, bool resets)
{
	atomic_store(&handlers[signal], program->function);
	set_bit(&with_siginfo, signal, program->siginfo);
	/* Never deferred by mistake: by then the kernel's handler is the default one. */
	if (resets)
		set_bit(&resetting, signal, true);
}

static void as_the_program_knows(struct sigaction *action, const struct program *program)
{
	bool reset = (action->sa_flags & (int)SA_RESETHAND) && own(action->sa_handler) == own(SIG_DFL);
	if (action->sa_sigaction != on_signal && !reset)
		return;
	if (!reset)
		action->sa_sigaction = program->function;
	if (!program->siginfo)
		action->sa_flags &= ~SA_SIGINFO;
}

int lf_defer_sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
	if (signal < 1 || signal > SIGNALS)
		return lf_real.sigaction(signal, action, old);
	struct program before = {
		.function = atomic_load(&handlers[signal]),
		.siginfo = (atomic_load(&with_siginfo) & BIT(signal)) != 0,
	};
	struct sigaction ours = {0};
	bool wraps = action && is_to_be_wrapped(signal, handler_of(action));
	bool resets = action && (action->sa_flags & (int)SA_RESETHAND);
	if (action)
		ours = *action;
	if (wraps) {
		struct program now = {handler_of(action), (action->sa_flags & SA_SIGINFO) != 0};
		note(signal, &now, resets);
		ours.sa_sigaction = on_signal;
		ours.sa_flags |= SA_SIGINFO; /* else the kernel says nothing of the signal */
	}
	int r = lf_real.sigaction(signal, action ? &ours : NULL, old);
	if (r == -1) {
		if (wraps && before.function)
			note(signal, &before, false);
		return r;
	}
	if (wraps && !resets)
		set_bit(&resetting, signal, false);
	if (old)
		as_the_program_knows(old, &before);
	return r;
}
