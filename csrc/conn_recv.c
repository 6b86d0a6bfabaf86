/* conn_recv.c - receiving: where the next byte comes from, and how to wait for it.
 *
 * The order that must never break: all TCP bytes from before the switch, then the
 * ring, then (after the end mark) TCP again; EOF and errors only after the last byte.
 *
 * FIN never overtakes payload: the peer's ring stores come before its close() or
 * shutdown() in program order; the kernel's own locks carry that order to whoever
 * sees the FIN; so a receiver that has *seen* FIN and then loads head (acquire) sees
 * every byte. Hence the rule below: FIN or an error from TCP counts only if the ring
 * is still empty when looked at *afterwards*.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "conn.h"
#include "held.h"
#include "invariant.h"
#include "options.h"
#include "pairing.h"
#include "real.h"
#include "states.h"
#include "uncancelled.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>

enum { PIECES = 16 };

static struct lf_cursor cursor_of(const struct msghdr *msg)
{
	return lf_cursor_over(msg->msg_iov, msg->msg_iovlen);
}

/* `filled`, if not NULL: all that it offered, which may not be all of the cursor. */
static ssize_t tcp_recv(int fd, const struct lf_cursor *cursor, size_t most, int flags, bool *filled)
{
	struct iovec pieces[PIECES];
	struct msghdr msg = {.msg_iov = pieces};
	size_t offset = cursor->offset, asked = 0;
	bool whole = offset == 0 && most >= cursor->left;
	if (whole) { /* the program's own list, however long */
		msg.msg_iov = (struct iovec *)(uintptr_t)cursor->iov;
		msg.msg_iovlen = cursor->count;
		asked = cursor->left;
	}
	for (size_t i = 0; !whole && i < cursor->count && msg.msg_iovlen < PIECES && most; i++) {
		struct iovec piece = {(uint8_t *)cursor->iov[i].iov_base + offset,
				      cursor->iov[i].iov_len - offset};
		if (piece.iov_len > most)
			piece.iov_len = most;
		most -= piece.iov_len;
		asked += piece.iov_len;
		offset = 0;
		pieces[msg.msg_iovlen++] = piece;
	}
	ssize_t n = lf_real.recvmsg(fd, &msg, (flags & (MSG_PEEK | MSG_TRUNC)) | MSG_DONTWAIT);
	if (filled)
		*filled = n > 0 && (size_t)n == asked;
	return n == -1 ? -errno : n;
}

/* TCP's bytes have been taken up to urgent data, before which a receive ends, however many it is to
 * wait for, tcp(7). */
static bool is_at_urgent_data(int fd)
{
	int mark = 0;
	return lf_real.ioctl(fd, SIOCATMARK, &mark) == 0 && mark;
}

static ssize_t recv_counted(struct lf_sock *sock, int fd, struct lf_cursor *cursor, size_t most,
			    int flags)
{
	if (!cursor->left) {
		/* A receive of no bytes still waits until there are some. */
		char byte;
		struct iovec one = {&byte, 1};
		struct msghdr msg = {.msg_iov = &one, .msg_iovlen = 1};
		ssize_t any = lf_real.recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
		return any == -1 ? -errno : 0;
	}
	while (cursor->offset == cursor->iov->iov_len)
		lf_cursor_advance(cursor, 0);
	size_t sum = 0;
	bool filled;
	do {
		ssize_t n = tcp_recv(fd, cursor, most - sum, flags, &filled);
		if (n <= 0 && sum == 0)
			return n;
		if (n < 0 && n != -EAGAIN)
			atomic_store(&sock->slot->error, (uint32_t)-n); /* for the next call */
		if (n <= 0)
			break;
		sum += (size_t)n;
		if (flags & MSG_PEEK)
			break;
		atomic_fetch_add(&sock->slot->tcp_rcvd, (uint64_t)n);
		lf_cursor_advance(cursor, (size_t)n);
	} while (filled && cursor->left && sum < most && !is_at_urgent_data(fd));
	return (ssize_t)sum;
}

/* What a receive meets of the error that the socket has. EPIPE is none of its business: FIN
 * came before, and is what a receive sees (tcp_recvmsg_locked() looks at SOCK_DONE first). */
static bool has_error_for_receive(const struct lf_slot *slot)
{
	uint32_t error = atomic_load_explicit(&slot->error, memory_order_relaxed);
	return error && error != EPIPE;
}

static uint32_t error_for_receive(struct lf_slot *slot)
{
	return has_error_for_receive(slot) ? atomic_exchange(&slot->error, 0) : 0;
}

ssize_t lf_conn_end_of_stream(struct lf_sock *sock, int fd)
{
	lf_conn_fin_seen(sock, fd);
	return -(ssize_t)error_for_receive(sock->slot);
}

ssize_t lf_conn_kernel_said(struct lf_sock *sock, int fd, ssize_t n)
{
	if (n < 0 && n != -EAGAIN && n != -EINTR && n != -EPIPE && lf_sock_paired(sock))
		lf_conn_tcp_failed(sock, fd);
	return n;
}

/* We have shut it down ourselves: there is no more, unless TCP has an error to tell. */
static ssize_t after_shutdown(struct lf_sock *sock, int fd)
{
	char byte;
	lf_conn_look_at_reader(sock, fd);
	uint32_t error = error_for_receive(sock->slot);
	if (error)
		return -(ssize_t)error;
	if (lf_real.recvfrom(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) == -1 &&
	    errno != EAGAIN)
		return -errno;
	return 0;
}

/* READY: still TCP, unless the peer's mark says how much of it is left. */
static ssize_t step_ready(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	struct lf_slot *slot = sock->slot;
	/* A producer that has gone back to TCP before it ever used its ring: none will come.
	 * acquire, and looked at before the mark: a ring that has been used got its reason
	 * after its mark. */
	if (atomic_load_explicit(&sock->in->p.reason, memory_order_acquire) &&
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_PLAIN) {
		lf_states_enter_rx(sock->slot, LF_RX_ENDED);
		return LF_LOOK_AGAIN;
	}
	/* acquire: pairs with the release of mark; tcp_total was stored before it. */
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_PLAIN) {
		/* What is there now, if the mark is still down after the look, came before any
		 * ring: a producer raises it before the bytes that it sends by TCP behind its
		 * ring. With MSG_TRUNC nothing is copied, tcp(7). */
		struct lf_cursor ahead = *cursor;
		ssize_t n = recv_counted(sock, fd, &ahead, SIZE_MAX, flags | MSG_PEEK | MSG_TRUNC);
		if (n == -EAGAIN)
			return n;
		if (n > 0 && atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) ==
				     LF_MARK_PLAIN)
			return recv_counted(sock, fd, cursor, (size_t)n, flags);
		/* FIN or error: the switch may have come between the two looks. */
		if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_PLAIN)
			return n == 0 && cursor->left ? lf_conn_end_of_stream(sock, fd) : n;
		if (n < 0) {
			atomic_store(&slot->error, (uint32_t)-n);
			lf_conn_tcp_failed(sock, fd);
		}
	}
	uint64_t total = atomic_load_explicit(&sock->in->arrivals.tcp_total, memory_order_relaxed);
	uint64_t got = atomic_load(&slot->tcp_rcvd);
	if (total < got) {
		lf_conn_corrupt(sock);
		return LF_LOOK_AGAIN;
	}
	atomic_store(&slot->rx_tcp_left, total - got);
	lf_states_enter_rx(sock->slot, LF_RX_DRAIN);
	return LF_LOOK_AGAIN;
}

