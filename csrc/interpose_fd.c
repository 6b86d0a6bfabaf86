/* interpose_fd.c - the libc names that make, copy, configure and close descriptors. */
#define _GNU_SOURCE
#include "broker.h"
#include "conn.h"
#include "epoll.h"
#include "interpose_io.h"
#include "options.h"
#include "pairing.h"
#include "real.h"
#include "shortage.h"
#include "start.h"
#include "uncancelled.h"
#include "uring.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef TCP_ZEROCOPY_RECEIVE
#define TCP_ZEROCOPY_RECEIVE 35
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1u << 1)
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1u << 2)
#endif

/* --- closing --- */

/* Before a close. Other numbers of the socket may have been closed past us (a raw system call,
 * fclose), and be something else by now: they must not keep us from seeing that this is the
 * last. Rare: a socket has one number. */
static void drop_stale_numbers(struct lf_sock *sock, int fd, uintptr_t entry)
{
	int others = atomic_load(&sock->descriptors) - 1;
	uint64_t cookie = others > 0 ? lf_option_cookie(fd) : 0;
	for (int other = 0; cookie && others > 0 && other < (int)LF_TABLE_SIZE; other++) {
		if (other == fd || lf_table_get(other) != entry)
			continue;
		others--;
		if (lf_option_cookie(other) != cookie)
			(void)lf_sock_remove_descriptor(sock, other);
	}
}

/* Two threads may close two numbers of one socket, of which one is the last: that is to be known before
 * its number goes. Not waited for long: who is at it may be further up this thread's stack. */
enum { TURN_TRIES = 100, TURN_NS = 50000 };

static void begin_closing(struct lf_sock *sock)
{
	for (int tries = 0; atomic_exchange(&sock->closing, 1) && tries < TURN_TRIES; tries++)
		lf_uncancelled_nap(TURN_NS);
}

/* Our side of close(fd); the kernel's comes after. Returns the socket if this was its
 * last descriptor here: its doorbell goes only once the kernel's close is done. */
static struct lf_sock *forget(int fd, uintptr_t entry)
{
	if (lf_table_kind(entry) == LF_KIND_EPOLL) {
		lf_epoll_remove_descriptor(lf_table_pointer(entry), fd);
		return NULL;
	}
	if (lf_table_kind(entry) == LF_KIND_URING)
		lf_uring_closes(fd);
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return NULL;
	lf_epoll_descriptor_closes(sock, fd);
	drop_stale_numbers(sock, fd, entry);
	begin_closing(sock);
	bool last = atomic_load(&sock->descriptors) == 1;
	if (last) {
		lf_epoll_forget(sock);
		lf_conn_before_close(sock, fd, false);
	}
	last = lf_sock_remove_descriptor(sock, fd);
	atomic_store(&sock->closing, 0);
	if (!last) {
		lf_sock_unpin(sock);
		return NULL;
	}
	return sock; /* with the pin */
}

static void let_go(struct lf_sock *sock)
{
	if (!sock)
		return;
	lf_sock_release(sock);
	lf_sock_unpin(sock);
}

/* The number was closed past us. */
static void drop_number(struct lf_sock *sock, int fd)
{
	if (!lf_sock_remove_descriptor(sock, fd))
		return;
	lf_epoll_forget(sock);
	lf_sock_release(sock);
}

void lf_fd_is_stale(struct lf_sock *sock, int fd)
{
	if (!lf_in_borrowed_memory())
		drop_number(sock, fd);
}

void lf_fd_born(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	if (!entry || lf_in_borrowed_memory())
		return;
	if (lf_table_kind(entry) == LF_KIND_EPOLL) {
		lf_epoll_remove_descriptor(lf_table_pointer(entry), fd);
	} else if (lf_table_kind(entry) == LF_KIND_HIDDEN) {
		lf_table_lost(fd);
		if (lf_broker_fd() == fd) {
			lf_broker_moved(fd, -1);
			(void)lf_broker_leave();
		}
		lf_sock_bell_moved(fd, -1);
	} else if (lf_table_kind(entry) == LF_KIND_URING) {
		lf_uring_closes(fd);
	} else {
		struct lf_sock *sock = lf_sock_pin(fd);
		if (!sock)
			return;
		drop_number(sock, fd);
		lf_sock_unpin(sock);
	}
}

/* Plain so far: if this is a child that was made past the C library, its parent goes on with a
 * plain socket that it does not follow any more. */
