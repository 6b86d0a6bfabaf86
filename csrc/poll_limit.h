/* poll_limit.h - poll(2) takes no more entries than the soft limit of RLIMIT_NOFILE, of which a program
 * may have left itself none. Its recv(2) and select(2) sleep all the same, and so must what they do here.
 */
#ifndef LF_POLL_LIMIT_H
#define LF_POLL_LIMIT_H

#include <poll.h>
#include <signal.h>
#include <time.h>

/* ppoll(2) of any number of entries. */
int lf_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask);
/* The same, once ppoll(2) has said EINVAL. */
int lf_ppoll_by_select(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask);

#endif
