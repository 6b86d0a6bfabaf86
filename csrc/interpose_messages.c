/* interpose_messages.c - the libc names that move messages: what they do beyond the bytes is to
 * carry descriptors to other processes, and several messages at once. */
#define _GNU_SOURCE
#include "interpose_io.h"

#include "clock.h"
#include "conn.h"
#include "real.h"
#include "start.h"

#include <limits.h>
#include <string.h>

/* Each descriptor in the control data. */
static void each_passed(const struct msghdr *msg, void (*fn)(int fd))
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    c->cmsg_len < CMSG_LEN(0))
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			fn(fd);
		}
	}
}

/* `since`: before the first of several messages, or NULL. */
static ssize_t receive_message(int fd, struct msghdr *msg, int flags, bool continued, struct lf_handlers *since)
{
	struct lf_sock *sock = msg && msg->msg_iovlen <= IOV_MAX ? lf_sock_pin(fd) : NULL;
	if (sock) {
		struct lf_io io = {.msg = msg, .flags = flags, .continued = continued, .since = since};
		return lf_receive(sock, fd, &io);
	}
	ssize_t r = lf_real.recvmsg(fd, msg, flags);
	if (r >= 0 && msg->msg_controllen && lf_started)
		each_passed(msg, lf_fd_born);
	return r;
}

LF_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	return receive_message(fd, msg, flags, false, NULL);
}

/* Descriptors that leave for another process take plain TCP with them. */
static void defuse_passed(int fd)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	lf_conn_defuse(sock, fd, LF_REASON_DESCRIPTOR_PASSED, false);
	lf_sock_unpin(sock);
}

void lf_fd_defuse_passed(const struct msghdr *msg)
{
	if (msg && msg->msg_controllen && lf_started)
		each_passed(msg, defuse_passed);
}

void lf_fd_defuse_all_passed(const struct mmsghdr *msgs, unsigned n)
{
	for (unsigned i = 0; msgs && i < n; i++)
		lf_fd_defuse_passed(&msgs[i].msg_hdr);
}

/* As receive_message(). */
static ssize_t transmit_message(int fd, const struct msghdr *msg, int flags, bool continued,
				struct lf_handlers *since)
{
	int saved = errno;
	lf_fd_defuse_passed(msg);
	errno = saved;
	struct lf_sock *sock = msg && msg->msg_iovlen <= IOV_MAX ? lf_sock_pin(fd) : NULL;
	if (sock) {
		struct lf_io io = {.msg = (struct msghdr *)(uintptr_t)msg, .flags = flags,
				   .continued = continued, .since = since};
		return lf_transmit(sock, fd, &io);
	}
	return lf_real.sendmsg(fd, msg, flags);
}

LF_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return transmit_message(fd, msg, flags, false, NULL);
}

/* --- several at once --- */

static size_t length_of(const struct msghdr *msg)
{
	size_t sum = 0;
	for (size_t i = 0; i < msg->msg_iovlen; i++)
		sum += msg->msg_iov[i].iov_len;
	return sum;
}

/* Stores what is left in *left, as recvmmsg(2) does. Returns whether there is any. */
static bool time_is_left(int64_t deadline, struct timespec *left)
{
	int64_t ns = deadline - lf_now();
	if (ns < 0)
		ns = 0;
	*left = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	return ns > 0;
}

static void keep_error(int fd, int error)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	atomic_store(&sock->slot->error, (uint32_t)error);
	lf_sock_unpin(sock);
}

static bool valid(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000;
}

static int64_t deadline_of(const struct timespec *timeout)
{
	if (!timeout || timeout->tv_sec > INT64_MAX / 2000000000)
		return LF_FOREVER;
	return lf_deadline((int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec);
}

static int receive_elsewhere(int fd, struct mmsghdr *msgs, unsigned n, int flags,
			     struct timespec *timeout)
{
	int got = lf_real.recvmmsg(fd, msgs, n, flags, timeout);
	for (int i = 0; i < got && lf_started; i++)
		if (msgs[i].msg_hdr.msg_controllen)
			each_passed(&msgs[i].msg_hdr, lf_fd_born);
	return got;
}

/* As do_recvmmsg() in net/socket.c: first the error that the socket has; then one recvmsg after
 * the other, where an end of the stream counts as a message, the time limit is looked at between
 * two of them, and an error after the first is kept for the next call. */
LF_EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	struct lf_sock *sock = timeout && !valid(timeout) ? NULL : lf_sock_pin(fd);
	if (!sock)
		return receive_elsewhere(fd, msgs, n, flags, timeout);
	lf_sock_unpin(sock);
	struct lf_handlers since = lf_handlers_so_far();
	int error = 0;
	socklen_t len = sizeof(error);
	if (!(flags & MSG_ERRQUEUE) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 &&
	    error) {
		errno = error;
		return -1;
	}
	int64_t deadline = deadline_of(timeout);
	bool waits = true;
	unsigned got = 0;
	while (got < n) {
		struct msghdr *msg = &msgs[got].msg_hdr;
		uint32_t handlers_run = lf_defer_calls();
		ssize_t r = receive_message(fd, msg, (flags & ~MSG_WAITFORONE) | (waits ? 0 : MSG_DONTWAIT),
					    got != 0, &since);
		if (r < 0) {
			if (got && errno != EAGAIN && errno != EINTR)
				keep_error(fd, errno);
			return got ? (int)got : -1;
		}
		msgs[got++].msg_len = (unsigned)r;
		/* Where a signal has cut a message short, the kernel goes on with that pending; the
		 * handler runs when all is over. */
		waits = waits && !(flags & MSG_WAITFORONE) &&
			!((flags & MSG_WAITALL) && (size_t)r < length_of(msg) &&
			  lf_defer_calls() != handlers_run);
		if (timeout && !time_is_left(deadline, timeout))
			break;
		if (msg->msg_flags & MSG_OOB)
			break;
	}
	return (int)got;
}

static int transmit_elsewhere(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	int saved = errno;
	lf_fd_defuse_all_passed(msgs, n);
	errno = saved;
	return lf_real.sendmmsg(fd, msgs, n, flags);
}

/* As __sys_sendmmsg() in net/socket.c: so many at the most, none after one that was cut short,
 * and an error after the first is forgotten. */
LF_EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	if (n > IOV_MAX)
		n = IOV_MAX;
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return transmit_elsewhere(fd, msgs, n, flags);
	lf_sock_unpin(sock);
	struct lf_handlers since = lf_handlers_so_far();
	unsigned sent = 0;
	while (sent < n) {
		struct mmsghdr *msg = &msgs[sent];
		ssize_t r = transmit_message(fd, &msg->msg_hdr, flags, sent != 0, &since);
		if (r < 0)
			return sent ? (int)sent : -1;
		msg->msg_len = (unsigned)r;
		sent++;
		if ((size_t)r < length_of(&msg->msg_hdr))
			break;
	}
	return (int)sent;
}