/* DRAIN: exactly rx_tcp_left more bytes come by TCP. */
static ssize_t step_drain(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	struct lf_slot *slot = sock->slot;
	uint64_t left = atomic_load(&slot->rx_tcp_left);
	if (left == 0) {
		lf_states_enter_rx(sock->slot, LF_RX_FUSED);
		return LF_LOOK_AGAIN;
	}
	ssize_t n = recv_counted(sock, fd, cursor, left > SIZE_MAX ? SIZE_MAX : (size_t)left, flags);
	if (n > 0 && !(flags & MSG_PEEK))
		atomic_store(&slot->rx_tcp_left, left - (uint64_t)n);
	if (n == 0 && cursor->left) {
		/* Shut down by ourselves: they may still be on their way. */
		if (!lf_conn_fin_has_come(fd))
			return 0;
		/* After a reset, whose error somebody has been told, TCP says no more than after FIN:
		 * what the peer still had in its queue died with it. */
		lf_conn_tcp_failed(sock, fd);
		if (atomic_load(&slot->reset))
			return -(ssize_t)error_for_receive(slot);
		/* FIN before the promised bytes: the peer's count was wrong. */
		lf_conn_corrupt(sock);
		return LF_LOOK_AGAIN;
	}
	return n;
}

/* To be loaded after a head (acquire) that covers unread bytes: it was stored before that
 * head, and can't change before we have published that we read them. */
static uint64_t origin_of(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->in->p.origin, memory_order_relaxed);
}

/* What the ring has behind `tail`; more than its size: the peer's word is wrong. */
static uint64_t unread_in_ring(const struct lf_sock *sock, uint64_t tail)
{
	uint64_t unread = lf_held_shown_head(sock) - tail;
	/* Behind the end lie bytes that the producer sends again by TCP. acquire: end_pos, and the last
	 * head. Up to there nothing is held. */
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_ENDED) {
		uint64_t left = atomic_load_explicit(&sock->in->p.end_pos, memory_order_relaxed) - tail;
		unread = atomic_load_explicit(&sock->in->p.head, memory_order_relaxed) - tail;
		return left < unread ? left : unread;
	}
	return unread;
}

/* Bytes from the ring: how many were taken, 0 for none there. */
static ssize_t take_from_ring(struct lf_sock *sock, struct lf_cursor *cursor, int flags)
{
	struct lf_slot *slot = sock->slot;
	uint64_t tail = atomic_load_explicit(&slot->rx_tail, memory_order_relaxed);
	uint64_t unread = unread_in_ring(sock, tail);
	if (unread == 0)
		return 0;
	if (unread > sock->ring_size) {
		lf_conn_corrupt(sock);
		return LF_LOOK_AGAIN;
	}
	size_t n = cursor->left < unread ? cursor->left : (size_t)unread;
	if (n == 0)
		return 0;
	if (flags & MSG_TRUNC)
		lf_cursor_advance(cursor, n); /* TCP's MSG_TRUNC throws bytes away, tcp(7) */
	else
		lf_ring_get(&sock->in_ring, tail + origin_of(sock), cursor, n);
	if (flags & MSG_PEEK)
		return (ssize_t)n;
	atomic_store_explicit(&slot->rx_tail, tail + n, memory_order_relaxed);
	/* release: the places are free only after they were read. */
	atomic_store_explicit(&sock->in->t.tail, tail + n, memory_order_release);
	/* A writer that sleeps is woken once the lock is released, see after_step(). */
	return (ssize_t)n;
}

/* The peer has ended its ring: everything up to end_pos has been read. */
static bool ring_is_over(struct lf_sock *sock)
{
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_ENDED)
		return false;
	uint64_t end = atomic_load_explicit(&sock->in->p.end_pos, memory_order_relaxed);
	return end == atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed);
}

static bool ring_has_bytes(struct lf_sock *sock)
{
	return unread_in_ring(sock, atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed)) != 0;
}

/* The peer's word; 0 if it can't be. acquire: it was stored before the mark. */
static uint64_t copy_of(const struct lf_sock *sock)
{
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_ENDED)
		return 0;
	uint64_t n = atomic_load_explicit(&sock->in->arrivals.copied, memory_order_relaxed);
	return n <= sock->ring_size ? n : 0;
}

size_t lf_conn_copy_left(const struct lf_sock *sock)
{
	enum lf_rx rx = lf_rx(sock);
	if (rx == LF_RX_PLAIN || rx == LF_RX_ENDED)
		return 0;
	uint64_t n = copy_of(sock), skipped = atomic_load(&sock->slot->rx_skipped);
	return skipped < n ? (size_t)(n - skipped) : 0;
}

/* `hollow`: TCP has said end of stream, as it does of nothing at all once we have shut down for reading;
 * then it is no use to poll. False: time is up. */
static bool await_copy(int fd, bool hollow, int64_t deadline)
{
	if (lf_now() >= deadline)
		return false;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct lf_defer_pause pause = lf_defer_pause();
	if (hollow)
		lf_uncancelled_nap(100000);
	else
		(void)lf_uncancelled_poll(&p, 1, 1);
	lf_defer_resume(pause);
	return true;
}

enum { PATIENCE_MS = 1000 };

/* What the kernel lacks for the moment is no news of the connection, and no receive of the program's failed. It is
 * tried again here: of a copy that has come already no edge would tell a set with EPOLLET once more. */
static ssize_t throw_away(int fd, uint64_t due)
{
	/* With MSG_TRUNC nothing is copied, tcp(7), but ThreadSanitizer takes it for that. */
	char nothing[16384];
	size_t n = due < sizeof(nothing) ? (size_t)due : sizeof(nothing);
	for (int ms = 0;; ms++) {
		ssize_t got = lf_real.recvfrom(fd, nothing, n, MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);
		if (got != -1 || ms == PATIENCE_MS || !lf_conn_is_passing(errno))
			return got;
		struct lf_defer_pause pause = lf_defer_pause();
		lf_uncancelled_nap(1000000);
		lf_defer_resume(pause);
	}
}

/* Who shares this end may have been killed after it took some of a copy, and before it said so: then the next
 * bytes of the stream would be thrown away for them. The kernel has counted; before FIN, which it counts, too. */
