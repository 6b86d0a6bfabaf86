/* slot.h - what all processes that hold one end of a connection agree on.
 *
 * A slot lies in a MAP_SHARED area made before any fork that could share the socket,
 * so parent and child see the same one; the other end of the connection never sees
 * it. It holds the end's own truth: how far each direction has come, positions (the
 * copies in the segment are what we told the peer; the peer could overwrite them),
 * the count of payload bytes that went through TCP, and two locks that serialise the
 * end's readers and writers.
 *
 *   tx:  PLAIN -> FUSED -> ENDED            rx:  PLAIN -> READY -> DRAIN -> FUSED -> ENDED
 *        PLAIN -> ENDED                          any state but PLAIN -> ENDED
 */
#ifndef LF_SLOT_H
#define LF_SLOT_H

#include "lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lf_tx {
	LF_TX_PLAIN = 0,
	LF_TX_FUSED = 1, /* the mark is FUSED, bytes go into the ring; or they did, and some of
			  * them are just being sent again by TCP: then nobody else may send */
	LF_TX_ENDED = 2, /* TCP again, or the ring was never used; final */
};

enum lf_rx {
	LF_RX_PLAIN = 0,
	LF_RX_READY = 1, /* bytes come by TCP; the peer may switch at any byte */
	LF_RX_DRAIN = 2, /* the peer has switched; rx_tcp_left bytes still come by TCP */
	LF_RX_FUSED = 3, /* bytes come from the ring, only FIN and errors from TCP */
	LF_RX_ENDED = 4, /* TCP again; final */
};

/* What whoever takes over tx_lock from a dead process has to finish. */
enum lf_resending {
	LF_RESENDING_NO = 0,
	LF_RESENDING = 1, /* unread bytes are just being sent again; that may take long */
	LF_ENDING = 2,    /* the ring is just being ended */
	LF_COPY_PROMISED = 3, /* the same, and TCP is to get a copy of what is unread */
	LF_COPYING = 4,       /* it is just given that */
};

enum lf_shut { LF_SHUT_RD = 1, LF_SHUT_WR = 2 };

/* See conn_renew.c. Under way, TCP says that it is closed. */
enum lf_renewal { LF_RENEWAL_NONE = 0, LF_RENEWAL_UNDER_WAY = 1, LF_RENEWAL_DONE = 2 };

struct lf_slot {
	/* Rarely written. */
	_Atomic uint32_t holders;  /* processes of ours that hold the socket */
	_Atomic uint32_t nonblock; /* O_NONBLOCK of the open file description */
	_Atomic uint32_t shut;     /* enum lf_shut bits */
	_Atomic uint32_t declined; /* enum lf_reason: never to be fused */
	_Atomic uint32_t reset;    /* 1: the peer died with our bytes unread: act as after RST */
	_Atomic uint32_t error;    /* errno to report once, as SO_ERROR does */
	_Atomic int64_t rcvtimeo;  /* ns, 0: none */
	_Atomic int64_t sndtimeo;
	_Atomic uint32_t rcvlowat;
	_Atomic uint32_t rcvbuf; /* as the kernel has it, 0: the program did not set it */
	_Atomic uint32_t sndbuf; /* likewise */
	_Atomic uint32_t notsent_lowat; /* TCP_NOTSENT_LOWAT, 0: the program did not set it */
	_Atomic uint32_t user_timeout;  /* 1: TCP_USER_TIMEOUT is set */
	_Atomic uint32_t waited; /* eager: a first byte has waited once */
	_Atomic uint32_t fork_safe; /* 1: paired, so processes forked since share the segment */
	_Atomic uint32_t handed_on; /* 1: a program without the library may hold it too */
	uint32_t next_free;         /* the owner's free list: index + 1 */
	_Atomic uint64_t departing; /* see departure.h: who of those that left may still be here */
	_Atomic uint32_t departures; /* how many ever left */
	_Atomic uint32_t heard_in_heirs; /* 1: a forked process waits for it in a set that it inherited */
	_Atomic uint32_t inq; /* 1: TCP_INQ is set */
	_Atomic uint32_t renewal; /* enum lf_renewal */
	uint8_t pad0[128 - 104];

	/* Sending. */
	struct lf_lock tx_lock;
	_Atomic uint32_t tx;        /* enum lf_tx; changes under tx_lock */
	_Atomic uint32_t tx_inside; /* threads inside a plain send call of the kernel */
	_Atomic uint64_t tcp_sent;  /* payload bytes given to TCP */
	_Atomic uint64_t tx_head;   /* bytes put into the ring; under tx_lock */
	_Atomic uint64_t tx_tail;   /* the peer's tail as last seen and checked */
	_Atomic uint64_t tx_origin; /* where position 0 lies in the ring; under tx_lock */
	_Atomic uint64_t tx_messages; /* sends that put bytes into it; under tx_lock */
	_Atomic int64_t unread_since; /* lf_now_coarse() of a send that found the ring empty */
	_Atomic uint64_t resent;    /* while resending: TCP has the ring's bytes up to here, */
	_Atomic uint64_t resend_from; /* and from here on */
	_Atomic uint32_t resending; /* enum lf_resending; under tx_lock */
	/* The stretch of the ring that is known to have its memory: from a place on, so many bytes,
	 * around the ring's end if need be. Under tx_lock. */
	_Atomic uint32_t tx_backed_from, tx_backed;
	_Atomic uint32_t tx_limit;   /* unread bytes we may have towards the peer */
	_Atomic uint32_t peer_limit; /* what of it the peer's receive buffer allows, 0: any */
	_Atomic uint32_t corked;     /* 1: TCP_CORK is set */
	_Atomic uint64_t tx_held;    /* as the segment's `held`; under tx_lock */
	uint8_t pad1[128 - 120];

	/* Receiving. */
	struct lf_lock rx_lock;
	_Atomic uint32_t rx;          /* enum lf_rx; changes under rx_lock */
	_Atomic uint32_t rx_inside;   /* threads inside a plain receive or poll of the kernel */
	_Atomic uint64_t tcp_rcvd;    /* payload bytes got from TCP */
	_Atomic uint64_t rx_tail;     /* bytes taken from the ring; under rx_lock */
	_Atomic uint64_t rx_tcp_left; /* DRAIN: bytes still to come by TCP */
	_Atomic uint64_t rx_skipped;  /* bytes of a ring's copy that TCP has brought; under rx_lock */
	_Atomic uint64_t rx_held;     /* the peer's `held` that we last saw bytes kept from us by */
	_Atomic int64_t rx_held_since; /* ns of CLOCK_MONOTONIC */
	_Atomic uint64_t rx_not_held;  /* the peer's `held` that does not count any more */
	uint8_t pad2[128 - 80];
};

_Static_assert(sizeof(struct lf_slot) == 384, "three lines of 128 bytes");

/* A fresh slot with one holder, or NULL when there is no room. */
struct lf_slot *lf_slot_new(void);

/* So many hold it, no more: none of those who are on their way out may come back. While this process
 * is one of them, and does not fork, that stays so. */
bool lf_slot_is_held_by(struct lf_slot *slot, uint32_t holders);

/* This process no longer holds the socket. True: nobody does, and the slot is the caller's, to be
 * made fresh or given back. */
bool lf_slot_leave(struct lf_slot *slot);
void lf_slot_refresh(struct lf_slot *slot);
void lf_slot_give_back(struct lf_slot *slot);

/* In a forked child: slots it makes from now on come from an area of its own, so that
 * it can't leak or corrupt the parent's. */
void lf_slot_after_fork(void);

#endif
