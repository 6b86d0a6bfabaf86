/* signals.c - see signals.h. */
#define _GNU_SOURCE
#include "signals.h"

#include "real.h"
#include "table.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/signalfd.h>

#define BIT(signal) (UINT64_C(1) << ((signal) - 1))

/* setuid() and its kin in a program with threads. The signal of pthread_cancel() is left alone:
 * it must find the thread in the system call. */
#ifdef __GLIBC__
#define LIBC_RESTARTING BIT(33) /* SIGSETXID */
#else
#define LIBC_RESTARTING BIT(34) /* musl's SIGSYNCCALL */
#endif

static _Atomic uint64_t restarting, returning;

uint64_t lf_signals_bits(const sigset_t *set)
{
	uint64_t bits;
	memcpy(&bits, set, sizeof(bits));
	return bits;
}

/* sigaddset() refuses the C library's own signals. */
void lf_signals_fill(sigset_t *set, uint64_t bits)
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

uint64_t lf_signals_restarting(void)
{
	return atomic_load(&restarting) | LIBC_RESTARTING;
}

bool lf_signals_handled(sigset_t *set)
{
	uint64_t bits = atomic_load(&returning) | atomic_load(&restarting);
	lf_signals_fill(set, bits);
	return bits != 0;
}

/* --- signalfds ---
 *
 * One for each set of signals, made at its first use and never changed or closed: another
 * thread may be about to poll it. A program has one or two such sets. */
enum { KEPT = 4 };
static struct {
	_Atomic uint64_t bits; /* 0: a free place */
	_Atomic int place;     /* fd + 1; 0: being made, or it failed */
} kept[KEPT];

static int make(uint64_t bits)
{
	sigset_t set;
	lf_signals_fill(&set, bits);
	int saved = errno;
	int fd = lf_real.signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd != -1)
		fd = lf_table_hide(fd);
	errno = saved;
	return fd;
}

struct lf_signals_fd lf_signals_fd(uint64_t bits)
{
	for (int i = 0; i < KEPT; i++) {
		uint64_t there = atomic_load(&kept[i].bits);
		if (there == 0 && atomic_compare_exchange_strong(&kept[i].bits, &there, bits)) {
			int fd = make(bits);
			if (fd == -1)
				atomic_store(&kept[i].bits, 0);
			else
				atomic_store(&kept[i].place, fd + 1);
			return (struct lf_signals_fd){fd, true};
		}
		int place = atomic_load(&kept[i].place);
		if (there == bits && place)
			return (struct lf_signals_fd){place - 1, true};
	}
	return (struct lf_signals_fd){make(bits), false};
}

void lf_signals_fd_done(struct lf_signals_fd *it)
{
	int saved = errno;
	if (!it->kept && it->fd != -1)
		lf_table_unhide(it->fd);
	errno = saved;
}

void lf_signals_fd_moved(int from, int to)
{
	for (int i = 0; i < KEPT; i++) {
		int was = from + 1;
		if (atomic_compare_exchange_strong(&kept[i].place, &was, to + 1) && to == -1)
			atomic_store(&kept[i].bits, 0);
	}
}
