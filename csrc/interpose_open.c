/* interpose_open.c - the libc names that make descriptors. Most we have no business with:
 * they are here only so that they never fail for want of a number that we hide something at
 * (shortage.h). TCP sockets are followed from here on (sock.h). */
#define _GNU_SOURCE
#include "real.h"
#include "shortage.h"
#include "sock.h"
#include "start.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Repeats a call that said EMFILE for as long as we have something to give back. */
#define INSISTING(type, failed, call)                                                  \
	do {                                                                           \
		lf_start();                                                            \
		type made;                                                             \
		do                                                                     \
			made = (call);                                                 \
		while (made == (failed) && errno == EMFILE && lf_shortage_relieve());  \
		return made;                                                           \
	} while (0)

static int seen(int fd)
{
	if (fd >= 0) {
		lf_fd_born(fd);
		lf_shortage_foresee(fd);
	}
	return fd;
}

static int both(int r, const int fds[2])
{
	if (r == 0) {
		(void)seen(fds[0]);
		(void)seen(fds[1]);
	}
	return r;
}

static int insist_openat(int dir, const char *path, int flags, mode_t mode)
{
	INSISTING(int, -1, seen(lf_real.openat(dir, path, flags, mode)));
}

static bool takes_mode(int flags)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

#define MODE_OF(flags, last)                                   \
	mode_t mode = 0;                                       \
	if (takes_mode(flags)) {                               \
		va_list ap;                                    \
		va_start(ap, last);                            \
		mode = va_arg(ap, mode_t);                     \
		va_end(ap);                                    \
	}

LF_EXPORT int open(const char *path, int flags, ...)
{
	MODE_OF(flags, flags)
	return insist_openat(AT_FDCWD, path, flags, mode);
}

LF_EXPORT int open64(const char *path, int flags, ...)
{
	MODE_OF(flags, flags)
	return insist_openat(AT_FDCWD, path, flags, mode);
}

LF_EXPORT int openat(int dir, const char *path, int flags, ...)
{
	MODE_OF(flags, flags)
	return insist_openat(dir, path, flags, mode);
}

LF_EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	MODE_OF(flags, flags)
	return insist_openat(dir, path, flags, mode);
}

LF_EXPORT int creat(const char *path, mode_t mode)
{
	return insist_openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

LF_EXPORT int creat64(const char *path, mode_t mode)
{
	return creat(path, mode);
}

_Noreturn void __chk_fail(void);

LF_EXPORT int __open_2(const char *path, int flags);
LF_EXPORT int __open64_2(const char *path, int flags);
LF_EXPORT int __openat_2(int dir, const char *path, int flags);
LF_EXPORT int __openat64_2(int dir, const char *path, int flags);

LF_EXPORT int __openat_2(int dir, const char *path, int flags)
{
	if (takes_mode(flags))
		__chk_fail();
	return insist_openat(dir, path, flags, 0);
}

LF_EXPORT int __openat64_2(int dir, const char *path, int flags)
{
	return __openat_2(dir, path, flags);
}

LF_EXPORT int __open_2(const char *path, int flags)
{
	return __openat_2(AT_FDCWD, path, flags);
}

LF_EXPORT int __open64_2(const char *path, int flags)
{
	return __openat_2(AT_FDCWD, path, flags);
}

static int insist_socket(int domain, int type, int protocol)
{
	INSISTING(int, -1, seen(lf_real.socket(domain, type, protocol)));
}

static bool is_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) &&
	       (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

LF_EXPORT int socket(int domain, int type, int protocol)
{
	int fd = insist_socket(domain, type, protocol);
	/* Not standard input and its like: printf writes to these past us. Nor what a vfork
	 * child opens: the table is its parent's. */
	if (fd <= STDERR_FILENO || !is_tcp(domain, type, protocol) || !lf_started)
		return fd;
	int saved = errno;
	/* One that came past the C library opens what it soon loses: of the same number its parent
	 * finds out, should it ever be one of its own (lf_fd_born(), lf_fd_is_stale()). */
	if (!lf_seems_borrowed())
		lf_sock_track(fd, LF_SIDE_CLIENT);
	errno = saved;
	return fd;
}

LF_EXPORT int socketpair(int domain, int type, int protocol, int fds[2])
{
	INSISTING(int, -1, both(lf_real.socketpair(domain, type, protocol, fds), fds));
}

LF_EXPORT int pipe2(int fds[2], int flags)
{
	INSISTING(int, -1, both(lf_real.pipe2(fds, flags), fds));
}

LF_EXPORT int pipe(int fds[2])
{
	return pipe2(fds, 0);
}

LF_EXPORT int eventfd(unsigned count, int flags)
{
	INSISTING(int, -1, seen(lf_real.eventfd(count, flags)));
}

LF_EXPORT int timerfd_create(clockid_t clock, int flags)
{
	INSISTING(int, -1, seen(lf_real.timerfd_create(clock, flags)));
}

LF_EXPORT int signalfd(int fd, const sigset_t *mask, int flags)
{
	INSISTING(int, -1, seen(lf_real.signalfd(fd, mask, flags)));
}

LF_EXPORT int memfd_create(const char *name, unsigned flags)
{
	INSISTING(int, -1, seen(lf_real.memfd_create(name, flags)));
}

LF_EXPORT int inotify_init1(int flags)
{
	INSISTING(int, -1, seen(lf_real.inotify_init1(flags)));
}

LF_EXPORT int inotify_init(void)
{
	return inotify_init1(0);
}

LF_EXPORT int mkostemps(char *template, int suffix, int flags)
{
	INSISTING(int, -1, seen(lf_real.mkostemps(template, suffix, flags)));
}

LF_EXPORT int mkostemps64(char *template, int suffix, int flags)
{
	return mkostemps(template, suffix, flags);
}

LF_EXPORT int mkstemps(char *template, int suffix)
{
	return mkostemps(template, suffix, 0);
}

LF_EXPORT int mkstemps64(char *template, int suffix)
{
	return mkostemps(template, suffix, 0);
}

LF_EXPORT int mkostemp(char *template, int flags)
{
	return mkostemps(template, 0, flags);
}

LF_EXPORT int mkostemp64(char *template, int flags)
{
	return mkostemps(template, 0, flags);
}

LF_EXPORT int mkstemp(char *template)
{
	return mkostemps(template, 0, 0);
}

LF_EXPORT int mkstemp64(char *template)
{
	return mkostemps(template, 0, 0);
}

LF_EXPORT FILE *fopen(const char *path, const char *mode)
{
	INSISTING(FILE *, NULL, lf_real.fopen(path, mode));
}

LF_EXPORT FILE *fopen64(const char *path, const char *mode)
{
	return fopen(path, mode);
}

LF_EXPORT FILE *tmpfile(void)
{
	INSISTING(FILE *, NULL, lf_real.tmpfile());
}

LF_EXPORT FILE *tmpfile64(void)
{
	return tmpfile();
}

LF_EXPORT DIR *opendir(const char *path)
{
	INSISTING(DIR *, NULL, lf_real.opendir(path));
}