static void note_what_is_gone(struct lf_sock *sock, int fd, uint64_t n)
{
	struct tcp_info before, info;
	socklen_t len = sizeof(info);
	int queued = 0;
	do {
		if (lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &before, &len) == -1 ||
		    lf_real.ioctl(fd, SIOCINQ, &queued) == -1 ||
		    lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
			return;
	} while (info.tcpi_bytes_received != before.tcpi_bytes_received);
	uint64_t received = (uint64_t)info.tcpi_bytes_received;
	uint64_t gone = received - (uint64_t)queued - atomic_load(&sock->slot->tcp_rcvd);
	if (!lf_conn_fin_has_come(fd) && gone > atomic_load(&sock->slot->rx_skipped) && gone <= n)
		atomic_store(&sock->slot->rx_skipped, gone);
}

enum lf_copy lf_conn_skip_copy(struct lf_sock *sock, int fd, uint64_t unread, int64_t deadline)
{
	_Atomic uint64_t *skipped = &sock->slot->rx_skipped;
	bool fin = false;
	if (lf_sock_shared(sock) && copy_of(sock))
		note_what_is_gone(sock, fd, copy_of(sock));
	uint64_t n; /* looked at each time: the peer may take its promise back */
	while ((n = copy_of(sock)) != 0 && unread <= n && atomic_load(skipped) < n - unread) {
		ssize_t got = throw_away(fd, n - unread - atomic_load(skipped));
		if (got > 0) {
			atomic_fetch_add(skipped, (uint64_t)got);
			continue;
		}
		if (got == -1 && lf_conn_is_passing(errno))
			return LF_COPY_AWAITED;
		if (got == -1 && errno != EAGAIN) {
			atomic_store(&sock->slot->error, (uint32_t)errno);
			lf_conn_tcp_failed(sock, fd);
			return LF_COPY_NONE;
		}
		/* TCP had no room for all, or who gave it died. A look after FIN has come: what came just
		 * before it counts. */
		if (got == 0 && fin)
			return LF_COPY_NONE;
		fin = got == 0 && lf_conn_fin_has_come(fd);
		if (!fin && !await_copy(fd, got == 0, deadline))
			return LF_COPY_AWAITED;
	}
	return n != 0 && unread <= n ? LF_COPY_SKIPPED : LF_COPY_NONE;
}

bool lf_conn_copy_is_whole(struct lf_sock *sock, int fd, int64_t deadline)
{
	const struct lf_arrival_line *line = &sock->in->arrivals;
	for (;;) {
		/* FIN first: `given` is final before that. */
		bool fin = lf_conn_fin_has_come(fd);
		if (atomic_load(&line->given) == atomic_load(&line->copied))
			return true;
		if (fin || !await_copy(fd, true, deadline))
			return false;
	}
}

/* At once: TCP's window is to open as if we had read there, so that FIN comes; and of a copy that
 * has been read, TCP would say that it is readable, and answer a close by RST. What of it has not come yet
 * lf_conn_take_late_copy() takes. */
static void skip_what_was_read(struct lf_sock *sock, int fd)
{
	if (copy_of(sock) == 0)
		return;
	uint64_t end = atomic_load_explicit(&sock->in->p.end_pos, memory_order_relaxed);
	(void)lf_conn_skip_copy(sock, fd, end - atomic_load(&sock->slot->rx_tail), 0);
}

/* The ring has been read, and not all of the copy has come: what TCP has may be of that, no news for the program. */
static bool may_be_copy(struct lf_sock *sock)
{
	return lf_rx(sock) == LF_RX_FUSED && lf_conn_copy_left(sock) && ring_is_over(sock);
}

bool lf_conn_copy_is_awaited(struct lf_sock *sock, int fd)
{
	return lf_sock_paired(sock) && may_be_copy(sock) && !lf_conn_fin_has_come(fd);
}

void lf_conn_take_late_copy(struct lf_sock *sock, int fd)
{
	int saved = errno;
	if (lf_lock_acquire(&sock->slot->rx_lock, LF_RANK_RX)) {
		if (may_be_copy(sock))
			(void)lf_conn_skip_copy(sock, fd, 0, 0);
		lf_lock_release(&sock->slot->rx_lock, LF_RANK_RX);
	}
	errno = saved;
}

void lf_conn_show_at_the_end(struct lf_sock *sock, int fd)
{
	if (lf_held_from_us(sock) && lf_conn_fin_has_come(fd))
		lf_held_ignore(sock);
}

/* The ring is empty: what does TCP say? */
static ssize_t look_at_tcp(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = lf_real.recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
	int error = n == -1 ? errno : 0;
	if (error == EAGAIN)
		return -EAGAIN;
	/* FIN, error or bytes: only now, after seeing them, does an empty ring count. (Our own SHUT_RD looks
	 * like FIN.) */
	if (n != 0 || lf_conn_fin_has_come(fd))
		lf_held_ignore(sock);
	if (ring_has_bytes(sock) || ring_is_over(sock)) {
		if (error) {
			atomic_store(&sock->slot->error, (uint32_t)error);
			lf_conn_tcp_failed(sock, fd);
		}
		return LF_LOOK_AGAIN;
	}
	if (error) {
		lf_conn_tcp_failed(sock, fd);
		return -error;
	}
	if (n == 0) {
		lf_conn_fin_seen(sock, fd);
		return atomic_load(&sock->slot->reset) ? LF_LOOK_AGAIN : 0;
	}
	/* TCP bytes without an end mark: somebody at the other end wrote past the library
	 * after it was fused. Their order against the ring is theirs to know; none is lost. */
	return recv_counted(sock, fd, cursor, SIZE_MAX, flags);
}

/* The peer may have died, or may be held up as anybody may, a few instructions before it ends its
 * ring. */
static void await_end(struct lf_sock *sock, int fd)
{
	for (int ms = 0; ms < PATIENCE_MS && !ring_is_over(sock); ms++) {
		struct pollfd bell = {.fd = atomic_load(&sock->bell)};
		struct lf_defer_pause pause = lf_defer_pause();
		int hung_up = lf_uncancelled_poll(&bell, 1, 1);
		lf_defer_resume(pause);
		if (hung_up == 1 && (bell.revents & (POLLHUP | POLLERR))) {
			/* Dead, it takes nothing back any more: what it left can be read. */
			lf_conn_peer_gone(sock, fd);
			return;
		}
	}
}

/* The peer is about to end its ring, and sends by TCP after that: if TCP has anything to tell
 * while the ring is still not ended, it had shut down before, is dying, or lies. (After SHUT_RD
 * TCP always has.) */
static ssize_t step_taken_back(struct lf_sock *sock, int fd)
{
	struct pollfd tcp = {.fd = fd, .events = POLLIN | POLLRDHUP};
	bool told = !(atomic_load(&sock->slot->shut) & LF_SHUT_RD) && lf_uncancelled_poll(&tcp, 1, 0) == 1;
	if (ring_is_over(sock)) {
		lf_states_enter_rx(sock->slot, LF_RX_ENDED);
		return LF_LOOK_AGAIN;
	}
	if (!told)
		return -EAGAIN;
	await_end(sock, fd);
	/* It was our own shutdown, by another thread and not in `shut` yet? */
	if (atomic_load(&sock->slot->shut) & LF_SHUT_RD)
		return LF_LOOK_AGAIN;
	if (lf_conn_taken_back(sock) && !ring_is_over(sock))
		lf_conn_corrupt(sock);
	return LF_LOOK_AGAIN;
}

