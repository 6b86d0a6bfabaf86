/* conn_resend.c - a ring's unread bytes go to the peer by TCP, however full TCP is.
 *
 * The sender may not leave before all of them are with TCP, and the peer may not read for long. So
 * TCP is lent room for all of it; where it may not have that (net.core.wmem_max, without
 * CAP_NET_ADMIN), we wait as long as the peer lives.
 */
#define _GNU_SOURCE
#include "conn.h"
#include "options.h"
#include "real.h"
#include "start.h"
#include "uncancelled.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { NO_LIMIT = -1 };

/* TCP's limits for what it has not sent, as they were, for as long as the ring's bytes are put
 * there. */
struct room {
	struct lf_sock *sock;
	int fd;
	bool asked;
	int size, lent; /* SO_SNDBUF, twice of what sets it; 0: none was lent */
	int locks;      /* has the program fixed its buffers' sizes? -1: this kernel does not tell */
	int unsent;     /* TCP_NOTSENT_LOWAT; NO_LIMIT: stays */
};

static bool set(int fd, int level, int name, int n)
{
	return lf_real.setsockopt(fd, level, name, &n, sizeof(n)) == 0;
}

/* What is more than net.core.wmem_max is cut down to that, which may be less than TCP has
 * come to on its own. So it is tried out where the size does not matter. */
static bool set_send_buffer(const struct room *room, int half)
{
	return set(room->fd, SOL_SOCKET, SO_SNDBUFFORCE, half) ||
	       (lf_bell_try_room(room->sock, half) / 2 >= room->size / 2 &&
		set(room->fd, SOL_SOCKET, SO_SNDBUF, half));
}

static void lend_room(struct room *room, size_t n)
{
	room->asked = true;
	if (lf_in_borrowed_memory()) /* the bell may be anybody's there */
		return;
	room->unsent = lf_option_ask(room->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NO_LIMIT);
	if (room->unsent != NO_LIMIT && !set(room->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NO_LIMIT))
		room->unsent = NO_LIMIT;
	room->size = lf_option_ask(room->fd, SOL_SOCKET, SO_SNDBUF, 0);
	room->locks = lf_option_ask(room->fd, SOL_SOCKET, SO_BUF_LOCK, -1);
	if (room->size && set_send_buffer(room, room->size / 2 + (int)n))
		room->lent = lf_option_ask(room->fd, SOL_SOCKET, SO_SNDBUF, 0);
}

/* What lies there stays: the socket is writable once less does than it holds. What another thread
 * of the program's has set meanwhile stays, too. The cleanup also runs when pthread_cancel unwinds
 * through here. */
static void take_room_away(struct room *room)
{
	int fd = room->fd;
	if (room->unsent != NO_LIMIT &&
	    lf_option_ask(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, room->unsent) == NO_LIMIT)
		(void)set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, room->unsent);
	if (!room->lent || lf_option_ask(fd, SOL_SOCKET, SO_SNDBUF, 0) != room->lent)
		return;
	(void)set_send_buffer(room, room->size / 2);
	if (room->locks != -1 && !(room->locks & LF_SEND_BUFFER_LOCKED))
		(void)set(fd, SOL_SOCKET, SO_BUF_LOCK,
			  lf_option_ask(fd, SOL_SOCKET, SO_BUF_LOCK, 0) & ~LF_SEND_BUFFER_LOCKED);
}

/* fd -1: for time to pass. */
static void await_room(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct lf_defer_pause pause = lf_defer_pause();
	(void)lf_uncancelled_poll(&p, 1, timeout_ms);
	lf_defer_resume(pause);
}

static ssize_t send_pieces(int fd, const struct msghdr *msg)
{
	lf_defer_begin(); /* cancelled in here, it might leave bytes with TCP that nobody counts */
	ssize_t sent = lf_real.sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	int error = errno;
	lf_defer_end();
	errno = error;
	return sent;
}

/* By a limit of the program's, or a delay; or nothing may be sent at all. */
static bool is_held_up(int fd)
{
	return lf_option_ask(fd, SOL_SOCKET, SO_MAX_PACING_RATE, NO_LIMIT) != NO_LIMIT ||
	       lf_option_ask(fd, IPPROTO_TCP, TCP_TX_DELAY, 0) != 0 ||
	       lf_option_ask(fd, IPPROTO_TCP, TCP_REPAIR, 0) != 0;
}

bool lf_conn_tcp_has_room(int fd, size_t n)
{
	uint32_t of[SK_MEMINFO_VARS];
	socklen_t len = sizeof(of);
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, of, &len) == -1 || len < sizeof(of[0]) * 6)
		return false;
	uint64_t taken = of[SK_MEMINFO_WMEM_QUEUED], room = of[SK_MEMINFO_SNDBUF];
	/* TCP's bookkeeping, a half at the most of what is sent in large pieces, is counted there, too. */
	return taken + n + n / 2 + 4096 <= room && !is_held_up(fd);
}

void lf_conn_resend_by_tcp(struct lf_sock *sock, int fd, bool patient)
{
	struct room room __attribute__((cleanup(take_room_away))) = {
		.sock = sock, .fd = fd, .unsent = NO_LIMIT};
	uint64_t position, end = atomic_load(&sock->slot->tx_head);
	while ((position = atomic_load(&sock->slot->resent)) != end) {
		struct iovec pieces[2];
		size_t n = (size_t)(end - position);
		uint64_t origin = atomic_load_explicit(&sock->slot->tx_origin, memory_order_relaxed);
		int count = lf_ring_pieces(&sock->out_ring, position + origin, n, pieces);
		struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
		room.fd = lf_sock_named(sock, room.fd);
		ssize_t sent = send_pieces(room.fd, &msg);
		if (sent > 0) {
			atomic_store(&sock->slot->resent, position + (uint64_t)sent);
		} else if (sent == -1 && errno == EAGAIN) {
			if (!room.asked)
				lend_room(&room, n);
			else if (patient)
				await_room(room.fd, 100);
			else
				break;
		} else if (sent == -1 && (errno == ENOBUFS || errno == ENOMEM)) {
			if (!patient)
				break;
			await_room(-1, 1); /* memory comes back; the bytes would not */
		} else if (sent == -1 && errno != EINTR) {
			atomic_store(&sock->slot->error, (uint32_t)errno);
			atomic_store(&sock->slot->reset, 1);
			break;
		}
	}
}

void lf_conn_note_what_tcp_has(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	uint64_t sent;
	if (!lf_conn_count_sent(sock, fd, &sent))
		return;
	uint64_t position = atomic_load(&slot->resend_from) + sent - atomic_load(&slot->tcp_sent);
	if (position > atomic_load(&slot->resent) && position <= atomic_load(&slot->tx_head))
		atomic_store(&slot->resent, position);
}
