/* interpose_signal.c - the libc names that give a signal its handler: remembered, see
 * signals.h, and entered through ours, see defer.h.
 *
 * sigvec() is left out: no program built since 2014 can call it. A handler that the library
 * does not know of counts as one that restarts calls.
 *
 * And the one that tells how a cancellation comes.
 */
#define _GNU_SOURCE
#include "defer.h"
#include "real.h"
#include "signals.h"
#include "start.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

/* What a thread holds for a few instructions only, no cancellation but such a one can leave held. */
LF_EXPORT int pthread_setcanceltype(int type, int *old)
{
	lf_start();
	if (type == PTHREAD_CANCEL_ASYNCHRONOUS)
		lf_defer_cancels_anywhere(true);
	int r = lf_real.pthread_setcanceltype(type, old);
	if (r == 0 && type == PTHREAD_CANCEL_DEFERRED)
		lf_defer_cancels_anywhere(false);
	return r;
}

LF_EXPORT int sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
	lf_start();
	/* Where the two are one place, the call changes what it was asked for. */
	struct sigaction asked = {0};
	if (action)
		asked = *action;
	int r = lf_defer_sigaction(signal, action, old);
	if (r == 0 && action && !lf_in_borrowed_memory())
		lf_signals_note(signal, &asked);
	return r;
}

int __sigaction(int signal, const struct sigaction *action, struct sigaction *old);
LF_EXPORT int __sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
	return sigaction(signal, action, old);
}

/* The C library has just set this signal's disposition, past us. A vfork child's is its own, and
 * the memory is its parent's. */
static void take_over(int number)
{
	struct sigaction now;
	int saved = errno;
	if (!lf_in_borrowed_memory() && lf_real.sigaction(number, NULL, &now) == 0) {
		lf_signals_note(number, &now);
		if (!lf_defer_is_ours(now.sa_handler))
			(void)lf_defer_sigaction(number, &now, NULL);
	}
	errno = saved;
}

/* signal() and its elder brothers differ in the flags that they set. Not every C library has
 * them all. */
static lf_handler *set_handler(lf_handler *(*real)(int, lf_handler *), int number,
			       lf_handler *handler)
{
	struct sigaction before = {.sa_handler = SIG_DFL};
	if (!real) {
		errno = ENOSYS;
		return SIG_ERR;
	}
	int saved = errno;
	(void)lf_defer_sigaction(number, NULL, &before); /* as the program knows it */
	errno = saved;
	lf_handler *old = real(number, handler);
	if (old == SIG_ERR)
		return old;
	take_over(number);
	return lf_defer_is_ours(old) ? before.sa_handler : old;
}

#define SETS_HANDLER(name)                                            \
	lf_handler *name(int number, lf_handler *handler);            \
	LF_EXPORT lf_handler *name(int number, lf_handler *handler)   \
	{                                                             \
		lf_start();                                           \
		return set_handler(lf_real.name, number, handler);    \
	}                                                             \
	_Static_assert(1, "") /* for the semicolon */

SETS_HANDLER(signal);
SETS_HANDLER(bsd_signal);
SETS_HANDLER(ssignal);
SETS_HANDLER(sysv_signal);
SETS_HANDLER(__sysv_signal);
SETS_HANDLER(sigset);

LF_EXPORT int sigignore(int number)
{
	lf_start();
	int r = lf_real.sigignore(number);
	if (r == 0)
		take_over(number);
	return r;
}

LF_EXPORT int siginterrupt(int number, int flag)
{
	lf_start();
	int r = lf_real.siginterrupt(number, flag); /* which later calls of signal() obey */
	if (r == 0)
		take_over(number);
	return r;
}
