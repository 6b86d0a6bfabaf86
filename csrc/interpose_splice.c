/* interpose_splice.c - sendfile and splice: bytes between a socket and a file or a pipe, moved
 * straight between the ring and that.
 *
 * A file is read under the direction's lock. A pipe may make its caller wait, as long as it
 * likes: so it is waited for with poll, outside the lock, where the kernel would wait; what is
 * done under the lock takes what the pipe has, or what it has room for, and no more. Where a
 * call moves no byte in any case (no pipe, a pipe's other end), the kernel says so.
 */
#define _GNU_SOURCE
#include "interpose_io.h"

#include "clock.h"
#include "conn.h"
#include "real.h"
#include "start.h"
#include "uncancelled.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	PIPE_BUSY = -5003,     /* beside conn.h's: the pipe is empty, or full */
	PIPE_ENDED = -5004,    /* it is empty, and nobody writes to it */
	MOST = 0x7ffff000,     /* MAX_RW_COUNT */
	SURE_ROOM = PIPE_BUF,  /* bytes that a pipe takes which poll(2) calls writable */
	PAGES_AT_ONCE = 65536, /* bytes: as many pages as a pipe has room for, unless set */
};

/* A handler has closed the number; or put another file there, which is no more than said. */
static ssize_t known(ssize_t r)
{
	return r == LF_BEGIN_ANEW ? -EBADF : r;
}

/* --- sendfile --- */

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

/* Anything else may wait for its bytes. One system call for each sendfile, beside its reading. */
static bool never_waits(int file, off_t *size)
{
	struct stat about;
	if (fstat(file, &about) == -1 || !(S_ISREG(about.st_mode) || S_ISBLK(about.st_mode)))
		return false;
	*size = about.st_size;
	return true;
}

/* The kernel reads the file before it looks at the socket: of a file that is at its end it needs no
 * room, nor anybody to send to. 1: there are bytes; 0: it is; or a negative errno. */
static ssize_t has_more(const struct from_file *from, off_t size)
{
	char byte;
	off_t at = from->offset ? *from->offset : lseek(from->fd, 0, SEEK_CUR);
	if (at >= 0 && at < size)
		return 1;
	/* It may have grown; and of some (/proc) the size is 0. */
	ssize_t r = pread(from->fd, &byte, 1, at);
	return r == -1 ? -errno : r;
}

/* So much of a file at once: the reader is told of it before the next. */
enum { FILE_PIECE = 256 * 1024 };

/* Of a file that has `size` bytes, or more. Returns a count or a negative errno. */
static ssize_t send_file(struct lf_sock *sock, int out, int in, off_t *offset, size_t n, off_t size)
{
	struct from_file from = {in, offset};
	size_t sent = 0;
	bool by_ring = true;
	struct lf_handlers since = lf_handlers_so_far();
	while (sent < n) {
		size_t piece = n - sent < FILE_PIECE ? n - sent : FILE_PIECE;
		struct lf_bulk bulk = {piece, true, sent != 0, read_pieces, &from, &since, false};
		ssize_t r = by_ring && lf_tx(sock) == LF_TX_FUSED ? has_more(&from, size) : 1;
		if (r > 0)
			r = lf_conn_send_from(sock, out, &bulk);
		if (r == -EINVAL && by_ring) {
			/* With O_DIRECT a file may have to be read into memory, and pieces, that are
			 * aligned; the kernel has such. */
			lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
			by_ring = false;
			continue;
		}
		if (r == LF_USE_TCP) {
			if (lf_handlers_end(&since, sent != 0))
				return sent ? (ssize_t)sent : -EINTR;
			if (!lf_conn_enter_plain_tx(sock))
				continue;
			r = lf_real.sendfile(out, in, offset, n - sent);
			int error = errno;
			lf_conn_stalled_in_tcp(sock, out);
			lf_conn_leave_plain_tx(sock, r);
			if (r > 0)
				sent += (size_t)r;
			return sent || r >= 0 ? (ssize_t)sent : -error;
		}
		if (r <= 0)
			return sent ? (ssize_t)sent : r;
		sent += (size_t)r;
	}
	return (ssize_t)sent;
}

