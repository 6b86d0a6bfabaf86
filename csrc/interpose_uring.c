/* interpose_uring.c - the kernel's own ways to wait for, and move, bytes past us: io_uring and AIO.
 *
 * A socket that is polled, read or put into an epoll set by them would sleep while bytes lie in the
 * ring. What an io_uring is asked for stands in memory where no call tells of it, so a process that
 * sets one up claims nothing more, and what it has fused goes back to TCP. AIO names its sockets in
 * each io_submit: those go back, no other; and so does one that is read or written by syscall(). Seen
 * are that function of the C library and the shared libraries liburing and libaio; a program that makes
 * the system call by itself is not (docs/semantics.md).
 */
#define _GNU_SOURCE
#include "pairing.h"
#include "real.h"
#include "start.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

struct io_context;
struct io_uring;
struct io_uring_params;

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

/* Bytes are about to go past the ring. What only waits for them is let pass. */
static void defuse_what_moves(long number, const long a[6])
{
	switch (number) {
	case SYS_splice:
		lf_fd_defuse((int)a[2], LF_REASON_IO_OUTSIDE_LIBC, false);
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
		lf_fd_defuse((int)a[0], LF_REASON_IO_OUTSIDE_LIBC, false);
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
	if (number == SYS_clone || number == SYS_clone3)
		lf_memory_is_lent();
	else if (number == SYS_unshare)
		lf_before_unshare((int)a[0]);
	else if (number == SYS_io_submit)
		defuse_named(a[1], (struct iocb *const *)a[2]);
	else
		defuse_what_moves(number, a);
	long r = call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_io_uring_setup && r >= 0)
		lf_pairing_stop();
	return r;
}

/* libaio's blocks are the kernel's, by other names. */
LF_EXPORT int io_submit(struct io_context *context, long n, struct iocb **blocks)
{
	NEXT(int, "io_submit", struct io_context *, long, struct iocb **);
	defuse_named(n, blocks);
	return next ? call(context, n, blocks) : -ENOSYS;
}

/* r: negative, it has not been. */
static int set_up(int r)
{
	if (r >= 0)
		lf_pairing_stop();
	return r;
}

LF_EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	NEXT(int, "io_uring_queue_init", unsigned, struct io_uring *, unsigned);
	return set_up(next ? call(entries, ring, flags) : -ENOSYS);
}

LF_EXPORT int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
					 struct io_uring_params *params)
{
	NEXT(int, "io_uring_queue_init_params", unsigned, struct io_uring *,
	     struct io_uring_params *);
	return set_up(next ? call(entries, ring, params) : -ENOSYS);
}

LF_EXPORT int io_uring_queue_init_mem(unsigned entries, struct io_uring *ring,
				      struct io_uring_params *params, void *memory, size_t size)
{
	NEXT(int, "io_uring_queue_init_mem", unsigned, struct io_uring *,
	     struct io_uring_params *, void *, size_t);
	return set_up(next ? call(entries, ring, params, memory, size) : -ENOSYS);
}
