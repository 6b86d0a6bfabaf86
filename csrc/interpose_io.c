/* interpose_io.c - the libc names that move bytes. Thin and alike: is it one of ours?
 * call the connection; return. */
#define _GNU_SOURCE
#include "interpose_io.h"

#include "conn.h"
#include "real.h"
#include "start.h"

#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

/* A call that the kernel refused because the number names no socket any more. */
static bool is_stale(ssize_t r)
{
	return r == -ENOTSOCK || r == -EBADF;
}

/* One of lf_conn_recv() and lf_conn_send(), with whatever the number names; LF_USE_TCP: nothing of ours. */
static ssize_t call(struct lf_sock *sock, int fd, struct lf_io *io,
		    ssize_t (*function)(struct lf_sock *, int, struct lf_io *))
{
	ssize_t r;
	do {
		LF_PINNED(pinned, sock);
		io->waits = false; /* of another socket, it looks at O_NONBLOCK anew */
		r = function(sock, fd, io);
		if (is_stale(r))
			lf_fd_is_stale(sock, fd);
	} while (r == LF_BEGIN_ANEW && (sock = lf_sock_pin(fd)));
	return r == LF_BEGIN_ANEW ? LF_USE_TCP : r;
}

ssize_t lf_receive(struct lf_sock *sock, int fd, struct lf_io *io)
{
	int saved = errno;
	ssize_t r = call(sock, fd, io, lf_conn_recv);
	return r == LF_USE_TCP ? lf_real.recvmsg(fd, io->msg, io->flags) : lf_result(r, saved);
}

ssize_t lf_transmit(struct lf_sock *sock, int fd, struct lf_io *io)
{
	int saved = errno;
	ssize_t r = call(sock, fd, io, lf_conn_send);
	return r == LF_USE_TCP ? lf_real.sendmsg(fd, io->msg, io->flags) : lf_result(r, saved);
}

static ssize_t receive_one(struct lf_sock *sock, int fd, void *buf, size_t n, int flags)
{
	struct iovec iov = {buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .flags = flags, .one = true};
	return lf_receive(sock, fd, &io);
}

static ssize_t transmit_one(struct lf_sock *sock, int fd, const void *buf, size_t n, int flags)
{
	if (lf_conn_send_quickly(sock, fd, buf, n, flags)) {
		lf_sock_unpin(sock);
		return (ssize_t)n;
	}
	struct iovec iov = {(void *)(uintptr_t)buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .flags = flags, .one = true};
	return lf_transmit(sock, fd, &io);
}

/* read and write don't mind that the number has become a file's. */
static bool is_no_socket(ssize_t r)
{
	return r == -1 && errno == ENOTSOCK;
}

static __attribute__((noinline)) ssize_t read_one(struct lf_sock *sock, int fd, void *buf, size_t n)
{
	struct iovec iov = {buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .one = true};
	ssize_t r = lf_receive(sock, fd, &io);
	return is_no_socket(r) ? lf_real.read(fd, buf, n) : r;
}

static __attribute__((noinline)) ssize_t write_one(struct lf_sock *sock, int fd, const void *buf, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)buf, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .one = true};
	ssize_t r = lf_transmit(sock, fd, &io);
	return is_no_socket(r) ? lf_real.write(fd, buf, n) : r;
}

/* Of no bytes, or more than there can be (the -1 of another call that failed), the kernel says what
 * becomes. */
static bool has_sense(size_t n)
{
	return n != 0 && n <= SSIZE_MAX;
}

/* What a descriptor that is not ours pays for these two is a look at the table: the rest is out
 * of line, so that they need no stack frame. */
static __attribute__((noinline)) ssize_t read_sock(int fd, void *buf, size_t n)
{
	struct lf_sock *sock = has_sense(n) ? lf_sock_pin(fd) : NULL;
	return sock ? read_one(sock, fd, buf, n) : lf_real.read(fd, buf, n);
}

LF_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_SOCK ? read_sock(fd, buf, n) :
								 lf_real.read(fd, buf, n);
}

static __attribute__((noinline)) ssize_t write_sock(int fd, const void *buf, size_t n)
{
	/* Of no bytes, it still says what error the socket has. */
	struct lf_sock *sock = n <= SSIZE_MAX ? lf_sock_pin(fd) : NULL;
	return sock ? write_one(sock, fd, buf, n) : lf_real.write(fd, buf, n);
}

LF_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_SOCK ? write_sock(fd, buf, n) :
								 lf_real.write(fd, buf, n);
}

static ssize_t receive_into(struct lf_sock *sock, int fd, const struct iovec *iov, int count, int flags)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	struct lf_io io = {.msg = &msg, .flags = flags};
	return lf_receive(sock, fd, &io);
}

static ssize_t transmit_from(struct lf_sock *sock, int fd, const struct iovec *iov, int count, int flags)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	struct lf_io io = {.msg = &msg, .flags = flags};
	return lf_transmit(sock, fd, &io);
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
	ssize_t r = receive_into(sock, fd, iov, count, 0);
	return is_no_socket(r) ? lf_real.readv(fd, iov, count) : r;
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
	ssize_t r = transmit_from(sock, fd, iov, count, 0);
	return is_no_socket(r) ? lf_real.writev(fd, iov, count) : r;
}

/* What means nothing to a socket, but is taken. All others the kernel refuses, or knows since lately. */
enum { RWF_TAKEN = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND };

static ssize_t refused(struct lf_sock *sock)
{
	lf_sock_unpin(sock);
	errno = EOPNOTSUPP;
	return -1;
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
	if (flags & ~RWF_TAKEN)
		return refused(sock);
	return receive_into(sock, fd, iov, count, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
}

LF_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t, int);
	if (!real)
		real = lf_real_symbol("pwritev2");
	struct lf_sock *sock = offset == -1 && ordinary(iov, count) ? lf_sock_pin(fd) : NULL;
	if (!sock)
		return real(fd, iov, count, offset, flags);
	if (flags & ~RWF_TAKEN)
		return refused(sock);
	return transmit_from(sock, fd, iov, count, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
}

LF_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return preadv2(fd, iov, count, offset, flags);
}

LF_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return pwritev2(fd, iov, count, offset, flags);
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
