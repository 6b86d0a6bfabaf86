/* table.c - see table.h. */
#define _GNU_SOURCE
#include "table.h"

#include "rank.h"
#include "real.h"
#include "shortage.h"
#include "uncancelled.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>

_Atomic uintptr_t *lf_table;

/* Where hiding in the program's range starts at the latest: the kernel's descriptor table
 * reaches up to the highest number in use, and each fork copies it. */
enum { HIGHEST_BASE = 16384 };

static _Atomic int hidden_count, soft_limit;

/* Held while the soft limit is raised, so that nobody takes the raised one for real. */
static pthread_mutex_t raising = PTHREAD_MUTEX_INITIALIZER;

void lf_table_hold_limit(sigset_t *before)
{
	/* A handler may want to know the limit, or fork. */
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, before);
	lf_mutex_lock(&raising, LF_RANK_LEAF);
}

void lf_table_release_limit(const sigset_t *before)
{
	lf_mutex_unlock(&raising, LF_RANK_LEAF);
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

bool lf_table_init(void)
{
	void *at = mmap(NULL, LF_TABLE_SIZE * sizeof(*lf_table), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return false;
	lf_table = at;
	return true;
}

uintptr_t lf_table_set(int fd, enum lf_kind kind, void *what)
{
	if ((unsigned)fd >= LF_TABLE_SIZE)
		return 0;
	uintptr_t word = what || kind == LF_KIND_HIDDEN ? (uintptr_t)what | (uintptr_t)kind : 0;
	return atomic_exchange_explicit(&lf_table[fd], word, memory_order_acq_rel);
}

bool lf_table_clear(int fd, enum lf_kind kind, void *what)
{
	uintptr_t word = (uintptr_t)what | (uintptr_t)kind;
	return lf_table_get(fd) == word && atomic_compare_exchange_strong(&lf_table[fd], &word, 0);
}

/* The lowest free number above the soft limit, which can only be had by raising it for a moment;
 * descriptors keep such numbers after it is lowered again. Another thread that opens something in
 * between sees the higher limit, no more; one that forks, or asks for the limit, or sets it, waits.
 * -1: there is no room above. */
static int duplicate_above(int fd, rlim_t *soft)
{
	struct rlimit limit;
	sigset_t before;
	int found = -1;
	lf_table_hold_limit(&before);
	if (lf_real.prlimit(0, RLIMIT_NOFILE, NULL, &limit) == -1)
		limit = (struct rlimit){0};
	struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
	*soft = limit.rlim_cur < LF_TABLE_SIZE ? limit.rlim_cur : LF_TABLE_SIZE;
	rlim_t hard = limit.rlim_max < LF_TABLE_SIZE ? limit.rlim_max : LF_TABLE_SIZE;
	if (hard > *soft && lf_real.prlimit(0, RLIMIT_NOFILE, &raised, NULL) == 0) {
		found = lf_real.fcntl(fd, F_DUPFD_CLOEXEC, (long)*soft);
		(void)lf_real.prlimit(0, RLIMIT_NOFILE, &limit, NULL);
	}
	lf_table_release_limit(&before);
	return found;
}

static int duplicate_high(int fd, bool in_range)
{
	rlim_t soft;
	int found = duplicate_above(fd, &soft);
	if (soft == 0)
		return -1;
	atomic_store(&soft_limit, (int)soft);
	/* No room above: the upper half of what the program may use, no further down. */
	rlim_t base = soft - soft / 2 < HIGHEST_BASE ? soft - soft / 2 : HIGHEST_BASE;
	if (found == -1 && in_range)
		found = lf_real.fcntl(fd, F_DUPFD_CLOEXEC, (long)base);
	return found;
}

int lf_table_hide(int fd)
{
	int hidden = duplicate_high(fd, lf_shortage_allows(fd));
	lf_uncancelled_close(fd);
	if (hidden == -1)
		return -1;
	if ((unsigned)hidden >= LF_TABLE_SIZE) {
		lf_uncancelled_close(hidden);
		return -1;
	}
	lf_table_set(hidden, LF_KIND_HIDDEN, NULL);
	atomic_fetch_add(&hidden_count, 1);
	return hidden;
}

void lf_table_lost(int fd)
{
	lf_table_set(fd, LF_KIND_NONE, NULL);
	atomic_fetch_sub(&hidden_count, 1);
}

void lf_table_unhide(int fd)
{
	lf_table_lost(fd);
	lf_uncancelled_close(fd);
}

int lf_table_hidden(void)
{
	return atomic_load_explicit(&hidden_count, memory_order_relaxed);
}

int lf_table_soft_limit(void)
{
	return atomic_load_explicit(&soft_limit, memory_order_relaxed);
}

int lf_table_relocate(int fd)
{
	int elsewhere = duplicate_high(fd, true);
	if (elsewhere == -1)
		return -1;
	lf_table_set(elsewhere, LF_KIND_HIDDEN, NULL);
	lf_table_set(fd, LF_KIND_NONE, NULL);
	return elsewhere;
}

void lf_table_before_fork(void)
{
	lf_mutex_lock(&raising, LF_RANK_LEAF);
}

void lf_table_after_fork_in_parent(void)
{
	lf_mutex_unlock(&raising, LF_RANK_LEAF);
}

void lf_table_after_fork(void)
{
	pthread_mutex_unlock(&raising); /* it is this thread that holds it; see lf_defer_after_fork() */
}