static ssize_t step_fused(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	struct lf_slot *slot = sock->slot;
	if (lf_conn_taken_back(sock))
		return step_taken_back(sock, fd);
	/* Before a writer that sleeps finds the room which we make. */
	if (atomic_load_explicit(&slot->shut, memory_order_relaxed) & LF_SHUT_RD)
		lf_conn_refuse_more(sock);
	lf_conn_show_at_the_end(sock, fd);
	ssize_t n = take_from_ring(sock, cursor, flags);
	if (n) {
		if (n > 0 && !(flags & MSG_PEEK))
			skip_what_was_read(sock, fd);
		return n;
	}
	if (ring_is_over(sock)) {
		if (lf_conn_skip_copy(sock, fd, 0, 0) == LF_COPY_AWAITED)
			return atomic_load(&slot->shut) & LF_SHUT_RD ? 0 : -EAGAIN;
		lf_states_enter_rx(sock->slot, LF_RX_ENDED);
		return LF_LOOK_AGAIN;
	}
	if (!cursor->left && ring_has_bytes(sock))
		return 0; /* a receive of no bytes, and there are some */
	uint32_t error = error_for_receive(slot);
	if (error)
		return -(ssize_t)error;
	if (atomic_load(&slot->reset))
		return 0;
	if (atomic_load(&slot->shut) & LF_SHUT_RD)
		return after_shutdown(sock, fd);
	return look_at_tcp(sock, fd, cursor, flags);
}

/* This direction is plain, but the other one may be in the ring: its wishes come by
 * doorbell, so the kernel must not be slept in. */
static ssize_t step_plain(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	/* An error that we took from TCP comes behind TCP's last bytes. */
	if (lf_tx(sock) != LF_TX_FUSED && !has_error_for_receive(sock->slot))
		return LF_USE_TCP;
	ssize_t n = recv_counted(sock, fd, cursor, SIZE_MAX, flags);
	if (n < 0 && n != -EAGAIN)
		lf_conn_tcp_failed(sock, fd);
	uint32_t error = n <= 0 ? error_for_receive(sock->slot) : 0;
	if (error)
		return -(ssize_t)error;
	return n == 0 && cursor->left ? lf_conn_end_of_stream(sock, fd) : n;
}

/* One try, under rx_lock. */
static ssize_t step(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags)
{
	for (;;) {
		ssize_t n;
		switch (lf_rx(sock)) {
		case LF_RX_READY:
			n = step_ready(sock, fd, cursor, flags);
			break;
		case LF_RX_DRAIN:
			n = step_drain(sock, fd, cursor, flags);
			break;
		case LF_RX_FUSED:
			n = step_fused(sock, fd, cursor, flags);
			break;
		default:
			n = step_plain(sock, fd, cursor, flags);
			break;
		}
		if (n != LF_LOOK_AGAIN)
			return n;
	}
}

/* After step() took bytes, and the release of rx_lock: tail is stored, a full fence stands
 * between that and our look at `armed`, as one stands between a writer's store of `armed` and
 * its look at tail; see bell.c. A sleeping writer is woken once it counts as writable, not
 * before: by its own limit, which stands beside the flag and was stored before it. */
static void after_step(struct lf_sock *sock)
{
	lf_lock_fence_released();
	/* acquire: pairs with the release in lf_wait_arm(), for `below`. */
	if (atomic_load_explicit(&sock->in->writer.armed, memory_order_acquire) &&
	    !lf_conn_writer_has_to_wait(sock))
		lf_bell_wake(sock, &sock->in->writer);
}

bool lf_conn_writer_has_to_wait(const struct lf_sock *sock)
{
	uint64_t unread = atomic_load_explicit(&sock->in->p.head, memory_order_relaxed) -
			  atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed);
	return unread > atomic_load_explicit(&sock->in->writer.below, memory_order_relaxed);
}

/* The peer's ring is final, and TCP goes on behind it in the same stream. Urgent data come
 * next? A receive ends before them, tcp(7). */
static bool goes_on_in_tcp(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_ENDED &&
	       atomic_load_explicit(&sock->in->p.reason, memory_order_relaxed) !=
		       LF_REASON_URGENT_DATA;
}

/* Under rx_lock, after a step() that peeked at n bytes: at those, too, that follow them at the
 * other place. `cursor` is as it was before. The sum. */
static ssize_t peek_beyond_the_switch(struct lf_sock *sock, int fd, struct lf_cursor cursor, ssize_t n,
				      int flags)
{
	const struct lf_slot *slot = sock->slot;
	ssize_t more = 0;
	struct lf_cursor whole = cursor;
	lf_cursor_advance(&cursor, (size_t)n);
	if (!cursor.left)
		return n;
	if (lf_rx(sock) == LF_RX_DRAIN) {
		if (atomic_load(&slot->rx_tcp_left) != (uint64_t)n)
			return n;
		if (ring_is_over(sock) && goes_on_in_tcp(sock)) /* not a byte between the two */
			more = tcp_recv(fd, &whole, SIZE_MAX, flags, NULL) - n;
		else if (!lf_conn_taken_back(sock))
			more = take_from_ring(sock, &cursor, flags);
	} else if (lf_rx(sock) == LF_RX_FUSED && goes_on_in_tcp(sock)) {
		bool all = atomic_load(&sock->in->p.end_pos) == atomic_load(&slot->rx_tail) + (uint64_t)n;
		/* Where TCP has a copy of those n, they come first there as well. */
		if (all && copy_of(sock) == 0)
			more = tcp_recv(fd, &cursor, SIZE_MAX, flags, NULL);
		else if (all && lf_conn_skip_copy(sock, fd, (uint64_t)n, 0) == LF_COPY_SKIPPED)
			more = tcp_recv(fd, &whole, SIZE_MAX, flags, NULL) - n;
	}
	return more > 0 ? n + more : n;
}

/* Bytes that stay where they are lie in TCP: it would not let us sleep. Either those that were
 * peeked at, or some that follow a ring which has not ended, as only a peer sends them that
 * writes past the library. */
static bool tcp_has_been_seen(struct lf_sock *sock, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return lf_rx(sock) != LF_RX_FUSED || goes_on_in_tcp(sock) || lf_uncancelled_poll(&p, 1, 0) == 1;
}

bool lf_conn_enter_plain_rx(struct lf_sock *sock)
{
	/* Dekker with lf_conn_try_ready(): it stores READY, then loads rx_inside; we store
	 * rx_inside, then load rx. One of us sees the other. */
	atomic_fetch_add(&sock->slot->rx_inside, 1);
	enum lf_rx rx = (enum lf_rx)atomic_load(&sock->slot->rx);
	if (rx == LF_RX_PLAIN || rx == LF_RX_ENDED)
		return true;
	lf_count_down(&sock->slot->rx_inside);
	return false;
}

