/* interpose_io.c - the libc names that move bytes. Thin and alike: is it one of ours?
 * call the connection; return. */
#define _GNU_SOURCE
#include "clock.h"
#include "conn.h"
#include "real.h"
#include "start.h"

#include <limits.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t receive(struct lf_sock *sock, int fd, struct msghdr *msg, int flags)
{
	int saved = errno;
	struct lf_io io = {.msg = msg, .flags = flags};
	ssize_t r = lf_conn_recv(sock, fd, &io);
	lf_sock_unpin(sock);
	return lf_result(r, saved);
}

static ssize_t transmit(struct lf_sock *sock, int fd, struct msghdr *msg, int flags)
{
	int saved = errno;
	struct lf_io io = {.msg = msg, .flags = flags};
	ssize_t r = lf_conn_send(sock, fd, &io);
	lf_sock_unpin(sock);
	return lf_result(r, saved);
}

static ssize_t receive_one(struct lf_sock *sock, int fd, void *buf, size_t n, int flags)
{
	struct iovec iov = {buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return receive(sock, fd, &msg, flags);
}

static ssize_t transmit_one(struct lf_sock *sock, int fd, const void *buf, size_t n, int flags)
{
	if (lf_conn_send_quickly(sock, fd, buf, n, flags)) {
		lf_sock_unpin(sock);
		return (ssize_t)n;
	}
	struct iovec iov = {(void *)(uintptr_t)buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return transmit(sock, fd, &msg, flags);
}

/* What a descriptor that is not ours pays for these two is a look at the table: the rest is out
 * of line, so that they need no stack frame. */
static __attribute__((noinline)) ssize_t read_sock(int fd, void *buf, size_t n)
{
	struct lf_sock *sock = n ? lf_sock_pin(fd) : NULL;
	return sock ? receive_one(sock, fd, buf, n, 0) : lf_real.read(fd, buf, n);
}

LF_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_SOCK ? read_sock(fd, buf, n) :
								 lf_real.read(fd, buf, n);
}

static __attribute__((noinline)) ssize_t write_sock(int fd, const void *buf, size_t n)
{
	struct lf_sock *sock = n ? lf_sock_pin(fd) : NULL;
	return sock ? transmit_one(sock, fd, buf, n, 0) : lf_real.write(fd, buf, n);
}

LF_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_SOCK ? write_sock(fd, buf, n) :
								 lf_real.write(fd, buf, n);
}

/* readv and writev know limits that recvmsg and sendmsg report differently. */
static bool ordinary(const struct iovec *iov, int count)
{
	size_t sum = 0;
	if (count <= 0 || count > IOV_MAX)
		return false;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > SSIZE_MAX - sum)
			return false;
		sum += iov[i].iov_len;
	}
	return sum != 0;
}

LF_EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.readv(fd, iov, count);
	if (!ordinary(iov, count)) {
		lf_sock_unpin(sock);
		return lf_real.readv(fd, iov, count);
	}
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	return receive(sock, fd, &msg, 0);
}

LF_EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.writev(fd, iov, count);
	if (!ordinary(iov, count)) {
		lf_sock_unpin(sock);
		return lf_real.writev(fd, iov, count);
	}
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	return transmit(sock, fd, &msg, 0);
}

/* With offset -1 these two are readv and writev, for sockets too. */
LF_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t, int);
	if (!real)
		real = lf_real_symbol("preadv2");
	struct lf_sock *sock = offset == -1 && ordinary(iov, count) ? lf_sock_pin(fd) : NULL;
	if (!sock)
		return real(fd, iov, count, offset, flags);
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	return receive(sock, fd, &msg, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
}

LF_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t, int);
	if (!real)
		real = lf_real_symbol("pwritev2");
	struct lf_sock *sock = offset == -1 && ordinary(iov, count) ? lf_sock_pin(fd) : NULL;
	if (!sock)
		return real(fd, iov, count, offset, flags);
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	return transmit(sock, fd, &msg, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
}

LF_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return preadv2(fd, iov, count, offset, flags);
}

LF_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return pwritev2(fd, iov, count, offset, flags);
}

/* The C library's own would write past us. */
LF_EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	if (lf_table_kind(lf_table_get(fd)) != LF_KIND_SOCK) {
		static int (*real)(int, const char *, va_list);
		if (!real)
			real = lf_real_symbol("vdprintf");
		return real(fd, format, ap);
	}
	char *text;
	int n = vasprintf(&text, format, ap);
	for (int sent = 0; sent < n;) {
		ssize_t r = write(fd, text + sent, (size_t)(n - sent));
		if (r <= 0) {
			free(text);
			return -1;
		}
		sent += (int)r;
	}
	if (n >= 0)
		free(text);
	return n;
}

