/* options.c - see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include "conn.h"
#include "epoll.h"
#include "real.h"
#include "tcp_states.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>

/* linux/in6.h and linux/tcp.h; older C libraries lack them. */
#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef TCP_TX_DELAY
#define TCP_TX_DELAY 37
#endif
#ifndef TCP_AO_ADD_KEY
#define TCP_AO_ADD_KEY 38
#define TCP_AO_INFO 40
#endif
/* The names without a suffix mean one or the other, by the size of time_t. */
enum {
	RECEIVE_TIMEOUT_OLD = 20,
	SEND_TIMEOUT_OLD = 21,
	TIMESTAMP_OLD = 29,
	TIMESTAMPNS_OLD = 35,
	TIMESTAMPING_OLD = 37,
	TIMESTAMP_NEW = 63,
	TIMESTAMPNS_NEW = 64,
	TIMESTAMPING_NEW = 65,
	RECEIVE_TIMEOUT_NEW = 66,
	SEND_TIMEOUT_NEW = 67,
};

/* Both forms are two 64-bit numbers here. */
static int64_t timeout_of(const void *value, socklen_t len)
{
	struct timeval tv;
	if (len < sizeof(tv))
		return 0;
	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_sec >= INT64_MAX / 1000000000)
		return 0; /* for ever, sock_set_timeout() */
	if (tv.tv_sec < 0)
		return -1; /* not at all */
	return (int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
}

static int int_of(const void *value, socklen_t len)
{
	int n = 0;
	if (len >= sizeof(n))
		memcpy(&n, value, sizeof(n));
	return n;
}

/* IP takes a single byte as well. */
static bool is_set(const void *value, socklen_t len)
{
	return len >= sizeof(int) ? int_of(value, len) != 0 : len && *(const unsigned char *)value;
}

static enum lf_option_way tcp_if(bool needed)
{
	return needed ? LF_OPTION_TO_TCP : LF_OPTION_STAYS;
}

static enum lf_option_way all_tcp_if(bool needed)
{
	return needed ? LF_OPTION_ALL_TCP : LF_OPTION_STAYS;
}

static bool paces(const void *value, socklen_t len)
{
	uint64_t rate = UINT64_MAX;
	if (len < sizeof(rate))
		return int_of(value, len) != -1;
	memcpy(&rate, value, sizeof(rate));
	return rate != UINT64_MAX;
}

static enum lf_option_way way_of_socket_option(int name, const void *value, socklen_t len)
{
	switch (name) {
	case TIMESTAMP_OLD:
	case TIMESTAMPNS_OLD:
	case TIMESTAMPING_OLD:
	case TIMESTAMP_NEW:
	case TIMESTAMPNS_NEW:
	case TIMESTAMPING_NEW:
	case SO_ZEROCOPY:
	case SO_OOBINLINE:
		return tcp_if(is_set(value, len));
	case SO_ATTACH_FILTER:
	case SO_ATTACH_BPF:
		return LF_OPTION_TO_TCP;
	case SO_MAX_PACING_RATE:
		return tcp_if(paces(value, len));
	case SO_PEEK_OFF:
		return all_tcp_if(int_of(value, len) >= 0);
	default:
		return LF_OPTION_STAYS;
	}
}

static enum lf_option_way way_of_tcp_option(int name, const void *value, socklen_t len)
{
	switch (name) {
	case TCP_ULP: /* kTLS would have to decipher them */
		return LF_OPTION_ONLY_TCP;
	case TCP_REPAIR:
		return is_set(value, len) ? LF_OPTION_ONLY_TCP : LF_OPTION_STAYS;
	case TCP_MD5SIG:
	case TCP_MD5SIG_EXT:
	case TCP_AO_ADD_KEY:
		return LF_OPTION_TO_TCP;
	case TCP_TX_DELAY:
		return tcp_if(is_set(value, len));
	default:
		return LF_OPTION_STAYS;
	}
}

enum lf_option_way lf_option_way(int level, int name, const void *value, socklen_t len)
{
	switch (level) {
	case SOL_SOCKET:
		return way_of_socket_option(name, value, len);
	case IPPROTO_TCP:
		return way_of_tcp_option(name, value, len);
	case IPPROTO_IP: /* what the kernel throws away must not arrive; for a proxy see below */
		return tcp_if(name == IP_XFRM_POLICY || name == IP_IPSEC_POLICY ||
			      ((name == IP_MINTTL || name == IP_TRANSPARENT) && is_set(value, len)));
	case IPPROTO_IPV6:
		return tcp_if(name == IPV6_XFRM_POLICY || name == IPV6_IPSEC_POLICY ||
			      ((name == IPV6_MINHOPCOUNT || name == IPV6_TRANSPARENT) &&
			       is_set(value, len)));
	default:
		return LF_OPTION_STAYS;
	}
}