static bool is_plain(uintptr_t entry)
{
	return lf_table_kind(entry) == LF_KIND_SOCK &&
	       !lf_sock_paired(lf_table_pointer(entry)); /* a stale place can be looked at, too */
}

static int close_one(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	if (!entry)
		return lf_real.close(fd);
	/* In a vfork child too, which sweeps before it runs a program: exec then rings the bells
	 * of the sockets it hands on, and closes them all by itself. */
	if (lf_table_kind(entry) == LF_KIND_HIDDEN) {
		errno = EBADF; /* as far as the program knows */
		return -1;
	}
	if (is_plain(entry) ? lf_seems_borrowed() : lf_in_borrowed_memory())
		return lf_real.close(fd);
	int saved = errno;
	struct lf_sock *sock = forget(fd, entry);
	errno = saved;
	int r = lf_real.close(fd);
	saved = errno;
	let_go(sock);
	errno = saved;
	return r;
}

int lf_fd_close(int fd)
{
	LF_UNCANCELLED(state);
	return close_one(fd);
}

LF_EXPORT int close(int fd)
{
	if (!lf_table_get(fd))
		return lf_real.close(fd);
	/* A thread that is cancelled leaves it open, and as it was. */
	pthread_testcancel();
	return lf_fd_close(fd);
}

LF_EXPORT int __close(int fd)
{
	return close(fd);
}

static bool hidden(unsigned fd)
{
	return lf_table_kind(lf_table_get((int)fd)) == LF_KIND_HIDDEN;
}

/* The calling thread gets a table of its own, unless it is alone with it anyhow. What it closes and
 * opens there is not told from what the others do, so all is left to TCP. */
static void leave_the_table(void)
{
	if (lf_started && !lf_alone() && !lf_in_borrowed_memory())
		lf_pairing_stop_following();
}

void lf_before_unshare(int flags)
{
	if (flags & CLONE_FILES)
		leave_the_table();
}

LF_EXPORT int unshare(int flags)
{
	lf_start();
	lf_before_unshare(flags);
	return lf_real.unshare(flags);
}

/* Of a range that is empty, before anything is closed: the kernel may not know these flags, or the
 * call. CLOSE_RANGE_UNSHARE all kernels that have it know, and would heed. */
static bool is_refused(int flags)
{
	return lf_real.close_range(~0u, ~0u, (int)((unsigned)flags & ~CLOSE_RANGE_UNSHARE)) == -1;
}

/* Sweeps that close everything step around what the program can't know of. */
static int close_around_hidden(unsigned first, unsigned last, int flags)
{
	if (is_refused(flags))
		return -1;
	bool leaves = ((unsigned)flags & CLOSE_RANGE_UNSHARE) && !lf_alone();
	if (leaves)
		leave_the_table();
	LF_UNCANCELLED(state);
	unsigned from = first;
	for (unsigned fd = first; fd <= last && fd < LF_TABLE_SIZE; fd++) {
		uintptr_t entry = lf_table_get((int)fd);
		if (!entry)
			continue;
		if (lf_table_kind(entry) == LF_KIND_HIDDEN) {
			if (fd > from && lf_real.close_range(from, fd - 1, flags) == -1)
				return -1;
			from = fd + 1;
		} else if (!((unsigned)flags & CLOSE_RANGE_CLOEXEC) && !leaves) {
			(void)close_one((int)fd);
		}
	}
	return from > last ? 0 : lf_real.close_range(from, last, flags);
}

LF_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	/* In a vfork child a private table is the last thing before exec. */
	if (!lf_started || first > last ||
	    (((unsigned)flags & CLOSE_RANGE_UNSHARE) && lf_in_borrowed_memory()))
		return lf_real.close_range(first, last, flags);
	return close_around_hidden(first, last, flags);
}

LF_EXPORT void closefrom(int first)
{
	unsigned from = first < 0 ? 0 : (unsigned)first;
	if (close_range(from, ~0u, 0) == 0)
		return;
	long limit = sysconf(_SC_OPEN_MAX);
	LF_UNCANCELLED(state);
	for (long fd = from; fd < limit; fd++)
		if (!hidden((unsigned)fd))
			(void)close_one((int)fd);
}

/* --- copies --- */

/* `stay`: this process goes on with the socket by calls of ours. */
void lf_fd_defuse(int fd, enum lf_reason reason, bool stay)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	int saved = errno;
	lf_conn_defuse(sock, fd, reason, stay);
	lf_sock_unpin(sock);
	errno = saved;
}

