/* poll.h - poll, ppoll, select and pselect over sets that contain sockets of ours. */
#ifndef LF_POLL_H
#define LF_POLL_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/select.h>

/* Is any of these a socket that is fused, or may become so while somebody sleeps on it? */
bool lf_poll_concerns(struct pollfd *fds, nfds_t n);
/* poll(2) and ppoll(2); `ns` LF_FOREVER for no timeout. The count or a negative errno. */
int lf_poll(struct pollfd *fds, nfds_t n, int64_t ns);
int lf_poll_masked(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask);

/* How many bits of the sets select(2) is to look at: n, or fewer where the program can't have
 * as many descriptors. */
int lf_select_width(int n);
bool lf_select_concerns(int n, const fd_set *r, const fd_set *w, const fd_set *x);
int lf_select(int n, fd_set *r, fd_set *w, fd_set *x, int64_t ns, const sigset_t *mask);

#endif
