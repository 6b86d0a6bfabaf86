/* interpose_stdio.c - the libc names of stdio: what it reads and writes would go past us. */
#define _GNU_SOURCE
#include "conn.h"
#include "real.h"
#include "start.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

/* Stops following a descriptor of a socket that is all plain: it will be closed past us. */
static void leave_alone(int fd)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	enum lf_rx rx = lf_rx(sock);
	bool plain = lf_tx(sock) != LF_TX_FUSED && (rx == LF_RX_PLAIN || rx == LF_RX_ENDED);
	if (plain && !atomic_load(&sock->registration) && lf_sock_remove_descriptor(sock, fd))
		lf_sock_release(sock);
	lf_sock_unpin(sock);
}

LF_EXPORT FILE *fdopen(int fd, const char *mode)
{
	lf_start();
	lf_fd_defuse(fd, LF_REASON_STDIO, false);
	leave_alone(fd);
	return lf_real.fdopen(fd, mode);
}

LF_EXPORT FILE *_IO_fdopen(int fd, const char *mode);
LF_EXPORT FILE *_IO_fdopen(int fd, const char *mode)
{
	return fdopen(fd, mode);
}

/* Under the stream's number there is another file now, or none. The C library's own calls have
 * seen to that. */
static FILE *reopened(FILE *stream, int number)
{
	int saved = errno;
	lf_fd_born(number);
	if (stream)
		lf_fd_born(fileno(stream));
	errno = saved;
	return stream;
}

static int number_of(FILE *stream)
{
	int saved = errno, fd = fileno(stream);
	errno = saved;
	return fd;
}

LF_EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
	lf_start();
	int number = number_of(stream);
	return reopened(lf_real.freopen(path, mode, stream), number);
}

LF_EXPORT FILE *freopen64(const char *path, const char *mode, FILE *stream)
{
	return freopen(path, mode, stream);
}
