/* conn_send.c - sending: TCP or ring, and how to wait for room. */
#define _GNU_SOURCE
#include "clock.h"
#include "conn.h"
#include "epoll.h"
#include "held.h"
#include "invariant.h"
#include "pairing.h"
#include "real.h"
#include "start.h"
#include "tap.h"
#include "uncancelled.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

bool lf_conn_enter_plain_tx(struct lf_sock *sock)
{
	/* Dekker with lf_conn_try_fuse(): it stores FUSED, then loads tx_inside; we store
	 * tx_inside, then load tx. */
	atomic_fetch_add(&sock->slot->tx_inside, 1);
	if ((enum lf_tx)atomic_load(&sock->slot->tx) != LF_TX_FUSED)
		return true;
	lf_count_down(&sock->slot->tx_inside);
	return false;
}

void lf_conn_leave_plain_tx(struct lf_sock *sock, ssize_t sent)
{
	if (sent > 0)
		atomic_fetch_add(&sock->slot->tcp_sent, (uint64_t)sent);
	lf_count_down(&sock->slot->tx_inside);
}

void lf_conn_may_have_stalled(struct lf_sock *sock)
{
	atomic_fetch_add(&sock->tx_stalls, 1);
}

/* The ring had too little room: what waits for more waits no longer. The reader may have made some,
 * and rung, before the count said that this is an edge: a thread asleep in an epoll set has looked in
 * vain. Dekker: we store the count, then load tail; it armed, hence saw tail or is rung for. */
static void stalled(struct lf_sock *sock, int fd)
{
	lf_conn_push(sock, fd);
	lf_conn_may_have_stalled(sock);
	if (!atomic_load(&sock->registration))
		return;
	lf_wait_arm(sock, LF_WANT_WRITE);
	if (lf_conn_writable(sock))
		lf_epoll_room(sock);
}

void lf_conn_stalled_in_tcp(struct lf_sock *sock, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	lf_conn_may_have_stalled(sock);
	/* The kernel may have told of room, once, before the count said that this is an edge: a thread
	 * with an epoll set has taken it for what the program knew (is_stale()). Dekker: we store the
	 * count, then ask the kernel; it has asked the kernel, then loaded the count. */
	if (atomic_load(&sock->registration) && lf_uncancelled_poll(&p, 1, 0) == 1)
		lf_epoll_refresh(sock);
}

struct plain_call {
	struct lf_sock *sock;
	ssize_t sent;
};

static void leave_plain(struct plain_call *call)
{
	lf_conn_leave_plain_tx(call->sock, call->sent);
}

static ssize_t broken_pipe(int flags)
{
	if (!(flags & MSG_NOSIGNAL))
		pthread_kill(pthread_self(), SIGPIPE);
	return -EPIPE;
}

/* After SHUT_WR the kernel says what a send meets: the socket's error comes before EPIPE. A
 * send of no bytes asks it, and raises its SIGPIPE. */
static ssize_t after_shutdown(int fd, int flags)
{
	if (lf_real.sendto(fd, NULL, 0, flags & MSG_NOSIGNAL, NULL, 0) == -1)
		return -errno;
	return broken_pipe(flags); /* shutdown(2) is about to come to the kernel */
}

/* What a send meets on a socket that acts as after RST; 0: nothing special. */
static ssize_t after_reset(struct lf_sock *sock, int flags)
{
	uint32_t error = atomic_exchange(&sock->slot->error, 0);
	if (error == EPIPE)
		return broken_pipe(flags);
	if (error)
		return -(ssize_t)error;
	if (atomic_load(&sock->slot->reset))
		return broken_pipe(flags);
	return 0;
}

static struct lf_cursor cursor_of(const struct msghdr *msg)
{
	struct lf_cursor cursor = lf_cursor_over(msg->msg_iov, msg->msg_iovlen);
	while (cursor.count && cursor.iov->iov_len == 0) {
		cursor.iov++;
		cursor.count--;
	}
	return cursor;
}

/* One buffer goes by sendto, which has less to copy in than sendmsg; see tcp_receive(). */
static ssize_t tcp_send(int fd, const struct lf_io *io)
{
	const struct msghdr *msg = io->msg;
	if (!io->one)
		return lf_real.sendmsg(fd, msg, io->flags);
	return lf_real.sendto(fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, io->flags, NULL, 0);
}

/* The TCP side of a full ring: a reset there must not be hidden by our waiting. */
bool lf_conn_tcp_is_broken(int fd)
{
	struct pollfd p = {.fd = fd};
	return lf_uncancelled_poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP));
}

