/* conn_end.c - every way out of the ring leads through this file: end marks, taking
 * unread bytes back into TCP, shutdown, close, and what a dead peer looks like.
 *
 * The producer alone ends a direction: it stores end_pos, then the mark (release), then
 * goes on in TCP. A receiver that meets TCP bytes therefore finds the mark when it
 * looks (acquire), and reads the ring up to end_pos first.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "conn.h"
#include "epoll.h"
#include "invariant.h"
#include "options.h"
#include "pairing.h"
#include "real.h"
#include "start.h"
#include "states.h"
#include "tap.h"
#include "tcp_states.h"
#include "uncancelled.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static void mark_end(struct lf_sock *sock, uint64_t position, enum lf_reason reason)
{
	atomic_store_explicit(&sock->out->p.end_pos, position, memory_order_relaxed);
	/* release: whoever sees it sees that there was a ring, see step_ready(). */
	atomic_store_explicit(&sock->out->p.reason, (uint32_t)reason, memory_order_release);
	/* end_pos before the mark; the mark before any TCP byte that follows. */
	lf_states_tell(sock, LF_MARK_ENDED);
	lf_bell_ring(sock, &sock->out->reader);
}

/* After the mark, and after all that has to come before other threads' sends: those look at
 * the state without the lock. */
static void go_on_in_tcp(struct lf_sock *sock)
{
	lf_states_enter_tx(sock->slot, LF_TX_ENDED);
	atomic_store_explicit(&sock->slot->resending, 0, memory_order_release);
	lf_epoll_refresh(sock);
}

static void begin_resending(struct lf_slot *slot, uint64_t from, enum lf_resending how)
{
	atomic_store(&slot->resend_from, from);
	atomic_store(&slot->resent, from);
	atomic_store(&slot->resending, (uint32_t)how);
}

/* Unread bytes in our outgoing ring by the peer's own tail; SIZE_MAX: impossible. */
static size_t unread_by_peer(struct lf_sock *sock)
{
	uint64_t tail = atomic_load_explicit(&sock->out->t.tail, memory_order_acquire);
	uint64_t unread = atomic_load(&sock->slot->tx_head) - tail;
	return unread <= sock->ring_size ? (size_t)unread : SIZE_MAX;
}

/* The end mark, and the promise of a copy of what is unread; nothing of that is with TCP yet. False: the
 * peer's tail is impossible. */
static bool begin_copying(struct lf_sock *sock, enum lf_reason reason)
{
	size_t n = unread_by_peer(sock);
	if (n == SIZE_MAX)
		return false;
	uint64_t head = atomic_load(&sock->slot->tx_head);
	lf_conn_publish(sock, head, 0); /* as in lf_conn_end_tx() */
	begin_resending(sock->slot, head - n, LF_COPY_PROMISED);
	atomic_store_explicit(&sock->out->arrivals.copied, n, memory_order_relaxed);
	mark_end(sock, head, reason);
	return true;
}

/* Would the peer's TCP answer by RST, or its library not look at a copy any more? */
static bool peer_takes_no_copy(struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->out->c.closed, memory_order_acquire) ||
	       atomic_load_explicit(&sock->out->c.refuses, memory_order_relaxed);
}

/* A process that borrows our memory may have given its numbers to others. */
static bool is_our_number(const struct lf_sock *sock, int fd)
{
	return fd >= 0 && (!lf_in_borrowed_memory() || lf_option_cookie(fd) == atomic_load(&sock->cookie));
}

static bool announced(const struct lf_sock *sock);
static bool tcp_has_ended(struct lf_sock *sock, int fd, int timeout_ms);

/* Under tx_lock, FUSED, and we are about to end the ring and to send on by TCP. What is unread then has to be
 * with TCP, whole: a part could not be told from what follows it. Not to a peer that may be dying: what
 * became of it its ring tells. */
static bool leaves_a_copy(struct lf_sock *sock, enum lf_reason reason)
{
	size_t n = unread_by_peer(sock);
	if (n == 0 || n == SIZE_MAX || reason == LF_REASON_PEER_GONE || reason == LF_REASON_NO_MEMORY ||
	    (atomic_load(&sock->slot->shut) & LF_SHUT_WR) || peer_takes_no_copy(sock))
		return false;
	int fd = lf_sock_named(sock, atomic_load(&sock->fd));
	if (!is_our_number(sock, fd))
		return false;
	if (lf_conn_tcp_is_broken(fd) || (tcp_has_ended(sock, fd, 0) && !announced(sock)))
		return false;
	return !atomic_load(&sock->slot->corked) && lf_conn_tcp_has_room(fd, n);
}

/* The same. False: there is no copy, nor was one, or anything else, begun before. */
static bool end_with_a_copy(struct lf_sock *sock, enum lf_reason reason)
{
	if (!atomic_load(&sock->slot->resending) &&
	    !(leaves_a_copy(sock, reason) && begin_copying(sock, reason)))
		return false;
	lf_conn_finish_resending(sock);
	return true;
}

void lf_conn_end_tx(struct lf_sock *sock, enum lf_reason reason)
{
	struct lf_slot *slot = sock->slot;
	uint64_t head;
	switch (lf_tx(sock)) {
	case LF_TX_FUSED:
		if (end_with_a_copy(sock, reason))
			break;
		head = atomic_load(&slot->tx_head);
		/* A sender of ours that was killed while it published may have told the slot only. */
		lf_conn_publish(sock, head, 0);
		/* An heir is not to put bytes behind a mark that stands. */
		begin_resending(slot, head, LF_ENDING);
		mark_end(sock, head, reason);
		/* No late look where nobody is left who might have left, nor where numbers are not ours. */
		if (reason == LF_REASON_PEER_GONE || lf_in_borrowed_memory())
			go_on_in_tcp(sock);
		else
			lf_conn_finish_resending(sock);
		break;
	case LF_TX_PLAIN:
		lf_states_enter_tx(slot, LF_TX_ENDED);
		if (sock->out)
			atomic_store(&sock->out->p.reason, (uint32_t)reason);
		break;
	case LF_TX_ENDED:
		break;
	}
}

/* TCP was reset already: what it has not told the program yet is kept for it. (Shut down both
 * ways it hangs up, too.) */
static bool tcp_has_failed(struct lf_sock *sock, int fd)
{
	struct pollfd p = {.fd = fd};
	if ((atomic_load(&sock->slot->shut) & LF_SHUT_WR) || lf_uncancelled_poll(&p, 1, 0) != 1 ||
	    !(p.revents & POLLHUP))
		return false;
	int error = 0;
	socklen_t len = sizeof(error);
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error)
		atomic_store(&sock->slot->error, (uint32_t)error);
	atomic_store(&sock->slot->reset, 1);
	return true;
}

