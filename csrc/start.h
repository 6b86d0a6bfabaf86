/* start.h - bringing the library up, and what the interposed names share. */
#ifndef LF_START_H
#define LF_START_H

#include "reasons.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#endif

struct msghdr;

/* Idempotent; the constructor calls it, and so does an interposed function that may be
 * called earlier (from another library's constructor). */
void lf_start(void);
extern bool lf_started;

/* A vfork child (posix_spawn's, a raw clone's) shares our memory but has descriptors of
 * its own: it must not touch the table. One getpid(2) where it matters. */
bool lf_in_borrowed_memory(void);
/* The same without a system call, while this process has made no such child by the C library's
 * names: for places where to take one that was made past them for the process itself does no harm.
 * A copy of our memory, however it was made, is never taken for it. */
bool lf_seems_borrowed(void);
/* A copy of our memory that was made past the C library's fork, and so knows nothing of it. */
bool lf_is_copy(void);
/* Such a child is about to be made. */
void lf_memory_is_lent(void);
/* unshare(2) is about to be called: a thread may get descriptors of its own. */
void lf_before_unshare(int flags);

/* There is no other thread for certain: but for signal handlers nothing happens during a call. */
static inline bool lf_alone(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
	return __libc_single_threaded;
#else
	return false;
#endif
}

#define LF_EXPORT __attribute__((visibility("default")))

/* The kernel has just given the program descriptor fd. What the table says of that number is
 * of one that was closed past us (a raw system call, fclose): lets go of it. */
void lf_fd_born(int fd);

/* close(2), where no thread can be cancelled. */
int lf_fd_close(int fd);

/* Back to TCP, if fd is a socket of ours (conn.h). Without `stay` its unread bytes are to come by
 * TCP in any case, for a reader that goes past us. */
void lf_fd_defuse(int fd, enum lf_reason reason, bool stay);

/* The same for what messages are about to hand on (SCM_RIGHTS). */
struct mmsghdr;
void lf_fd_defuse_passed(const struct msghdr *msg);
void lf_fd_defuse_all_passed(const struct mmsghdr *msgs, unsigned n);

/* Results of the layers below are counts or negative errnos; the program wants -1 and
 * errno, and an errno that success left alone. */
static inline ssize_t lf_result(ssize_t r, int saved)
{
	errno = r < 0 ? (int)-r : saved;
	return r < 0 ? -1 : r;
}

#endif