static ssize_t plain_send(struct lf_sock *sock, int fd, struct lf_io *io)
{
	enum lf_tx tx = lf_tx(sock);
	if (tx == LF_TX_ENDED) {
		/* Of a peer that died with bytes unread in a ring that had ended the kernel knows FIN;
		 * unless it knows of RST, and tells that itself. */
		if (lf_conn_fin_is_doubtful(sock) && !lf_conn_tcp_is_broken(fd))
			lf_conn_resolve_fin(sock, fd);
		ssize_t bad = after_reset(sock, io->flags);
		if (bad)
			return bad;
	}
	if (!lf_conn_enter_plain_tx(sock))
		return LF_LOOK_AGAIN;
	struct plain_call call __attribute__((cleanup(leave_plain))) = {sock, 0};
	lf_rank_sleeps();
	ssize_t n = tcp_send(fd, io);
	call.sent = n;
	int error = errno;
	if (n == -1 && error != EAGAIN)
		lf_conn_may_have_stalled(sock);
	else if (n == -1 || (size_t)n < cursor_of(io->msg).left)
		lf_conn_stalled_in_tcp(sock, fd);
	return n == -1 ? lf_conn_kernel_said(sock, fd, -error) : n;
}

/* The peer may have set SO_RCVBUF since. */
static uint32_t follow_peers_limit(struct lf_sock *sock, uint32_t limit)
{
	uint32_t theirs = atomic_load_explicit(&sock->out->c.limit, memory_order_relaxed);
	if (theirs == 0 ||
	    theirs == atomic_load_explicit(&sock->slot->peer_limit, memory_order_relaxed))
		return limit;
	atomic_store_explicit(&sock->slot->peer_limit, theirs, memory_order_relaxed);
	lf_conn_limits_changed(sock);
	return atomic_load_explicit(&sock->slot->tx_limit, memory_order_relaxed);
}

/* Bytes there is room for; LF_LOOK_AGAIN: the peer's tail is impossible. */
static ssize_t room(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	uint64_t head = atomic_load_explicit(&slot->tx_head, memory_order_relaxed);
	uint64_t unread = head - atomic_load_explicit(&slot->tx_tail, memory_order_relaxed);
	uint32_t limit = atomic_load_explicit(&sock->slot->tx_limit, memory_order_relaxed);
	/* The tail as last seen is enough until it leaves too little room: one cache miss
	 * for many sends. */
	if (unread > limit / 2) {
		uint64_t tail = atomic_load_explicit(&sock->out->t.tail, memory_order_acquire);
		unread = head - tail;
		if (unread > sock->ring_size) {
			lf_conn_corrupt(sock);
			return LF_LOOK_AGAIN;
		}
		atomic_store_explicit(&slot->tx_tail, tail, memory_order_relaxed);
		limit = follow_peers_limit(sock, limit);
	}
	return unread < limit ? (ssize_t)(limit - unread) : 0;
}

enum { PAGE = 4096 };

/* Where n bytes at `head` go. Before they touch a page more, they start over where they touch
 * fewest, if the peer has taken all that was there. */
static uint64_t position_for(struct lf_sock *sock, uint64_t head, size_t n)
{
	struct lf_slot *slot = sock->slot;
	uint64_t origin = atomic_load_explicit(&slot->tx_origin, memory_order_relaxed);
	size_t place = (size_t)((head + origin) & (sock->ring_size - 1));
	size_t left = lf_segment_left_in_page(sock->ring_size, sock->out_index, place);
	if ((n > left || left == PAGE || place == 0) &&
	    /* acquire: the peer's reads are over before we write over what it read. */
	    atomic_load_explicit(&sock->out->t.tail, memory_order_acquire) == head) {
		origin = lf_segment_home(sock->ring_size, sock->out_index, n) - head;
		/* The slot first: whoever takes over a dead owner's lock goes by it.
		 * lf_conn_publish() tells the peer, which does not look before there is a byte. */
		atomic_store_explicit(&slot->tx_origin, origin, memory_order_relaxed);
	}
	return head + origin;
}

/* --- memory for the ring's pages ---
 *
 * Which the kernel gives when they are first touched, or refuses then: by SIGBUS, where it promises
 * no more than it has (vm.overcommit_memory 2). A system call that is to store something in such a
 * page takes the same fault, and says EFAULT. So one stores a byte in each page before we do, where
 * we are about to write in any case. Not by the C library's getrandom: that may store it itself.
 *
 * Messages fill the ring from where the last one ended, or start over at a home; so what has its
 * memory is one stretch, but for what a home farther off makes us forget and find out anew. */

static bool back_page(struct lf_sock *sock, size_t place)
{
	uint8_t *byte = lf_ring_at(&sock->out_ring, place, 1);
	return syscall(SYS_getrandom, byte, (size_t)1, GRND_NONBLOCK) == 1 || errno != EFAULT;
}