void lf_conn_leave_plain_rx(struct lf_sock *sock, ssize_t received)
{
	if (received > 0)
		atomic_fetch_add(&sock->slot->tcp_rcvd, (uint64_t)received);
	lf_count_down(&sock->slot->rx_inside);
}

struct plain_call {
	struct lf_sock *sock;
	ssize_t received;
};

static void leave_plain(struct plain_call *call)
{
	lf_conn_leave_plain_rx(call->sock, call->received);
}

/* One buffer goes by recvfrom, which has less to copy in and out than recvmsg. What the program
 * made itself, only the kernel may look at: it answers EFAULT and EINVAL. */
static ssize_t tcp_receive(int fd, const struct lf_io *io, int flags)
{
	struct msghdr *msg = io->msg;
	if (!io->one)
		return lf_real.recvmsg(fd, msg, flags);
	return lf_real.recvfrom(fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, flags, NULL, NULL);
}

/* The kernel's own receive, counted as long as the connection may still be fused.
 * LF_LOOK_AGAIN: it has just left TCP. */
static ssize_t plain_recv(struct lf_sock *sock, int fd, struct lf_io *io)
{
	struct lf_slot *slot = sock->slot;
	enum lf_rx rx = lf_rx(sock);
	if (rx == LF_RX_ENDED || atomic_load(&sock->pairing) == LF_PAIRING_DECLINED ||
	    atomic_load(&slot->error)) {
		/* What TCP has can be read, also after a reset that only we know of. */
		bool over = has_error_for_receive(slot) ||
			    (rx == LF_RX_ENDED && atomic_load(&slot->reset));
		ssize_t n = tcp_receive(fd, io, io->flags | (over ? MSG_DONTWAIT : 0));
		if (over && n <= 0)
			return -(ssize_t)error_for_receive(slot);
		if (n == -1)
			return lf_conn_kernel_said(sock, fd, -errno);
		if (n > 0 && !(io->flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)))
			atomic_fetch_add(&slot->tcp_rcvd, (uint64_t)n);
		if (n == 0 && lf_sock_paired(sock))
			return lf_conn_end_of_stream(sock, fd);
		return n;
	}
	if (!lf_conn_enter_plain_rx(sock))
		return LF_LOOK_AGAIN;
	struct plain_call call __attribute__((cleanup(leave_plain))) = {sock, 0};
	lf_rank_sleeps();
	ssize_t n = tcp_receive(fd, io, io->flags);
	if (n > 0 && !(io->flags & MSG_PEEK))
		call.received = n;
	return n == -1 ? -errno : n;
}

static struct lf_wait reading_wait(struct lf_sock *sock, size_t need, struct lf_handlers *since)
{
	struct lf_wait wait = {
		.want = LF_WANT_READ,
		.need = need < sock->ring_size ? need : sock->ring_size,
		.since = since,
	};
	lf_wait_limit(sock, &wait);
	return wait;
}

/* What the kernel has after part of a receive came from elsewhere; `awaited` bytes of it are waited
 * for. If the call began as one that `waits`, O_NONBLOCK that was set since is not for it; and any handler
 * ends it, where the kernel would begin a receive of the rest alone anew: so that does not wait itself. */
static ssize_t rest_by_tcp(struct lf_sock *sock, int fd, struct lf_cursor *cursor, int flags,
			   size_t awaited, bool waits)
{
	ssize_t sum = 0;
	uint32_t handlers_run = lf_defer_calls();
	/* The kernel wakes a receive for no fewer than SO_RCVLOWAT, and part of those came by the ring. */
	bool too_few = awaited && waits &&
		       atomic_load_explicit(&sock->slot->rcvlowat, memory_order_relaxed) > 1;
	int64_t longest = too_few ? LF_SHARED_SLEEP_NS : LF_FOREVER;
	while (cursor->left) {
		if (cursor->offset == cursor->iov->iov_len) {
			lf_cursor_advance(cursor, 0);
			continue;
		}
		struct iovec iov = {(uint8_t *)cursor->iov->iov_base + cursor->offset,
				    cursor->iov->iov_len - cursor->offset};
		int how = awaited && !waits ? MSG_WAITALL : MSG_DONTWAIT;
		if (awaited && iov.iov_len > awaited)
			iov.iov_len = awaited;
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = lf_real.recvmsg(fd, &msg, flags | how);
		int error = n == -1 ? errno : 0; /* the wait has one of its own */
		bool waits_on = awaited && waits;
		if (error == EAGAIN && waits_on &&
		    lf_wait_tcp(fd, POLLIN | POLLRDHUP, longest, handlers_run) == 0 &&
		    lf_defer_calls() == handlers_run)
			continue;
		if (error && error != EAGAIN && error != EINTR)
			atomic_store(&sock->slot->error, (uint32_t)error); /* for the next call */
		if (n <= 0)
			break;
		sum += n;
		awaited -= awaited ? (size_t)n : 0;
		lf_cursor_advance(cursor, (size_t)n);
		if ((size_t)n < iov.iov_len && !(waits_on && awaited))
			break;
	}
	return sum;
}

/* Bytes that the next receive will get from the ring. 0 while TCP still has some that
 * come first: then TCP's own readiness tells. */
static uint64_t ring_input(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	switch (lf_rx(sock)) {
	case LF_RX_READY:
		if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_PLAIN ||
		    atomic_load_explicit(&sock->in->arrivals.tcp_total, memory_order_relaxed) !=
			    atomic_load_explicit(&slot->tcp_rcvd, memory_order_relaxed))
			return 0;
		break;
	case LF_RX_DRAIN:
		if (atomic_load_explicit(&slot->rx_tcp_left, memory_order_relaxed))
			return 0;
		break;
	case LF_RX_FUSED:
		break;
	default:
		return 0;
	}
	if (lf_conn_taken_back(sock))
		return 0;
	return unread_in_ring(sock, atomic_load_explicit(&slot->rx_tail, memory_order_relaxed));
}

uint64_t lf_conn_left_before_ring(const struct lf_sock *sock)
{
	const struct lf_slot *slot = sock->slot;
	if (lf_rx(sock) == LF_RX_DRAIN)
		return atomic_load(&slot->rx_tcp_left);
	if (lf_rx(sock) != LF_RX_READY ||
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_PLAIN)
		return 0;
	return atomic_load(&sock->in->arrivals.tcp_total) - atomic_load(&slot->tcp_rcvd);
}

bool lf_conn_tcp_comes_first(const struct lf_sock *sock)
{
	return lf_conn_left_before_ring(sock) != 0;
}

/* TCP's last bytes before the ring, or the ring's last before TCP, have just been taken: what
 * follows them at the other place is part of the same stream, so of the same call. */
