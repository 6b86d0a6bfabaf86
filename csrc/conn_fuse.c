/* conn_fuse.c - the switch from TCP to the ring; docs/switch.md has the argument.
 *
 * Each direction on its own: the receiver sets `ready` when it watches both places.
 * The sender, before its next send, counts what it ever gave to TCP in this direction,
 * stores that number and then the mark; the receiver takes exactly so many bytes from
 * TCP before it looks at the ring. Both counts are the library's own, and neither end
 * switches unless its count agrees with the kernel's, for otherwise somebody reads or
 * writes past the library.
 */
#define _GNU_SOURCE
#include "conn.h"
#include "copy.h"
#include "epoll.h"
#include "invariant.h"
#include "mapping.h"
#include "options.h"
#include "pairing.h"
#include "real.h"
#include "states.h"
#include "tcp_states.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static bool ask_tcp(int fd, struct tcp_info *info)
{
	socklen_t len = sizeof(*info);
	return lf_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0 &&
	       len >= offsetof(struct tcp_info, tcpi_segs_out);
}

/* Payload given to TCP. SYN counts as one acknowledged byte at the end that sent it first. */
static uint64_t sent_in_all(const struct lf_sock *sock, const struct tcp_info *info, int queued)
{
	return info->tcpi_bytes_acked + (unsigned)queued - (sock->side == LF_SIDE_CLIENT);
}

/* The kernel's count of payload bytes; false: not an established connection. */
static bool kernel_count(struct lf_sock *sock, int fd, bool sending, uint64_t *count)
{
	struct tcp_info info;
	int queued = 0;
	if (!ask_tcp(fd, &info) || info.tcpi_state != LF_TCP_ESTABLISHED ||
	    lf_real.ioctl(fd, sending ? SIOCOUTQ : SIOCINQ, &queued) == -1 || queued < 0)
		return false;
	*count = sending ? sent_in_all(sock, &info, queued) :
			   info.tcpi_bytes_received - (unsigned)queued;
	return true;
}

bool lf_conn_count_sent(struct lf_sock *sock, int fd, uint64_t *count)
{
	struct tcp_info before, after;
	int queued = 0;
	/* What is acknowledged between the two looks leaves the queue; there is an end to it. */
	do {
		/* In other states a FIN of ours may be among what is counted. */
		if (!ask_tcp(fd, &before) || lf_real.ioctl(fd, SIOCOUTQ, &queued) == -1 ||
		    !ask_tcp(fd, &after) ||
		    (after.tcpi_state != LF_TCP_ESTABLISHED &&
		     after.tcpi_state != LF_TCP_CLOSE_WAIT))
			return false;
	} while (before.tcpi_bytes_acked != after.tcpi_bytes_acked);
	*count = sent_in_all(sock, &after, queued);
	return true;
}

int lf_conn_counts_agree(struct lf_sock *sock, int fd, bool sending)
{
	const _Atomic uint64_t *ours = sending ? &sock->slot->tcp_sent : &sock->slot->tcp_rcvd;
	uint64_t theirs;
	/* Two system calls make one count; a segment between them spoils it. */
	for (int tries = 0; tries < 4; tries++) {
		if (!kernel_count(sock, fd, sending, &theirs))
			return EPROTO;
		if (theirs == atomic_load(ours))
			return 0;
	}
	/* On a busy stream the calls may never agree; a foreign reader or writer shows as a
	 * lasting difference. The sign tells: sent bytes move from queued to acknowledged
	 * (counted twice or not at all in between), received ones from arriving to queued. */
	return EAGAIN;
}

bool lf_conn_peer_ready(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->out->c.ready, memory_order_acquire) != 0;
}

static void give_up(struct lf_sock *sock, bool sending, enum lf_reason reason)
{
	if (sending) {
		lf_states_enter_tx(sock->slot, LF_TX_ENDED);
	} else {
		lf_states_enter_rx(sock->slot, LF_RX_ENDED);
		atomic_store(&sock->in->c.reason, (uint32_t)reason);
	}
	lf_pairing_report(sock, reason);
}

enum { PATIENCE = 64 };

/* May this direction leave TCP? Gives it up for good when the counts keep differing. */
static bool may_leave_tcp(struct lf_sock *sock, int fd, bool sending)
{
	switch (lf_conn_counts_agree(sock, fd, sending)) {
	case 0:
		return true;
	case EAGAIN:
		if (++sock->disagreements < PATIENCE)
			return false;
		give_up(sock, sending, LF_REASON_IO_OUTSIDE_LIBC);
		return false;
	default:
		give_up(sock, sending, LF_REASON_TOO_LATE);
		return false;
	}
}