/* printf and its like write to these past us. */
static bool is_stdio(int fd)
{
	return fd <= STDERR_FILENO;
}

/* Something of the program's is at that number, a FILE perhaps. */
static bool is_taken(int fd)
{
	return !lf_table_get(fd) && lf_real.fcntl(fd, F_GETFD) != -1;
}

/* `copy` has come to be, as another name of fd; `past_us`: stdio may use it. */
static int copied(int fd, int copy, bool past_us)
{
	if (copy < 0)
		return copy;
	if (lf_in_borrowed_memory()) {
		/* A vfork child lays out the descriptors of the program it becomes next. */
		lf_fd_defuse(fd, LF_REASON_EXEC, true);
		return copy;
	}
	if (past_us || is_stdio(copy))
		lf_fd_defuse(fd, LF_REASON_STDIO, true);
	uintptr_t entry = lf_table_get(fd);
	bool is_set = lf_table_kind(entry) == LF_KIND_EPOLL;
	if ((unsigned)copy >= LF_TABLE_SIZE) {
		/* Calls by that number are the kernel's: of a socket, or of what a set may have in it. */
		if (is_set)
			lf_pairing_stop_following();
		else
			lf_fd_defuse(fd, LF_REASON_IO_OUTSIDE_LIBC, true);
		return copy;
	}
	if (is_set)
		lf_epoll_add_descriptor(lf_table_pointer(entry), copy);
	struct lf_sock *sock = lf_sock_pin(fd);
	if (sock) {
		lf_sock_add_descriptor(sock, copy);
		lf_sock_unpin(sock);
	}
	return copy;
}

LF_EXPORT int dup(int fd)
{
	int copy;
	do
		copy = lf_real.dup(fd);
	while (copy == -1 && errno == EMFILE && lf_shortage_relieve());
	if (copy >= 0) {
		lf_fd_born(copy);
		lf_shortage_foresee(copy);
	}
	return lf_table_get(fd) ? copied(fd, copy, false) : copy;
}

static void give_up_number(struct lf_sock *sock, void *fd)
{
	if (atomic_load(&sock->bell) == *(const int *)fd)
		(void)lf_conn_give_up_bell(sock);
}

/* Who sleeps at it would not be woken at another number. */
static void give_up_if_slept_at(struct lf_sock *sock, void *number)
{
	if (atomic_load(&sock->bell) == *(const int *)number &&
	    (atomic_load(&sock->waiters) || atomic_load(&sock->registration)))
		(void)lf_conn_give_up_bell(sock);
}

/* Number `fd` is about to be taken over by dup2. */
static struct lf_sock *make_way(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	if (!entry || lf_in_borrowed_memory())
		return NULL;
	if (lf_table_kind(entry) != LF_KIND_HIDDEN)
		return forget(fd, entry);
	lf_sock_each(give_up_if_slept_at, &fd);
	if (lf_table_kind(lf_table_get(fd)) != LF_KIND_HIDDEN)
		return NULL;
	int elsewhere = lf_table_relocate(fd);
	if (elsewhere >= 0) {
		lf_broker_moved(fd, elsewhere);
		lf_sock_bell_moved(fd, elsewhere);
		/* Dekker: a waiter counts itself, then loads the number. */
		lf_sock_each(give_up_if_slept_at, &elsewhere);
	} else if (lf_broker_fd() == fd) {
		(void)lf_broker_leave();
	} else {
		lf_sock_each(give_up_number, &fd);
	}
	return NULL;
}

/* The program has lowered its limit since: dup3 refuses a number that it may not give any more, and
 * what sits there stays what it was. */
static bool is_beyond_limit(int fd)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd >= limit.rlim_cur;
}

LF_EXPORT int dup3(int fd, int to, int flags)
{
	if ((!lf_table_get(fd) && !lf_table_get(to)) || fd == to || (flags & ~O_CLOEXEC) ||
	    lf_real.fcntl(fd, F_GETFD) == -1)
		return lf_real.dup3(fd, to, flags);
	if (lf_table_get(to) && is_beyond_limit(to)) {
		errno = EBADF;
		return -1;
	}
	int saved = errno;
	bool taken = is_taken(to);
	struct lf_sock *replaced = make_way(to);
	errno = saved;
	int r = copied(fd, lf_real.dup3(fd, to, flags), taken);
	saved = errno;
	let_go(replaced);
	errno = saved;
	return r;
}