static bool more_beyond_the_switch(struct lf_sock *sock)
{
	switch (lf_rx(sock)) {
	case LF_RX_READY:
	case LF_RX_DRAIN:
		if (ring_input(sock))
			return true;
		if (lf_conn_tcp_comes_first(sock))
			return false;
		__attribute__((fallthrough)); /* the peer may have left its ring before a byte was in it */
	case LF_RX_FUSED:
		return ring_is_over(sock) && goes_on_in_tcp(sock);
	case LF_RX_ENDED: /* with the bytes that were taken, by lf_conn_ask_again() */
		return goes_on_in_tcp(sock);
	default:
		return false;
	}
}

/* To a peek that has seen all there is: the stream ends, or urgent data come next. */
static bool no_more_will_come(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP | POLLPRI};
	return lf_uncancelled_poll(&p, 1, 0) == 1;
}

/* A receive that may wait finds the ring empty and no sign that anything but bytes will come:
 * what it waits for is most likely on its way, so it spins before it asks TCP, which takes a
 * system call. An end that nobody announced is found a spin later. Returns whether it spun in
 * vain. */
static bool spins_first(struct lf_sock *sock)
{
	const struct lf_slot *slot = sock->slot;
	if (lf_rx(sock) != LF_RX_FUSED || lf_conn_readable(sock, 1) ||
	    (atomic_load_explicit(&slot->shut, memory_order_relaxed) |
	     atomic_load_explicit(&sock->in->p.fin_hint, memory_order_relaxed) |
	     atomic_load_explicit(&sock->fin_seen, memory_order_relaxed) |
	     atomic_load_explicit(&sock->hung_up, memory_order_relaxed)))
		return false;
	struct lf_wait wait = {.want = LF_WANT_READ, .need = 1};
	return !lf_wait_spin(sock, &wait);
}

/* Under rx_lock: TCP has brought all that comes before the ring? Then it is the ring's turn, without
 * another look at TCP. */
static void go_on_in_ring(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	if (lf_rx(sock) == LF_RX_READY &&
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_PLAIN &&
	    !lf_conn_tcp_comes_first(sock)) {
		atomic_store(&slot->rx_tcp_left, 0);
		lf_states_enter_rx(slot, LF_RX_DRAIN);
	}
	if (lf_rx(sock) == LF_RX_DRAIN && atomic_load(&slot->rx_tcp_left) == 0)
		lf_states_enter_rx(slot, LF_RX_FUSED);
}

/* Bytes that the ring has, for a socket without a descriptor. */
static ssize_t take_what_is_left(struct lf_sock *sock, struct lf_cursor *cursor, int flags)
{
	if (!lf_lock_acquire(&sock->slot->rx_lock, LF_RANK_RX))
		return 0;
	bool asked = lf_conn_take_turn(sock);
	go_on_in_ring(sock);
	ssize_t n = ring_input(sock) ? take_from_ring(sock, cursor, flags) : 0;
	if (asked)
		lf_conn_ask_again(sock);
	lf_lock_release(&sock->slot->rx_lock, LF_RANK_RX);
	return n > 0 ? n : 0;
}

/* Another thread has closed the socket under a receive that slept. The kernel's would go on
 * with the open file, so this one does with the ring; TCP is out of reach: its number may be
 * anybody's. The last such receive sees to the rest of the closing. */
static ssize_t recv_after_close(struct lf_sock *sock, struct lf_cursor *cursor, int flags,
				struct lf_wait *wait)
{
	ssize_t n;
	int r = 0;
	/* For what it can't take, it would not sleep. */
	while ((n = take_what_is_left(sock, cursor, flags)) == 0 && r == 0 && cursor->left &&
	       !ring_is_over(sock) && !atomic_load(&sock->hung_up) &&
	       !atomic_load(&sock->slot->reset) && !atomic_load(&sock->slot->error) &&
	       !lf_conn_tcp_comes_first(sock))
		r = lf_wait(sock, -1, wait);
	if (atomic_load(&sock->readers) == 0)
		lf_conn_close_ring(sock);
	return n ? n : r;
}

/* So many bytes a receive of `wanted` waits for. */
static size_t needed(const struct lf_sock *sock, int flags, size_t wanted)
{
	size_t need = atomic_load_explicit(&sock->slot->rcvlowat, memory_order_relaxed);
	if ((flags & MSG_PEEK) && need > lf_conn_low_water(sock))
		need = lf_conn_low_water(sock);
	return (flags & MSG_WAITALL) || need > wanted ? wanted : need;
}

/* The kernel has given fewer than are waited for to a call that began to wait before O_NONBLOCK was set. */
static ssize_t wait_for_the_rest(struct lf_sock *sock, int fd, struct lf_io *io, ssize_t n)
{
	struct lf_cursor cursor = cursor_of(io->msg);
	size_t need = needed(sock, io->flags, cursor.left);
	if ((size_t)n >= need)
		return n;
	lf_cursor_advance(&cursor, (size_t)n);
	return n + rest_by_tcp(sock, fd, &cursor, io->flags, need - (size_t)n, true);
}