struct pipe_end {
	int fd;
	int mode; /* by F_GETFL */
};

static ssize_t splice_in(struct lf_sock *sock, int in, struct pipe_end out, size_t n, unsigned flags);
static bool is_pipe(struct pipe_end *end, int access, unsigned *flags);

/* To a pipe, sendfile is splice. */
static ssize_t sendfile_elsewhere(int out, int in, off_t *offset, size_t n)
{
	struct lf_sock *sock = offset || n > SSIZE_MAX ? NULL : lf_sock_pin(in);
	if (!sock)
		return lf_real.sendfile(out, in, offset, n);
	LF_PINNED(pinned, sock);
	int saved = errno;
	unsigned flags = 0;
	struct pipe_end pipe = {.fd = out};
	if (n == 0 || !is_pipe(&pipe, O_WRONLY, &flags))
		return lf_real.sendfile(out, in, offset, n);
	return lf_result(known(splice_in(sock, in, pipe, n < MOST ? n : MOST, flags)), saved);
}

LF_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	struct lf_sock *sock = n > SSIZE_MAX ? NULL : lf_sock_pin(out);
	if (!sock)
		return sendfile_elsewhere(out, in, offset, n);
	LF_UNCANCELLED(state); /* unlike splice, and however long it waits */
	LF_PINNED(pinned, sock);
	int saved = errno;
	off_t size = INT64_MAX; /* of a device nobody knows */
	if (!never_waits(in, &size)) {
		/* A pipe, a socket: the kernel takes none. A device: all that follows goes with
		 * it, by TCP. */
		if (lseek(in, 0, SEEK_CUR) == -1)
			return lf_real.sendfile(out, in, offset, n);
		lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
	}
	return lf_result(known(send_file(sock, out, in, offset, n < MOST ? n : MOST, size)), saved);
}

LF_EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
	_Static_assert(sizeof(off_t) == sizeof(off64_t), "LP64 only");
	return sendfile(out, in, (off_t *)offset, n);
}

/* --- pipes --- */

/* Can it be accessed so? Its O_NONBLOCK is as good as the flag. */
static bool is_pipe(struct pipe_end *end, int access, unsigned *flags)
{
	int mode = end->mode = lf_real.fcntl(end->fd, F_GETFL);
	if (mode == -1 || ((mode & O_ACCMODE) != access && (mode & O_ACCMODE) != O_RDWR))
		return false;
	if (mode & O_NONBLOCK)
		*flags |= SPLICE_F_NONBLOCK;
	return lf_real.fcntl(end->fd, F_GETPIPE_SZ) != -1;
}

static ssize_t broken_pipe(void)
{
	pthread_kill(pthread_self(), SIGPIPE);
	return -EPIPE;
}

/* Waits where the kernel's splice would wait for the pipe. 0: it is ready, or was; PIPE_ENDED. */
static ssize_t await_pipe(int pipe, short events, bool nonblocking)
{
	for (;;) {
		struct pollfd p = {.fd = pipe, .events = events};
		int r = lf_uncancelled_poll(&p, 1, 0);
		if (r == 1 && events == POLLOUT && (p.revents & POLLERR))
			return broken_pipe(); /* whether or not the socket has bytes for it */
		if (r == 1 && events == POLLIN && p.revents == POLLHUP)
			return PIPE_ENDED; /* whether or not the socket has room */
		if (r == 1)
			return 0;
		if (nonblocking)
			return -EAGAIN;
		if (lf_wait_tcp(pipe, events, LF_FOREVER, lf_defer_calls()) == -EINTR)
			return -EINTR;
	}
}

static ssize_t result_of(ssize_t r)
{
	if (r != -1)
		return r;
	return errno == EAGAIN ? PIPE_BUSY : -errno;
}