/* Under tx_lock, FUSED: the peer has stopped reading its ring for good. */
static void take_back(struct lf_sock *sock, int fd, enum lf_reason reason)
{
	size_t n = unread_by_peer(sock);
	if (n == SIZE_MAX) {
		lf_conn_corrupt(sock);
		return;
	}
	if (atomic_load(&sock->slot->shut) & LF_SHUT_WR) {
		/* FIN is out, TCP takes no more: who has the ring may read it to the end. */
		lf_conn_end_tx(sock, reason);
		return;
	}
	uint64_t tail = atomic_load(&sock->slot->tx_head) - n;
	begin_resending(sock->slot, tail, LF_RESENDING);
	/* The mark first: the receiver must not take the resent bytes for bytes that came
	 * around a live ring. The state last: other threads send by TCP as soon as they see it,
	 * and must not overtake the resent bytes. */
	mark_end(sock, tail, reason);
	/* The parent, whose memory and numbers we borrow, goes on, as if we had died. */
	if (n && !is_our_number(sock, fd))
		return;
	if (n && !tcp_has_failed(sock, fd))
		lf_conn_resend_by_tcp(sock, fd, true);
	go_on_in_tcp(sock);
}

bool lf_conn_is_resending(const struct lf_sock *sock)
{
	uint32_t how = atomic_load_explicit(&sock->slot->resending, memory_order_relaxed);
	return (how == LF_RESENDING || how == LF_COPYING) &&
	       lf_lock_is_elsewhere(&sock->slot->tx_lock);
}

/* The peer waits for the bytes that it has wished back, but for no more than a second. It may have left
 * in vain after our look at the wish, and before it could see the mark. So there is a look after the
 * mark, too (Dekker, seq_cst: it stores the wish, then loads the mark), and one swap decides who
 * has the bytes, as in lf_conn_take_turn(). False: its tail is impossible. */
static bool take_back_late(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	uint32_t wish = LF_WISH_TAKE_BACK;
	if ((atomic_load(&slot->shut) & LF_SHUT_WR) ||
	    (!atomic_compare_exchange_strong(&sock->out->c.wish, &wish, LF_WISH_TAKEN_LATE) &&
	     wish != LF_WISH_TAKEN_LATE))
		return true;
	size_t n = unread_by_peer(sock);
	if (n == SIZE_MAX) {
		lf_conn_corrupt(sock);
		return false;
	}
	uint64_t tail = atomic_load(&slot->tx_head) - n;
	begin_resending(slot, tail, LF_RESENDING);
	/* Before any byte that follows by TCP, which is no copy then. */
	atomic_store(&sock->out->arrivals.copied, 0);
	atomic_store(&sock->out->p.end_pos, tail);
	return true;
}

/* After that look the copy stands, and it is noted so before the first byte of it: an heir that looked
 * once more might find a wish of a reader who has seen the mark since, and is about to go by the copy. */
static bool decide_late(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	if (atomic_load(&slot->resending) == LF_COPYING)
		return true;
	if (!take_back_late(sock))
		return false;
	if (atomic_load(&slot->resending) != LF_COPY_PROMISED)
		return true;
	/* Dekker with abandon_ring() and refuse_copies(), seq_cst: the mark was stored before these are
	 * loaded. They see it and wait for the copy, or we see them, and TCP is not to get it. */
	if (atomic_load(&sock->out->c.closed) | atomic_load(&sock->out->c.refuses)) {
		atomic_store(&sock->out->arrivals.copied, 0);
		begin_resending(slot, atomic_load(&slot->tx_head), LF_ENDING);
	} else {
		atomic_store(&slot->resending, LF_COPYING);
	}
	return true;
}

/* How much of the copy TCP has; before FIN. */
static void note_what_was_given(struct lf_sock *sock)
{
	const struct lf_slot *slot = sock->slot;
	if (atomic_load(&slot->resending) == LF_COPYING)
		atomic_store(&sock->out->arrivals.given,
			     atomic_load(&slot->resent) - atomic_load(&slot->resend_from));
}

void lf_conn_finish_resending(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	int fd = lf_sock_named(sock, atomic_load(&sock->fd));
	/* Before the mark nothing was resent, so that is still where the ring ends. Of a copy nobody has
	 * heard yet, and the peer reads on. */
	if (atomic_load(&sock->out->p.mark) != LF_MARK_ENDED) {
		if (atomic_load(&slot->resending) != LF_COPY_PROMISED) {
			mark_end(sock, atomic_load(&slot->resent), LF_REASON_PEER_GONE);
		} else if (!begin_copying(sock, LF_REASON_NONE)) {
			lf_conn_corrupt(sock);
			return;
		}
	}
	if (!decide_late(sock))
		return;
	if (atomic_load(&slot->resent) != atomic_load(&slot->tx_head)) {
		lf_conn_note_what_tcp_has(sock, fd);
		lf_conn_resend_by_tcp(sock, fd, true);
	}
	note_what_was_given(sock);
	go_on_in_tcp(sock);
}

/* Under tx_lock, FUSED, before FIN: the reader may hand the socket on to a program that knows only TCP,
 * with bytes unread that nobody can send again any more. So TCP gets a copy of those, and nothing but FIN
 * behind it. A reader of the ring reads on there, and throws the copy away (lf_conn_skip_copy()). Where
 * TCP has no room for all of it, or the reader's TCP would answer it by RST, or a send `goes_on` (that another
 * thread sleeps in, and that a close does not end), the ring alone has it. True: then there is a ring's end to
 * tell other threads of, once FIN is out: behind a part of a copy nobody may send.
 *
 * The mark comes before the first byte of the copy (mark_end(); the kernel's locks carry that order), so
 * a reader that finds bytes in TCP finds the mark, too. `copied` was stored before the mark. Tail may
 * move meanwhile: what has been read is thrown away, wherever that ends. But a reader that has wished its
 * bytes back, and left before it could see the mark, throws nothing away: see take_back_late(). Who sees
 * the mark in time swaps its wish away before it goes by the copy (leave_unless_stuck()). */
static bool copy_what_is_unread(struct lf_sock *sock, int fd, bool goes_on)
{
	struct lf_slot *slot = sock->slot;
	if (lf_tx(sock) != LF_TX_FUSED || (atomic_load(&slot->shut) & LF_SHUT_WR) ||
	    lf_in_borrowed_memory() || atomic_load(&slot->resending) || goes_on ||
	    peer_takes_no_copy(sock))
		return false;
	size_t n = unread_by_peer(sock);
	if (n == 0 || tcp_has_failed(sock, fd) || !begin_copying(sock, LF_REASON_NONE))
		return false;
	if (decide_late(sock)) {
		lf_conn_resend_by_tcp(sock, fd, atomic_load(&slot->resending) == LF_RESENDING);
		note_what_was_given(sock);
	}
	return true;
}

