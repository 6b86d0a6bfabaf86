/* pairing.h - from "a TCP socket" to "the broker is asked": counting calls, claiming,
 * and (eager only) waiting for the answer. */
#ifndef LF_PAIRING_H
#define LF_PAIRING_H

#include "sock.h"

/* connect() has given the socket a peer, or will. */
void lf_pairing_begin(struct lf_sock *sock, int fd);

/* Called with each I/O call on a socket: counts it, claims when it is time, takes in
 * what the broker has answered; a socket that will never be fused is let go. One load when the
 * connection is past all this. */
void lf_pairing_advance(struct lf_sock *sock, int fd);
static inline void lf_pairing_step(struct lf_sock *sock, int fd)
{
	if (atomic_load_explicit(&sock->pairing, memory_order_acquire) != LF_PAIRING_PAIRED)
		lf_pairing_advance(sock, fd);
}

/* It stays plain, and lives on without us: its calls are the kernel's alone. */
void lf_pairing_let_go(struct lf_sock *sock);
/* Nothing more is claimed in this process, and what is fused goes back to TCP: other readers and
 * writers than calls of ours are to come. Waits as lf_conn_defuse() does, once for all. */
void lf_pairing_stop(void);
bool lf_pairing_has_stopped(void);
/* The same; and none is followed any more but those of which the kernel can't tell all. */
void lf_pairing_stop_following(void);
/* Eager: the first payload byte waits, bounded, until the peer is ready; not for long where
 * the program did not mean to wait: `dontwait`, or a non-blocking socket; and not beyond a handler that
 * runs, the time limit of the socket, or the peer's end. */
void lf_pairing_await_fuse(struct lf_sock *sock, int fd, bool dontwait, const struct lf_handlers *since);
/* Eager: a blocking receive waits for input or for the broker's answer, whichever is
 * first, so that it does not sleep in TCP while the ring is being set up. 0, or -EINTR. `waits`
 * becomes true if it waited: O_NONBLOCK set since then is for later calls. */
int lf_pairing_await_input(struct lf_sock *sock, int fd, bool *waits, struct lf_handlers *since);
/* Eager: this socket's answer is on its way; readiness calls should watch the broker. */
bool lf_pairing_expects(const struct lf_sock *sock);

/* Tells the broker why this connection stays, or has become, plain. */
void lf_pairing_report(struct lf_sock *sock, enum lf_reason reason);

#endif
