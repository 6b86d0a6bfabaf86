/* epoll_control.c - epoll_ctl on a socket of ours. */
#define _GNU_SOURCE
#include "epoll_set.h"

#include "clock.h"
#include "conn.h"
#include "rank.h"
#include "real.h"

#include <errno.h>

/* A second set, a second descriptor of the same socket, or EPOLLEXCLUSIVE: the tags and
 * the doorbell can't follow. */
static bool clashes(const struct lf_epoll *ep, int fd, struct lf_sock *sock,
		    const struct epoll_event *event)
{
	const struct lf_registration *reg = atomic_load(&sock->registration);
	return (reg && (reg->ep != ep || reg->fd != fd)) || (event->events & EPOLLEXCLUSIVE) ||
	       ((event->events & EPOLLONESHOT) && !lf_sock_paired(sock));
}

static int control_add(struct lf_epoll *ep, int epfd, int fd, struct lf_sock *sock,
		       struct epoll_event *event)
{
	bool clash = clashes(ep, fd, sock, event);
	if (!lf_sock_paired(sock) || clash) {
		if (lf_real.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, event) == -1)
			return -errno;
		if (!clash)
			(void)lf_epoll_new_entry(ep, sock, fd, event);
		return 0;
	}
	struct lf_registration *reg = lf_epoll_new_entry(ep, sock, fd, event);
	if (!reg)
		return -ENOMEM;
	if (lf_entry_adopt(reg, false))
		return 0;
	int error = errno;
	lf_epoll_release(reg);
	return -error;
}

/* An adopted entry gets a new mask, or comes back after it was deleted. The kernel is told if it
 * can't wait, or if `tell`. */
static int change(struct lf_registration *reg, const struct epoll_event *event, bool tell)
{
	struct epoll_event before = reg->user;
	reg->user = *event;
	tell |= reg->ep->exact || ((event->events | reg->kernel_events) & EPOLLET);
	if (tell && lf_entry_tell_kernel(reg) == -1) {
		reg->user = before;
		return -errno;
	}
	/* What it has now begun to ask for came now, as far as the order of events goes. */
	if (reg->off || reg->gone || !(before.events & LF_IN_BITS))
		reg->queued_at = lf_ticks(), reg->passed_at = 0;
	reg->off = reg->gone = false;
	reg->settled_at = reg->ep->settled;
	reg->fresh = true;
	lf_epoll_make_hot(reg);
	return 0;
}

/* Another process that shares the set may have deleted it. */
static int add_again(struct lf_registration *reg, const struct epoll_event *event)
{
	if (!reg->ep->shared || !reg->adopted || !reg->in_kernel)
		return -EEXIST;
	reg->in_kernel = false;
	int r = change(reg, event, true);
	if (r == 0)
		lf_entry_enter_bell(reg);
	else
		reg->in_kernel = true;
	return r;
}

static int control_mod(struct lf_registration *reg, int epfd, struct epoll_event *event)
{
	if (reg->adopted)
		return event->events & EPOLLEXCLUSIVE ? -EINVAL : change(reg, event, false);
	if (event->events & LF_KERNEL_ONLY)
		lf_sock_decline(reg->sock, LF_REASON_EPOLL_KIND);
	if (lf_real.epoll_ctl(epfd, EPOLL_CTL_MOD, reg->fd, event) == -1)
		return -errno;
	reg->user = *event;
	return 0;
}

static int control_del(struct lf_registration *reg, int epfd)
{
	if (reg->adopted) {
		lf_epoll_make_hot(reg); /* hence nobody's waiter */
		lf_epoll_leave_list(reg);
		reg->gone = true;
		if (reg->ep->exact)
			lf_entry_release_gone(reg);
		return 0;
	}
	if (lf_real.epoll_ctl(epfd, EPOLL_CTL_DEL, reg->fd, NULL) == -1)
		return -errno;
	lf_epoll_release(reg);
	return 0;
}

/* The socket's entry in this set, if the program believes it is there. */
static int control_known(struct lf_registration *reg, int epfd, int op, struct epoll_event *event)
{
	if (reg->gone)
		return op == EPOLL_CTL_ADD ? change(reg, event, false) : -ENOENT;
	if (op == EPOLL_CTL_MOD)
		return control_mod(reg, epfd, event);
	if (op == EPOLL_CTL_DEL)
		return control_del(reg, epfd);
	return add_again(reg, event);
}

/* An entry that was deleted from here must not stand in the way of a new one elsewhere. */
static void make_way(struct lf_epoll *ep, int fd, struct lf_sock *sock, bool exclusive)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *other = reg->ep;
	bool in_the_way = other != ep || reg->fd != fd || exclusive;
	if (in_the_way && reg->gone)
		lf_entry_release_gone(reg);
	lf_epoll_unlock(other);
}

#define EXCLUSIVE_ALLOWS                                                                          \
	(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)

int lf_epoll_control(struct lf_epoll *ep, int epfd, int op, int fd, struct lf_sock *sock,
		     struct epoll_event *event)
{
	if (op != EPOLL_CTL_DEL && !event)
		return -EFAULT;
	if (op == EPOLL_CTL_ADD && (event->events & EPOLLEXCLUSIVE) &&
	    (event->events & ~EXCLUSIVE_ALLOWS))
		return -EINVAL; /* epoll_ctl(2) */
	bool may_pair = op == EPOLL_CTL_ADD && !lf_sock_paired(sock);
	/* Before the set's lock: defusing takes the socket's, then the set's. */
	if (op == EPOLL_CTL_ADD) {
		make_way(ep, fd, sock, (event->events & EPOLLEXCLUSIVE) != 0);
		if (clashes(ep, fd, sock, event))
			lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
	}
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	if (!lf_epoll_is_behind(ep, epfd)) {
		lf_epoll_unlock(ep);
		return -EBADF;
	}
	struct lf_registration *reg = atomic_load(&sock->registration);
	bool known = op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD || op == EPOLL_CTL_DEL;
	int r;
	if (known && reg && reg->ep == ep && reg->fd == fd) {
		r = control_known(reg, epfd, op, event);
	} else if (op == EPOLL_CTL_ADD) {
		r = control_add(ep, epfd, fd, sock, event);
	} else {
		r = lf_real.epoll_ctl(epfd, op, fd, event);
		r = r == -1 ? -errno : 0;
	}
	if (r == 0)
		lf_entry_tell_sleepers(ep);
	lf_epoll_unlock(ep);
	if (r == 0 && may_pair)
		lf_epoll_catch_up(sock, fd);
	return r;
}