/* Why somebody wants the ring ended, out of shared memory: their word, so checked. */
static enum lf_reason reason_of(uint32_t why)
{
	return why <= LF_REASON_DESCRIPTOR_NEEDED ? (enum lf_reason)why : LF_REASON_NONE;
}

static enum lf_reason reason_in(_Atomic uint32_t *place)
{
	return reason_of(atomic_load_explicit(place, memory_order_relaxed));
}

/* Under tx_lock, FUSED. `own`: why we end it ourselves. False: there is nothing to do any more. */
static bool grant(struct lf_sock *sock, int fd, enum lf_reason own)
{
	struct lf_consumer_line *c = &sock->out->c;
	/* acquire: the reader's last tail is older than its wish. */
	uint32_t wish = atomic_load_explicit(&c->wish, memory_order_acquire);
	uint32_t broker = LF_BROKER_REASON(
		atomic_load_explicit(&sock->segment->broker_wish, memory_order_relaxed));
	if (atomic_load(&sock->slot->resending))
		lf_conn_finish_resending(sock);
	else if (atomic_load_explicit(&c->closed, memory_order_acquire))
		take_back(sock, fd, LF_REASON_PEER_CLOSED);
	else if (wish == LF_WISH_TAKEN || /* who was about to has died before it began */
		 (wish == LF_WISH_TAKE_BACK &&
		  atomic_compare_exchange_strong(&c->wish, &wish, LF_WISH_TAKEN)))
		take_back(sock, fd, own ? own : reason_in(&c->reason));
	else if (wish) /* as it is now, if the consumer was quicker: it may be reading */
		lf_conn_end_tx(sock, own ? own : reason_in(&c->reason));
	else if (broker)
		lf_conn_end_tx(sock, own ? own : reason_of(broker));
	else
		return false;
	return true;
}

void lf_conn_leave_tx(struct lf_sock *sock, int fd, enum lf_reason reason)
{
	/* Begun before, see take_back(). */
	if (lf_tx(sock) == LF_TX_FUSED && atomic_load(&sock->slot->resending) &&
	    !is_our_number(sock, lf_sock_named(sock, atomic_load(&sock->fd))))
		return;
	if (lf_tx(sock) != LF_TX_FUSED || !grant(sock, fd, reason))
		lf_conn_end_tx(sock, reason);
}

