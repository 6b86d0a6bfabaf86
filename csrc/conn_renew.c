/* conn_renew.c - what a killed peer left in its ring, for a holder that knows only TCP.
 *
 * Who is killed gives TCP no copy of it (copy_what_is_unread()), and nobody can do it later: FIN has
 * come, behind which TCP takes nothing. So the socket gets another connection, under all its names in
 * all processes, with its options and epoll entries as they are: connect(2) to AF_UNSPEC takes the old
 * one apart, whose other end is nobody's any more, and it connects again, to a listener of ours at the
 * dead peer's address. From there it gets the bytes and FIN. The peer's name stays, and our own but for
 * the port of a server, which its listener has.
 *
 * Anybody may connect to that listener. The bytes go to our own socket alone.
 */
#define _GNU_SOURCE
#include "conn.h"
#include "clock.h"
#include "options.h"
#include "real.h"
#include "tcp_states.h"
#include "uncancelled.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <linux/sockios.h>

enum {
	PATIENCE_MS = 100, /* with a firewall that lets nothing through */
	TRIES = 10,
	BACKLOG = 16, /* a probe of ours and strangers may come first */
};

struct place {
	struct sockaddr_storage at;
	socklen_t length;
};

static bool own_place(int fd, struct place *place)
{
	*place = (struct place){.length = sizeof(place->at)};
	return getsockname(fd, (struct sockaddr *)&place->at, &place->length) == 0;
}

static bool peers_place(int fd, struct place *place)
{
	*place = (struct place){.length = sizeof(place->at)};
	return lf_real.getpeername(fd, (struct sockaddr *)&place->at, &place->length) == 0;
}

static bool bind_to(int fd, const struct place *place)
{
	return bind(fd, (const struct sockaddr *)&place->at, place->length) == 0;
}

static struct place with_any_port(struct place place)
{
	if (place.at.ss_family == AF_INET)
		((struct sockaddr_in *)&place.at)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&place.at)->sin6_port = 0;
	return place;
}

/* For that place, which may be a mapped one of IPv4. */
static int socket_for(const struct place *place, int flags)
{
	int fd = lf_real.socket(place->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, IPPROTO_TCP);
	int no = 0;
	if (fd != -1 && place->at.ss_family == AF_INET6)
		(void)lf_real.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	return fd;
}

/* The number of a socket that listens there, or -1. */
static int listen_at(const struct place *place)
{
	int fd = socket_for(place, SOCK_NONBLOCK), on = 1;
	/* A server that is started anew may have the port meanwhile, as it could beside a dead socket. */
	if (fd != -1 && lf_real.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
	    bind_to(fd, place) && lf_real.listen(fd, BACKLOG) == 0)
		return fd;
	if (fd != -1)
		(void)lf_real.close(fd);
	return -1;
}

/* FIN has come, and all that TCP had before it, and before the ring, was read; nothing was shut down
 * here. */
static bool only_fin_is_left(struct lf_sock *sock, int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int queued = 0;
	return !atomic_load(&sock->slot->shut) &&
	       lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == LF_TCP_CLOSE_WAIT &&
	       lf_real.ioctl(fd, SIOCINQ, &queued) == 0 && queued == 0;
}

/* As the program would by connect(2), which is to wait for no more than a moment. Whether it has come
 * to anything, accept(2) tells. */
static void connect_anew(int fd, const struct place *there)
{
	struct timeval limit = {0, 0}, brief = {0, PATIENCE_MS * 1000};
	socklen_t len = sizeof(limit);
	bool limited = lf_real.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &len) == 0 &&
		       lf_real.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof(brief)) == 0;
	(void)lf_real.connect(fd, (const struct sockaddr *)&there->at, there->length);
	if (limited)
		(void)lf_real.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

/* The other end of `fd`, or -1; others are turned away. */
static int accept_ours(int listener, int fd)
{
	struct place ours, theirs;
	if (!own_place(fd, &ours))
		return -1;
	struct pollfd p = {.fd = listener, .events = POLLIN};
	for (int64_t deadline = lf_deadline(PATIENCE_MS * INT64_C(1000000)); lf_now() < deadline;) {
		(void)lf_uncancelled_poll(&p, 1, PATIENCE_MS / 10);
		int end = lf_real.accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (end == -1 && errno != EAGAIN)
			break;
		if (end == -1)
			continue;
		if (peers_place(end, &theirs) && theirs.length == ours.length &&
		    memcmp(&theirs.at, &ours.at, ours.length) == 0)
			return end;
		(void)lf_real.close(end);
	}
	return -1;
}

