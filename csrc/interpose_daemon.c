/* interpose_daemon.c - the libc names that fork, leave and replace standard descriptors in one go.
 * The C library's own do that past us; ours do the same in interposed steps. */
#define _GNU_SOURCE
#include "real.h"
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utmp.h>

/* Only the child returns, or the parent with -1. */
static int go_on_as_child(void)
{
	pid_t child = fork();
	if (child > 0)
		_exit(0);
	return child;
}

static bool is_null_device(int fd)
{
	struct stat about;
	if (fstat(fd, &about) == -1)
		return false;
	if (S_ISCHR(about.st_mode) && about.st_rdev == makedev(1, 3))
		return true;
	errno = ENODEV;
	return false;
}

static int silence(void)
{
	int fd = open(_PATH_DEVNULL, O_RDWR);
	if (fd == -1)
		return -1;
	if (!is_null_device(fd)) {
		int saved = errno;
		(void)close(fd);
		errno = saved;
		return -1;
	}
	for (int standard = 0; standard <= STDERR_FILENO; standard++)
		(void)dup2(fd, standard);
	if (fd > STDERR_FILENO)
		(void)close(fd);
	return 0;
}

LF_EXPORT int daemon(int stay_in_directory, int keep_descriptors)
{
	if (go_on_as_child() == -1 || setsid() == -1)
		return -1;
#ifndef __GLIBC__ /* musl's forks again, so as never to get a terminal */
	if (go_on_as_child() == -1)
		return -1;
#endif
	if (!stay_in_directory && chdir("/") == -1) {
		/* The C library does not mind. */
	}
	return keep_descriptors ? 0 : silence();
}

LF_EXPORT int login_tty(int fd)
{
	static int (*real)(int);
	if (!real)
		real = lf_real_symbol("login_tty");
	int r = real(fd);
	for (int standard = 0; r == 0 && standard <= STDERR_FILENO; standard++)
		lf_fd_born(standard);
	return r;
}

LF_EXPORT int forkpty(int *master, char *name, const struct termios *mode, const struct winsize *size)
{
	static int (*open_pty)(int *, int *, char *, const struct termios *, const struct winsize *);
	if (!open_pty)
		open_pty = lf_real_symbol("openpty");
	int mine, theirs;
	if (open_pty(&mine, &theirs, name, mode, size) == -1)
		return -1;
	lf_fd_born(mine);
	lf_fd_born(theirs);
	pid_t child = fork();
	int saved = errno;
	if (child)
		(void)close(theirs);
	if (child <= 0)
		(void)close(mine);
	if (child == 0 && login_tty(theirs) == -1)
		_exit(1);
	if (child > 0)
		*master = mine;
	errno = saved;
	return child;
}
