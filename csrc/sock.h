/* sock.h - a TCP socket as this process sees it.
 *
 * One lf_sock for each socket that socket() or accept() gave this process (or its parent
 * before a fork); dup'ed descriptors share it. From socket() on, not from connect(): what
 * happens in between (dup, fork, an entry in an epoll set) counts as much as what comes
 * later. Listeners are let go by listen(). A socket that came from elsewhere, so that others
 * may hold it, has none and stays plain.
 *
 * The structures live in a pool that is never unmapped, so a racing reader may look at a
 * stale one safely; pins keep a live one from being taken apart under a caller.
 */
#ifndef LF_SOCK_H
#define LF_SOCK_H

#include "reasons.h"
#include "ring.h"
#include "segment.h"
#include "slot.h"
#include "table.h"
#include "wire.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lf_pairing {
	LF_PAIRING_FRESH = 0,    /* no connect() of this process's yet */
	LF_PAIRING_TRACKED = 1,  /* counting its I/O calls */
	LF_PAIRING_CLAIMED = 2,  /* the broker knows, no answer yet */
	LF_PAIRING_PAIRED = 3,   /* segment mapped; the directions go their own ways */
	LF_PAIRING_DECLINED = 4, /* plain for good, see slot->declined */
};

/* The doorbell says: nobody holds the other end any more. */
enum lf_hung_up {
	LF_HUNG_UP = 1,       /* a thread is finding out what that means */
	LF_HUNG_UP_KNOWN = 2, /* it has */
};

struct lf_registration; /* epoll_set.h */

struct lf_sock {
	_Atomic uint32_t users; /* one for the table, one for each pin */
	_Atomic uint32_t dead;  /* closed; whoever drops the last pin takes it apart */
	_Atomic uint32_t pairing;
	_Atomic uint32_t calls; /* I/O calls so far, while TRACKED */
	uint32_t generation;    /* of this pool place, so that old answers miss */
	uint32_t born;          /* after how many forks */
	uint32_t side;          /* enum lf_wire_side */
	_Atomic int fd;         /* one of its descriptors */
	_Atomic int descriptors; /* how many it has in this process */
	struct lf_slot *slot;

	/* Valid when PAIRED. */
	struct lf_segment *segment; /* as it, */
	void *whole;                /* and all around it, are mapped; see mapping.h */
	struct lf_direction *out, *in;
	struct lf_ring out_ring, in_ring;
	uint32_t ring_size;
	uint32_t out_index; /* which of the segment's directions `out` is */
	_Atomic int bell;   /* doorbell, or -1 */
	_Atomic bool parents_bell;  /* who forked us slept at it then, see lf_sock_bell_is_parents() */
	_Atomic uint32_t bell_users; /* threads that are just ringing or emptying it, by number */
	_Atomic uint32_t hung_up;   /* enum lf_hung_up */
	_Atomic uint32_t closing;   /* 1: one of its descriptors is just being closed */
	_Atomic uint32_t let_go;    /* 1: by lf_sock_let_go() */
	_Atomic uint32_t left;      /* 1: no longer counted as a holder, for an exec or exit */
	_Atomic uint32_t fin_seen;  /* TCP has said that the peer sends no more, or worse */
	_Atomic uint64_t tx_looked;   /* lf_ticks() when a send last looked around */
	_Atomic int64_t tcp_checked;  /* lf_now_coarse() of the last look whether TCP was reset */
	_Atomic int64_t peer_checked; /* lf_now() of the last look whether it still lives */
	_Atomic int64_t peer_stuck;   /* lf_now() when its reading was first seen at peer_tail */
	_Atomic uint64_t peer_tail;
	_Atomic uint32_t peer_patience; /* ns until the next look, while it does not move */
	_Atomic uint32_t tx_stalls; /* how often a send found too little room: an edge for EPOLLET */
	uint64_t pair_id;
	_Atomic uint64_t cookie; /* SO_COOKIE; 0: never asked for */
	uint32_t disagreements; /* times the kernel's count differed from ours */

	/* Waiting. */
	_Atomic uint32_t waiters;   /* threads and cold epoll registrations that rely on bells */
	_Atomic uint32_t drains;    /* threads that are just emptying the bell */
	_Atomic uint32_t readers;   /* threads that sleep in a receive */
	_Atomic uint32_t writers;   /* and in a send */
	_Atomic int32_t spin_score; /* grows when spinning paid off, see wait.c */
	_Atomic uint64_t rung_read;  /* lf_armed_line.rung_at when we were last rung for bytes, */
	_Atomic uint64_t rung_write; /* and for room */

	_Atomic(struct lf_registration *) registration; /* in an epoll set; one at the most */
	uint32_t next_free;
};

bool lf_sock_init(void);

/* Starts to follow fd, a TCP socket that socket() (LF_SIDE_CLIENT, FRESH) or accept()
 * (LF_SIDE_SERVER, TRACKED) has just given us. */
void lf_sock_track(int fd, enum lf_wire_side side);