/* vmsplice from a pipe that is open for reading alone is a read; but what it leaves of a packet
 * (O_DIRECT, pipe(2)) stays in the pipe as with splice, where a read throws it away. Not libc's, in
 * which a thread may be cancelled. */
static ssize_t from_pipe(void *context, const struct iovec *pieces, int count, size_t n)
{
	const struct pipe_end *pipe = context;
	(void)n;
	return result_of(lf_real.syscall(SYS_vmsplice, (long)pipe->fd, pieces, (long)count,
				 (long)SPLICE_F_NONBLOCK));
}

/* A write of a little, without RWF_NOWAIT, which pipes know since Linux 6.5: only a second writer
 * of this pipe, which takes the room between the two calls, can make us wait. */
static ssize_t write_what_fits(int pipe, const struct iovec *piece)
{
	struct pollfd p = {.fd = pipe, .events = POLLOUT};
	if (lf_uncancelled_poll(&p, 1, 0) != 1) {
		errno = EAGAIN;
		return -1;
	}
	return lf_real.write(pipe, piece->iov_base,
			     piece->iov_len < SURE_ROOM ? piece->iov_len : SURE_ROOM);
}

/* Into a pipe with O_DIRECT each write is a packet, of which a reader gets a part and loses the
 * rest; what splice brings is none. So the pipe gets pages, of a copy that nobody can change. */
static ssize_t give_pages(int pipe, const struct iovec *pieces, int count, size_t n)
{
	if (n > PAGES_AT_ONCE)
		n = PAGES_AT_ONCE;
	char *copy = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return -1;
	size_t copied = 0;
	for (int i = 0; i < count && copied < n; i++) {
		size_t part = pieces[i].iov_len < n - copied ? pieces[i].iov_len : n - copied;
		memcpy(copy + copied, pieces[i].iov_base, part);
		copied += part;
	}
	struct iovec all = {copy, copied};
	ssize_t r = lf_real.syscall(SYS_vmsplice, (long)pipe, &all, 1L, (long)SPLICE_F_NONBLOCK);
	int error = errno;
	munmap(copy, n);
	errno = error;
	return r;
}

static bool refuses_nowait(ssize_t r)
{
	return r == -1 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL);
}

static ssize_t to_pipe(void *context, const struct iovec *pieces, int count, size_t n)
{
	const struct pipe_end *pipe = context;
	if (pipe->mode & O_DIRECT)
		return result_of(give_pages(pipe->fd, pieces, count, n));
	/* pwritev2 at the present position, whatever C library this is. */
	ssize_t r = lf_real.syscall(SYS_pwritev2, (long)pipe->fd, pieces, (long)count, -1L, -1L,
			    (long)RWF_NOWAIT);
	if (refuses_nowait(r))
		r = write_what_fits(pipe->fd, pieces);
	return result_of(r);
}

/* --- splice --- */

/* From a pipe to the socket: all that the pipe has, up to n; it is waited for before the first
 * byte only. SPLICE_F_NONBLOCK is for the pipe alone, splice_to_socket() in fs/splice.c. */
static ssize_t splice_out(struct lf_sock *sock, struct pipe_end in, int out, size_t n, unsigned flags)
{
	size_t sent = 0;
	ssize_t r = 0;
	struct lf_handlers since = lf_handlers_so_far();
	/* A fifo that is open for both: the kernel alone can take bytes off it without reading. */
	if ((in.mode & O_ACCMODE) == O_RDWR)
		lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
	while (sent < n) {
		if (lf_tx(sock) == LF_TX_FUSED)
			r = await_pipe(in.fd, POLLIN, (flags & SPLICE_F_NONBLOCK) || sent);
		if (r == PIPE_ENDED)
			return (ssize_t)sent;
		if (!sent)
			lf_handlers_begin_anew(&since);
		if (r < 0)
			break;
		struct lf_bulk bulk = {n - sent, true, sent != 0, from_pipe, &in, &since,
				       flags & SPLICE_F_MORE};
		r = lf_conn_send_from(sock, out, &bulk);
		if (r == PIPE_BUSY) {
			r = 0;
			continue;
		}
		if (r == LF_USE_TCP) {
			r = lf_handlers_end(&since, sent != 0) ? -EINTR : 0;
			if (r)
				break;
			if (!lf_conn_enter_plain_tx(sock))
				continue;
			r = lf_real.splice(in.fd, NULL, out, NULL, n - sent,
					   flags | (sent ? SPLICE_F_NONBLOCK : 0));
			int error = errno;
			lf_conn_stalled_in_tcp(sock, out);
			lf_conn_leave_plain_tx(sock, r);
			sent += r > 0 ? (size_t)r : 0;
			r = r == -1 ? -error : 0;
			break;
		}
		if (r <= 0)
			break;
		sent += (size_t)r;
	}
	return sent ? (ssize_t)sent : r;
}