static __attribute__((noinline)) bool back_more(struct lf_sock *sock, uint32_t place, size_t n)
{
	struct lf_slot *slot = sock->slot;
	uint32_t from = atomic_load_explicit(&slot->tx_backed_from, memory_order_relaxed);
	size_t size = atomic_load_explicit(&slot->tx_backed, memory_order_relaxed);
	size_t ahead = (place - from) & (sock->ring_size - 1);
	int saved = errno;
	if (ahead > size) {
		/* In this order: who takes over from a process that is killed here trusts both. */
		atomic_store_explicit(&slot->tx_backed, 0, memory_order_relaxed);
		from = place;
		ahead = size = 0;
	}
	while (size < ahead + n && size < sock->ring_size) {
		size_t next = (from + size) & (sock->ring_size - 1);
		if (!back_page(sock, next)) {
			errno = saved;
			return false;
		}
		size += lf_segment_left_in_page(sock->ring_size, sock->out_index, next);
	}
	errno = saved;
	atomic_store_explicit(&slot->tx_backed_from, from, memory_order_release);
	atomic_store_explicit(&slot->tx_backed,
			      (uint32_t)(size < sock->ring_size ? size : sock->ring_size),
			      memory_order_relaxed);
	return true;
}

/* Is there memory for n bytes at this position? */
static bool is_backed(struct lf_sock *sock, uint64_t position, size_t n)
{
	const struct lf_slot *slot = sock->slot;
	uint32_t place = (uint32_t)position & (sock->ring_size - 1);
	uint32_t size = atomic_load_explicit(&slot->tx_backed, memory_order_relaxed);
	uint32_t from = atomic_load_explicit(&slot->tx_backed_from, memory_order_relaxed);
	if (size == sock->ring_size || ((place - from) & (sock->ring_size - 1)) + n <= size)
		return true;
	return back_more(sock, place, n);
}

/* The kernel itself has stored n bytes there. */
static void note_backed(struct lf_sock *sock, uint64_t position, size_t n)
{
	struct lf_slot *slot = sock->slot;
	uint32_t size = atomic_load_explicit(&slot->tx_backed, memory_order_relaxed);
	uint32_t from = atomic_load_explicit(&slot->tx_backed_from, memory_order_relaxed);
	size_t ahead = ((uint32_t)position - from) & (sock->ring_size - 1), end = ahead + n;
	if (ahead <= size && end > size)
		atomic_store_explicit(&slot->tx_backed,
				      (uint32_t)(end < sock->ring_size ? end : sock->ring_size),
				      memory_order_relaxed);
}

static bool wished_away(const struct lf_sock *sock, uint32_t broker)
{
	return atomic_load_explicit(&sock->out->c.wish, memory_order_relaxed) |
	       atomic_load_explicit(&sock->out->c.closed, memory_order_relaxed) |
	       LF_BROKER_REASON(broker);
}

static uint32_t brokers_word(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->segment->broker_wish, memory_order_relaxed);
}

/* Under tx_lock, FUSED: there is no room. */
static ssize_t full(struct lf_sock *sock, int fd)
{
	if (lf_conn_tcp_is_broken(fd)) {
		lf_conn_end_tx(sock, LF_REASON_PEER_GONE);
		return LF_USE_TCP;
	}
	/* TCP ends the connection if its window stays shut for so long, even if the peer's
	 * kernel answers each probe. So TCP is to have the bytes it would wait with. */
	if (atomic_load_explicit(&sock->slot->user_timeout, memory_order_relaxed)) {
		lf_conn_end_tx(sock, LF_REASON_SOCKET_OPTION);
		return LF_USE_TCP;
	}
	return -EAGAIN;
}

/* Under tx_lock, FUSED: what forbids or ends it? 0: go on; `taps` are then to be told. */
static ssize_t before_put(struct lf_sock *sock, uint32_t *taps)
{
	uint32_t broker = brokers_word(sock);
	*taps = LF_BROKER_TAPS(broker);
	if (atomic_load_explicit(&sock->slot->resending, memory_order_relaxed)) {
		lf_conn_finish_resending(sock);
		return LF_LOOK_AGAIN;
	}
	if (atomic_load_explicit(&sock->slot->shut, memory_order_relaxed) & LF_SHUT_WR)
		return -EPIPE;
	/* Whoever takes the unread bytes back takes these, too. In borrowed memory that is the parent, which
	 * may not run before we are through (vfork(2)). */
	if (wished_away(sock, broker) && !lf_in_borrowed_memory())
		return LF_LOOK_AGAIN;
	return 0;
}

/* Once in a moment is enough to look around, since neither a clock nor a peer's death is known
 * more exactly; so a stream pays for neither the clock nor the peer's tail with each send. Sends
 * further apart than that all look. */
static bool looked_just_now(const struct lf_sock *sock, uint64_t now)
{
	return !atomic_load_explicit(&sock->fin_seen, memory_order_relaxed) &&
	       now - atomic_load_explicit(&sock->tx_looked, memory_order_relaxed) < lf_moment();
}