int lf_option_ask(int fd, int level, int name, int otherwise)
{
	int n = otherwise;
	socklen_t len = sizeof(n);
	return lf_real.getsockopt(fd, level, name, &n, &len) == 0 ? n : otherwise;
}

static uint64_t ask_cookie(int fd, int name)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	return lf_real.getsockopt(fd, SOL_SOCKET, name, &cookie, &len) == 0 ? cookie : 0;
}

uint64_t lf_option_cookie(int fd)
{
	return ask_cookie(fd, SO_COOKIE);
}

uint64_t lf_option_namespace(int fd)
{
	return ask_cookie(fd, SO_NETNS_COOKIE);
}

static int64_t ask_timeout(int fd, int name)
{
	struct timeval tv;
	socklen_t len = sizeof(tv);
	return lf_real.getsockopt(fd, SOL_SOCKET, name, &tv, &len) == 0 ? timeout_of(&tv, len) : 0;
}

static void learn_low_water(struct lf_slot *slot, int fd)
{
	int n = lf_option_ask(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	atomic_store(&slot->rcvlowat, n > 0 ? (uint32_t)n : 1);
}

/* What the kernel made of a buffer size: it doubles and bounds what was asked for. */
static void note_buffer(_Atomic uint32_t *size, int fd, int name)
{
	int n = lf_option_ask(fd, SOL_SOCKET, name, 0);
	if (n > 0)
		atomic_store(size, (uint32_t)n);
}

/* Since Linux 5.17; before, only a size set after connect() or accept() counts. */
static void learn_buffers(struct lf_slot *slot, int fd)
{
	int locked = lf_option_ask(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
	atomic_store(&slot->sndbuf, 0);
	atomic_store(&slot->rcvbuf, 0);
	if (locked & LF_SEND_BUFFER_LOCKED)
		note_buffer(&slot->sndbuf, fd, SO_SNDBUF);
	if (locked & LF_RECEIVE_BUFFER_LOCKED)
		note_buffer(&slot->rcvbuf, fd, SO_RCVBUF);
}

static void learn_send_options(struct lf_slot *slot, int fd)
{
	atomic_store(&slot->notsent_lowat, (uint32_t)lf_option_ask(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0));
	atomic_store(&slot->user_timeout, lf_option_ask(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 0) != 0);
}

/* Threads of ours that wait for it may find it ready now: the kernel wakes them for that. Those in poll
 * look by themselves now and then, see arm_all() in poll.c. */
static void limits_changed(struct lf_sock *sock)
{
	lf_conn_limits_changed(sock);
	if (lf_sock_paired(sock))
		lf_epoll_room(sock);
}

static void note_tcp_option(struct lf_sock *sock, int fd, int name, const void *value, socklen_t len)
{
	bool set = is_set(value, len);
	if (name == TCP_INQ)
		atomic_store(&sock->slot->inq, set);
	if (name == TCP_CORK)
		atomic_store(&sock->slot->corked, set);
	/* TCP_NODELAY pushes what lies there, corked or not: __tcp_sock_set_nodelay() in Linux. */
	if ((name == TCP_CORK && !set) || (name == TCP_NODELAY && set))
		lf_conn_push(sock, fd);
	if (name != TCP_NOTSENT_LOWAT && name != TCP_USER_TIMEOUT)
		return;
	learn_send_options(sock->slot, fd);
	limits_changed(sock);
}

void lf_option_note(struct lf_sock *sock, int fd, int level, int name, const void *value,
		    socklen_t len)
{
	struct lf_slot *slot = sock->slot;
	if (level == IPPROTO_TCP)
		note_tcp_option(sock, fd, name, value, len);
	if (level != SOL_SOCKET)
		return;
	switch (name) {
	case RECEIVE_TIMEOUT_OLD:
	case RECEIVE_TIMEOUT_NEW:
		atomic_store(&slot->rcvtimeo, timeout_of(value, len));
		break;
	case SEND_TIMEOUT_OLD:
	case SEND_TIMEOUT_NEW:
		atomic_store(&slot->sndtimeo, timeout_of(value, len));
		break;
	case SO_RCVLOWAT:
		learn_low_water(slot, fd);
		limits_changed(sock);
		break;
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		note_buffer(&slot->rcvbuf, fd, SO_RCVBUF);
		limits_changed(sock);
		break;
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		note_buffer(&slot->sndbuf, fd, SO_SNDBUF);
		limits_changed(sock);
		break;
	case SO_BUF_LOCK:
		learn_buffers(slot, fd);
		limits_changed(sock);
		break;
	default:
		break;
	}
}

/* Does the socket have a filter? SO_GET_FILTER gives the number of its instructions; that of
 * a BPF program is EACCES. */
static bool is_filtered(int fd)
{
	socklen_t instructions = 0;
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, NULL, &instructions) == -1)
		return errno == EACCES;
	return instructions != 0;
}