/* As much as TCP takes at once, as before any FIN. False: it has not room for all of it, which is `all`
 * that is wanted: so it gets nothing but FIN, as it had before. */
static bool give(struct lf_sock *sock, int to, uint64_t from, size_t n, bool all)
{
	int room = (int)n; /* the kernel doubles it, for what packets take besides */
	(void)lf_real.setsockopt(to, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (all && (size_t)lf_option_ask(to, SOL_SOCKET, SO_SNDBUF, 0) / 2 < n)
		return false;
	uint64_t origin = atomic_load_explicit(&sock->in->p.origin, memory_order_relaxed);
	while (n) {
		struct iovec pieces[2];
		int count = lf_ring_pieces(&sock->in_ring, from + origin, n, pieces);
		struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
		ssize_t sent = lf_real.sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		from += (uint64_t)sent;
		n -= (size_t)sent;
	}
	return true;
}

/* A process that was forked meanwhile has copies of our numbers, which closing ours does not end. */
static void end_and_close(int fd)
{
	(void)lf_real.shutdown(fd, SHUT_RDWR);
	(void)lf_real.close(fd);
}

/* A firewall, or a rule for this process, may let no connection through. */
static bool can_connect(int listener)
{
	struct place there;
	int fd = own_place(listener, &there) ? socket_for(&there, 0) : -1;
	if (fd == -1)
		return false;
	struct timeval brief = {0, PATIENCE_MS * 1000};
	bool can = lf_real.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof(brief)) == 0 &&
		   lf_real.connect(fd, (const struct sockaddr *)&there.at, there.length) == 0;
	(void)lf_real.close(fd);
	return can;
}

static void take_apart(int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	(void)lf_real.connect(fd, &none, sizeof(none));
}

/* What can fail without harm does so before the old connection is taken apart. */
static int listen_as_the_peer(struct lf_sock *sock, int fd, const struct place *peer)
{
	struct place nearby = with_any_port(*peer);
	int listener = listen_at(&nearby);
	if (listener == -1 || lf_option_namespace(listener) != lf_option_namespace(fd) ||
	    !can_connect(listener)) {
		if (listener != -1)
			end_and_close(listener);
		return -1;
	}
	/* Before the kernel tells anybody, see lf_conn_tcp_says(). */
	atomic_store(&sock->slot->renewal, LF_RENEWAL_UNDER_WAY);
	take_apart(fd);
	/* Its port was the dead socket's, which goes with our RST; unless it was a server's, whose listener
	 * lives on. */
	int exact = -1;
	for (int tries = 0; tries < TRIES && (exact = listen_at(peer)) == -1; tries++)
		lf_uncancelled_nap(1000000);
	if (exact == -1)
		return listener;
	end_and_close(listener);
	return exact;
}

short lf_conn_tcp_says(const struct lf_sock *sock, int fd, short told)
{
	const _Atomic uint32_t *renewal = &sock->slot->renewal;
	if (!(told & (POLLERR | POLLHUP)) || !atomic_load(renewal))
		return told;
	/* Not for longer than one may take: who does it may have been killed. */
	for (int tries = 0; atomic_load(renewal) == LF_RENEWAL_UNDER_WAY && tries < 3 * PATIENCE_MS; tries++)
		lf_uncancelled_nap(1000000);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDNORM | POLLPRI | POLLOUT | POLLWRNORM | POLLRDHUP};
	return lf_uncancelled_poll(&p, 1, 0) == 1 ? p.revents : 0;
}

bool lf_conn_renew(struct lf_sock *sock, int fd, uint64_t from, size_t n, bool all)
{
	LF_UNCANCELLED(state);
	struct place own, peer, there;
	if (!only_fin_is_left(sock, fd) || !own_place(fd, &own) || !peers_place(fd, &peer) ||
	    lf_option_ask(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0))
		return false;
	/* Kept for the end that is accepted. */
	int number = lf_real.fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int listener = number == -1 ? -1 : listen_as_the_peer(sock, fd, &peer);
	if (listener == -1) {
		if (number != -1)
			(void)lf_real.close(number);
		return false;
	}
	if (!bind_to(fd, &own)) {
		own = with_any_port(own);
		(void)bind_to(fd, &own);
	}
	if (own_place(listener, &there))
		connect_anew(fd, &there);
	(void)lf_real.close(number);
	int to = accept_ours(listener, fd);
	end_and_close(listener);
	if (to == -1)
		take_apart(fd); /* lest its SYN goes to who listens there next */
	atomic_store(&sock->slot->renewal, LF_RENEWAL_DONE);
	if (to == -1)
		return false;
	bool given = give(sock, to, from, n, all);
	end_and_close(to);
	return given;
}
