/* interpose_splice.c - sendfile and splice: bytes between a socket and a file or a pipe, moved
 * straight between the ring and that. */
#define _GNU_SOURCE
#include "conn.h"
#include "real.h"
#include "start.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

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