void lf_conn_try_ready(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (lf_sock_shared(sock) && !atomic_load(&slot->fork_safe))
		return;
	if (!lf_lock_acquire(&slot->rx_lock, LF_RANK_RX))
		return;
	if (lf_rx(sock) == LF_RX_PLAIN && atomic_load(&slot->rx_inside) == 0) {
		/* Dekker, see lf_conn_enter_plain_rx(). */
		lf_states_enter_rx(slot, LF_RX_READY);
		if (atomic_load(&slot->rx_inside) != 0) {
			lf_states_enter_rx(slot, LF_RX_PLAIN);
		} else if (may_leave_tcp(sock, fd, false)) {
			/* release: whoever sees ready sees a receiver that watches the ring. */
			atomic_store_explicit(&sock->in->c.ready, 1, memory_order_release);
		} else if (lf_rx(sock) == LF_RX_READY) {
			lf_states_enter_rx(slot, LF_RX_PLAIN);
		}
	}
	lf_lock_release(&slot->rx_lock, LF_RANK_RX);
}

void lf_conn_try_fuse(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (lf_tx(sock) != LF_TX_PLAIN || (atomic_load(&slot->shut) & LF_SHUT_WR))
		return;
	lf_states_enter_tx(slot, LF_TX_FUSED);
	if (atomic_load(&slot->tx_inside) != 0 || !may_leave_tcp(sock, fd, true)) {
		if (lf_tx(sock) == LF_TX_FUSED)
			lf_states_enter_tx(slot, LF_TX_PLAIN);
		return;
	}
	atomic_store_explicit(&sock->out->arrivals.tcp_total, atomic_load(&slot->tcp_sent),
			      memory_order_relaxed);
	/* release: tcp_total is there when the mark is seen. seq_cst, because the receiver
	 * may be storing a wish and then loading the mark: one of us sees the other
	 * (lf_conn_defuse). The wish is looked at before the first byte, in before_put(). */
	lf_states_tell(sock, LF_MARK_FUSED);
	/* EPOLLOUT is the ring's to say from now on. */
	lf_epoll_refresh(sock);
}

static bool sealed(int fd, size_t size)
{
	struct stat st;
	int seals = lf_real.fcntl(fd, F_GET_SEALS);
	return seals != -1 && (seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW) &&
	       fstat(fd, &st) == 0 && st.st_size == (off_t)size;
}

static bool identity_checks_out(const struct lf_segment *segment, const struct lf_wire_fuse *fuse)
{
	return segment->magic == LF_SEGMENT_MAGIC && segment->version == LF_SEGMENT_VERSION &&
	       segment->header_size == LF_SEGMENT_HEADER && segment->pair_id == fuse->pair_id &&
	       segment->ring_size == fuse->ring_size;
}

uint32_t lf_conn_peer_share(const struct lf_sock *sock)
{
	uint32_t in = atomic_load_explicit(&sock->slot->peer_limit, memory_order_relaxed);
	uint32_t ring = sock->ring_size;
	/* Who bounds what it sends counts on being stopped when nobody reads. */
	if (in == 0)
		in = atomic_load(&sock->slot->sndbuf) ? LF_UNTRIED_WINDOW : ring / 8 * 3;
	return in < ring ? in : ring;
}

/* Where only one of the two buffers was set, the other takes what TCP's would. */
static uint32_t limit_of(const struct lf_sock *sock)
{
	const struct lf_slot *slot = sock->slot;
	uint64_t ring = sock->ring_size;
	uint64_t out = atomic_load(&slot->sndbuf), lowat = atomic_load(&slot->notsent_lowat);
	if (out == 0)
		out = ring / 8 * 5;
	if (lowat && lowat < out)
		out = lowat;
	/* What would not find room in the peer's receive buffer is TCP's to watch over. */
	if (atomic_load(&slot->user_timeout))
		out = 0;
	uint64_t sum = out + lf_conn_peer_share(sock);
	return (uint32_t)(sum < ring ? sum : ring);
}

void lf_conn_limits_changed(struct lf_sock *sock)
{
	if (!lf_sock_paired(sock))
		return;
	uint32_t ours = lf_options_receive_limit(sock);
	/* A writer that sleeps, because the ring is full for it, looks again. */
	if (atomic_exchange_explicit(&sock->in->c.limit, ours, memory_order_relaxed) != ours)
		lf_bell_ring(sock, &sock->in->writer);
	atomic_store_explicit(&sock->slot->tx_limit, limit_of(sock), memory_order_relaxed);
	lf_conn_say_when_writable(sock);
	/* Dekker, as in lf_wait_arm(): who may be armed looks at the tail next. */
	atomic_thread_fence(memory_order_seq_cst);
}

