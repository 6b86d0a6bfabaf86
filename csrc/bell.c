/* bell.c - the doorbell: an AF_UNIX stream pair, one end with each end of the
 * connection. A byte means "look"; a hang-up means "nobody holds the other end".
 *
 * The sleep protocol is Dekker's: sleeper and ringer each store their own flag, then
 * load the other's, with a full fence between.
 *
 *   sleeper                             ringer
 *   armed = 1                           publishes (head, tail, mark, wish)
 *   fence                               fence
 *   looks at the ring; nothing there    armed != 0: armed = 0, writes a byte
 *   sleeps in poll on the bell
 *
 * If both loads missed the other's store, each fence would have to come before the
 * other in the single order of seq_cst fences, which can't be. So either the sleeper
 * sees the bytes, or the ringer sees the flag.
 */
#define _GNU_SOURCE
#include "conn.h"
#include "counters.h"
#include "invariant.h"
#include "options.h"
#include "real.h"
#include "uncancelled.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

static void let_go(struct lf_sock **sock)
{
	lf_count_down(&(*sock)->bell_users);
}

/* The number stays the bell's until let_go(), see lf_sock_bell_is_free(). Dekker, seq_cst on
 * both sides: we count ourselves, then load the number; who gives it away stores -1, then looks
 * whether somebody counts. The cleanup also runs when pthread_cancel unwinds through here. */
#define HOLD_BELL(sock, bell)                                                             \
	struct lf_sock *held __attribute__((cleanup(let_go), unused)) = (sock);           \
	atomic_fetch_add(&(sock)->bell_users, 1);                                         \
	int bell = atomic_load(&(sock)->bell)

/* False: not rung, for want of memory. EAGAIN: full, hence rung. EPIPE: the peer is gone, which
 * its hang-up tells. */
static bool put_byte(struct lf_sock *sock)
{
	HOLD_BELL(sock, bell);
	char byte = 0;
	if (bell < 0)
		return true;
	return lf_real.sendto(bell, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) != -1 ||
	       !lf_conn_is_passing(errno);
}

enum { RING_TRIES = 1000 }; /* a second or more */

/* False: there was no memory for it. */
static bool ring(struct lf_sock *sock)
{
	int saved = errno, tries = 0;
	bool rung;
	lf_defer_begin(); /* a ring that is owed is not to be cancelled */
	/* Nobody else will tell who sleeps. In the naps the number may be given away. */
	while (!(rung = put_byte(sock)) && ++tries < RING_TRIES) {
		struct timespec nap = {0, 1000000};
		nanosleep(&nap, NULL);
	}
	lf_defer_end();
	errno = saved;
	return rung;
}

void lf_bell_ring_always(struct lf_sock *sock)
{
	(void)ring(sock);
}

void lf_bell_wake(struct lf_sock *sock, struct lf_armed_line *line)
{
	if (!atomic_exchange_explicit(&line->armed, 0, memory_order_acq_rel))
		return;
	lf_counters_ring(line);
	if (!ring(sock)) /* whoever publishes next is to try again */
		atomic_store_explicit(&line->armed, 1, memory_order_relaxed);
}

void lf_bell_ring(struct lf_sock *sock, struct lf_armed_line *line)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&line->armed, memory_order_relaxed))
		lf_bell_wake(sock, line);
}

int lf_bell_try_room(struct lf_sock *sock, int half)
{
	HOLD_BELL(sock, bell);
	int before = lf_option_ask(bell, SOL_SOCKET, SO_SNDBUF, -1), size = -1;
	if (before == -1)
		return -1;
	if (lf_real.setsockopt(bell, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half)) == 0)
		size = lf_option_ask(bell, SOL_SOCKET, SO_SNDBUF, -1);
	before /= 2;
	(void)lf_real.setsockopt(bell, SOL_SOCKET, SO_SNDBUF, &before, sizeof(before));
	return size;
}

void lf_bell_drain(struct lf_sock *sock)
{
	HOLD_BELL(sock, bell);
	if (bell < 0)
		return;
	char bytes[256]; /* a flooder keeps its own end awake, nobody else's */
	int saved = errno;
	(void)lf_uncancelled_recv(bell, bytes, sizeof(bytes), 0);
	errno = saved;
}