bool lf_conn_service(struct lf_sock *sock, int fd)
{
	if (!lf_sock_paired(sock) || lf_tx(sock) != LF_TX_FUSED)
		return false;
	struct lf_direction *out = sock->out;
	if (!(atomic_load_explicit(&out->c.wish, memory_order_relaxed) |
	      atomic_load_explicit(&out->c.closed, memory_order_relaxed) |
	      LF_BROKER_REASON(atomic_load_explicit(&sock->segment->broker_wish,
						    memory_order_relaxed))))
		return false;
	/* Its numbers are not ours: the parent sees to it. */
	if (lf_in_borrowed_memory())
		return false;
	/* Who is at it already may have to wait for the peer to read, and the peer for us. */
	if (lf_conn_is_resending(sock))
		return false;
	/* A wish outlives who wished: bytes sent to the dead would draw RST, but behind their FIN, where
	 * TCP has RST alone. */
	lf_conn_resolve_fin(sock, fd);
	if (lf_tx(sock) != LF_TX_FUSED)
		return true;
	if (!lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return false;
	int saved = errno;
	bool done = lf_tx(sock) == LF_TX_FUSED && grant(sock, fd, LF_REASON_NONE);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
	if (done)
		lf_bell_ring_always(sock);
	errno = saved;
	return done;
}

/* Any socket of this process may be the other end of the one we wait for. */
static void service(struct lf_sock *other, void *context)
{
	(void)context;
	lf_conn_service(other, atomic_load(&other->fd));
}

void lf_conn_service_all(void)
{
	lf_sock_each(service, NULL);
}

enum { DEATH_MS = 50 }; /* between the closing of two descriptors in one exit(2) */

static bool bell_hung_up(struct lf_sock *sock, int timeout_ms)
{
	struct pollfd p = {.fd = atomic_load(&sock->bell)};
	return lf_uncancelled_poll(&p, 1, timeout_ms) == 1 && (p.revents & (POLLHUP | POLLERR)) &&
	       p.fd == atomic_load(&sock->bell); /* still, so it was all the time */
}

/* The peer said that it would send FIN, or has seen to RST. One that is only CLOSING and sends FIN
 * died before it could: while it lives, the kernel hears of a close after it is TOLD. */
static bool announced(const struct lf_sock *sock)
{
	return atomic_load(&sock->in->p.fin_hint) ||
	       atomic_load(&sock->out->c.closed) == LF_CLOSED_TOLD;
}

/* Bytes that lie unread in the ring we read from. */
static bool has_unread(struct lf_sock *sock)
{
	/* seq_cst: see leave_ring(). */
	return !lf_conn_taken_back(sock) &&
	       atomic_load(&sock->in->p.head) != atomic_load(&sock->slot->rx_tail);
}

/* Under rx_lock: the peer has been asked to end its direction and to take back what we
 * did not read; waits until it has, while somebody is there to do it. If this process `stays`, its other
 * threads, and those that share the socket, may read meanwhile, and leave the ring: see lf_conn_take_turn(). */
static void await_end_of_ring(struct lf_sock *sock, int fd, int64_t deadline, bool stays)
{
	struct lf_lock *lock = &sock->slot->rx_lock;
	lf_bell_ring_always(sock);
	while (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_FUSED &&
	       lf_rx(sock) != LF_RX_ENDED && lf_now() < deadline) {
		/* It may be waiting for us in the same way, or be this very process. */
		lf_conn_service(sock, fd);
		lf_conn_service_all();
		struct pollfd p = {.fd = atomic_load(&sock->bell), .events = POLLIN};
		if (stays)
			lf_lock_release(lock, LF_RANK_RX);
		struct lf_defer_pause pause = lf_defer_pause();
		int rung = lf_uncancelled_poll(&p, 1, 1);
		lf_defer_resume(pause);
		if (stays && !lf_lock_acquire(lock, LF_RANK_RX))
			LF_INVARIANT(false); /* nobody further up this thread's stack has it */
		if (rung == 1) {
			if (p.fd == atomic_load(&sock->bell) && (p.revents & (POLLHUP | POLLERR)))
				return;
			/* Left to those who sleep, and rely on it; or closed past us: then we look again
			 * without being rung. */
			if (!lf_wait_drain(sock, 0) || (p.revents & POLLNVAL))
				lf_uncancelled_nap(1000000);
		}
	}
}

static bool gave_up_its_bell(struct lf_sock *sock);

/* Under rx_lock, with a live ring: its producer is dead, and those who are handed the socket, stdio
 * too, know only TCP. True: that has now what was unread. */
static bool renew_if_peer_is_dead(struct lf_sock *sock, int fd, enum lf_reason reason, bool stay)
{
	bool knows_only_tcp = reason == LF_REASON_EXEC || reason == LF_REASON_DESCRIPTOR_PASSED ||
			      reason == LF_REASON_STDIO;
	if (!knows_only_tcp || !bell_hung_up(sock, 0) || announced(sock) || gave_up_its_bell(sock))
		return false;
	/* Its descriptors go one after the other. */
	if (!tcp_has_ended(sock, fd, DEATH_MS))
		return false;
	/* The bell is closed by the kernel, after the last store: of the mark, if it said more. */
	if (atomic_load(&sock->in->p.mark) != LF_MARK_FUSED)
		return false;
	uint64_t head = atomic_load(&sock->in->p.head), tail = atomic_load(&sock->slot->rx_tail);
	/* Who stays has the ring, and is not to lose what TCP has no room for. */
	if (head - tail > sock->ring_size ||
	    !lf_conn_renew(sock, fd, tail, (size_t)(head - tail), stay))
		return false;
	atomic_store(&sock->slot->rx_tail, head);
	atomic_store(&sock->in->t.tail, head);
	lf_states_enter_rx(sock->slot, LF_RX_ENDED);
	return true;
}

/* Over whatever was wished before, but not over what the producer has begun. */
static void wish_all_back(struct lf_sock *sock)
{
	uint32_t wish = atomic_load(&sock->in->c.wish);
	while (wish != LF_WISH_TAKEN && wish != LF_WISH_TAKEN_LATE &&
	       !atomic_compare_exchange_weak(&sock->in->c.wish, &wish, LF_WISH_TAKE_BACK))
		;
}

/* Under rx_lock, all wished back: may this end look at TCP alone from now on? A ring that had
 * ended before, or whose producer is dead, may hold bytes that nobody can take back: they stay
 * readable here, unless TCP has a copy. Of a part of one only others can make use: if we `stay`, we have
 * them all. */
static void leave_unless_stuck(struct lf_sock *sock, int fd, int64_t deadline, bool stay)
{
	uint32_t mark = atomic_load_explicit(&sock->in->p.mark, memory_order_acquire);
	bool stuck = mark == LF_MARK_FUSED && has_unread(sock) && bell_hung_up(sock, 0);
	if (mark == LF_MARK_ENDED) {
		uint64_t end = atomic_load(&sock->in->p.end_pos), tail = atomic_load(&sock->slot->rx_tail);
		uint32_t wish = LF_WISH_TAKE_BACK;
		enum lf_copy copy = LF_COPY_NONE;
		/* Whoever comes next would read once more what is thrown away too late. */
		int64_t soon = lf_deadline(LF_TAKE_BACK_NS), until = stay || deadline > soon ? deadline : soon;
		/* With our wish swapped away the producer does not take back what it gives a copy of. */
		if (atomic_load(&sock->in->arrivals.copied) &&
		    atomic_compare_exchange_strong(&sock->in->c.wish, &wish, LF_WISH_NONE))
			copy = lf_conn_skip_copy(sock, fd, end - tail, until);
		if (copy == LF_COPY_SKIPPED && stay && end != tail &&
		    !lf_conn_copy_is_whole(sock, fd, deadline))
			copy = LF_COPY_NONE;
		stuck = copy == LF_COPY_AWAITED || (copy == LF_COPY_NONE && end != tail);
	}
	if (!stuck)
		lf_states_enter_rx(sock->slot, LF_RX_ENDED);
}

/* Under rx_lock, with a ring that we watch: from here on every byte is to come by TCP. */
static void leave_ring(struct lf_sock *sock, int fd, enum lf_reason reason, int64_t deadline,
		       bool stay)
{
	/* Asked before, and not answered yet. */
	if (stay && atomic_load(&sock->in->c.wish) == LF_WISH_TAKE_BACK && has_unread(sock))
		return;
	atomic_store(&sock->in->c.reason, (uint32_t)reason);
	/* Dekker, twice, seq_cst on both sides. We store the wish, then load mark and head.
	 * The producer stores the mark and loads the wish before its first byte: if we still
	 * see PLAIN, it will end at position 0. It stores head and loads the wish after each
	 * byte: if we see no unread ones, it will find the wish, and take back what it has
	 * put there since. */
	wish_all_back(sock);
	if (atomic_load(&sock->in->p.mark) == LF_MARK_FUSED && has_unread(sock)) {
		await_end_of_ring(sock, fd, deadline, stay);
		if (lf_rx(sock) == LF_RX_ENDED)
			return;
		if (renew_if_peer_is_dead(sock, fd, reason, stay))
			return;
		/* Not in time: it sends them by TCP at its next call. Until then our own
		 * receives read them, see lf_conn_take_turn(). */
		if (stay && atomic_load(&sock->in->p.mark) == LF_MARK_FUSED)
			return;
	}
	leave_unless_stuck(sock, fd, deadline, stay);
}

/* Each unread byte is either read here or sent again, never both. The producer takes them back
 * by swapping TAKE_BACK to TAKEN, and loads our tail after that; we read only after we swapped
 * TAKE_BACK to NONE, and wish again after our tail was stored. One swap finds TAKE_BACK, the
 * other one fails. If it is the producer's that finds it, it reads from our last store of
 * TAKE_BACK, hence sees each tail stored before; and the ring is out of bounds for us from then
 * on. What it puts into the ring while it sees NONE is what it would find unread later. */
bool lf_conn_take_turn(struct lf_sock *sock)
{
	uint32_t wish = LF_WISH_TAKE_BACK;
	if (atomic_load_explicit(&sock->in->c.wish, memory_order_relaxed) != LF_WISH_TAKE_BACK ||
	    lf_rx(sock) == LF_RX_PLAIN || lf_rx(sock) == LF_RX_ENDED)
		return false;
	return atomic_compare_exchange_strong(&sock->in->c.wish, &wish, LF_WISH_NONE);
}

bool lf_conn_has_been_taken_back(const struct lf_sock *sock)
{
	/* A producer that died before it had ended the ring sends nothing; one that could not
	 * send any more left us all up to its end. */
	if (atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_ENDED ||
	    atomic_load(&sock->in->c.wish) == LF_WISH_TAKEN_LATE)
		return !atomic_load(&sock->hung_up);
	return atomic_load(&sock->in->p.end_pos) == atomic_load(&sock->slot->rx_tail);
}

void lf_conn_ask_again(struct lf_sock *sock)
{
	uint32_t none = LF_WISH_NONE;
	int saved = errno;
	/* Dekker, as in leave_ring(). A producer that looked meanwhile, and sleeps, is rung. */
	if (atomic_compare_exchange_strong(&sock->in->c.wish, &none, LF_WISH_TAKE_BACK)) {
		if (atomic_load(&sock->in->p.mark) == LF_MARK_FUSED && has_unread(sock))
			lf_bell_ring_always(sock);
		else if (lf_rx(sock) != LF_RX_ENDED)
			leave_unless_stuck(sock, lf_sock_named(sock, atomic_load(&sock->fd)), 0, true);
	}
	errno = saved;
}

void lf_conn_defuse(struct lf_sock *sock, int fd, enum lf_reason reason, bool stay)
{
	lf_conn_defuse_until(sock, fd, reason, stay, lf_deadline(LF_TAKE_BACK_NS));
}

void lf_conn_defuse_until(struct lf_sock *sock, int fd, enum lf_reason reason, bool stay,
			  int64_t deadline)
{
	lf_sock_decline_later(sock, reason);
	if (!lf_sock_paired(sock))
		return;
	struct lf_slot *slot = sock->slot;
	int saved = errno;
	/* As in lf_conn_service(); but a holder that knows only TCP learns of the death by RST alone. */
	if (reason == LF_REASON_EXEC || reason == LF_REASON_DESCRIPTOR_PASSED) {
		atomic_store(&slot->handed_on, 1);
		/* Over what was said with an earlier wish, see is_handed_on(). */
		atomic_store(&sock->in->c.reason, (uint32_t)reason);
	} else {
		lf_conn_resolve_fin(sock, fd);
	}
	if (lf_lock_acquire(&slot->tx_lock, LF_RANK_TX)) {
		lf_conn_leave_tx(sock, fd, reason);
		lf_lock_release(&slot->tx_lock, LF_RANK_TX);
	}
	if (lf_lock_acquire(&slot->rx_lock, LF_RANK_RX)) {
		enum lf_rx rx = lf_rx(sock);
		if (rx == LF_RX_PLAIN)
			lf_states_enter_rx(slot, LF_RX_ENDED);
		else if (rx != LF_RX_ENDED)
			leave_ring(sock, fd, reason, deadline, stay);
		lf_lock_release(&slot->rx_lock, LF_RANK_RX);
		lf_epoll_refresh(sock);
	}
	errno = saved;
}

/* Both directions end as soon as each producer looks; what lies in the rings is read there
 * to the end, or comes by TCP. False: this thread holds a lock of it further up its stack. */
static bool end_both(struct lf_sock *sock, enum lf_reason reason, enum lf_wish wish)
{
	struct lf_slot *slot = sock->slot;
	int fd = lf_sock_named(sock, atomic_load(&sock->fd));
	lf_conn_resolve_fin(sock, fd); /* as in lf_conn_service() */
	if (!lf_lock_acquire(&slot->tx_lock, LF_RANK_TX))
		return false;
	lf_sock_decline(sock, reason);
	lf_conn_leave_tx(sock, fd, reason);
	lf_lock_release(&slot->tx_lock, LF_RANK_TX);
	if (!lf_lock_acquire(&slot->rx_lock, LF_RANK_RX))
		return false;
	enum lf_rx rx = lf_rx(sock);
	atomic_store(&sock->in->c.reason, (uint32_t)reason);
	/* Dekker, as in leave_ring(): if the mark is still PLAIN, the producer will see the
	 * wish before its first byte. One that stands says as much, and more. */
	uint32_t none = LF_WISH_NONE;
	(void)atomic_compare_exchange_strong(&sock->in->c.wish, &none, (uint32_t)wish);
	if (rx == LF_RX_PLAIN || atomic_load(&sock->in->p.mark) == LF_MARK_PLAIN)
		lf_states_enter_rx(slot, LF_RX_ENDED);
	lf_lock_release(&slot->rx_lock, LF_RANK_RX);
	lf_bell_ring_always(sock);
	return true;
}

void lf_conn_return_to_tcp(struct lf_sock *sock, enum lf_reason reason)
{
	if (!lf_sock_paired(sock)) {
		lf_sock_decline_later(sock, reason);
		return;
	}
	int saved = errno;
	(void)end_both(sock, reason, LF_WISH_PLAIN);
	lf_epoll_refresh(sock);
	errno = saved;
}

void lf_conn_corrupt(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	atomic_store(&slot->error, ECONNRESET);
	atomic_store(&slot->reset, 1);
	lf_states_end(slot);
	atomic_store(&sock->out->p.reason, LF_REASON_CORRUPT);
	(void)lf_real.shutdown(lf_sock_named(sock, atomic_load(&sock->fd)), SHUT_RDWR);
}

bool lf_conn_give_up_bell(struct lf_sock *sock)
{
	if (atomic_load(&sock->bell) < 0 || !lf_sock_paired(sock))
		return false;
	int saved = errno, bell = -1;
	/* The wish also tells the peer that the hang-up which follows is not our death. Until
	 * it has ended its ring we look there every few ms (lf_sock_must_poll). Who sleeps already,
	 * and would miss what was just rung for, hears of it by TCP. */
	if (end_both(sock, LF_REASON_DESCRIPTOR_NEEDED, LF_WISH_TAKE_BACK)) {
		lf_epoll_bell_closes(sock);
		lf_epoll_refresh(sock);
		bell = atomic_exchange(&sock->bell, -1);
	}
	if (bell >= 0) {
		lf_sock_bell_is_free(sock);
		lf_table_unhide(bell);
	}
	errno = saved;
	return bell >= 0;
}

/* The peer closed its doorbell for want of descriptors. It has wished, too, but a reader of its may have
 * taken that back for a moment. */
static bool gave_up_its_bell(struct lf_sock *sock)
{
	return atomic_load(&sock->out->c.reason) == LF_REASON_DESCRIPTOR_NEEDED;
}

/* The peer gave the socket to a program that knows only TCP: the hang-up says nothing of that one.
 * Behind a FIN of ours it can't get anything any more, whoever it is. Wish and reason were stored
 * before the bell was closed, whose hang-up we have seen: the kernel orders the two. */
static bool is_handed_on(struct lf_sock *sock)
{
	uint32_t why = atomic_load(&sock->out->c.reason);
	return lf_tx(sock) == LF_TX_FUSED && atomic_load(&sock->out->c.wish) != LF_WISH_NONE &&
	       !(atomic_load(&sock->slot->shut) & LF_SHUT_WR) &&
	       (why == LF_REASON_EXEC || why == LF_REASON_DESCRIPTOR_PASSED);
}

/* The peer may still send in all other states. */
bool lf_conn_fin_has_come(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	if (lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return true;
	return info.tcpi_state != LF_TCP_ESTABLISHED && info.tcpi_state != LF_TCP_FIN_WAIT1 &&
	       info.tcpi_state != LF_TCP_FIN_WAIT2;
}

/* TCP has seen FIN or worse. */
static bool tcp_has_ended(struct lf_sock *sock, int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	if (!(atomic_load(&sock->slot->shut) & LF_SHUT_RD))
		return lf_uncancelled_poll(&p, 1, timeout_ms) == 1;
	/* Our own shutdown looks like the peer's to poll. */
	while (!lf_conn_fin_has_come(fd)) {
		if (timeout_ms-- <= 0)
			return false;
		lf_uncancelled_nap(1000000);
	}
	return true;
}

/* What TCP would have come to: a peer that dies with bytes unread sends RST; one that had
 * read all sends FIN, and RST only when it gets more. The errors differ (tcp_reset() in
 * net/ipv4/tcp_input.c). FIN's time is known to some ms; when in doubt, the bytes had come
 * before it. */
static uint32_t error_of_reset(struct lf_sock *sock, int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error)
		return (uint32_t)error;
	if (atomic_load(&sock->in->p.fin_hint)) /* FIN came by shutdown(2), and the end later */
		return EPIPE;
	struct tcp_info info;
	len = sizeof(info);
	if (lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return ECONNRESET;
	int64_t fin_seen = lf_now() - (int64_t)info.tcpi_last_ack_recv * 1000000;
	return atomic_load(&sock->slot->unread_since) > fin_seen ? EPIPE : ECONNRESET;
}

/* Bytes lie in the ring that we write to, and are not to be sent by TCP, nor were. */
static bool has_bytes_for_peer(struct lf_sock *sock)
{
	switch (lf_tx(sock)) {
	case LF_TX_FUSED:
		return unread_by_peer(sock) != 0;
	case LF_TX_ENDED:
		return atomic_load(&sock->out->p.mark) == LF_MARK_ENDED &&
		       atomic_load(&sock->out->p.end_pos) != atomic_load(&sock->out->t.tail) &&
		       !atomic_load(&sock->out->arrivals.copied);
	default:
		return false;
	}
}

static bool reset_if_unread(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (!lf_lock_acquire(&slot->tx_lock, LF_RANK_TX))
		return false;
	/* A library that lived to the end of its close has seen to RST itself, if any was due. */
	bool reset = has_bytes_for_peer(sock) && atomic_load(&sock->out->c.closed) != LF_CLOSED_TOLD;
	if (reset) {
		/* Unless a process that shares this end has found out before: told once. */
		if (!atomic_load(&slot->reset) && !tcp_has_failed(sock, fd)) {
			atomic_store(&slot->error, error_of_reset(sock, fd));
			atomic_store(&slot->reset, 1);
		}
		lf_conn_end_tx(sock, LF_REASON_PEER_GONE);
	}
	lf_lock_release(&slot->tx_lock, LF_RANK_TX);
	return reset;
}

enum { ANSWER_MS = 5 }; /* a reset comes back before the send has returned, mostly */

/* TCP from here: an outsider still holds the other end, or everything was read. `fin`: or the outsider
 * is gone, too. TCP tells, once it has got what is unread: had those bytes lain there, RST would
 * have come in place of FIN. */
static void leave_to_tcp(struct lf_sock *sock, int fd, bool fin)
{
	struct lf_slot *slot = sock->slot;
	if (!lf_lock_acquire(&slot->tx_lock, LF_RANK_TX))
		return;
	if (lf_tx(sock) == LF_TX_FUSED && !atomic_load(&slot->resending)) {
		struct pollfd p = {.fd = fd};
		uint32_t error = fin && has_bytes_for_peer(sock) ? error_of_reset(sock, fd) : 0;
		/* Whoever may still read there, somehow, is to keep out from here on. */
		atomic_store(&sock->out->c.wish, LF_WISH_TAKEN);
		take_back(sock, fd, LF_REASON_PEER_GONE);
		/* Of much, it is the sending itself that met the reset. */
		if (error && (atomic_load(&slot->reset) || (lf_uncancelled_poll(&p, 1, ANSWER_MS) == 1 &&
							    tcp_has_failed(sock, fd))))
			atomic_store(&slot->error, error);
	} else {
		lf_conn_end_tx(sock, LF_REASON_PEER_GONE);
	}
	lf_lock_release(&slot->tx_lock, LF_RANK_TX);
}

/* Another thread has seen that the peer is gone, and may still be finding out how. */
static void await_verdict(struct lf_sock *sock)
{
	int64_t deadline = lf_deadline(2 * DEATH_MS * INT64_C(1000000));
	int saved = errno;
	while (atomic_load(&sock->hung_up) == LF_HUNG_UP && lf_now() < deadline)
		lf_uncancelled_nap(50000);
	errno = saved;
}

bool lf_conn_fin_is_doubtful(struct lf_sock *sock)
{
	return lf_sock_paired(sock) && lf_tx(sock) != LF_TX_PLAIN && !atomic_load(&sock->hung_up) &&
	       !atomic_load(&sock->fin_seen) && has_bytes_for_peer(sock) && !announced(sock) &&
	       /* Our own shutdown looks like the peer's to poll. */
	       (!(atomic_load(&sock->slot->shut) & LF_SHUT_RD) ||
		lf_conn_fin_has_come(atomic_load(&sock->fd)));
}

void lf_conn_resolve_fin(struct lf_sock *sock, int fd)
{
	int saved = errno;
	/* In borrowed memory the parent sees to it: neither the bell's number nor TCP's is ours. */
	if (lf_conn_fin_is_doubtful(sock) && !lf_in_borrowed_memory() && tcp_has_ended(sock, fd, 0))
		lf_conn_fin_seen(sock, fd);
	errno = saved;
}

void lf_conn_fin_seen(struct lf_sock *sock, int fd)
{
	if (atomic_load(&sock->hung_up)) {
		await_verdict(sock);
		return;
	}
	if (lf_tx(sock) != LF_TX_FUSED && !has_bytes_for_peer(sock))
		return;
	/* A shutdown that the library saw: the peer lives on and reads. A FIN without a word
	 * from it: the process is dying (its descriptors go one after the other), or a
	 * descriptor was closed past us. Only the doorbell can tell. */
	atomic_store(&sock->fin_seen, 1);
	if (bell_hung_up(sock, announced(sock) ? 0 : DEATH_MS))
		lf_conn_peer_gone(sock, fd);
}

enum { FIRST_CHECK_NS = 100 * 1000, CHECK_NS = 20 * 1000 * 1000 };

static bool end_sending(struct lf_sock *sock)
{
	struct lf_slot *slot = sock->slot;
	if (!lf_lock_acquire(&slot->tx_lock, LF_RANK_TX))
		return false;
	lf_conn_end_tx(sock, LF_REASON_PEER_GONE);
	lf_lock_release(&slot->tx_lock, LF_RANK_TX);
	return true;
}

static void break_off(struct lf_sock *sock)
{
	/* After the end of sending: who sees `reset` finds no live ring to write to. */
	if (end_sending(sock))
		atomic_store(&sock->slot->reset, 1);
}

static bool tcp_is_closed(struct lf_sock *sock, int fd)
{
	struct pollfd p = {.fd = fd};
	return lf_uncancelled_poll(&p, 1, 0) == 1 && (lf_conn_tcp_says(sock, fd, p.revents) & POLLHUP);
}

void lf_conn_tcp_failed(struct lf_sock *sock, int fd)
{
	if (tcp_is_closed(sock, fd))
		break_off(sock);
}

bool lf_conn_tcp_check_is_due(struct lf_sock *sock)
{
	int64_t now = lf_now_coarse();
	if (now - atomic_load_explicit(&sock->tcp_checked, memory_order_relaxed) < CHECK_NS)
		return false;
	atomic_store_explicit(&sock->tcp_checked, now, memory_order_relaxed);
	return true;
}

void lf_conn_end_was_told(struct lf_sock *sock)
{
	atomic_store_explicit(&sock->tcp_checked, 0, memory_order_relaxed);
	atomic_store_explicit(&sock->tx_looked, 0, memory_order_relaxed);
}

/* TCP has been reset or destroyed beneath the ring? Its error is the ring's to tell where
 * receiving goes by ring; elsewhere the kernel tells it. */
static void look_for_reset(struct lf_sock *sock, int fd)
{
	/* A hang-up: closed, or shut both ways. An error alone may be a soft one. */
	if (!tcp_is_closed(sock, fd))
		return;
	int error = 0;
	socklen_t len = sizeof(error);
	if (lf_rx(sock) != LF_RX_FUSED) {
		(void)end_sending(sock);
		return;
	}
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error)
		atomic_store(&sock->slot->error, (uint32_t)error);
	if (error || !(atomic_load(&sock->slot->shut) & LF_SHUT_WR))
		break_off(sock);
}

void lf_conn_check_tcp(struct lf_sock *sock, int fd)
{
	if (!lf_conn_tcp_check_is_due(sock) &&
	    !atomic_load_explicit(&sock->fin_seen, memory_order_relaxed))
		return;
	int saved = errno;
	look_for_reset(sock, fd);
	/* A peer that is dead before we send: TCP is to have these bytes, and answers them. */
	if (!atomic_load(&sock->fin_seen) && tcp_has_ended(sock, fd, 0))
		lf_conn_fin_seen(sock, fd);
	errno = saved;
}

/* A living reader moves on, soon: one that does not is looked at after 0.1 ms, then at
 * growing intervals; any other now and then. True: now is the time. */
static bool check_is_due(struct lf_sock *sock)
{
	int64_t now = lf_now();
	uint64_t tail = atomic_load_explicit(&sock->out->t.tail, memory_order_relaxed);
	uint32_t patience = atomic_load_explicit(&sock->peer_patience, memory_order_relaxed);
	if (tail != atomic_load_explicit(&sock->peer_tail, memory_order_relaxed)) {
		atomic_store_explicit(&sock->peer_tail, tail, memory_order_relaxed);
		atomic_store_explicit(&sock->peer_stuck, now, memory_order_relaxed);
		atomic_store_explicit(&sock->peer_patience, FIRST_CHECK_NS, memory_order_relaxed);
	} else if (now - atomic_load_explicit(&sock->peer_stuck, memory_order_relaxed) >= patience &&
		   patience < CHECK_NS) {
		atomic_store_explicit(&sock->peer_patience, 2 * patience, memory_order_relaxed);
		atomic_store_explicit(&sock->peer_checked, now, memory_order_relaxed);
		return true;
	}
	if (now - atomic_load_explicit(&sock->peer_checked, memory_order_relaxed) < CHECK_NS)
		return false;
	atomic_store_explicit(&sock->peer_checked, now, memory_order_relaxed);
	return true;
}

void lf_conn_check_peer(struct lf_sock *sock, int fd)
{
	if (!check_is_due(sock) && !atomic_load_explicit(&sock->fin_seen, memory_order_relaxed))
		return;
	int saved = errno;
	if (!atomic_load(&sock->hung_up) && bell_hung_up(sock, 0))
		lf_conn_peer_gone(sock, fd);
	else
		look_for_reset(sock, fd);
	errno = saved;
}

void lf_conn_peer_gone(struct lf_sock *sock, int fd)
{
	uint32_t no = 0;
	if (!atomic_compare_exchange_strong(&sock->hung_up, &no, LF_HUNG_UP))
		return;
	int saved = errno;
	if (gave_up_its_bell(sock)) {
		lf_conn_service(sock, fd);
	} else {
		/* Where the peer has left nothing unread, or what it left goes by TCP in any case, TCP
		 * alone tells. That is the rule, and signals may be held in here. */
		bool handed_on = is_handed_on(sock), waits = !handed_on && has_bytes_for_peer(sock);
		bool ended = tcp_has_ended(sock, fd, waits ? DEATH_MS : 0);
		if (handed_on || !ended || !reset_if_unread(sock, fd))
			leave_to_tcp(sock, fd, handed_on && ended);
	}
	atomic_store(&sock->hung_up, LF_HUNG_UP_KNOWN);
	errno = saved;
}

void lf_conn_look_at_reader(struct lf_sock *sock, int fd)
{
	if (has_bytes_for_peer(sock) && bell_hung_up(sock, 0))
		lf_conn_peer_gone(sock, fd);
}

void lf_conn_refuse_more(struct lf_sock *sock)
{
	uint32_t none = LF_WISH_NONE;
	if (atomic_load(&sock->slot->shut) == (LF_SHUT_RD | LF_SHUT_WR) &&
	    atomic_compare_exchange_strong(&sock->in->c.wish, &none, LF_WISH_PLAIN))
		lf_bell_ring_always(sock);
}

void lf_conn_announce_end(struct lf_sock *sock)
{
	if (lf_sock_paired(sock))
		atomic_store(&sock->out->p.fin_hint, LF_FIN_COMING);
}

/* Shut both ways, our TCP answers payload by RST: before that, what there is of a copy of bytes that we
 * have read is to be out of the way. Dekker with decide_late(): we store `refuses`, then load the mark. */
static void refuse_copies(struct lf_sock *sock, int fd)
{
	if (!lf_sock_paired(sock))
		return;
	atomic_store(&sock->in->c.refuses, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (!lf_conn_copy_left(sock) || !lf_lock_acquire(&sock->slot->rx_lock, LF_RANK_RX))
		return;
	uint64_t unread = atomic_load(&sock->in->p.end_pos) - atomic_load(&sock->slot->rx_tail);
	(void)lf_conn_skip_copy(sock, fd, unread, unread ? 0 : lf_deadline(LF_COPY_NS));
	lf_lock_release(&sock->slot->rx_lock, LF_RANK_RX);
}

int lf_conn_shutdown(struct lf_sock *sock, int fd, int how)
{
	struct lf_slot *slot = sock->slot;
	uint32_t bits = how == SHUT_RD ? LF_SHUT_RD : how == SHUT_WR ? LF_SHUT_WR :
			how == SHUT_RDWR ? LF_SHUT_RD | LF_SHUT_WR :
						   0;
	int saved = errno;
	if ((atomic_load(&slot->shut) | bits) == (LF_SHUT_RD | LF_SHUT_WR))
		refuse_copies(sock, fd);
	if (bits & LF_SHUT_WR)
		lf_conn_service(sock, fd);
	lf_conn_look_at_reader(sock, fd);
	bool after_reset = atomic_load(&slot->reset) != 0;
	/* A send under way finishes first, so that no byte comes after the FIN. */
	bool locked = (bits & LF_SHUT_WR) && lf_lock_acquire(&slot->tx_lock, LF_RANK_TX);
	/* A thread that sleeps in a send wakes to EPIPE, or to what it has got out. */
	bool copied = locked && copy_what_is_unread(sock, fd, false);
	if (bits & LF_SHUT_WR) {
		lf_conn_announce_end(sock);
		/* Before the kernel's FIN, so before any answer to it. */
		lf_tap_end(sock, LF_CAPTURE_FIN);
	}
	errno = saved;
	int r = lf_real.shutdown(fd, how);
	saved = errno;
	if (r == 0)
		atomic_fetch_or(&slot->shut, bits);
	if (locked) {
		if (copied)
			go_on_in_tcp(sock);
		lf_lock_release(&slot->tx_lock, LF_RANK_TX);
		/* A thread of ours that waits for room in an epoll set has none to wait for any more. */
		lf_epoll_room(sock);
	}
	enum lf_rx rx = lf_rx(sock);
	/* A writer that sleeps would on TCP find no window, and sleep on. */
	if (r == 0 && rx != LF_RX_PLAIN && rx != LF_RX_ENDED &&
	    !(atomic_load(&sock->in->writer.armed) && lf_conn_writer_has_to_wait(sock)))
		lf_conn_refuse_more(sock);
	/* Threads of ours that sleep in the ring: TCP's own wake-up reaches readers; a
	 * writer is told by its doorbell only if the peer rings, so it looks at TCP too. */
	if (r == 0 && after_reset) {
		errno = ENOTCONN;
		return -1;
	}
	errno = saved;
	return r;
}

void lf_conn_close_ring(struct lf_sock *sock)
{
	atomic_store(&sock->in->c.closed, LF_CLOSED_TOLD);
	lf_bell_ring_always(sock);
}

/* Before the last close of this end. The state stays, for senders that are under way: an exit ends those. */
static void leave_a_copy(struct lf_sock *sock, int fd, bool exits)
{
	if (lf_tx(sock) != LF_TX_FUSED || !lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	(void)copy_what_is_unread(sock, fd, !exits && atomic_load(&sock->writers));
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

/* The last close of this end: nobody will read its ring again. True: TCP will reset. */
static bool abandon_ring(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	enum lf_rx rx = lf_rx(sock);
	if (rx == LF_RX_PLAIN || rx == LF_RX_ENDED)
		return false;
	/* A thread that sleeps in a receive still gets what comes, and closes the ring then. */
	if (atomic_load(&sock->readers))
		return false;
	if (!lf_lock_acquire(&slot->rx_lock, LF_RANK_RX))
		return false;
	/* Dekker with fused_send(): we store closed, then load head; the producer stores
	 * head, then loads closed. */
	atomic_store(&sock->in->c.closed, LF_CLOSED_CLOSING);
	atomic_thread_fence(memory_order_seq_cst);
	bool unread = has_unread(sock), handed_on = atomic_load(&slot->handed_on);
	/* A copy of what we have read is not unread data. */
	if (!unread)
		(void)lf_conn_skip_copy(sock, fd, 0, lf_deadline(LF_COPY_NS));
	lf_lock_release(&slot->rx_lock, LF_RANK_RX);
	/* close(2) of a TCP socket with unread data sends RST (RFC 2525, 2.17). */
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	bool resets = unread && !handed_on &&
		      lf_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0;
	atomic_store(&sock->in->c.closed, LF_CLOSED_TOLD);
	lf_bell_ring(sock, &sock->in->writer);
	/* Not the last close, for all we know: the producer, which sees `closed`, sends
	 * them again by TCP, to whoever holds the socket now. Nobody: TCP resets then. */
	if (unread && handed_on)
		lf_bell_ring_always(sock);
	return resets;
}

/* Our last chance to take back what the peer asked for: the number is about to go. */
static void service_at_last(struct lf_sock *sock, int fd)
{
	lf_conn_service(sock, fd);
	/* Another thread of ours is at it, and needs the number. */
	if (lf_sock_paired(sock) && lf_conn_is_resending(sock) &&
	    lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

void lf_conn_before_exec_closes(struct lf_sock *sock, int fd)
{
	service_at_last(sock, fd);
	if (!lf_sock_paired(sock) || !lf_slot_is_held_by(sock->slot, 1) ||
	    !lf_lock_acquire(&sock->slot->tx_lock, LF_RANK_TX))
		return;
	/* Not as before a close: the exec may fail, and we send on. */
	if (lf_tx(sock) == LF_TX_FUSED)
		(void)end_with_a_copy(sock, LF_REASON_EXEC);
	lf_lock_release(&sock->slot->tx_lock, LF_RANK_TX);
}

void lf_conn_before_close(struct lf_sock *sock, int fd, bool exits)
{
	service_at_last(sock, fd);
	if (!lf_sock_paired(sock) || !lf_slot_is_held_by(sock->slot, 1))
		return;
	lf_wait_forget(sock);
	bool resets = abandon_ring(sock, fd);
	leave_a_copy(sock, fd, exits);
	/* Not before: to a peer that finds us dead in there, it would mean that FIN came first. */
	lf_conn_announce_end(sock);
	lf_tap_end(sock, resets ? LF_CAPTURE_RST : LF_CAPTURE_FIN);
}
