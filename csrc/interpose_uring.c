/* interpose_uring.c - the kernel's own ways to wait for, and move, bytes past us: io_uring and AIO.
 *
 * A socket that is polled, read or put into an epoll set by them would sleep while bytes lie in the
 * ring. AIO names its sockets in each io_submit: those go back to TCP, no other; and so does one that
 * is read or written by syscall(). What an io_uring is asked for is looked at before the kernel gets
 * it (uring.h), where that is done by the shared liburing or by syscall(). A program that makes the
 * system call by itself is not seen (docs/semantics.md).
 */
#define _GNU_SOURCE
#include "conn.h"
#include "pairing.h"
#include "real.h"
#include "start.h"
#include "table.h"
#include "uring.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

struct io_context;

/* ISO C has no conversion from void * to a function pointer; POSIX promises this one. */
#define NEXT(type, name, ...)                                                  \
	static _Atomic(void *) found;                                          \
	void *next = atomic_load_explicit(&found, memory_order_relaxed);       \
	if (!next)                                                             \
		atomic_store_explicit(&found, next = lf_real_symbol(name),     \
				      memory_order_relaxed);                   \
	type (*call)(__VA_ARGS__);                                             \
	*(void **)&call = next

/* Those blocks are about to be submitted. */
static void defuse_named(long n, struct iocb *const *blocks)
{
	for (long i = 0; blocks && i < n; i++)
		if (blocks[i])
			lf_fd_defuse((int)blocks[i]->aio_fildes, LF_REASON_IO_OUTSIDE_LIBC, false);
}

/* Its answer is not seen here: it may be that there is too little room, of which an edge will tell. */
static void defuse_for_a_call(int fd)
{
	lf_fd_defuse(fd, LF_REASON_IO_OUTSIDE_LIBC, false);
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	lf_conn_may_have_stalled(sock);
	lf_sock_unpin(sock);
}

/* Bytes are about to go past the ring. What only waits for them is let pass. */
static void defuse_what_moves(long number, const long a[6])
{
	if (number == SYS_sendmsg)
		lf_fd_defuse_passed((const struct msghdr *)a[1]);
	if (number == SYS_sendmmsg)
		lf_fd_defuse_all_passed((const struct mmsghdr *)a[1], (unsigned)a[2]);
	switch (number) {
	case SYS_splice:
		defuse_for_a_call((int)a[2]);
		__attribute__((fallthrough));
	case SYS_read:
	case SYS_write:
	case SYS_readv:
	case SYS_writev:
	case SYS_preadv2:
	case SYS_pwritev2:
	case SYS_recvfrom:
	case SYS_sendto:
	case SYS_recvmsg:
	case SYS_sendmsg:
	case SYS_recvmmsg:
	case SYS_sendmmsg:
	case SYS_sendfile:
	case SYS_shutdown:
		defuse_for_a_call((int)a[0]);
		break;
	default:
		break;
	}
}

LF_EXPORT long syscall(long number, ...)
{
	NEXT(long, "syscall", long, ...);
	va_list ap;
	va_start(ap, number);
	long a[6];
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long); /* as many as any call has; more than some give */
	va_end(ap);
	struct lf_uring_entered entered = {NULL};
	if (number == SYS_clone || number == SYS_clone3)
		lf_memory_is_lent();
	else if (number == SYS_unshare)
		lf_before_unshare((int)a[0]);
	else if (number == SYS_io_submit)
		defuse_named(a[1], (struct iocb *const *)a[2]);
	else if (number == SYS_io_uring_enter)
		entered = lf_uring_enter((int)a[0], (unsigned)a[1], (unsigned)a[3]);
	else if (number == SYS_io_uring_register)
		lf_uring_registers((int)a[0], (unsigned)a[1], (const void *)a[2], (unsigned)a[3]);
	else if (number == SYS_io_uring_setup)
		lf_start();
	else if (number == SYS_close_range)
		lf_uring_closes_all((unsigned)a[0], (unsigned)a[1]);
	else if (number == SYS_dup3)
		lf_uring_closes((int)a[1]);
	else if (number == SYS_close && lf_table_get((int)a[0]))
		return lf_fd_close((int)a[0]); /* libuv's way */
	else
		defuse_what_moves(number, a);
#ifdef SYS_dup2
	if (number == SYS_dup2)
		lf_uring_closes((int)a[1]);
#endif
	long r = call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	lf_uring_entered(entered);
	if (number == SYS_io_uring_setup && r >= 0)
		lf_uring_was_set_up((int)r, (const struct io_uring_params *)a[1]);
	return r;
}

/* libaio's blocks are the kernel's, by other names. */
LF_EXPORT int io_submit(struct io_context *context, long n, struct iocb **blocks)
{
	NEXT(int, "io_submit", struct io_context *, long, struct iocb **);
	defuse_named(n, blocks);
	return next ? call(context, n, blocks) : -ENOSYS;
}

