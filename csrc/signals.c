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
 * One for each set of signals, made at its first use and kept: a program has one or two such
 * sets. Hidden, but perhaps in the program's range: so it is given back when numbers run out,
 * unless somebody sleeps on it. */
enum { KEPT = 4 };
static struct {
	_Atomic uint64_t bits;  /* 0: a free place */
	_Atomic int place;      /* fd + 1; 0: being made, or given back */
	_Atomic uint32_t users; /* threads that poll it or are about to */
} kept[KEPT];

static int make(uint64_t bits)
{
	sigset_t set;
	lf_signals_fill(&set, bits);
	return lf_real.signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void make_kept(int i, uint64_t bits)
{
	int fd = make(bits);
	if (fd != -1)
		fd = lf_table_hide(fd);
	if (fd == -1)
		atomic_store(&kept[i].bits, 0);
	else
		atomic_store(&kept[i].place, fd + 1);
}

/* Dekker with lf_signals_give_back(): we store `users`, then load `place`. */
static int use(int i)
{
	atomic_fetch_add(&kept[i].users, 1);
	int place = atomic_load(&kept[i].place);
	if (!place)
		atomic_fetch_sub(&kept[i].users, 1);
	return place - 1;
}

struct lf_signals_fd lf_signals_fd(uint64_t bits)
{
	int saved = errno, fd = -1;
	for (int i = 0; i < KEPT && fd == -1; i++) {
		uint64_t there = 0;
		if (atomic_compare_exchange_strong(&kept[i].bits, &there, bits))
			make_kept(i, bits);
		else if (there != bits)
			continue;
		fd = use(i);
		if (fd == -1)
			break;
		errno = saved;
		return (struct lf_signals_fd){fd, i};
	}
	/* Short of numbers, or too many sets: one for this time, where the kernel puts it. */
	fd = make(bits);
	errno = saved;
	return (struct lf_signals_fd){fd, -1};
}

void lf_signals_fd_done(struct lf_signals_fd *it)
{
	int saved = errno;
	if (it->kept >= 0)
		atomic_fetch_sub(&kept[it->kept].users, 1);
	else if (it->fd != -1)
		lf_real.close(it->fd);
	errno = saved;
}

void lf_signals_after_fork(void)
{
	for (int i = 0; i < KEPT; i++) {
		atomic_store(&kept[i].users, 0);
		if (atomic_load(&kept[i].place) == 0)
			atomic_store(&kept[i].bits, 0);
	}
}

bool lf_signals_give_back(int limit)
{
	bool any = false;
	for (int i = 0; i < KEPT; i++) {
		int place = atomic_load(&kept[i].place);
		if (place == 0 || place > limit ||
		    !atomic_compare_exchange_strong(&kept[i].place, &place, 0))
			continue;
		/* The other half of Dekker: `place` is stored, now `users`. */
		if (atomic_load(&kept[i].users)) {
			atomic_store(&kept[i].place, place);
			continue;
		}
		lf_table_unhide(place - 1);
		atomic_store(&kept[i].bits, 0);
		any = true;
	}
	return any;
}

void lf_signals_fd_moved(int from, int to)
{
	for (int i = 0; i < KEPT; i++) {
		int was = from + 1;
		if (atomic_compare_exchange_strong(&kept[i].place, &was, to + 1) && to == -1)
			atomic_store(&kept[i].bits, 0);
	}
}
