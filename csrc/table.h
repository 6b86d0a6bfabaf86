/* table.h - which descriptor is what.
 *
 * One word per descriptor number: 0 for everything we have no business with, so the
 * price of interposing a call on a file or a pipe is one load. The three low bits of
 * the word say what it points to.
 */
#ifndef LF_TABLE_H
#define LF_TABLE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LF_TABLE_SIZE (1u << 20) /* fs.nr_open's default; above, all is plain */

enum lf_kind {
	LF_KIND_NONE = 0,
	LF_KIND_SOCK = 1,
	LF_KIND_EPOLL = 2,
	LF_KIND_HIDDEN = 3, /* ours: doorbells, the broker; the program must not see them */
	LF_KIND_URING = 4,
};
#define LF_KIND_BITS ((uintptr_t)7)

extern _Atomic uintptr_t *lf_table;

/* Reserves the address space. False: no memory; the library stays inert. */
bool lf_table_init(void);

static inline uintptr_t lf_table_get(int fd)
{
	if ((unsigned)fd >= LF_TABLE_SIZE || !lf_table)
		return 0;
	return atomic_load_explicit(&lf_table[fd], memory_order_acquire);
}

static inline enum lf_kind lf_table_kind(uintptr_t entry)
{
	return (enum lf_kind)(entry & LF_KIND_BITS);
}

static inline void *lf_table_pointer(uintptr_t entry)
{
	return (void *)(entry & ~LF_KIND_BITS);
}

/* Returns what stood there. */
uintptr_t lf_table_set(int fd, enum lf_kind kind, void *what);
/* Takes this entry out. False: it is another one. */
bool lf_table_clear(int fd, enum lf_kind kind, void *what);

/* Moves fd out of the program's sight: to a number it is unlikely to reach, above its
 * soft limit where the hard limit allows, else in its range while there is plenty of
 * room. Close-on-exec. Returns the new number, or -1 with fd closed. */
int lf_table_hide(int fd);
/* How many are hidden now, and the program's soft limit as of the last one. */
int lf_table_hidden(void);
int lf_table_soft_limit(void);
/* A hidden descriptor was closed past us, and its number given to the program. */
void lf_table_lost(int fd);
/* Closes a hidden descriptor. */
void lf_table_unhide(int fd);
/* The program wants number fd for itself (dup2): moves the hidden one elsewhere and
 * returns its new number, or -1. The owner must be told. */
int lf_table_relocate(int fd);

/* Around what reads, sets or inherits the limit of descriptors: while hiding one, we raise it for
 * a moment. Holds back signals, too. */
void lf_table_hold_limit(sigset_t *before);
void lf_table_release_limit(const sigset_t *before);

/* fork: a child must not inherit that. */
void lf_table_before_fork(void);
void lf_table_after_fork_in_parent(void);
/* In a forked child: other threads' locks are nobody's now. */
void lf_table_after_fork(void);

#endif