/* Before a send: bytes that nobody has taken yet may be bytes that nobody ever will. */
static void check_reader(struct lf_sock *sock, int fd)
{
	uint64_t now = lf_ticks();
	if (looked_just_now(sock, now))
		return;
	pthread_testcancel(); /* a thread that never has to wait for room ends here */
	bool fin_seen = atomic_load_explicit(&sock->fin_seen, memory_order_relaxed);
	atomic_store_explicit(&sock->tx_looked, now, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed);
	bool unread = head != atomic_load_explicit(&sock->out->t.tail, memory_order_relaxed);
	if (!unread) /* from this send on, there will be some */
		atomic_store_explicit(&sock->slot->unread_since, lf_now_coarse(), memory_order_relaxed);
	if (unread || fin_seen)
		lf_conn_check_peer(sock, fd);
	else
		lf_conn_check_tcp(sock, fd);
}

/* Right before the publication of a send's first bytes, under tx_lock: notes when they came. Whoever
 * sees them by `head` sees this. */
static void note_arrival(struct lf_sock *sock, uint64_t ticks)
{
	uint64_t head = atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed);
	uint64_t number = atomic_load_explicit(&sock->slot->tx_messages, memory_order_relaxed);
	uint64_t arrival = head << 32 | lf_arrival_steps(ticks);
	atomic_store_explicit(&sock->out->arrivals.last[number % LF_ARRIVALS], arrival,
			      memory_order_relaxed);
	atomic_store_explicit(&sock->out->p.arrival, arrival, memory_order_relaxed);
}

/* Much is published piece by piece: a reader that spins copies out while we still copy in. One
 * that sleeps is woken at the end, once. */
enum { PIECE = 32 * 1024 };

/* How many bytes found memory. Unless they are `held`, what was held before them is not, once some of them
 * can be seen with it. */
static size_t put_pieces(struct lf_sock *sock, uint64_t head, uint64_t position,
			 struct lf_cursor *cursor, size_t n, uint32_t taps, bool held)
{
	size_t left = n;
	while (left) {
		size_t piece = left < 2 * PIECE ? left : PIECE;
		if (!is_backed(sock, position, piece))
			break;
		lf_ring_put(&sock->out_ring, position, cursor, piece);
		if (taps)
			lf_tap_put(sock, taps, head, position, piece);
		if (left == n)
			note_arrival(sock, lf_ticks());
		lf_conn_publish(sock, head + piece, left == piece);
		if (!held)
			(void)lf_held_end(sock);
		head += piece;
		position += piece;
		left -= piece;
	}
	return n - left;
}

/* Under tx_lock, FUSED: the ring can't take what is to come. */
static ssize_t without_memory(struct lf_sock *sock)
{
	lf_conn_end_tx(sock, LF_REASON_NO_MEMORY);
	return LF_USE_TCP;
}

/* Under tx_lock: how many bytes the ring may take now; negative: none, and what to do instead. */
static ssize_t room_to_put(struct lf_sock *sock, int fd, uint32_t *taps)
{
	if (lf_tx(sock) != LF_TX_FUSED)
		return LF_USE_TCP;
	ssize_t r = before_put(sock, taps);
	if (r)
		return r;
	ssize_t free = room(sock);
	return free ? free : full(sock, fd);
}

static bool is_corked(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->slot->corked, memory_order_relaxed) != 0;
}

/* One try, under tx_lock. `more`: is to come. */
static ssize_t put(struct lf_sock *sock, int fd, struct lf_cursor *cursor, bool more)
{
	uint32_t taps;
	ssize_t free = room_to_put(sock, fd, &taps);
	if (free < 0)
		return free;
	size_t n = cursor->left < (size_t)free ? cursor->left : (size_t)free;
	uint64_t head = atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed);
	bool held = more && lf_held_begin(sock, fd, head, n);
	size_t done = put_pieces(sock, head, position_for(sock, head, n), cursor, n, taps, held);
	return n && !done ? without_memory(sock) : (ssize_t)done;
}

/* While the ring is live under the lock, nobody gives the bell's number away
 * (lf_conn_give_up_bell); who ended it since has rung. */