/* LF_LOOK_AGAIN: the direction turned out to be plain before anything was received. */
static ssize_t fused_recv(struct lf_sock *sock, int fd, struct lf_io *io, struct lf_handlers *since)
{
	struct lf_cursor cursor = cursor_of(io->msg);
	size_t wanted = cursor.left;
	if (wanted == LF_CURSOR_REFUSED)
		return -EINVAL;
	bool dontwait = (io->flags & MSG_DONTWAIT) || (lf_sock_nonblocking(sock) && !io->waits);
	bool peek = (io->flags & MSG_PEEK) != 0, looked_at_end = false;
	size_t need = needed(sock, io->flags, wanted);
	struct lf_wait wait = {.want = LF_WANT_WRITE};
	ssize_t got = 0;
	io->waits = !dontwait && !atomic_load_explicit(&sock->slot->rcvtimeo, memory_order_relaxed);
	lf_conn_service(sock, fd);
	bool spun = !dontwait && spins_first(sock);
	fd = lf_sock_named(sock, fd);
	if (fd < 0) { /* closed while we spun */
		int given_away = lf_conn_given_away(since);
		if (given_away)
			return given_away;
		wait = reading_wait(sock, need, since);
		return dontwait ? -EBADF : recv_after_close(sock, &cursor, io->flags, &wait);
	}
	for (;;) {
		/* Before the step that may move the first: one that runs once they are moved ends the call. */
		if (io->waits && !got && !io->continued)
			lf_handlers_begin_anew(since);
		if (!lf_lock_acquire(&sock->slot->rx_lock, LF_RANK_RX))
			return got ? got : -EAGAIN;
		bool asked = lf_conn_take_turn(sock), by_tcp = lf_rx(sock) == LF_RX_ENDED;
		ssize_t n = step(sock, fd, &cursor, io->flags);
		if (peek && n > 0)
			n = peek_beyond_the_switch(sock, fd, cursor_of(io->msg), n, io->flags);
		if (asked)
			lf_conn_ask_again(sock);
		lf_lock_release(&sock->slot->rx_lock, LF_RANK_RX);
		if (n > 0)
			after_step(sock);
		if (n == LF_USE_TCP) {
			bool moved = got && !peek; /* what was peeked at is looked at again */
			bool ended = lf_handlers_end(since, moved);
			if (!moved)
				return ended ? -EINTR : LF_LOOK_AGAIN;
			ended |= is_at_urgent_data(fd);
			size_t awaited = dontwait || (size_t)got >= need ? 0 : need - (size_t)got;
			return got + (ended ? 0 : rest_by_tcp(sock, fd, &cursor, io->flags, awaited,
								   io->waits));
		}
		if (n < 0 && n != -EAGAIN) {
			bool nothing_asked = wanted == 0 && wait.want == LF_WANT_READ;
			if (!got && !nothing_asked)
				return n;
			atomic_store(&sock->slot->error, (uint32_t)-n); /* for the next call */
			return got;
		}
		if (n == 0)
			return got;
		if (n > 0) {
			if (peek) {
				got = n;
				if (dontwait || (size_t)n >= need || (size_t)n >= sock->ring_size)
					return got;
				if (no_more_will_come(fd)) {
					if (looked_at_end || !lf_held_from_us(sock))
						return got;
					/* What was held when we looked counts at the end: one look more. */
					looked_at_end = true;
					cursor = cursor_of(io->msg);
					continue;
				}
			} else {
				got += n;
				if (cursor.left && !by_tcp && more_beyond_the_switch(sock) &&
				    !is_at_urgent_data(fd))
					continue;
				if (dontwait || cursor.left == 0 || (size_t)got >= need ||
				    (lf_rx(sock) != LF_RX_FUSED && is_at_urgent_data(fd)))
					return got;
			}
		}
		/* It went on to where the stream goes on, and there is nothing yet. */
		if (!peek && got && (size_t)got >= need)
			return got;
		if (dontwait)
			return got ? got : -EAGAIN;
		if (wait.want != LF_WANT_READ)
			wait = reading_wait(sock, need, since);
		/* Taking what there is, however little: a writer that has filled the ring waits
		 * for that, and will publish no more before. */
		wait.need = peek ? need : 1;
		wait.seen_in_tcp = peek && n > 0 && tcp_has_been_seen(sock, fd);
		wait.spun = spun;
		spun = false;
		if (got || io->continued)
			wait.never_restarts = true;
		if (peek)
			cursor = cursor_of(io->msg);
		int r = lf_wait(sock, fd, &wait);
		/* A receive of no bytes sleeps as any, but nothing makes it fail then. */
		if (r)
			return got || wanted == 0 ? got : r;
		fd = lf_sock_named(sock, fd);
		if (fd < 0 && !got && (r = lf_conn_given_away(since)) != 0)
			return r;
		if (fd < 0)
			return got ? got : recv_after_close(sock, &cursor, io->flags, &wait);
	}
}

/* TCP_INQ: how many bytes are left, as control data; put_cmsg() in Linux says what becomes of too little
 * room. */
static void tell_what_is_left(struct lf_sock *sock, int fd, struct msghdr *msg)
{
	size_t room = msg->msg_control ? msg->msg_controllen : 0;
	int left = lf_options_left(sock, fd);
	struct cmsghdr head = {
		.cmsg_len = CMSG_LEN(sizeof(left)), .cmsg_level = IPPROTO_TCP, .cmsg_type = TCP_INQ};
	if (room < head.cmsg_len)
		msg->msg_flags |= MSG_CTRUNC;
	if (room < sizeof(head))
		room = 0;
	else if (room < head.cmsg_len)
		head.cmsg_len = room;
	msg->msg_controllen = room < CMSG_SPACE(sizeof(left)) ? room : CMSG_SPACE(sizeof(left));
	if (room == 0)
		return;
	memcpy(msg->msg_control, &head, sizeof(head));
	memcpy((char *)msg->msg_control + sizeof(head), &left, head.cmsg_len - sizeof(head));
}