/* From the socket to a pipe: first the pipe's room is waited for, then the socket's bytes, and
 * it ends with the first that come. Here, too, SPLICE_F_NONBLOCK is for the pipe alone,
 * tcp_splice_read() in net/ipv4/tcp.c. */
static ssize_t splice_in(struct lf_sock *sock, int in, struct pipe_end out, size_t n, unsigned flags)
{
	/* The kernel looks at O_NONBLOCK once, and once more when a handler has made it begin anew. */
	bool waits = lf_sock_paired(sock) && !lf_sock_nonblocking(sock);
	struct lf_handlers since = lf_handlers_so_far();
	for (;;) {
		if (lf_sock_paired(sock)) {
			ssize_t bad = await_pipe(out.fd, POLLOUT, flags & SPLICE_F_NONBLOCK);
			if (bad)
				return bad;
			lf_handlers_begin_anew(&since);
		}
		struct lf_bulk bulk = {n, true, false, to_pipe, &out, &since, false};
		ssize_t r = lf_conn_recv_into(sock, in, &bulk);
		if (r == PIPE_BUSY)
			continue;
		if (r != LF_USE_TCP)
			return r;
		if (lf_handlers_end(&since, false))
			return -EINTR;
		if (!lf_conn_enter_plain_rx(sock))
			continue;
		uint32_t handlers_run = lf_defer_calls();
		r = lf_real.splice(in, NULL, out.fd, NULL, n, flags);
		int error = errno;
		lf_conn_leave_plain_rx(sock, r);
		/* Before urgent data it ends, too. */
		if (r == 0 && lf_sock_paired(sock) && lf_conn_fin_has_come(in))
			return lf_conn_end_of_stream(sock, in);
		if (r == -1 && error == EAGAIN && waits && lf_sock_nonblocking(sock) &&
		    !atomic_load(&sock->slot->rcvtimeo)) {
			ssize_t bad = lf_wait_tcp(in, POLLIN, LF_FOREVER, handlers_run);
			if (bad)
				return bad;
			continue;
		}
		return r == -1 ? lf_conn_kernel_said(sock, in, -error) : r;
	}
}

static bool knows(unsigned flags)
{
	return !(flags & ~(unsigned)(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT));
}

LF_EXPORT ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n, unsigned flags)
{
	/* Of no bytes, the kernel does not even look at the descriptors. */
	bool any = n != 0 && n <= SSIZE_MAX;
	struct lf_sock *sock = any ? lf_sock_pin(out) : NULL;
	bool sending = sock != NULL;
	if (any && !sock)
		sock = lf_sock_pin(in);
	if (!sock)
		return lf_real.splice(in, off_in, out, off_out, n, flags);
	LF_PINNED(pinned, sock);
	int saved = errno;
	unsigned all = flags;
	struct pipe_end pipe = {.fd = sending ? in : out};
	if (off_in || off_out || !knows(flags) ||
	    !is_pipe(&pipe, sending ? O_RDONLY : O_WRONLY, &all))
		return lf_real.splice(in, off_in, out, off_out, n, flags);
	return lf_result(known(sending ? splice_out(sock, pipe, out, n, all) :
					 splice_in(sock, in, pipe, n, all)),
			 saved);
}