/* --- liburing --- */

/* The program's, as liburing.h has it since version 2. */
struct io_uring {
	struct {
		unsigned *khead, *ktail, *kring_mask, *kring_entries, *kflags, *kdropped, *array;
		struct io_uring_sqe *sqes;
		unsigned sqe_head, sqe_tail; /* filled in and not handed over yet: those between */
		size_t ring_size;
		void *ring;
		unsigned pad[4];
	} sq;
	struct {
		unsigned *khead, *ktail, *kring_mask, *kring_entries, *kflags, *koverflow;
		void *cqes;
		size_t ring_size;
		void *ring;
		unsigned pad[4];
	} cq;
	unsigned flags; /* of the setup */
	int fd;
};

static void before_submission(const struct io_uring *ring)
{
	unsigned mask = *ring->sq.kring_mask, wide = (ring->flags & LF_URING_SQE128) != 0;
	bool linked = false;
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++)
		lf_uring_look(&ring->sq.sqes[(i & mask) << wide], &linked);
}

static bool lies_in(const void *at, const void *ring, size_t size)
{
	return (uintptr_t)at - (uintptr_t)ring < size;
}

/* Version 1 had no pads: there the second half, and flags, lie elsewhere. */
static bool is_as_we_know_it(const struct io_uring *ring, unsigned flags)
{
	return !(flags & ~LF_URING_KNOWN) && lies_in(ring->sq.khead, ring->sq.ring, ring->sq.ring_size) &&
	       lies_in(ring->cq.khead, ring->cq.ring, ring->cq.ring_size) &&
	       lies_in(ring->cq.cqes, ring->cq.ring, ring->cq.ring_size) &&
	       (ring->flags | LF_URING_NO_SQARRAY) == (flags | LF_URING_NO_SQARRAY) &&
	       *ring->sq.kring_mask + 1 == *ring->sq.kring_entries && ring->sq.sqes &&
	       ring->sq.sqe_head == 0 && ring->sq.sqe_tail == 0;
}

/* r: negative, it has not been. */
static int set_up(int r, const struct io_uring *ring, unsigned flags)
{
	if (r >= 0 && !is_as_we_know_it(ring, flags))
		lf_pairing_stop();
	return r;
}

LF_EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	NEXT(int, "io_uring_queue_init", unsigned, struct io_uring *, unsigned);
	return set_up(next ? call(entries, ring, flags) : -ENOSYS, ring, flags);
}

LF_EXPORT int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
					 struct io_uring_params *params)
{
	NEXT(int, "io_uring_queue_init_params", unsigned, struct io_uring *,
	     struct io_uring_params *);
	return set_up(next ? call(entries, ring, params) : -ENOSYS, ring, params->flags);
}

LF_EXPORT int io_uring_queue_init_mem(unsigned entries, struct io_uring *ring,
				      struct io_uring_params *params, void *memory, size_t size)
{
	NEXT(int, "io_uring_queue_init_mem", unsigned, struct io_uring *,
	     struct io_uring_params *, void *, size_t);
	int r = next ? call(entries, ring, params, memory, size) : -ENOSYS;
	return set_up(r, ring, params->flags);
}

/* By its parts: where the entries lie then is the program's to know. */
LF_EXPORT int io_uring_setup(unsigned entries, struct io_uring_params *params)
{
	NEXT(int, "io_uring_setup", unsigned, struct io_uring_params *);
	int r = next ? call(entries, params) : -ENOSYS;
	if (r >= 0)
		lf_pairing_stop();
	return r;
}

LF_EXPORT int io_uring_submit(struct io_uring *ring)
{
	NEXT(int, "io_uring_submit", struct io_uring *);
	before_submission(ring);
	return next ? call(ring) : -ENOSYS;
}

LF_EXPORT int io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
	NEXT(int, "io_uring_submit_and_wait", struct io_uring *, unsigned);
	before_submission(ring);
	return next ? call(ring, n) : -ENOSYS;
}

LF_EXPORT int io_uring_submit_and_get_events(struct io_uring *ring)
{
	NEXT(int, "io_uring_submit_and_get_events", struct io_uring *);
	before_submission(ring);
	return next ? call(ring) : -ENOSYS;
}

LF_EXPORT int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					       unsigned n, struct __kernel_timespec *ts,
					       sigset_t *mask)
{
	NEXT(int, "io_uring_submit_and_wait_timeout", struct io_uring *, struct io_uring_cqe **,
	     unsigned, struct __kernel_timespec *, sigset_t *);
	before_submission(ring);
	return next ? call(ring, cqe, n, ts, mask) : -ENOSYS;
}

