/* interpose_aio.c - POSIX asynchronous I/O: threads of the C library's own read and write past us,
 * so a socket goes back to TCP before its first. */
#define _GNU_SOURCE
#include "real.h"
#include "start.h"

#include <aio.h>

static void defuse(const struct aiocb *block)
{
	lf_start();
	lf_fd_defuse(block->aio_fildes, LF_REASON_IO_OUTSIDE_LIBC, false);
}

LF_EXPORT int aio_read(struct aiocb *block)
{
	static int (*real)(struct aiocb *);
	if (!real)
		real = lf_real_symbol("aio_read");
	defuse(block);
	return real(block);
}

LF_EXPORT int aio_write(struct aiocb *block)
{
	static int (*real)(struct aiocb *);
	if (!real)
		real = lf_real_symbol("aio_write");
	defuse(block);
	return real(block);
}

LF_EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *event)
{
	static int (*real)(int, struct aiocb *const[], int, struct sigevent *);
	if (!real)
		real = lf_real_symbol("lio_listio");
	for (int i = 0; i < n; i++)
		if (list[i] && list[i]->aio_lio_opcode != LIO_NOP)
			defuse(list[i]);
	return real(mode, list, n, event);
}

#ifdef __GLIBC__ /* elsewhere these are other words for the same names */
_Static_assert(sizeof(struct aiocb) == sizeof(struct aiocb64), "LP64 only");

LF_EXPORT int aio_read64(struct aiocb64 *block)
{
	return aio_read((struct aiocb *)block);
}

LF_EXPORT int aio_write64(struct aiocb64 *block)
{
	return aio_write((struct aiocb *)block);
}

LF_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *event)
{
	return lio_listio(mode, (struct aiocb *const *)list, n, event);
}
#endif
