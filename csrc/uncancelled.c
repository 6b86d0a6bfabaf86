/* uncancelled.c - see uncancelled.h. */
#define _GNU_SOURCE
#include "uncancelled.h"

#include "clock.h"
#include "real.h"
#include "poll_limit.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* By the system call that we sleep by in any case: a program's seccomp filter has to know no other. */
static int poll_for(struct pollfd *fds, nfds_t n, int64_t ns)
{
	struct timespec ts = lf_timespec(ns), rest = ts; /* it stores what is left */
	int r = (int)lf_real.syscall(SYS_ppoll, fds, n, &rest, NULL, (size_t)0);
	if (r != -1 || errno != EINVAL)
		return r;
	LF_UNCANCELLED(state);
	return lf_ppoll_by_select(fds, n, &ts, NULL);
}

int lf_uncancelled_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	return poll_for(fds, n, (int64_t)timeout_ms * 1000000);
}

void lf_uncancelled_nap(int64_t ns)
{
	(void)poll_for(NULL, 0, ns);
}

ssize_t lf_uncancelled_recv(int fd, void *buf, size_t n, int flags)
{
	return lf_real.syscall(SYS_recvfrom, fd, buf, n, flags | MSG_DONTWAIT, NULL, NULL);
}

int lf_uncancelled_close(int fd)
{
	LF_UNCANCELLED(state);
	return lf_real.close(fd);
}