LF_EXPORT int io_uring_submit_and_wait_min_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
						   unsigned n, struct __kernel_timespec *ts,
						   unsigned min_us, sigset_t *mask)
{
	NEXT(int, "io_uring_submit_and_wait_min_timeout", struct io_uring *, struct io_uring_cqe **,
	     unsigned, struct __kernel_timespec *, unsigned, sigset_t *);
	before_submission(ring);
	return next ? call(ring, cqe, n, ts, min_us, mask) : -ENOSYS;
}

LF_EXPORT int io_uring_submit_and_wait_reg(struct io_uring *ring, struct io_uring_cqe **cqe,
					   unsigned n, int index)
{
	NEXT(int, "io_uring_submit_and_wait_reg", struct io_uring *, struct io_uring_cqe **,
	     unsigned, int);
	before_submission(ring);
	return next ? call(ring, cqe, n, index) : -ENOSYS;
}

/* On a kernel that knows no time limits they hand over an entry for that, and with it what is there. */
LF_EXPORT int io_uring_wait_cqes(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n,
				 struct __kernel_timespec *ts, sigset_t *mask)
{
	NEXT(int, "io_uring_wait_cqes", struct io_uring *, struct io_uring_cqe **, unsigned,
	     struct __kernel_timespec *, sigset_t *);
	before_submission(ring);
	return next ? call(ring, cqe, n, ts, mask) : -ENOSYS;
}

LF_EXPORT int io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					struct __kernel_timespec *ts)
{
	NEXT(int, "io_uring_wait_cqe_timeout", struct io_uring *, struct io_uring_cqe **,
	     struct __kernel_timespec *);
	before_submission(ring);
	return next ? call(ring, cqe, ts) : -ENOSYS;
}

/* Registered, they are used by other numbers. */
LF_EXPORT int io_uring_register_files(struct io_uring *ring, const int *files, unsigned n)
{
	NEXT(int, "io_uring_register_files", struct io_uring *, const int *, unsigned);
	lf_uring_leave_files(files, n);
	return next ? call(ring, files, n) : -ENOSYS;
}

LF_EXPORT int io_uring_register_files_tags(struct io_uring *ring, const int *files,
					   const __u64 *tags, unsigned n)
{
	NEXT(int, "io_uring_register_files_tags", struct io_uring *, const int *, const __u64 *,
	     unsigned);
	lf_uring_leave_files(files, n);
	return next ? call(ring, files, tags, n) : -ENOSYS;
}

LF_EXPORT int io_uring_register_files_update(struct io_uring *ring, unsigned at, const int *files,
					     unsigned n)
{
	NEXT(int, "io_uring_register_files_update", struct io_uring *, unsigned, const int *,
	     unsigned);
	lf_uring_leave_files(files, n);
	return next ? call(ring, at, files, n) : -ENOSYS;
}

LF_EXPORT int io_uring_register_files_update_tag(struct io_uring *ring, unsigned at,
						 const int *files, const __u64 *tags, unsigned n)
{
	NEXT(int, "io_uring_register_files_update_tag", struct io_uring *, unsigned, const int *,
	     const __u64 *, unsigned);
	lf_uring_leave_files(files, n);
	return next ? call(ring, at, files, tags, n) : -ENOSYS;
}

LF_EXPORT int io_uring_register(unsigned fd, unsigned opcode, const void *argument, unsigned n)
{
	NEXT(int, "io_uring_register", unsigned, unsigned, const void *, unsigned);
	lf_uring_registers((int)fd, opcode, argument, n);
	return next ? call(fd, opcode, argument, n) : -ENOSYS;
}

/* By its parts. */
LF_EXPORT int io_uring_enter(unsigned fd, unsigned n, unsigned least, unsigned flags, sigset_t *mask)
{
	NEXT(int, "io_uring_enter", unsigned, unsigned, unsigned, unsigned, sigset_t *);
	struct lf_uring_entered entered = lf_uring_enter((int)fd, n, flags);
	int r = next ? call(fd, n, least, flags, mask) : -ENOSYS;
	lf_uring_entered(entered);
	return r;
}

LF_EXPORT int io_uring_enter2(unsigned fd, unsigned n, unsigned least, unsigned flags, void *argument,
			      size_t size)
{
	NEXT(int, "io_uring_enter2", unsigned, unsigned, unsigned, unsigned, void *, size_t);
	struct lf_uring_entered entered = lf_uring_enter((int)fd, n, flags);
	int r = next ? call(fd, n, least, flags, argument, size) : -ENOSYS;
	lf_uring_entered(entered);
	return r;
}

LF_EXPORT void io_uring_queue_exit(struct io_uring *ring)
{
	NEXT(void, "io_uring_queue_exit", struct io_uring *);
	lf_uring_closes(ring->fd);
	if (next)
		call(ring);
}