/* TCP_AO_INFO fails for any other socket, with ENOENT or ENOPROTOOPT. */
static bool is_authenticated(int fd)
{
	uint64_t info[8] = {0}; /* struct tcp_ao_info_opt, and more */
	socklen_t len = sizeof(info);
	return lf_real.getsockopt(fd, IPPROTO_TCP, TCP_AO_INFO, info, &len) == 0;
}

/* Options that need TCP and that a program may have set before connect() or on a listener.
 * A value other than the default says so. */
static bool only_tcp_will_do(int fd)
{
	static const struct {
		int level, name, default_value;
	} options[] = {
		{SOL_SOCKET, TIMESTAMP_OLD, 0},	      {SOL_SOCKET, TIMESTAMP_NEW, 0},
		{SOL_SOCKET, TIMESTAMPNS_OLD, 0},     {SOL_SOCKET, TIMESTAMPNS_NEW, 0},
		{SOL_SOCKET, TIMESTAMPING_OLD, 0},    {SOL_SOCKET, SO_ZEROCOPY, 0},
		{SOL_SOCKET, SO_OOBINLINE, 0},	      {SOL_SOCKET, SO_PEEK_OFF, -1},
		{SOL_SOCKET, SO_MAX_PACING_RATE, -1},
		{IPPROTO_TCP, TCP_TX_DELAY, 0},	      {IPPROTO_IP, IP_MINTTL, 0},
		{IPPROTO_IPV6, IPV6_MINHOPCOUNT, 0},
		/* A proxy that takes its client's address towards the server, and the server's towards
		 * the client, has two sockets that look like each other's ends. */
		{IPPROTO_IP, IP_TRANSPARENT, 0},      {IPPROTO_IPV6, IPV6_TRANSPARENT, 0},
	};
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		if (lf_option_ask(fd, options[i].level, options[i].name, options[i].default_value) !=
		    options[i].default_value)
			return true;
	int flags = lf_real.fcntl(fd, F_GETFL);
	return (flags != -1 && (flags & O_ASYNC)) || is_filtered(fd) || is_authenticated(fd);
}

bool lf_options_learn(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (only_tcp_will_do(fd))
		return false;
	/* A timeout of "not at all", which the kernel reports as none, stays as it was noted. */
	if (atomic_load(&slot->rcvtimeo) >= 0)
		atomic_store(&slot->rcvtimeo, ask_timeout(fd, SO_RCVTIMEO));
	if (atomic_load(&slot->sndtimeo) >= 0)
		atomic_store(&slot->sndtimeo, ask_timeout(fd, SO_SNDTIMEO));
	learn_low_water(slot, fd);
	learn_buffers(slot, fd);
	learn_send_options(slot, fd);
	atomic_store(&slot->inq, lf_option_ask(fd, IPPROTO_TCP, TCP_INQ, 0) != 0);
	atomic_store(&slot->corked, lf_option_ask(fd, IPPROTO_TCP, TCP_CORK, 0) != 0);
	return true;
}

uint32_t lf_options_receive_limit(const struct lf_sock *sock)
{
	uint32_t buffer = atomic_load_explicit(&sock->slot->rcvbuf, memory_order_relaxed);
	uint32_t low_water = atomic_load_explicit(&sock->slot->rcvlowat, memory_order_relaxed);
	/* Half of it is for the kernel's own bookkeeping, socket(7). */
	if (buffer)
		return buffer / 2;
	/* A buffer left alone grows to hold as much, tcp_set_rcvlowat(): a writer that had to stop
	 * before would wait for a reader that waits for more. */
	return low_water > LF_UNTRIED_WINDOW ? low_water : 0;
}

/* --- queries --- */

/* Of what TCP has queued for us; a copy lies behind what came before the ring. */
static int without_copy(const struct lf_sock *sock, int queued)
{
	uint64_t copy = lf_conn_copy_left(sock), before = lf_conn_left_before_ring(sock);
	uint64_t all = (uint64_t)queued, first = all < before ? all : before, rest = all - first;
	return (int)(first + (copy < rest ? rest - copy : 0));
}