LF_EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	int n = vdprintf(fd, format, ap);
	va_end(ap);
	return n;
}

/* Fortified: `flag` asks for checks of %n, which vasprintf makes where it can. */
LF_EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	(void)flag;
	return vdprintf(fd, format, ap);
}

LF_EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	(void)flag;
	va_list ap;
	va_start(ap, format);
	int n = vdprintf(fd, format, ap);
	va_end(ap);
	return n;
}

LF_EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	return sock ? receive_one(sock, fd, buf, n, flags) :
		      lf_real.recvfrom(fd, buf, n, flags, NULL, NULL);
}

LF_EXPORT ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr,
			   socklen_t *len)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.recvfrom(fd, buf, n, flags, addr, len);
	ssize_t r = receive_one(sock, fd, buf, n, flags);
	if (r >= 0 && addr && len)
		*len = 0; /* a connected stream has no source address to give */
	return r;
}

LF_EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	return sock ? transmit_one(sock, fd, buf, n, flags) :
		      lf_real.sendto(fd, buf, n, flags, NULL, 0);
}

LF_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr,
			 socklen_t len)
{
	/* A connected TCP socket ignores the address, except for MSG_FASTOPEN. */
	struct lf_sock *sock = flags & MSG_FASTOPEN ? NULL : lf_sock_pin(fd);
	return sock ? transmit_one(sock, fd, buf, n, flags) :
		      lf_real.sendto(fd, buf, n, flags, addr, len);
}

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

LF_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct lf_sock *sock = msg && msg->msg_iovlen <= IOV_MAX ? lf_sock_pin(fd) : NULL;
	if (sock)
		return receive(sock, fd, msg, flags);
	ssize_t r = lf_real.recvmsg(fd, msg, flags);
	if (r >= 0 && msg->msg_controllen && lf_started)
		each_passed(msg, lf_fd_born);
	return r;
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

LF_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	if (msg && msg->msg_controllen && lf_started) {
		int saved = errno;
		each_passed(msg, defuse_passed);
		errno = saved;
	}
	struct lf_sock *sock = msg && msg->msg_iovlen <= IOV_MAX ? lf_sock_pin(fd) : NULL;
	if (sock)
		return transmit(sock, fd, (struct msghdr *)(uintptr_t)msg, flags);
	return lf_real.sendmsg(fd, msg, flags);
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

LF_EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.recvmmsg(fd, msgs, n, flags, timeout);
	lf_sock_unpin(sock);
	int error = 0;
	socklen_t len = sizeof(error);
	if (!(flags & MSG_ERRQUEUE) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 &&
	    error) {
		errno = error;
		return -1;
	}
	/* As net/socket.c does it: first the error that the socket has; then one recvmsg after
	 * the other, where an end of the stream counts as a message, the time limit is looked at
	 * between two of them, and an error after the first is kept for the next call. */
	int64_t deadline = LF_FOREVER;
	if (timeout)
		deadline = lf_deadline((int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec);
	unsigned got = 0;
	while (got < n) {
		ssize_t r = recvmsg(fd, &msgs[got].msg_hdr,
				    (flags & ~MSG_WAITFORONE) |
					    (got && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0));
		if (r < 0) {
			if (got && errno != EAGAIN && errno != EINTR)
				keep_error(fd, errno);
			return got ? (int)got : -1;
		}
		msgs[got++].msg_len = (unsigned)r;
		if (timeout && !time_is_left(deadline, timeout))
			break;
	}
	return (int)got;
}

LF_EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.sendmmsg(fd, msgs, n, flags);
	lf_sock_unpin(sock);
	unsigned sent = 0;
	for (; sent < n; sent++) {
		ssize_t r = sendmsg(fd, &msgs[sent].msg_hdr, flags);
		if (r < 0)
			return sent ? (int)sent : -1;
		msgs[sent].msg_len = (unsigned)r;
	}
	return (int)sent;
}

/* --- sendfile and splice --- */

struct from_file {
	int fd;
	off_t *offset; /* NULL: the file's own position */
};

static ssize_t read_pieces(void *context, const struct iovec *pieces, int count, size_t n)
{
	struct from_file *from = context;
	(void)n;
	ssize_t r = from->offset ? preadv(from->fd, pieces, count, *from->offset) :
				   lf_real.readv(from->fd, pieces, count);
	if (r == -1)
		return -errno;
	if (from->offset)
		*from->offset += r;
	return r;
}

