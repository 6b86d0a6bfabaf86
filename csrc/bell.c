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
#include "real.h"

#include <errno.h>
#include <sys/socket.h>

static void let_go(struct lf_sock **sock)
{
	atomic_fetch_sub(&(*sock)->bell_users, 1);
}

/* The number stays the bell's until let_go(), see lf_sock_bell_is_free(). Dekker, seq_cst on
 * both sides: we count ourselves, then load the number; who gives it away stores -1, then looks
 * whether somebody counts. The cleanup also runs when pthread_cancel unwinds through here. */
#define HOLD_BELL(sock, bell)                                                             \
	struct lf_sock *held __attribute__((cleanup(let_go), unused)) = (sock);           \
	atomic_fetch_add(&(sock)->bell_users, 1);                                         \
	int bell = atomic_load(&(sock)->bell)

void lf_bell_ring_always(struct lf_sock *sock)
{
	HOLD_BELL(sock, bell);
	if (bell < 0)
		return;
	char byte = 0;
	int saved = errno;
	/* EAGAIN: full, hence rung. EPIPE: the peer is gone, which its hang-up tells. */
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	(void)lf_real.sendmsg(bell, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	errno = saved;
}

void lf_bell_wake(struct lf_sock *sock, struct lf_armed_line *line)
{
	if (atomic_exchange_explicit(&line->armed, 0, memory_order_acq_rel))
		lf_bell_ring_always(sock);
}

void lf_bell_ring(struct lf_sock *sock, struct lf_armed_line *line)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&line->armed, memory_order_relaxed))
		lf_bell_wake(sock, line);
}

void lf_bell_drain(struct lf_sock *sock)
{
	HOLD_BELL(sock, bell);
	if (bell < 0)
		return;
	char bytes[256]; /* a flooder keeps its own end awake, nobody else's */
	int saved = errno;
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	(void)lf_real.recvmsg(bell, &msg, MSG_DONTWAIT);
	errno = saved;
}
