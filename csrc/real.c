/* real.c - finds the C library's own functions; see real.h. */
#define _GNU_SOURCE
#include "real.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Stand-ins for the time before the constructor. Only what a constructor or the
 * dynamic loader could plausibly call is here; the rest stays NULL until init, which
 * the interposers force through lf_start() before their first use. */
static ssize_t early_read(int fd, void *buf, size_t n)
{
	return syscall(SYS_read, fd, buf, n);
}

static ssize_t early_write(int fd, const void *buf, size_t n)
{
	return syscall(SYS_write, fd, buf, n);
}

static int early_openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = va_arg(ap, mode_t); /* our own caller always gives one */
	va_end(ap);
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static int early_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

static int early_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *set)
{
	struct timespec copy = ts ? *ts : (struct timespec){0};
	return (int)syscall(SYS_ppoll, fds, n, ts ? &copy : NULL, set, _NSIG / 8);
}

static int early_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

static int early_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	va_start(ap, request);
	long arg = va_arg(ap, long);
	va_end(ap);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static int early_close_range(unsigned first, unsigned last, int flags)
{
#ifdef SYS_close_range
	return (int)syscall(SYS_close_range, first, last, flags);
#else
	(void)first, (void)last, (void)flags;
	errno = ENOSYS;
	return -1;
#endif
}

static int early_epoll_pwait2(int fd, struct epoll_event *events, int max,
			      const struct timespec *ts, const sigset_t *set)
{
#ifdef SYS_epoll_pwait2
	return (int)syscall(SYS_epoll_pwait2, fd, events, max, ts, set, _NSIG / 8);
#else
	(void)fd, (void)events, (void)max, (void)ts, (void)set;
	errno = ENOSYS;
	return -1;
#endif
}

static int early_prlimit(pid_t pid, int which, const struct rlimit *new, struct rlimit *old)
{
	return (int)syscall(SYS_prlimit64, pid, which, new, old);
}

struct lf_real lf_real = {
	.read = early_read,
	.write = early_write,
	.openat = early_openat,
	.close = early_close,
	.ppoll = early_ppoll,
	.fcntl = early_fcntl,
	.ioctl = early_ioctl,
	.close_range = early_close_range,
	.epoll_pwait2 = early_epoll_pwait2,
	.prlimit = early_prlimit,
	.syscall = syscall,
};

/* ISO C has no conversion from void * to a function pointer; POSIX promises this one. */
static void resolve(void *slot, const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);
	if (found)
		*(void **)slot = found;
}

void *lf_real_symbol(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

void lf_real_init(void)
{
	resolve(&lf_real.syscall, "syscall");
	resolve(&lf_real.connect, "connect");
	resolve(&lf_real.listen, "listen");
	resolve(&lf_real.accept4, "accept4");
	resolve(&lf_real.recvmsg, "recvmsg");
	resolve(&lf_real.sendmsg, "sendmsg");
	resolve(&lf_real.read, "read");
	resolve(&lf_real.readv, "readv");
	resolve(&lf_real.write, "write");
	resolve(&lf_real.writev, "writev");
	resolve(&lf_real.recvfrom, "recvfrom");
	resolve(&lf_real.sendto, "sendto");
	resolve(&lf_real.recvmmsg, "recvmmsg");
	resolve(&lf_real.sendmmsg, "sendmmsg");
	resolve(&lf_real.sendfile, "sendfile64");
	resolve(&lf_real.splice, "splice");
	resolve(&lf_real.poll, "poll");
	resolve(&lf_real.ppoll, "ppoll");
	resolve(&lf_real.select, "select");
	resolve(&lf_real.pselect, "pselect");
	resolve(&lf_real.epoll_create1, "epoll_create1");
	resolve(&lf_real.epoll_ctl, "epoll_ctl");
	resolve(&lf_real.epoll_wait, "epoll_wait");
	resolve(&lf_real.epoll_pwait, "epoll_pwait");
	resolve(&lf_real.epoll_pwait2, "epoll_pwait2");
	resolve(&lf_real.shutdown, "shutdown");
	resolve(&lf_real.close, "close");
	resolve(&lf_real.close_range, "close_range");
	resolve(&lf_real.dup, "dup");
	resolve(&lf_real.dup2, "dup2");
	resolve(&lf_real.dup3, "dup3");
	resolve(&lf_real.fcntl, "fcntl");
	resolve(&lf_real.ioctl, "ioctl");
	resolve(&lf_real.getsockopt, "getsockopt");
	resolve(&lf_real.getpeername, "getpeername");
	resolve(&lf_real.setsockopt, "setsockopt");
	resolve(&lf_real.sigaction, "sigaction");
	resolve(&lf_real.signal, "signal");
	resolve(&lf_real.bsd_signal, "bsd_signal");
	resolve(&lf_real.ssignal, "ssignal");
	resolve(&lf_real.sysv_signal, "sysv_signal");
	resolve(&lf_real.__sysv_signal, "__sysv_signal");
	resolve(&lf_real.sigset, "sigset");
	resolve(&lf_real.sigignore, "sigignore");
	resolve(&lf_real.siginterrupt, "siginterrupt");
	resolve(&lf_real.fork, "fork");
	resolve(&lf_real.vfork, "vfork");
	resolve(&lf_real.execve, "execve");
	resolve(&lf_real.execvpe, "execvpe");
	resolve(&lf_real.fexecve, "fexecve");
	resolve(&lf_real.posix_spawn, "posix_spawn");
	resolve(&lf_real.posix_spawnp, "posix_spawnp");
	resolve(&lf_real.openat, "openat");
	resolve(&lf_real.socket, "socket");
	resolve(&lf_real.socketpair, "socketpair");
	resolve(&lf_real.pipe2, "pipe2");
	resolve(&lf_real.eventfd, "eventfd");
	resolve(&lf_real.timerfd_create, "timerfd_create");
	resolve(&lf_real.signalfd, "signalfd");
	resolve(&lf_real.memfd_create, "memfd_create");
	resolve(&lf_real.inotify_init1, "inotify_init1");
	resolve(&lf_real.mkostemps, "mkostemps");
	resolve(&lf_real.fopen, "fopen");
	resolve(&lf_real.tmpfile, "tmpfile");
	resolve(&lf_real.opendir, "opendir");
	resolve(&lf_real.popen, "popen");
	resolve(&lf_real.system, "system");
	resolve(&lf_real.fdopen, "fdopen");
	resolve(&lf_real.freopen, "freopen");
	resolve(&lf_real._exit, "_exit");
	resolve(&lf_real.prlimit, "prlimit");
	resolve(&lf_real.clone, "clone");
	resolve(&lf_real.unshare, "unshare");
	resolve(&lf_real.pthread_setcanceltype, "pthread_setcanceltype");
}
