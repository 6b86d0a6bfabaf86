/* pairing.c - see pairing.h. */
#define _GNU_SOURCE
#include "pairing.h"

#include "broker.h"
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "epoll.h"
#include "options.h"
#include "real.h"
#include "states.h"
#include "uncancelled.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

static bool address_of(int fd, bool remote, uint16_t *family, uint16_t *port, uint8_t addr[16])
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	memset(addr, 0, 16);
	int r = remote ? lf_real.getpeername(fd, (struct sockaddr *)&ss, &len) :
			 getsockname(fd, (struct sockaddr *)&ss, &len);
	if (r == -1)
		return false;
	*family = ss.ss_family;
	if (ss.ss_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, &ss, sizeof(in));
		*port = ntohs(in.sin_port);
		memcpy(addr, &in.sin_addr, 4);
		return true;
	}
	if (ss.ss_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, &ss, sizeof(in6));
		*port = ntohs(in6.sin6_port);
		memcpy(addr, &in6.sin6_addr, 16);
		return true;
	}
	return false;
}

static bool describe(struct lf_sock *sock, struct lf_wire_claim *claim)
{
	int fd = atomic_load(&sock->fd);
	memset(claim, 0, sizeof(*claim));
	claim->claim_id = lf_sock_id(sock);
	claim->side = (uint16_t)sock->side;
	claim->limit = lf_options_receive_limit(sock);
	if ((claim->cookie = lf_option_cookie(fd)) == 0)
		return false;
	atomic_store(&sock->cookie, claim->cookie);
	claim->netns_cookie = lf_option_namespace(fd);
	uint16_t family;
	return address_of(fd, false, &claim->family, &claim->local_port, claim->local_addr) &&
	       address_of(fd, true, &family, &claim->remote_port, claim->remote_addr);
}

void lf_pairing_report(struct lf_sock *sock, enum lf_reason reason)
{
	int saved = errno;
	struct lf_wire_claim claim;
	if (describe(sock, &claim)) {
		claim.reason = (uint32_t)reason;
		lf_broker_send(LF_WIRE_DECLINE, &claim.head, sizeof(claim));
	}
	errno = saved;
}

static void decline(struct lf_sock *sock, enum lf_reason reason)
{
	lf_sock_decline(sock, reason);
	lf_pairing_report(sock, reason);
}

/* Only plain TCP; an MPTCP socket may use several paths. */
static bool is_tcp(int fd)
{
	int protocol = 0;
	socklen_t len = sizeof(protocol);
	return lf_real.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
	       protocol == IPPROTO_TCP;
}

static _Atomic bool stopped;

static void defuse(struct lf_sock *sock, void *deadline)
{
	lf_conn_defuse_until(sock, atomic_load(&sock->fd), LF_REASON_IO_OUTSIDE_LIBC, false,
			     *(const int64_t *)deadline);
}

void lf_pairing_stop(void)
{
	int saved = errno;
	/* Dekker with claim(), seq_cst: it stores CLAIMED, then loads this. */
	atomic_store(&stopped, true);
	/* One time limit for all sockets. */
	int64_t deadline = lf_deadline(LF_TAKE_BACK_NS);
	lf_sock_each(defuse, &deadline);
	errno = saved;
}

bool lf_pairing_has_stopped(void)
{
	return atomic_load(&stopped);
}

