/* interpose_wait.c - the libc names that wait for readiness. */
#define _GNU_SOURCE
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "epoll.h"
#include "pairing.h"
#include "poll.h"
#include "real.h"
#include "shortage.h"
#include "start.h"

#include <pthread.h>

static int64_t from_ms(int ms)
{
	return ms < 0 ? LF_FOREVER : (int64_t)ms * 1000000;
}

static bool valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000;
}

static int64_t from_timespec(const struct timespec *ts)
{
	if (!ts || ts->tv_sec > INT64_MAX / 2000000000)
		return LF_FOREVER;
	return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

/* --- poll --- */

LF_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	if (!lf_poll_concerns(fds, n))
		return lf_real.poll(fds, n, timeout);
	pthread_testcancel();
	int saved = errno;
	return (int)lf_result(lf_poll(fds, n, from_ms(timeout)), saved);
}

LF_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	if (!lf_poll_concerns(fds, n) || (ts && !valid(ts)))
		return lf_real.ppoll(fds, n, ts, mask);
	pthread_testcancel();
	int saved = errno;
	return (int)lf_result(lf_poll_masked(fds, n, from_timespec(ts), mask), saved);
}

_Noreturn void __chk_fail(void);

LF_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
	if (room / sizeof(*fds) < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

LF_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts,
			  const sigset_t *mask, size_t room)
{
	if (room / sizeof(*fds) < n)
		__chk_fail();
	return ppoll(fds, n, ts, mask);
}

LF_EXPORT int __poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return poll(fds, n, timeout);
}

/* --- select --- */

LF_EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *ts,
		      const sigset_t *mask)
{
	n = lf_select_width(n);
	if (!lf_started || n < 0 || (ts && !valid(ts)) || !lf_select_concerns(n, r, w, x))
		return lf_real.pselect(n, r, w, x, ts, mask);
	pthread_testcancel();
	int saved = errno;
	return (int)lf_result(lf_select(n, r, w, x, from_timespec(ts), mask), saved);
}

LF_EXPORT int select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *tv)
{
	n = lf_select_width(n);
	if (!lf_started || n < 0 || (tv && (tv->tv_sec < 0 || tv->tv_usec < 0)) ||
	    !lf_select_concerns(n, r, w, x))
		return lf_real.select(n, r, w, x, tv);
	pthread_testcancel();
	int saved = errno;
	int64_t ns = LF_FOREVER;
	if (tv && tv->tv_sec <= INT64_MAX / 2000000000)
		ns = (int64_t)tv->tv_sec * 1000000000 + (int64_t)tv->tv_usec * 1000;
	int64_t start = lf_now();
	int result = lf_select(n, r, w, x, ns, NULL);
	if (tv && ns != LF_FOREVER) { /* Linux leaves what was not slept, select(2) */
		int64_t left = ns - (lf_now() - start);
		left = left > 0 ? left : 0;
		*tv = (struct timeval){left / 1000000000, left % 1000000000 / 1000};
	}
	return (int)lf_result(result, saved);
}

LF_EXPORT int __select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *tv);
LF_EXPORT int __select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *tv)
{
	return select(n, r, w, x, tv);
}

/* --- epoll --- */

static int tracked(int fd)
{
	if (fd >= 0 && lf_started)
		lf_epoll_track(fd);
	return fd;
}

LF_EXPORT int epoll_create1(int flags)
{
	lf_start();
	int fd;
	do
		fd = lf_real.epoll_create1(flags);
	while (fd == -1 && errno == EMFILE && lf_shortage_relieve());
	if (fd >= 0)
		lf_fd_born(fd);
	return tracked(fd);
}

LF_EXPORT int epoll_create(int size)
{
	if (size <= 0) {
		errno = EINVAL;
		return -1;
	}
	return epoll_create1(0);
}

static struct lf_epoll *epoll_of(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	return lf_table_kind(entry) == LF_KIND_EPOLL ? lf_table_pointer(entry) : NULL;
}

/* An epoll set inside another one (or in one we did not see made) is watched by the
 * kernel alone: what is in it must stay plain. */
static void decline_for_unknown_set(struct lf_sock *sock, int fd)
{
	if (lf_sock_paired(sock))
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
	else
		lf_sock_decline(sock, LF_REASON_EPOLL_KIND);
}

LF_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (lf_table_kind(lf_table_get(fd)) == LF_KIND_HIDDEN) {
		errno = EBADF; /* as far as the program knows */
		return -1;
	}
	struct lf_epoll *inner = epoll_of(fd);
	if (inner && op == EPOLL_CTL_ADD)
		lf_epoll_nest(inner);
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.epoll_ctl(epfd, op, fd, event);
	int saved = errno;
	struct lf_epoll *ep = epoll_of(epfd);
	int r;
	if (ep && !lf_epoll_is_nested(ep)) {
		if (lf_config.eager)
			lf_pairing_step(sock, fd);
		r = lf_epoll_control(ep, epfd, op, fd, sock, event);
		if (lf_pairing_expects(sock))
			lf_epoll_watch_broker(ep);
	} else {
		decline_for_unknown_set(sock, fd);
		r = lf_real.epoll_ctl(epfd, op, fd, event);
		r = r == -1 ? -errno : r;
	}
	lf_sock_unpin(sock);
	return (int)lf_result(r, saved);
}

/* What rings answer asks the kernel nothing, which would be where a cancelled thread ends. */
static int wait_for(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
		    const sigset_t *mask)
{
	if (ns == 0 && !lf_epoll_is_mixed(ep))
		return lf_epoll_look_at_kernel(ep, epfd, events, max, mask);
	pthread_testcancel();
	int saved = errno;
	return (int)lf_result(lf_epoll_wait(ep, epfd, events, max, ns, mask), saved);
}

LF_EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout,
			  const sigset_t *mask)
{
	struct lf_epoll *ep = epoll_of(epfd);
	if (!ep)
		return lf_real.epoll_pwait(epfd, events, max, timeout, mask);
	return wait_for(ep, epfd, events, max, from_ms(timeout), mask);
}

LF_EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
	struct lf_epoll *ep = epoll_of(epfd);
	if (!ep)
		return lf_real.epoll_wait(epfd, events, max, timeout);
	return wait_for(ep, epfd, events, max, from_ms(timeout), NULL);
}

LF_EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *ts,
			   const sigset_t *mask)
{
	struct lf_epoll *ep = epoll_of(epfd);
	if (!ep || (ts && !valid(ts)))
		return lf_real.epoll_pwait2(epfd, events, max, ts, mask);
	return wait_for(ep, epfd, events, max, from_timespec(ts), mask);
}