LF_EXPORT int dup2(int fd, int to)
{
	if ((!lf_table_get(fd) && !lf_table_get(to)) || fd == to)
		return lf_real.dup2(fd, to);
	return dup3(fd, to, 0);
}

LF_EXPORT int __dup2(int fd, int to);
LF_EXPORT int __dup2(int fd, int to)
{
	return dup2(fd, to);
}

/* --- new sockets --- */

static bool is_inet(sa_family_t family)
{
	return family == AF_INET || family == AF_INET6;
}

/* The socket lives on without us. */
static void leave_to_tcp(int fd)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	int saved = errno;
	lf_pairing_let_go(sock);
	lf_sock_unpin(sock);
	errno = saved;
}

/* False: there is nothing to dissolve yet. */
static bool before_dissolving(int fd)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return false;
	int saved = errno;
	bool begun = atomic_load(&sock->pairing) != LF_PAIRING_FRESH;
	if (begun) {
		lf_conn_defuse(sock, fd, LF_REASON_SOCKET_OPTION, true);
		lf_conn_announce_end(sock);
	}
	lf_sock_unpin(sock);
	errno = saved;
	return begun;
}

/* connect(2): AF_UNSPEC dissolves a connection, with RST. The socket may get another one:
 * nothing of this one is to show in that. */
static int dissolve(int fd, const struct sockaddr *addr, socklen_t len)
{
	bool begun = before_dissolving(fd);
	int r = lf_real.connect(fd, addr, len);
	if (begun && r == 0)
		leave_to_tcp(fd);
	return r;
}

/* Not refused: it has a peer, or may get one yet. By another process's call, perhaps. */
static bool has_begun(int r)
{
	return r == 0 || errno == EINPROGRESS || errno == EINTR || errno == EALREADY ||
	       errno == EISCONN;
}

/* Refused. Where the program has not heard of the end of a connect that did not block, and a reset has
 * come since, another one tells of that, and the kernel dissolves the connection. */
static bool has_been_dissolved(const struct lf_sock *sock, int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	return lf_sock_paired(sock) && errno != EINVAL && errno != EFAULT &&
	       lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_CLOSE;
}

LF_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	if (addr && len >= sizeof(addr->sa_family) && addr->sa_family == AF_UNSPEC)
		return dissolve(fd, addr, len);
	int r = lf_real.connect(fd, addr, len);
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return r;
	int saved = errno;
	bool begun = has_begun(r), over = !begun && has_been_dissolved(sock, fd);
	if (begun)
		lf_pairing_begin(sock, fd);
	lf_sock_unpin(sock);
	if (over && before_dissolving(fd))
		leave_to_tcp(fd);
	errno = saved;
	return r;
}

LF_EXPORT int __connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	return connect(fd, addr, len);
}

/* A listener moves no bytes. */
LF_EXPORT int listen(int fd, int backlog)
{
	lf_start();
	int r = lf_real.listen(fd, backlog);
	if (r == 0)
		leave_to_tcp(fd);
	return r;
}

LF_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	lf_start();
	struct sockaddr_storage own;
	socklen_t own_len = sizeof(own);
	bool theirs = addr; /* without a length the kernel says EFAULT */
	int r;
	do
		r = theirs ? lf_real.accept4(fd, addr, len, flags) :
			     lf_real.accept4(fd, (struct sockaddr *)&own, &own_len, flags);
	while (r == -1 && errno == EMFILE && lf_shortage_relieve());
	if (r < 0 || !lf_started)
		return r;
	lf_fd_born(r);
	lf_shortage_foresee(r);
	sa_family_t family = AF_UNSPEC;
	if (!theirs)
		family = own.ss_family;
	else if (*len >= sizeof(family))
		memcpy(&family, addr, sizeof(family));
	/* A datagram socket can't be accepted from, so this is a stream. */
	if (is_inet(family) && !is_stdio(r))
		lf_sock_track(r, LF_SIDE_SERVER);
	return r;
}

LF_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	return accept4(fd, addr, len, 0);
}

LF_EXPORT int shutdown(int fd, int how)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.shutdown(fd, how);
	int r = lf_conn_shutdown(sock, fd, how), saved = errno;
	lf_sock_unpin(sock);
	errno = saved;
	return r;
}

/* --- fcntl and ioctl --- */

static void return_to_tcp(int fd)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
	lf_sock_unpin(sock);
}