static void claim(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (!lf_slot_is_held_by(slot, 1)) /* later, when the other one has closed it */
		return;
	if (atomic_load(&slot->tx_inside) || atomic_load(&slot->rx_inside))
		return; /* counts are in motion */
	enum lf_reason declined = (enum lf_reason)atomic_load(&slot->declined);
	if (!declined && atomic_load(&stopped))
		declined = LF_REASON_IO_OUTSIDE_LIBC;
	if (declined) {
		decline(sock, declined);
		return;
	}
	/* Before the kernel is asked for all that a claim says: nobody may be there to hear it. */
	if (!lf_broker_is_within_reach()) {
		atomic_store_explicit(&sock->calls, 0, memory_order_relaxed);
		return;
	}
	if (!is_tcp(fd)) {
		lf_sock_decline(sock, LF_REASON_SOCKET_OPTION);
		return;
	}
	if (!lf_options_learn(sock, fd)) {
		decline(sock, LF_REASON_SOCKET_OPTION);
		return;
	}
	int sent = lf_conn_counts_agree(sock, fd, true), got = lf_conn_counts_agree(sock, fd, false);
	if (sent == EPROTO || got == EPROTO)
		return; /* not established yet, or on its way out */
	if (sent || got) {
		if (atomic_fetch_add(&sock->calls, 1) > lf_config.after + 64)
			decline(sock, LF_REASON_IO_OUTSIDE_LIBC);
		return;
	}
	struct lf_wire_claim message;
	if (!describe(sock, &message))
		return;
	if (!lf_states_pair(sock, LF_PAIRING_TRACKED, LF_PAIRING_CLAIMED))
		return;
	if (atomic_load(&stopped)) {
		decline(sock, LF_REASON_IO_OUTSIDE_LIBC);
		return;
	}
	if (!lf_broker_send(LF_WIRE_CLAIM, &message.head, sizeof(message))) {
		/* No broker: plain TCP; try again much later. */
		atomic_store(&sock->calls, 0);
		(void)lf_states_pair(sock, LF_PAIRING_CLAIMED, LF_PAIRING_TRACKED);
	}
}

void lf_pairing_let_go(struct lf_sock *sock)
{
	lf_epoll_let_go(sock);
	lf_sock_let_go(sock);
}

static void let_go_of_plain(struct lf_sock *sock, void *context)
{
	(void)context;
	enum lf_rx rx = lf_rx(sock);
	if (lf_tx(sock) != LF_TX_FUSED && (rx == LF_RX_PLAIN || rx == LF_RX_ENDED) &&
	    !atomic_load(&sock->slot->error) && !atomic_load(&sock->slot->reset))
		lf_pairing_let_go(sock);
}

void lf_pairing_stop_following(void)
{
	int saved = errno;
	lf_pairing_stop();
	lf_sock_each(let_go_of_plain, NULL);
	errno = saved;
}

/* A call less until it is time to claim. Two threads that count at once may count once. */
static bool is_early(struct lf_sock *sock)
{
	uint32_t calls = atomic_load_explicit(&sock->calls, memory_order_relaxed);
	if (calls >= lf_config.after || lf_config.eager || !lf_config.broker[0] ||
	    atomic_load_explicit(&sock->pairing, memory_order_relaxed) != LF_PAIRING_TRACKED)
		return false;
	atomic_store_explicit(&sock->calls, calls + 1, memory_order_relaxed);
	return true;
}

void lf_pairing_advance(struct lf_sock *sock, int fd)
{
	if (is_early(sock))
		return;
	int saved = errno;
	switch ((enum lf_pairing)atomic_load(&sock->pairing)) {
	case LF_PAIRING_FRESH: /* or connected past us: plain */
		break;
	case LF_PAIRING_TRACKED:
		if (lf_config.broker[0])
			claim(sock, fd);
		break;
	case LF_PAIRING_CLAIMED:
		if (lf_broker_has_mail())
			lf_broker_receive();
		break;
	case LF_PAIRING_DECLINED:
		if (!atomic_load(&sock->slot->error)) /* one that is still to be told */
			lf_pairing_let_go(sock);
		break;
	case LF_PAIRING_PAIRED:
		break;
	}
	errno = saved;
}

void lf_pairing_begin(struct lf_sock *sock, int fd)
{
	if (!lf_states_pair(sock, LF_PAIRING_FRESH, LF_PAIRING_TRACKED))
		return;
	/* A program that registered the socket at once will not call epoll_ctl again. */
	struct lf_epoll *ep = lf_epoll_connecting(sock);
	if (!ep || !lf_config.eager)
		return;
	lf_pairing_step(sock, fd);
	if (lf_pairing_expects(sock))
		lf_epoll_watch_broker(ep);
}

bool lf_pairing_expects(const struct lf_sock *sock)
{
	return lf_config.eager && atomic_load(&sock->pairing) == LF_PAIRING_CLAIMED;
}