LF_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	struct lf_sock *sock = lf_sock_pin(out);
	if (!sock)
		return lf_real.sendfile(out, in, offset, n);
	int saved = errno;
	struct from_file from = {in, offset};
	size_t sent = 0;
	ssize_t r = 0;
	while (sent < n) {
		struct lf_bulk bulk = {n - sent, true, sent != 0, read_pieces, &from};
		r = lf_conn_send_from(sock, out, &bulk);
		if (r == LF_USE_TCP) {
			if (!lf_conn_enter_plain_tx(sock))
				continue;
			r = lf_real.sendfile(out, in, offset, n - sent);
			int error = errno;
			lf_conn_may_have_stalled(sock);
			lf_conn_leave_plain_tx(sock, r);
			if (r == -1)
				r = -error;
			else
				sent += (size_t)r;
			break;
		}
		if (r <= 0)
			break;
		sent += (size_t)r;
	}
	lf_sock_unpin(sock);
	return lf_result(sent || r >= 0 ? (ssize_t)sent : r, saved);
}

LF_EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
	_Static_assert(sizeof(off_t) == sizeof(off64_t), "LP64 only");
	return sendfile(out, in, (off_t *)offset, n);
}

struct pipe_end {
	int fd;
	unsigned flags;
};

static ssize_t from_pipe(void *context, const struct iovec *pieces, int count, size_t n)
{
	const struct pipe_end *end = context;
	(void)n;
	ssize_t r = lf_real.readv(end->fd, pieces, count);
	return r == -1 ? -errno : r;
}

static ssize_t to_pipe(void *context, const struct iovec *pieces, int count, size_t n)
{
	const struct pipe_end *end = context;
	(void)n;
	ssize_t r = lf_real.writev(end->fd, pieces, count);
	return r == -1 ? -errno : r;
}

/* A pipe that would block while the direction's lock is held would hold up its other
 * threads; so would the kernel's own splice. */
static ssize_t splice_out(struct lf_sock *sock, int in, off64_t *off_in, int out, off64_t *off_out,
			  size_t n, unsigned flags)
{
	struct pipe_end end = {in, flags};
	for (;;) {
		struct lf_bulk bulk = {n, !(flags & SPLICE_F_NONBLOCK), false, from_pipe, &end};
		ssize_t r = lf_conn_send_from(sock, out, &bulk);
		if (r != LF_USE_TCP)
			return r;
		if (!lf_conn_enter_plain_tx(sock))
			continue;
		r = lf_real.splice(in, off_in, out, off_out, n, flags);
		int error = errno;
		lf_conn_may_have_stalled(sock);
		lf_conn_leave_plain_tx(sock, r);
		return r == -1 ? -error : r;
	}
}

static ssize_t splice_in(struct lf_sock *sock, int in, off64_t *off_in, int out, off64_t *off_out,
			 size_t n, unsigned flags)
{
	struct pipe_end end = {out, flags};
	for (;;) {
		/* SPLICE_F_NONBLOCK is for the pipe alone, tcp_splice_read() in net/ipv4/tcp.c. */
		struct lf_bulk bulk = {n, true, false, to_pipe, &end};
		ssize_t r = lf_conn_recv_into(sock, in, &bulk);
		if (r != LF_USE_TCP)
			return r;
		if (!lf_conn_enter_plain_rx(sock))
			continue;
		r = lf_real.splice(in, off_in, out, off_out, n, flags);
		int error = errno;
		lf_conn_leave_plain_rx(sock, r);
		return r == -1 ? -error : r;
	}
}

LF_EXPORT ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n, unsigned flags)
{
	struct lf_sock *sock = off_out ? NULL : lf_sock_pin(out);
	bool sending = sock != NULL;
	if (!sock)
		sock = off_in ? NULL : lf_sock_pin(in);
	if (!sock)
		return lf_real.splice(in, off_in, out, off_out, n, flags);
	int saved = errno;
	ssize_t r = n == 0  ? 0 : /* the kernel does not even look at the descriptors */
		    sending ? splice_out(sock, in, off_in, out, off_out, n, flags) :
			      splice_in(sock, in, off_in, out, off_out, n, flags);
	lf_sock_unpin(sock);
	return lf_result(r, saved);
}

/* --- the fortified twins: the same after a check that the caller compiled in --- */

_Noreturn void __chk_fail(void);

LF_EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
	if (n > room)
		__chk_fail();
	return read(fd, buf, n);
}

LF_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
	if (n > room)
		__chk_fail();
	return recv(fd, buf, n, flags);
}

LF_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
				 struct sockaddr *addr, socklen_t *len)
{
	if (n > room)
		__chk_fail();
	return recvfrom(fd, buf, n, flags, addr, len);
}

/* Old names that some programs are still linked against. */
LF_EXPORT ssize_t __read(int fd, void *buf, size_t n)
{
	return read(fd, buf, n);
}

LF_EXPORT ssize_t __write(int fd, const void *buf, size_t n)
{
	return write(fd, buf, n);
}

LF_EXPORT ssize_t __send(int fd, const void *buf, size_t n, int flags)
{
	return send(fd, buf, n, flags);
}
