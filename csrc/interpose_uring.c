/* interpose_uring.c - who sets up an io_uring may wait for, and move, bytes past us.
 *
 * A socket that is polled, or put into an epoll set, through io_uring would sleep while bytes
 * lie in the ring. So from then on this process claims nothing more. Seen are the C library's
 * syscall() and liburing's shared library; a program that makes the system call by itself is
 * not (docs/semantics.md).
 */
#define _GNU_SOURCE
#include "pairing.h"
#include "real.h"
#include "start.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	long r = call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_io_uring_setup && r >= 0)
		lf_pairing_stop();
	return r;
}

LF_EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	NEXT(int, "io_uring_queue_init", unsigned, struct io_uring *, unsigned);
	lf_pairing_stop();
	return next ? call(entries, ring, flags) : -ENOSYS;
}

LF_EXPORT int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
					 struct io_uring_params *params)
{
	NEXT(int, "io_uring_queue_init_params", unsigned, struct io_uring *,
	     struct io_uring_params *);
	lf_pairing_stop();
	return next ? call(entries, ring, params) : -ENOSYS;
}

LF_EXPORT int io_uring_queue_init_mem(unsigned entries, struct io_uring *ring,
				      struct io_uring_params *params, void *memory, size_t size)
{
	NEXT(int, "io_uring_queue_init_mem", unsigned, struct io_uring *,
	     struct io_uring_params *, void *, size_t);
	lf_pairing_stop();
	return next ? call(entries, ring, params, memory, size) : -ENOSYS;
}
