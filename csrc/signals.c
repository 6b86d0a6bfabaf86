/* signals.c - see signals.h. */
#define _GNU_SOURCE
#include "signals.h"

#include <stdatomic.h>
#include <stdint.h>

static _Atomic uint64_t restarting, returning; /* bit signal - 1 */

void lf_signals_note(int signal, const struct sigaction *action)
{
	if (signal < 1 || signal > 64 || !action)
		return;
	uint64_t bit = UINT64_C(1) << (signal - 1);
	bool handled = (action->sa_flags & SA_SIGINFO) ||
		       (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
	bool restarts = handled && (action->sa_flags & SA_RESTART);
	if (restarts)
		atomic_fetch_or(&restarting, bit);
	else
		atomic_fetch_and(&restarting, ~bit);
	if (handled && !restarts)
		atomic_fetch_or(&returning, bit);
	else
		atomic_fetch_and(&returning, ~bit);
}

enum lf_interrupt lf_signals_interrupt(void)
{
	uint64_t yes = atomic_load(&restarting), no = atomic_load(&returning);
	if (yes && no)
		return LF_INTERRUPT_MIXED;
	return yes ? LF_INTERRUPT_RESTART : LF_INTERRUPT_RETURN;
}

static bool fill(sigset_t *set, uint64_t bits)
{
	sigemptyset(set);
	for (int signal = 1; bits >> (signal - 1); signal++) {
		if (bits >> (signal - 1) & 1)
			sigaddset(set, signal);
		if (signal == 64)
			break;
	}
	return bits != 0;
}

void lf_signals_restarting(sigset_t *set)
{
	(void)fill(set, atomic_load(&restarting));
}

bool lf_signals_handled(sigset_t *set)
{
	return fill(set, atomic_load(&returning) | atomic_load(&restarting));
}