bool lf_conn_sleeps_after_handlers(int fd, const struct lf_io *io, const struct lf_handlers *since)
{
	return lf_defer_calls() != since->calls && !(io->flags & MSG_DONTWAIT) &&
	       !(lf_real.fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* As plain_send_after_handlers(). */
static ssize_t plain_recv_after_handlers(struct lf_sock *sock, int fd, struct lf_io *io,
					 struct lf_handlers *since)
{
	int flags = io->flags;
	io->flags |= MSG_DONTWAIT;
	ssize_t n = plain_recv(sock, fd, io);
	io->flags = flags;
	bool by_any = io->continued || atomic_load(&sock->slot->rcvtimeo);
	if (n != -EAGAIN)
		return n;
	if (lf_handlers_end(since, by_any))
		return -EINTR;
	lf_handlers_begin_anew(since);
	return LF_LOOK_AGAIN;
}

int lf_conn_given_away(const struct lf_handlers *since)
{
	if (lf_handlers_end(since, false))
		return -EINTR;
	return lf_defer_calls() != since->calls ? LF_BEGIN_ANEW : 0;
}

ssize_t lf_conn_recv(struct lf_sock *sock, int fd, struct lf_io *io)
{
	if (io->flags & (MSG_OOB | MSG_ERRQUEUE)) {
		ssize_t n = lf_real.recvmsg(fd, io->msg, io->flags);
		return n == -1 ? -errno : n;
	}
	struct lf_handlers begin = lf_handlers_so_far(), *since = io->since ? io->since : &begin;
	lf_pairing_step(sock, fd);
	for (;;) {
		ssize_t n;
		if (lf_sock_paired(sock) && lf_rx(sock) == LF_RX_PLAIN)
			lf_conn_try_ready(sock, fd);
		enum lf_rx rx = lf_rx(sock);
		bool plain = (rx == LF_RX_PLAIN || rx == LF_RX_ENDED) &&
			     !has_error_for_receive(sock->slot);
		if (lf_sock_paired(sock) && (!plain || lf_tx(sock) == LF_TX_FUSED)) {
			pthread_testcancel(); /* a thread that never has to wait for bytes ends here */
			n = fused_recv(sock, fd, io, since);
			if (n >= 0) {
				io->msg->msg_flags = io->flags & MSG_CMSG_CLOEXEC;
				if (!io->one &&
				    atomic_load_explicit(&sock->slot->inq, memory_order_relaxed))
					tell_what_is_left(sock, fd, io->msg);
				else
					io->msg->msg_controllen = 0;
				if (io->msg->msg_name)
					io->msg->msg_namelen = 0;
			}
		} else {
			n = io->flags & MSG_DONTWAIT ? 0 : lf_pairing_await_input(sock, fd, &io->waits, since);
			if (n)
				return n;
			if (lf_sock_paired(sock) && lf_rx(sock) == LF_RX_READY)
				continue;
			uint32_t handlers_run = lf_defer_calls();
			n = lf_conn_sleeps_after_handlers(fd, io, since) ?
				    plain_recv_after_handlers(sock, fd, io, since) :
				    plain_recv(sock, fd, io);
			if (n >= 0 && !io->continued) /* the kernel's call has begun anew by itself */
				lf_handlers_begin_anew(since);
			if (n == -EAGAIN && io->waits) {
				n = lf_wait_tcp(fd, POLLIN, LF_FOREVER, handlers_run);
				if (n == 0)
					continue;
			}
			if (n > 0 && io->waits && !(io->flags & MSG_PEEK) && lf_sock_nonblocking(sock))
				n = wait_for_the_rest(sock, fd, io, n);
		}
		if (n != LF_LOOK_AGAIN)
			return n;
		fd = lf_sock_named(sock, fd);
		if (fd < 0)
			return -EBADF;
	}
}

/* TCP's bytes where there is a ring, too, through a buffer, so that they are counted. What `move`
 * did not use stays with TCP. */
static ssize_t move_out_of_tcp(struct lf_sock *sock, int fd, const struct lf_bulk *bulk)
{
	char buffer[16384];
	struct iovec iov = {buffer, bulk->n < sizeof(buffer) ? bulk->n : sizeof(buffer)};
	struct lf_cursor cursor = {.iov = &iov, .count = 1, .left = iov.iov_len};
	/* Written past the library: the next step might find bytes in the ring in their place. */
	bool beside = lf_rx(sock) == LF_RX_FUSED;
	ssize_t n = beside ? tcp_recv(fd, &cursor, SIZE_MAX, MSG_PEEK, NULL) :
			     step(sock, fd, &cursor, MSG_PEEK);
	if (n <= 0)
		return n;
	iov.iov_len = (size_t)n;
	ssize_t used = bulk->move(bulk->context, &iov, 1, (size_t)n);
	if (used <= 0)
		return used;
	cursor = (struct lf_cursor){.iov = &iov, .count = 1, .left = (size_t)used};
	iov.iov_len = (size_t)used;
	return beside ? recv_counted(sock, fd, &cursor, SIZE_MAX, 0) : step(sock, fd, &cursor, 0);
}

static ssize_t move_out(struct lf_sock *sock, int fd, const struct lf_bulk *bulk)
{
	char byte;
	struct iovec one = {&byte, 1};
	struct lf_cursor cursor = {.iov = &one, .count = 1, .left = 1};
	struct lf_slot *slot = sock->slot;
	/* Moves the state on, and finds an end or an error only where no byte comes before it. */
	ssize_t r = step(sock, fd, &cursor, MSG_PEEK);
	bool plain = lf_rx(sock) == LF_RX_PLAIN || lf_rx(sock) == LF_RX_ENDED;
	/* TCP has that byte, or an end before urgent data, so need not wait. */
	if (plain && (r > 0 || (r == -EAGAIN && is_at_urgent_data(fd))))
		return LF_USE_TCP;
	if (r <= 0)
		return r;
	uint64_t tail = atomic_load(&slot->rx_tail);
	uint64_t unread = unread_in_ring(sock, tail);
	if (lf_rx(sock) != LF_RX_FUSED || unread == 0)
		return move_out_of_tcp(sock, fd, bulk);
	if (unread > sock->ring_size) {
		lf_conn_corrupt(sock);
		return -ECONNRESET;
	}
	size_t n = bulk->n < unread ? bulk->n : (size_t)unread;
	struct iovec pieces[2];
	int count = lf_ring_pieces(&sock->in_ring, tail + origin_of(sock), n, pieces);
	ssize_t used = bulk->move(bulk->context, pieces, count, n);
	if (used <= 0)
		return used;
	LF_INVARIANT((size_t)used <= n);
	atomic_store(&slot->rx_tail, tail + (uint64_t)used);
	atomic_store_explicit(&sock->in->t.tail, tail + (uint64_t)used, memory_order_release);
	skip_what_was_read(sock, fd);
	return used;
}

ssize_t lf_conn_recv_into(struct lf_sock *sock, int fd, const struct lf_bulk *bulk)
{
	lf_pairing_step(sock, fd);
	if (!lf_sock_paired(sock))
		return LF_USE_TCP;
	if (lf_rx(sock) == LF_RX_PLAIN)
		lf_conn_try_ready(sock, fd);
	struct lf_wait wait = reading_wait(sock, 1, bulk->since);
	bool may_wait = bulk->wait && !lf_sock_nonblocking(sock);
	for (;;) {
		if (!lf_lock_acquire(&sock->slot->rx_lock, LF_RANK_RX))
			return -EAGAIN;
		bool asked = lf_conn_take_turn(sock);
		ssize_t r = move_out(sock, fd, bulk);
		if (asked)
			lf_conn_ask_again(sock);
		lf_lock_release(&sock->slot->rx_lock, LF_RANK_RX);
		if (r > 0)
			after_step(sock);
		if (r != -EAGAIN || !may_wait)
			return r;
		int w = lf_wait(sock, fd, &wait);
		if (w)
			return w;
		fd = lf_sock_named(sock, fd);
		if (fd < 0) /* closed by another thread; or by a handler */
			return lf_conn_given_away(bulk->since);
	}
}

uint32_t lf_conn_waits_since(struct lf_sock *sock, uint32_t now)
{
	if (!ring_input(sock))
		return UINT32_MAX;
	uint32_t tail = (uint32_t)atomic_load_explicit(&sock->slot->rx_tail, memory_order_relaxed);
	/* The last send is mostly the only one, and lies on the line that has `head`. */
	uint64_t best = atomic_load_explicit(&sock->in->p.arrival, memory_order_relaxed);
	for (int i = 0; i < LF_ARRIVALS && (uint32_t)(best >> 32) != tail; i++) {
		uint64_t other =
			atomic_load_explicit(&sock->in->arrivals.last[i], memory_order_relaxed);
		/* Began at or before the byte, and nearest; otherwise after it, and nearest. */
		int32_t behind = (int32_t)(tail - (uint32_t)(other >> 32));
		int32_t best_behind = (int32_t)(tail - (uint32_t)(best >> 32));
		if (other && (behind >= 0 ? best_behind < 0 || behind < best_behind :
					    best_behind < behind))
			best = other;
	}
	int32_t age = (int32_t)(now - (uint32_t)best);
	return age < 0 ? 0 : (uint32_t)age;
}

bool lf_conn_has_input(struct lf_sock *sock, size_t need)
{
	uint64_t unread = ring_input(sock);
	return (unread && unread >= need) || has_error_for_receive(sock->slot) ||
	       (atomic_load_explicit(&sock->slot->error, memory_order_relaxed) &&
		atomic_load_explicit(&sock->slot->reset, memory_order_relaxed));
}

bool lf_conn_readable(struct lf_sock *sock, size_t need)
{
	/* A waiter must also see that its state has to move on, though no byte came. */
	enum lf_rx rx = lf_rx(sock);
	if (rx == LF_RX_READY &&
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_PLAIN)
		return true;
	return lf_conn_has_input(sock, need) ||
	       /* Of the rest of a copy TCP tells. */
	       (rx == LF_RX_FUSED && ring_is_over(sock) && !lf_conn_copy_left(sock)) ||
	       atomic_load_explicit(&sock->slot->reset, memory_order_relaxed);
}
