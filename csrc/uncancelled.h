/* uncancelled.h - short system calls that are no cancellation points, as the C library's own are.
 *
 * getsockopt(2), dup2(2), shutdown(2) and their like are none, and neither may they become ones by what
 * is done for them here: a thread that ended in there would leave that half done.
 */
#ifndef LF_UNCANCELLED_H
#define LF_UNCANCELLED_H

#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int lf_uncancelled_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
void lf_uncancelled_nap(int64_t ns);
/* recv(2) of what is there. */
ssize_t lf_uncancelled_recv(int fd, void *buf, size_t n, int flags);
int lf_uncancelled_close(int fd);

static inline int lf_uncancelled_begin(void)
{
	int before = PTHREAD_CANCEL_ENABLE;
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

static inline void lf_uncancelled_end(const int *before)
{
	(void)pthread_setcancelstate(*before, NULL);
}

/* To the end of the block nothing is a cancellation point. */
#define LF_UNCANCELLED(name) \
	int name __attribute__((cleanup(lf_uncancelled_end), unused)) = lf_uncancelled_begin()

#endif