/* Wherever they lie; TCP has `queued`. */
static int all_unread(struct lf_sock *sock, int queued)
{
	return without_copy(sock, queued) + (int)lf_conn_unread(sock);
}

int lf_options_left(struct lf_sock *sock, int fd)
{
	int queued = 0;
	/* Otherwise all there is lies in the ring. */
	if (lf_rx(sock) != LF_RX_FUSED ||
	    atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) != LF_MARK_FUSED)
		(void)lf_real.ioctl(fd, SIOCINQ, &queued);
	int left = all_unread(sock, queued);
	/* "After receiving FIN, tell the user-space to continue reading", tcp_inq_hint() in Linux. */
	return left == 0 && lf_conn_fin_has_come(fd) ? 1 : left;
}

bool lf_option_refuse_zero_copy(struct lf_sock *sock, int fd, void *value, socklen_t len)
{
	struct tcp_zerocopy_receive answer = {0};
	size_t least = offsetof(struct tcp_zerocopy_receive, recv_skip_hint) + sizeof(uint32_t);
	lf_conn_return_to_tcp(sock, LF_REASON_SOCKET_OPTION);
	enum lf_rx rx = lf_rx(sock);
	if (rx == LF_RX_PLAIN || rx == LF_RX_ENDED || len < least || !value)
		return false;
	/* TCP's bytes from before and after the ring's are counted by recv only. */
	size_t have = len < sizeof(answer) ? len : sizeof(answer);
	int queued = 0;
	memcpy(&answer, value, have);
	(void)lf_real.ioctl(fd, SIOCINQ, &queued);
	answer.length = 0;
	answer.recv_skip_hint = (uint32_t)all_unread(sock, queued);
	memcpy(value, &answer, have);
	return true;
}

static void add(void *field, size_t size, uint64_t n)
{
	uint64_t wide;
	uint32_t narrow;
	if (size == sizeof(wide)) {
		memcpy(&wide, field, size);
		wide += n;
		memcpy(field, &wide, size);
	} else {
		memcpy(&narrow, field, size);
		narrow += (uint32_t)n;
		memcpy(field, &narrow, size);
	}
}

/* The ring's bytes count as TCP's do: those the peer's receive buffer would hold are
 * acknowledged, the others wait to be sent. */
static void amend_tcp_info(struct lf_sock *sock, void *value, socklen_t len)
{
	uint64_t sent = lf_conn_ring_sent(sock), unsent = lf_conn_unsent(sock);
#define ADD(field, n)                                                                        \
	do {                                                                                 \
		size_t at = offsetof(struct tcp_info, field);                                \
		size_t size = sizeof(((struct tcp_info *)0)->field);                         \
		if (len >= at + size)                                                        \
			add((char *)value + at, size, n);                                    \
	} while (0)
	ADD(tcpi_bytes_acked, sent - unsent);
	ADD(tcpi_bytes_received, lf_conn_ring_received(sock));
	ADD(tcpi_notsent_bytes, unsent);
	ADD(tcpi_bytes_sent, sent - unsent);
#undef ADD
	if (len > 0 && atomic_load(&sock->slot->reset))
		((struct tcp_info *)value)->tcpi_state = LF_TCP_CLOSED;
}

static void amend_error(struct lf_sock *sock, void *value)
{
	int error;
	memcpy(&error, value, sizeof(error));
	if (error)
		return;
	error = (int)atomic_exchange(&sock->slot->error, 0);
	memcpy(value, &error, sizeof(error));
}

void lf_option_amend(struct lf_sock *sock, int level, int name, void *value, socklen_t len)
{
	if (level == IPPROTO_TCP && name == TCP_INFO)
		amend_tcp_info(sock, value, len);
	else if (level == SOL_SOCKET && name == SO_ERROR && len >= sizeof(int))
		amend_error(sock, value);
}

void lf_ioctl_amend(struct lf_sock *sock, unsigned long request, void *value)
{
	switch (request) {
	case FIONREAD:
		*(int *)value = all_unread(sock, *(int *)value);
		break;
	case SIOCOUTQ:
	case SIOCOUTQNSD:
		*(int *)value += (int)lf_conn_unsent(sock);
		break;
	case SIOCATMARK: /* ring bytes come before urgent ones */
		if (lf_conn_unread(sock))
			*(int *)value = 0;
		break;
	default:
		break;
	}
}