static void note_nonblock(int fd, bool on)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return;
	atomic_store(&sock->slot->nonblock, on);
	lf_sock_unpin(sock);
}

/* F_DUPFD: the lowest free number from `lowest` on. */
static int copy_from(int fd, int cmd, long lowest)
{
	int copy;
	do
		copy = lf_real.fcntl(fd, cmd, lowest);
	while (copy == -1 && errno == EMFILE && lf_shortage_relieve());
	if (copy >= 0)
		lf_fd_born(copy);
	return lf_table_get(fd) ? copied(fd, copy, false) : copy;
}

LF_EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return copy_from(fd, cmd, arg);
	if (!lf_table_get(fd))
		return lf_real.fcntl(fd, cmd, arg);
	if (cmd == F_SETFL && (arg & O_ASYNC)) /* SIGIO for bytes the kernel won't see */
		return_to_tcp(fd);
	int r = lf_real.fcntl(fd, cmd, arg);
	if (r == -1)
		return r;
	if (cmd == F_SETFL)
		note_nonblock(fd, (arg & O_NONBLOCK) != 0);
	return r;
}

LF_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	return fcntl64(fd, cmd, arg);
}

LF_EXPORT int __fcntl(int fd, int cmd, ...);
LF_EXPORT int __fcntl(int fd, int cmd, ...)
{
	va_list ap;
	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	return fcntl64(fd, cmd, arg);
}

LF_EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	va_start(ap, request);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	if (!lf_table_get(fd))
		return lf_real.ioctl(fd, request, arg);
	if (request == FIOASYNC && arg && *(int *)arg)
		return_to_tcp(fd);
	int r = lf_real.ioctl(fd, request, arg);
	if (r == -1)
		return r;
	if (request == FIONBIO && arg)
		note_nonblock(fd, *(int *)arg != 0);
	struct lf_sock *sock = arg ? lf_sock_pin(fd) : NULL;
	if (sock) {
		lf_ioctl_amend(sock, request, arg);
		lf_sock_unpin(sock);
	}
	return r;
}

/* The C library's own goes past ioctl(). */
LF_EXPORT int sockatmark(int fd)
{
	int mark;
	return ioctl(fd, SIOCATMARK, &mark) == -1 ? -1 : mark;
}

/* --- socket options --- */

/* The kernel has accepted an option. */
static void option_set(struct lf_sock *sock, int fd, int level, int name, const void *value,
		       socklen_t len)
{
	switch (lf_option_way(level, name, value, len)) {
	case LF_OPTION_STAYS:
		lf_option_note(sock, fd, level, name, value, len);
		break;
	case LF_OPTION_TO_TCP:
		lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
		break;
	case LF_OPTION_ALL_TCP:
		lf_conn_defuse(sock, fd, LF_REASON_SOCKET_OPTION, true);
		break;
	case LF_OPTION_ONLY_TCP:
		lf_conn_defuse(sock, fd, LF_REASON_SOCKET_OPTION, false);
		break;
	}
}

LF_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.setsockopt(fd, level, name, value, len);
	int r = lf_real.setsockopt(fd, level, name, value, len);
	int saved = errno;
	if (r == 0 && value)
		option_set(sock, fd, level, name, value, len);
	lf_sock_unpin(sock);
	errno = saved;
	return r;
}

LF_EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.getsockopt(fd, level, name, value, len);
	if (level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE &&
	    lf_option_refuse_zero_copy(sock, fd, value, *len)) {
		lf_sock_unpin(sock);
		return 0;
	}
	int r = lf_real.getsockopt(fd, level, name, value, len);
	int saved = errno;
	if ((level == SOL_SOCKET && name == SO_ERROR) || (level == IPPROTO_TCP && name == TCP_INFO))
		lf_conn_look_at_reader(sock, fd);
	if (r == 0)
		lf_option_amend(sock, level, name, value, *len);
	lf_sock_unpin(sock);
	errno = saved;
	return r;
}

/* After a reset nobody is connected; the kernel may have seen no more than FIN. */
LF_EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
	struct lf_sock *sock = lf_sock_pin(fd);
	if (!sock)
		return lf_real.getpeername(fd, address, len);
	int saved = errno;
	lf_conn_look_at_reader(sock, fd);
	bool reset = lf_sock_paired(sock) && atomic_load(&sock->slot->reset);
	lf_sock_unpin(sock);
	errno = saved;
	if (!reset)
		return lf_real.getpeername(fd, address, len);
	errno = ENOTCONN;
	return -1;
}