static void wake_reader(struct lf_sock *sock)
{
	if (!lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	if (lf_tx(sock) == LF_TX_FUSED)
		lf_bell_wake(sock, &sock->out->reader);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

/* After put() or move_in() and the release of tx_lock, whatever they returned: head, if it was
 * `moved`, is stored; a full fence stands between that and what we look at here. It pairs with
 * the fence of whoever stores first and then looks at head:
 *  - a reader that goes to sleep stores `armed`. One of us sees the other; if it is us, we
 *    ring, see bell.c;
 *  - a peer that closes, or wants its bytes back, stores `closed` or a wish. If it is us who
 *    see it, TCP gets the bytes that came too late and answers as it always did. */
static void after_put(struct lf_sock *sock, int fd, bool moved)
{
	lf_lock_fence_released();
	if (moved && atomic_load_explicit(&sock->out->reader.armed, memory_order_relaxed))
		wake_reader(sock);
	if (wished_away(sock, brokers_word(sock)))
		lf_conn_service(sock, fd);
}

void lf_conn_push(struct lf_sock *sock, int fd)
{
	/* Under the lock, whatever `tx_held` says: a send may have found the cork in, and be about to hold
	 * back. Who sends again by TCP keeps the lock for long, and has ended the ring, or will. */
	if (!lf_sock_paired(sock) || lf_tx(sock) != LF_TX_FUSED || lf_conn_is_resending(sock) ||
	    !lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	bool some = lf_held_end(sock);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
	after_put(sock, fd, some);
}

static struct lf_wait writing_wait(struct lf_sock *sock, struct lf_handlers *since)
{
	struct lf_wait wait = {.want = LF_WANT_WRITE, .since = since};
	lf_wait_limit(sock, &wait);
	return wait;
}

/* By ourselves: no error that is kept. Another thread notes it after the kernel has done it, under
 * tx_lock. */
static bool has_been_shut(struct lf_sock *sock)
{
	if (lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
	return (atomic_load(&sock->slot->shut) & LF_SHUT_WR) != 0;
}

/* The ring has ended in the middle of a call: the rest goes by TCP. What went before is the
 * answer in any case, so an error that TCP has stays there for the next call; and any handler ends it,
 * where the kernel would begin a send of the rest alone anew: so that does not wait itself. */
static ssize_t rest_by_tcp(struct lf_sock *sock, int fd, struct lf_cursor *cursor,
			   const struct lf_io *whole)
{
	ssize_t sum = 0;
	uint32_t handlers_run = lf_defer_calls();
	while (cursor->left && !lf_conn_tcp_is_broken(fd)) {
		struct iovec iov = {(uint8_t *)cursor->iov->iov_base + cursor->offset,
				    cursor->iov->iov_len - cursor->offset};
		if (iov.iov_len == 0) {
			lf_cursor_advance(cursor, 0);
			continue;
		}
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		int flags = whole->flags | MSG_NOSIGNAL | (whole->waits ? MSG_DONTWAIT : 0);
		struct lf_io io = {.msg = &msg, .flags = flags, .one = true};
		ssize_t n = plain_send(sock, fd, &io);
		if (n == -EAGAIN && whole->waits &&
		    lf_wait_tcp(fd, POLLOUT, LF_FOREVER, handlers_run) == 0 &&
		    lf_defer_calls() == handlers_run)
			continue;
		if (n < 0 && n != -EAGAIN && n != -EINTR && !(n == -EPIPE && has_been_shut(sock)))
			atomic_store(&sock->slot->error, (uint32_t)-n); /* for the next call */
		if (n <= 0)
			break;
		sum += n;
		lf_cursor_advance(cursor, (size_t)n);
		if (whole->waits ? lf_defer_calls() != handlers_run : (size_t)n < iov.iov_len)
			break;
	}
	return sum;
}

static ssize_t fused_send(struct lf_sock *sock, int fd, struct lf_io *io, struct lf_handlers *since)
{
	struct lf_cursor cursor = cursor_of(io->msg);
	if (cursor.left == LF_CURSOR_REFUSED)
		return -EINVAL;
	if (cursor.left == 0) {
		check_reader(sock, fd);
		return lf_tx(sock) == LF_TX_FUSED ? LF_USE_TCP : LF_LOOK_AGAIN;
	}
	bool dontwait = (io->flags & MSG_DONTWAIT) || lf_sock_nonblocking(sock);
	struct lf_wait wait = {.want = LF_WANT_READ};
	ssize_t sent = 0;
	io->waits = !dontwait && !atomic_load_explicit(&sock->slot->sndtimeo, memory_order_relaxed);
	check_reader(sock, fd);
	lf_tap_prepare(sock);
	for (;;) {
		ssize_t n = -EAGAIN;
		if (io->waits && !sent && !io->continued)
			lf_handlers_begin_anew(since);
		if (!lf_conn_is_resending(sock)) {
			if (!lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
				return sent ? sent : -EAGAIN;
			n = put(sock, fd, &cursor, (io->flags & MSG_MORE) || is_corked(sock));
			lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
			after_put(sock, fd, n > 0);
		}
		if (n == LF_USE_TCP && fd < 0)
			return sent ? sent : -EPIPE;
		if (n == LF_USE_TCP) {
			bool ended = lf_handlers_end(since, sent != 0);
			if (!sent)
				return ended ? -EINTR : LF_LOOK_AGAIN;
			return sent + (ended ? 0 : rest_by_tcp(sock, fd, &cursor, io));
		}
		if (n == LF_LOOK_AGAIN)
			continue;
		if (n == -EPIPE)
			return sent ? sent : after_shutdown(fd, io->flags);
		if (n > 0)
			sent += n;
		if (cursor.left == 0)
			return sent;
		stalled(sock, fd);
		if (dontwait)
			return sent ? sent : -EAGAIN;
		if (wait.want != LF_WANT_WRITE)
			wait = writing_wait(sock, since);
		if (sent || io->continued)
			wait.never_restarts = true;
		int r = lf_wait(sock, fd, &wait);
		if (r)
			return sent ? sent : r;
		/* Closed by another thread, the kernel's would go on with the open file: so does
		 * this one, with -1, as far as the ring goes. */
		fd = lf_sock_named(sock, fd);
		if (fd < 0 && (r = lf_conn_given_away(since)) != 0)
			return sent ? sent : r;
	}
}

/* Under tx_lock. False: nothing was done. */
static bool put_quickly(struct lf_sock *sock, const void *buf, size_t n, uint64_t now)
{
	const struct lf_slot *slot = sock->slot;
	uint32_t taps;
	if (lf_tx(sock) != LF_TX_FUSED || before_put(sock, &taps) || taps)
		return false;
	if (is_corked(sock) || atomic_load_explicit(&slot->tx_held, memory_order_relaxed))
		return false;
	uint64_t head = atomic_load_explicit(&slot->tx_head, memory_order_relaxed);
	uint64_t unread = head - atomic_load_explicit(&slot->tx_tail, memory_order_relaxed);
	uint32_t half = atomic_load_explicit(&sock->slot->tx_limit, memory_order_relaxed) / 2;
	if (unread > half || n > half) /* where room() looks at the peer's tail, or may say less */
		return false;
	uint64_t position = position_for(sock, head, n);
	size_t place = (size_t)(position & (sock->ring_size - 1));
	if (n > sock->ring_size - place || !is_backed(sock, position, n))
		return false;
	lf_copy(lf_ring_at(&sock->out_ring, place, n), buf, n);
	note_arrival(sock, now);
	lf_conn_publish(sock, head + n, 1);
	return true;
}

bool lf_conn_send_quickly(struct lf_sock *sock, int fd, const void *buf, size_t n, int flags)
{
	if (n == 0 || n > PIECE || (flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT)) ||
	    lf_tx(sock) != LF_TX_FUSED)
		return false;
	uint64_t now = lf_ticks();
	if (!looked_just_now(sock, now) || !lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return false;
	bool done = put_quickly(sock, buf, n, now);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
	if (done)
		after_put(sock, fd, true);
	return done;
}

static void try_fuse(struct lf_sock *sock, int fd)
{
	if (!lf_conn_peer_ready(sock) || !lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	lf_conn_try_fuse(sock, fd);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

/* What only TCP can carry goes by TCP, and so does all that follows. */
static void leave_ring(struct lf_sock *sock, int fd, enum lf_reason reason)
{
	lf_sock_decline(sock, reason);
	if (!lf_sock_paired(sock))
		return;
	lf_conn_resolve_fin(sock, fd); /* as in lf_conn_service() */
	if (!lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	lf_conn_leave_tx(sock, fd, reason);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

/* A handler has run where the kernel's call would have slept, or so near its start that nobody can tell.
 * What there is room for goes; for the rest it would have waited. LF_LOOK_AGAIN: it is begun anew. */
static ssize_t plain_send_after_handlers(struct lf_sock *sock, int fd, struct lf_io *io,
					 struct lf_handlers *since)
{
	int flags = io->flags;
	io->flags |= MSG_DONTWAIT;
	ssize_t n = plain_send(sock, fd, io);
	io->flags = flags;
	bool by_any = io->continued || atomic_load(&sock->slot->sndtimeo);
	if (n != -EAGAIN)
		return n;
	if (lf_handlers_end(since, by_any))
		return -EINTR;
	lf_handlers_begin_anew(since);
	return LF_LOOK_AGAIN;
}

ssize_t lf_conn_send(struct lf_sock *sock, int fd, struct lf_io *io)
{
	struct lf_handlers begin = lf_handlers_so_far(), *since = io->since ? io->since : &begin;
	if (io->flags & MSG_OOB)
		leave_ring(sock, fd, LF_REASON_URGENT_DATA);
	else if (io->msg->msg_controllen)
		leave_ring(sock, fd, LF_REASON_SOCKET_OPTION);
	else if (lf_tx(sock) != LF_TX_FUSED)
		lf_pairing_step(sock, fd),
			lf_pairing_await_fuse(sock, fd, (io->flags & MSG_DONTWAIT) != 0, since);
	for (;;) {
		fd = lf_sock_named(sock, fd);
		if (fd < 0)
			return -EBADF;
		if (lf_sock_paired(sock) && lf_tx(sock) == LF_TX_PLAIN)
			try_fuse(sock, fd);
		uint32_t handlers_run = lf_defer_calls();
		bool plain = lf_tx(sock) != LF_TX_FUSED;
		ssize_t n = !plain ? (io->flags & MSG_FASTOPEN ? LF_USE_TCP :
								 fused_send(sock, fd, io, since)) :
			    lf_conn_sleeps_after_handlers(fd, io, since) ?
				     plain_send_after_handlers(sock, fd, io, since) :
				     plain_send(sock, fd, io);
		if (plain && n >= 0 && !io->continued) /* the kernel's call has begun anew by itself */
			lf_handlers_begin_anew(since);
		if (n == LF_USE_TCP) { /* of no bytes, or refused: it is connected already */
			n = lf_real.sendmsg(fd, io->msg, io->flags);
			return n == -1 ? -errno : n;
		}
		if (n == -EAGAIN && io->waits && lf_tx(sock) != LF_TX_FUSED) {
			n = lf_wait_tcp(fd, POLLOUT, LF_FOREVER, handlers_run);
			if (n == 0)
				continue;
		}
		if (n != LF_LOOK_AGAIN)
			return n;
	}
}

static ssize_t move_in(struct lf_sock *sock, int fd, const struct lf_bulk *bulk)
{
	uint32_t taps;
	ssize_t free = room_to_put(sock, fd, &taps);
	if (free < 0)
		return free;
	size_t n = bulk->n < (size_t)free ? bulk->n : (size_t)free;
	uint64_t head = atomic_load(&sock->slot->tx_head);
	struct iovec pieces[2];
	uint64_t position = position_for(sock, head, n);
	int count = lf_ring_pieces(&sock->out_ring, position, n, pieces);
	ssize_t used = bulk->move(bulk->context, pieces, count, n);
	bool held = used > 0 && (bulk->more || is_corked(sock)) &&
		    lf_held_begin(sock, fd, head, (size_t)used);
	if (used == -EFAULT)
		return without_memory(sock);
	if (used > 0) {
		LF_INVARIANT((size_t)used <= n);
		note_backed(sock, position, (size_t)used);
		if (taps)
			lf_tap_put(sock, taps, head, position, (size_t)used);
		note_arrival(sock, lf_ticks());
		lf_conn_publish(sock, head + (uint64_t)used, 1);
		if (!held)
			(void)lf_held_end(sock);
	}
	return used;
}

ssize_t lf_conn_send_from(struct lf_sock *sock, int fd, const struct lf_bulk *bulk)
{
	if (lf_tx(sock) != LF_TX_FUSED)
		lf_pairing_step(sock, fd), lf_pairing_await_fuse(sock, fd, !bulk->wait, bulk->since);
	if (lf_sock_paired(sock) && lf_tx(sock) == LF_TX_PLAIN)
		try_fuse(sock, fd);
	struct lf_wait wait = writing_wait(sock, bulk->since);
	wait.never_restarts |= bulk->continued;
	bool may_wait = bulk->wait && !lf_sock_nonblocking(sock);
	if (lf_tx(sock) == LF_TX_FUSED) {
		check_reader(sock, fd);
		lf_tap_prepare(sock);
	}
	for (;;) {
		if (lf_tx(sock) != LF_TX_FUSED) {
			ssize_t bad = lf_tx(sock) == LF_TX_ENDED ? after_reset(sock, 0) : 0;
			return bad ? bad : LF_USE_TCP;
		}
		ssize_t r = -EAGAIN;
		if (!wait.never_restarts)
			lf_handlers_begin_anew(bulk->since);
		if (!lf_conn_is_resending(sock)) {
			if (!lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
				return -EAGAIN;
			r = move_in(sock, fd, bulk);
			lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
			after_put(sock, fd, r > 0);
		}
		if (r == LF_LOOK_AGAIN)
			continue;
		if (r == -EPIPE)
			return after_shutdown(fd, 0);
		if (r == -EAGAIN)
			stalled(sock, fd);
		if (r != -EAGAIN || !may_wait)
			return r;
		int w = lf_wait(sock, fd, &wait);
		if (w)
			return w;
		fd = lf_sock_named(sock, fd);
		if (fd < 0 && (w = lf_conn_given_away(bulk->since)) != 0)
			return w;
		if (fd < 0) /* closed by another thread */
			return -EPIPE;
	}
}

/* With so much unread it is writable: as TCP has it, once a third of the buffer is free. Of one that
 * the program has bounded that is our own part alone: a reader may wait for all that its own part
 * holds (SO_RCVLOWAT), which TCP would have taken out of ours. */
static uint32_t writable_below(const struct lf_sock *sock, uint32_t limit)
{
	const struct lf_slot *slot = sock->slot;
	uint32_t ours = limit;
	if (atomic_load_explicit(&slot->sndbuf, memory_order_relaxed) |
	    atomic_load_explicit(&slot->notsent_lowat, memory_order_relaxed)) {
		uint32_t share = lf_conn_peer_share(sock);
		ours = share < limit ? limit - share : 0;
	}
	return limit - (ours > 3 ? ours / 3 : 1);
}

static bool has_enough_room(const struct lf_sock *sock, uint64_t tail, uint32_t limit)
{
	uint64_t unread = atomic_load_explicit(&sock->slot->tx_head, memory_order_relaxed) - tail;
	return unread <= writable_below(sock, limit);
}

void lf_conn_say_when_writable(struct lf_sock *sock)
{
	uint32_t limit = atomic_load_explicit(&sock->slot->tx_limit, memory_order_relaxed);
	atomic_store_explicit(&sock->out->writer.below, writable_below(sock, limit),
			      memory_order_relaxed);
}

bool lf_conn_writable(struct lf_sock *sock)
{
	if (lf_tx(sock) == LF_TX_FUSED && lf_conn_is_resending(sock))
		return false;
	if (lf_tx(sock) != LF_TX_FUSED || wished_away(sock, brokers_word(sock)) ||
	    atomic_load_explicit(&sock->slot->reset, memory_order_relaxed) ||
	    /* A send that finds no room goes by TCP. */
	    atomic_load_explicit(&sock->slot->user_timeout, memory_order_relaxed) ||
	    (atomic_load_explicit(&sock->slot->shut, memory_order_relaxed) & LF_SHUT_WR))
		return true;
	/* By the tail as last seen, if that is enough. */
	uint32_t limit = follow_peers_limit(
		sock, atomic_load_explicit(&sock->slot->tx_limit, memory_order_relaxed));
	if (has_enough_room(sock, atomic_load_explicit(&sock->slot->tx_tail, memory_order_relaxed),
			    limit))
		return true;
	return has_enough_room(sock, atomic_load_explicit(&sock->out->t.tail, memory_order_acquire),
			       limit);
}

size_t lf_conn_low_water(const struct lf_sock *sock)
{
	size_t wanted = atomic_load_explicit(&sock->slot->rcvlowat, memory_order_relaxed);
	size_t limit = atomic_load_explicit(&sock->slot->rcvbuf, memory_order_relaxed);
	if (limit == 0 || limit > sock->ring_size)
		limit = sock->ring_size;
	return wanted < limit / 2 ? wanted : limit / 2;
}

/* One of the ends has been shut, or is about to be. */
static bool end_is_near(const struct lf_sock *sock)
{
	return (atomic_load_explicit(&sock->slot->shut, memory_order_relaxed) |
		atomic_load_explicit(&sock->in->p.fin_hint, memory_order_relaxed) |
		atomic_load_explicit(&sock->fin_seen, memory_order_relaxed)) != 0;
}

static short ends_of_tcp(struct lf_sock *sock)
{
	struct pollfd p = {.fd = atomic_load(&sock->fd), .events = POLLRDHUP};
	int saved = errno;
	int r = lf_uncancelled_poll(&p, 1, 0);
	errno = saved;
	if (r != 1)
		return 0;
	p.revents = lf_conn_tcp_says(sock, p.fd, p.revents);
	/* Nobody may have announced it: from now on TCP is asked each time. */
	if (p.revents & (POLLERR | POLLHUP))
		atomic_store_explicit(&sock->fin_seen, 1, memory_order_relaxed);
	else
		lf_conn_end_was_told(sock);
	/* The end of the stream can be read, tcp_poll(). */
	short readable = p.revents & POLLRDHUP ? POLLIN | POLLRDNORM : 0;
	return (p.revents & (POLLERR | POLLHUP | POLLRDHUP)) | readable;
}

/* Neither TCP nor the ring behind it has as many as the low-water mark asks for, but both together. */
static bool enough_with_tcp(struct lf_sock *sock, size_t lowat)
{
	if (lowat < 2 || !lf_conn_tcp_comes_first(sock))
		return false;
	size_t ring = lf_conn_unread(sock);
	int tcp = 0, saved = errno;
	bool known = ring && lf_real.ioctl(atomic_load(&sock->fd), FIONREAD, &tcp) == 0;
	errno = saved;
	return known && tcp > 0 && (size_t)tcp + ring >= lowat;
}

short lf_conn_ready(struct lf_sock *sock, short asked, short *known)
{
	*known = 0;
	if (!lf_sock_paired(sock))
		return 0;
	short bits = 0;
	if (atomic_load_explicit(&sock->slot->reset, memory_order_relaxed)) {
		bits = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLRDHUP;
		/* Until a call has told the program of it. */
		if (atomic_load_explicit(&sock->slot->error, memory_order_relaxed))
			bits |= POLLERR;
		return bits;
	}
	/* What lies in a ring that has ended is not all: TCP goes on behind it. */
	size_t lowat = atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_ENDED ?
			       1 :
			       lf_conn_low_water(sock);
	/* Not lf_conn_readable(): a readable socket must not answer EAGAIN. */
	if (lf_conn_has_input(sock, lowat) || enough_with_tcp(sock, lowat))
		bits |= POLLIN | POLLRDNORM;
	if (lf_tx(sock) == LF_TX_FUSED) {
		*known = POLLOUT | POLLWRNORM | POLLWRBAND;
		if (lf_conn_writable(sock))
			bits |= POLLOUT | POLLWRNORM;
	}
	/* An answer from memory would hide what TCP has to say of the end; "no room" too. */
	short answer = bits | *known;
	if ((answer && end_is_near(sock)) || ((answer & asked) && lf_conn_tcp_check_is_due(sock)))
		bits |= ends_of_tcp(sock);
	/* A call that got something first has taken it from TCP, for the next one to tell. */
	if (atomic_load_explicit(&sock->slot->error, memory_order_relaxed))
		bits |= POLLERR;
	return bits;
}