/* The socket behind fd, pinned; NULL: not one of ours. */
struct lf_sock *lf_sock_pin_entry(int fd, uintptr_t entry);
static inline struct lf_sock *lf_sock_pin(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	/* All that a call on a file or a pipe pays for being interposed. */
	return lf_table_kind(entry) == LF_KIND_SOCK ? lf_sock_pin_entry(fd, entry) : NULL;
}
/* The same from an id that lf_sock_id() gave, if that socket still lives. */
struct lf_sock *lf_sock_pin_id(uint64_t id);
uint64_t lf_sock_id(const struct lf_sock *sock);
void lf_sock_unpin(struct lf_sock *sock);

/* Calls fn with `context` for each live socket, pinned. */
void lf_sock_each(void (*fn)(struct lf_sock *sock, void *context), void *context);

/* After `bell` was changed: waits until no thread uses the number that stood there. They are
 * in the middle of a call that does not wait, so this is short; in vain only for one that a
 * signal handler, in which we are, has interrupted there. */
void lf_sock_bell_is_free(struct lf_sock *sock);

/* The doorbell with this number has moved to another. */
void lf_sock_bell_moved(int from, int to);

/* Never to be fused, for this reason. Only before it is PAIRED. */
void lf_sock_decline(struct lf_sock *sock, enum lf_reason reason);

/* The same; up to TRACKED the broker is told instead of claimed to, when it is time. */
void lf_sock_decline_later(struct lf_sock *sock, enum lf_reason reason);

/* CLAIMED becomes PAIRED, with everything mapped; or says why it can't any more: another
 * thread has declined it, or has forked. */
enum lf_reason lf_sock_commit(struct lf_sock *sock);

/* dup: `copy` names the same socket; unless that is not followed any more. */
void lf_sock_add_descriptor(struct lf_sock *sock, int copy);
/* fd no longer names it. True: it was the last one here; the caller then finishes
 * with lf_sock_release(). */
bool lf_sock_remove_descriptor(struct lf_sock *sock, int fd);
/* Gives back the table's own use of it. */
void lf_sock_release(struct lf_sock *sock);
/* Stops following a socket that lives on, under all its descriptors. Its epoll entry is
 * the caller's to give back before. */
void lf_sock_let_go(struct lf_sock *sock);

/* fork: every socket is held by one process more. No socket enters or leaves the table
 * between before and after. */
void lf_sock_before_fork(void);
void lf_sock_after_fork_in_parent(void);
/* The fork came to nothing: undoes lf_sock_before_fork()'s count. */
void lf_sock_fork_failed(void);
void lf_sock_after_fork_in_child(void);

/* A number that names this pinned socket: fd if it still does, or if it is not followed any more,
 * else another; -1: another thread has closed it, and fd may be anything's by now. */
static inline int lf_sock_named(const struct lf_sock *sock, int fd)
{
	int given = fd;
	for (int tries = 0; tries < 2; tries++) {
		uintptr_t entry = lf_table_get(fd);
		if (lf_table_kind(entry) == LF_KIND_SOCK && lf_table_pointer(entry) == sock)
			return fd;
		fd = atomic_load_explicit(&sock->fd, memory_order_relaxed);
	}
	return atomic_load(&sock->let_go) ? given : -1;
}

static inline enum lf_tx lf_tx(const struct lf_sock *sock)
{
	return (enum lf_tx)atomic_load_explicit(&sock->slot->tx, memory_order_acquire);
}

static inline enum lf_rx lf_rx(const struct lf_sock *sock)
{
	return (enum lf_rx)atomic_load_explicit(&sock->slot->rx, memory_order_acquire);
}

static inline bool lf_sock_paired(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->pairing, memory_order_acquire) == LF_PAIRING_PAIRED;
}

static inline bool lf_sock_nonblocking(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->slot->nonblock, memory_order_relaxed) != 0;
}

/* Another process of ours may be using the same end. */
static inline bool lf_sock_shared(const struct lf_sock *sock)
{
	return atomic_load_explicit(&sock->slot->holders, memory_order_relaxed) > 1;
}

/* Who forked us began to sleep when nobody shared the socket, so relies on the doorbell: while it holds
 * the socket we neither empty it nor sleep at it. Until lf_wait_begin() finds that we are alone: one that
 * does not count for a moment, in an exec that may fail, sleeps on. */
static inline bool lf_sock_bell_is_parents(const struct lf_sock *sock)
{
	return sock->parents_bell;
}

/* Sleeps must be short: a process that shares our end may drain a doorbell that was meant
 * for us; or we gave our doorbell up and the peer has not yet ended its ring. */
static inline bool lf_sock_must_poll(const struct lf_sock *sock)
{
	if (lf_sock_shared(sock) || lf_sock_bell_is_parents(sock))
		return true;
	if (!lf_sock_paired(sock) ||
	    atomic_load_explicit(&sock->bell, memory_order_relaxed) >= 0)
		return false;
	enum lf_rx rx = lf_rx(sock);
	return rx != LF_RX_PLAIN && rx != LF_RX_ENDED;
}

#endif