static enum lf_reason map(struct lf_sock *sock, const struct lf_wire_fuse *fuse, int fd)
{
	uint32_t ring = fuse->ring_size;
	if (ring < LF_RING_MIN || ring > LF_RING_MAX || (ring & (ring - 1)) || fuse->side > 1)
		return LF_REASON_BAD_SEGMENT;
	/* Unsealed memory could be cut off under us: SIGBUS in somebody else's program. */
	if (!sealed(fd, lf_segment_size(ring)))
		return LF_REASON_BAD_SEGMENT;
	void *whole;
	struct lf_segment *segment = lf_mapping_make(fd, ring, &whole);
	if (!segment)
		return LF_REASON_NO_MEMORY;
	if (!identity_checks_out(segment, fuse)) {
		lf_mapping_drop(segment, ring, whole);
		return LF_REASON_BAD_SEGMENT;
	}
	sock->segment = segment;
	sock->whole = whole;
	sock->out = &segment->dir[fuse->side];
	sock->in = &segment->dir[1 - fuse->side];
	sock->out_ring = lf_ring_of(segment, whole, ring, fuse->side);
	sock->in_ring = lf_ring_of(segment, whole, ring, 1 - fuse->side);
	sock->ring_size = ring;
	sock->out_index = fuse->side;
	atomic_store(&sock->slot->tx_origin, lf_segment_home(ring, fuse->side, 0));
	atomic_store(&sock->slot->tx_backed_from, lf_segment_backed_from(ring, fuse->side));
	atomic_store(&sock->slot->tx_backed, LF_SEGMENT_SHORT);
	atomic_store(&sock->slot->peer_limit, fuse->limit_out);
	atomic_store(&sock->slot->tx_limit, limit_of(sock));
	sock->pair_id = fuse->pair_id;
	sock->disagreements = 0;
	atomic_store(&sock->rung_read, 0);
	atomic_store(&sock->rung_write, 0);
	return LF_REASON_NONE;
}

/* Another thread may set O_NONBLOCK, then note that it did, while we look and note what we saw.
 * Looking once more after the note tells: a change that came before that look is seen by it, one
 * that comes later is noted later. */
static void note_nonblocking(struct lf_slot *slot, int fd)
{
	for (int flags, tries = 0; tries < 16; tries++) {
		flags = lf_real.fcntl(fd, F_GETFL);
		bool nonblock = flags != -1 && (flags & O_NONBLOCK);
		if (tries && nonblock == (atomic_load(&slot->nonblock) != 0))
			return;
		atomic_store(&slot->nonblock, nonblock);
	}
}

bool lf_conn_pair(struct lf_sock *sock, const struct lf_wire_fuse *fuse, int segment_fd,
		  int bell, enum lf_reason *reason)
{
	struct lf_slot *slot = sock->slot;
	int fd = atomic_load(&sock->fd);
	*reason = (enum lf_reason)atomic_load(&slot->declined);
	/* A process that shares the socket but not the segment would be left behind. */
	if (*reason == LF_REASON_NONE && !lf_slot_is_held_by(slot, 1))
		*reason = LF_REASON_SHARED_DESCRIPTOR;
	if (*reason == LF_REASON_NONE) {
		lf_copy_choose();
		*reason = map(sock, fuse, segment_fd);
	}
	lf_real.close(segment_fd);
	if (*reason != LF_REASON_NONE) {
		lf_real.close(bell);
		return false;
	}
	bell = lf_table_hide(bell);
	atomic_store(&sock->bell, bell);
	note_nonblocking(slot, fd);
	if (bell == -1)
		*reason = LF_REASON_NO_DESCRIPTORS;
	else if (!lf_epoll_adopt(sock))
		*reason = LF_REASON_EPOLL_KIND;
	else
		/* Release: whoever sees PAIRED sees the mapping. */
		*reason = lf_sock_commit(sock);
	if (*reason != LF_REASON_NONE) {
		/* Never PAIRED, so nobody else has looked at the mapping, but for a set. */
		lf_epoll_let_go(sock);
		lf_mapping_drop(sock->segment, sock->ring_size, sock->whole);
		sock->segment = NULL;
		bell = atomic_exchange(&sock->bell, -1);
		if (bell >= 0)
			lf_table_unhide(bell);
		return false;
	}
	lf_conn_limits_changed(sock);
	lf_epoll_catch_up(sock, fd);
	lf_conn_try_ready(sock, fd);
	return true;
}