/* Before pairing the slot does not know: the flag may be older than the connection. */
static bool is_nonblocking(int fd)
{
	int flags = lf_real.fcntl(fd, F_GETFL);
	return flags != -1 && (flags & O_NONBLOCK);
}

int lf_pairing_await_input(struct lf_sock *sock, int fd, bool *waits, struct lf_handlers *since)
{
	if (!lf_pairing_expects(sock) || atomic_load(&sock->slot->rcvtimeo))
		return 0;
	if (is_nonblocking(fd))
		return 0;
	*waits = true;
	int saved = errno, r = 0;
	while (r != -EINTR && lf_pairing_expects(sock)) {
		struct pollfd fds[2] = {{.fd = fd, .events = POLLIN | POLLRDHUP},
					{.fd = lf_broker_fd(), .events = POLLIN}};
		/* Another thread may take the broker's message in: look up now and then. */
		struct timespec nap = {0, 20 * 1000000};
		r = lf_wait_poll(fds, 2, &nap, since);
		if (r == 0 && (fds[0].revents || fds[1].fd < 0))
			break;
		lf_broker_receive();
	}
	errno = saved;
	return r == -EINTR ? r : 0;
}

/* Eager: how long first sends of this process wait, ns; 0: as long as configured. Waits in
 * vain make the next ones shorter: one thread may be both ends, or the one that accepts. */
static _Atomic int64_t patience;
#define LEAST_PATIENCE_NS (INT64_C(2) * 1000000)
/* An event loop has other work to do. */
#define NONBLOCKING_PATIENCE_NS (INT64_C(20) * 1000000)

static int64_t eager_wait(const struct lf_sock *sock, int fd, bool dontwait)
{
	int64_t limit = atomic_load(&sock->slot->sndtimeo);
	int64_t ns = atomic_load(&patience);
	if (ns == 0 || ns > lf_config.eager_wait_ns)
		ns = lf_config.eager_wait_ns;
	if (ns > NONBLOCKING_PATIENCE_NS && (dontwait || is_nonblocking(fd)))
		ns = NONBLOCKING_PATIENCE_NS;
	return limit && limit < ns ? limit : ns;
}

static void learn_patience(bool in_vain, int64_t waited)
{
	if (!in_vain)
		atomic_store(&patience, 0);
	else
		atomic_store(&patience, waited / 4 > LEAST_PATIENCE_NS ? waited / 4 : LEAST_PATIENCE_NS);
}

/* What is sent meets an end, or a handler is to find its effect. */
static bool is_over(int fd, const struct lf_handlers *since)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	return lf_defer_calls() != since->calls || lf_uncancelled_poll(&p, 1, 0) != 0;
}

void lf_pairing_await_fuse(struct lf_sock *sock, int fd, bool dontwait, const struct lf_handlers *since)
{
	if (!lf_config.eager || atomic_load(&sock->slot->waited) ||
	    atomic_load(&sock->pairing) == LF_PAIRING_FRESH)
		return;
	atomic_store(&sock->slot->waited, 1);
	int saved = errno;
	int64_t most = eager_wait(sock, fd, dontwait), deadline = lf_deadline(most);
	bool in_vain = false, over;
	while (!(over = is_over(fd, since)) && !(in_vain = lf_now() >= deadline)) {
		uint32_t pairing = atomic_load(&sock->pairing);
		if (pairing == LF_PAIRING_DECLINED)
			break;
		if (pairing == LF_PAIRING_PAIRED) {
			if (lf_conn_peer_ready(sock))
				break;
			struct timespec nap = {0, 50000};
			nanosleep(&nap, NULL);
			continue;
		}
		if (pairing == LF_PAIRING_TRACKED) {
			lf_pairing_advance(sock, fd);
			if (atomic_load(&sock->pairing) == LF_PAIRING_TRACKED)
				break; /* no broker, shared, not established: not a matter of waiting */
			continue;
		}
		struct pollfd p = {.fd = lf_broker_fd(), .events = POLLIN};
		if (p.fd < 0)
			break;
		lf_uncancelled_poll(&p, 1, most < 10000000 ? 1 : 10);
		lf_broker_receive();
	}
	if (!over)
		learn_patience(in_vain, most);
	errno = saved;
}
