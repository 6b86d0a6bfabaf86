/* signals.c - see signals.h. */
#define _GNU_SOURCE
#include "signals.h"

#include <stdatomic.h>
#include <string.h>

#define BIT(signal) (UINT64_C(1) << ((signal) - 1))

static _Atomic uint64_t restarting, returning;

/* As bits, signal - 1; a sigset_t begins like that on every 64-bit Linux. */
static void fill(sigset_t *set, uint64_t bits)
{
	sigemptyset(set);
	memcpy(set, &bits, sizeof(bits));
}

void lf_signals_note(int signal, const struct sigaction *action)
{
	if (signal < 1 || signal > 64)
		return;
	uint64_t bit = BIT(signal);
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

uint64_t lf_signals_returning(void)
{
	return atomic_load(&returning);
}

bool lf_signals_handled(sigset_t *set)
{
	uint64_t bits = atomic_load(&returning) | atomic_load(&restarting);
	fill(set, bits);
	return bits != 0;
}
