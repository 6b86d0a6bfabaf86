/* options.c - see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include "conn.h"
#include "real.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>

/* asm-generic/socket.h; older C libraries lack them. */
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif
enum { SEND_BUFFER_LOCKED = 1, RECEIVE_BUFFER_LOCKED = 2 };

static int64_t timeout_of(const void *value, socklen_t len)
{
	struct timeval tv;
	if (len < sizeof(tv))
		return 0;
	memcpy(&tv, value, sizeof(tv));
	return (int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
}

static int int_of(const void *value, socklen_t len)
{
	int n = 0;
	if (len >= sizeof(n))
		memcpy(&n, value, sizeof(n));
	return n;
}

bool lf_option_needs_tcp(int level, int name, const void *value, socklen_t len)
{
	if (level == SOL_SOCKET) {
		switch (name) {
		case SO_TIMESTAMPNS:
		case SO_TIMESTAMPING:
		case SO_TIMESTAMP:
		case SO_ZEROCOPY:
		case SO_OOBINLINE:
		case SO_ATTACH_FILTER:
		case SO_ATTACH_BPF:
		case SO_PEEK_OFF:
		case SO_MAX_PACING_RATE:
			return true;
		default:
			return false;
		}
	}
	if (level != IPPROTO_TCP)
		return false;
	switch (name) {
	case TCP_ULP:
	case TCP_REPAIR:
	case TCP_MD5SIG:
	case TCP_MD5SIG_EXT:
		return true;
	case TCP_INQ:
		return int_of(value, len) != 0;
	default:
		return false;
	}
}

/* An int option's value; `otherwise`: this kernel does not know it. */
static int ask(int fd, int level, int name, int otherwise)
{
	int n = otherwise;
	socklen_t len = sizeof(n);
	return lf_real.getsockopt(fd, level, name, &n, &len) == 0 ? n : otherwise;
}

static int64_t ask_timeout(int fd, int name)
{
	struct timeval tv;
	socklen_t len = sizeof(tv);
	return lf_real.getsockopt(fd, SOL_SOCKET, name, &tv, &len) == 0 ? timeout_of(&tv, len) : 0;
}

static void note_low_water(struct lf_slot *slot, int n)
{
	atomic_store(&slot->rcvlowat, n > 0 ? (uint32_t)n : 1);
}

/* What the kernel made of a buffer size: it doubles and bounds what was asked for. */
static void note_buffer(_Atomic uint32_t *size, int fd, int name)
{
	int n = ask(fd, SOL_SOCKET, name, 0);
	if (n > 0)
		atomic_store(size, (uint32_t)n);
}

void lf_option_note(struct lf_sock *sock, int fd, int name, const void *value, socklen_t len)
{
	struct lf_slot *slot = sock->slot;
	switch (name) {
	case SO_RCVTIMEO:
		atomic_store(&slot->rcvtimeo, timeout_of(value, len));
		break;
	case SO_SNDTIMEO:
		atomic_store(&slot->sndtimeo, timeout_of(value, len));
		break;
	case SO_RCVLOWAT:
		note_low_water(slot, int_of(value, len));
		break;
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		note_buffer(&slot->rcvbuf, fd, SO_RCVBUF);
		lf_conn_limits_changed(sock);
		break;
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		note_buffer(&slot->sndbuf, fd, SO_SNDBUF);
		lf_conn_limits_changed(sock);
		break;
	default:
		break;
	}
}

/* Options that need TCP and that a program may have set before connect() or on a listener.
 * A value other than the default says so. */
static bool only_tcp_will_do(int fd)
{
	static const int flags[] = {SO_TIMESTAMPNS, SO_TIMESTAMPING, SO_TIMESTAMP, SO_ZEROCOPY,
				    SO_OOBINLINE};
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		if (ask(fd, SOL_SOCKET, flags[i], 0) != 0)
			return true;
	/* How many instructions a filter has; EINVAL would mean that there are some too. */
	socklen_t instructions = 0;
	if (lf_real.getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, NULL, &instructions) == 0 &&
	    instructions != 0)
		return true;
	return ask(fd, SOL_SOCKET, SO_PEEK_OFF, -1) >= 0 ||
	       ask(fd, SOL_SOCKET, SO_MAX_PACING_RATE, -1) != -1 ||
	       ask(fd, IPPROTO_TCP, TCP_INQ, 0) != 0;
}

bool lf_options_learn(struct lf_sock *sock, int fd)
{
	struct lf_slot *slot = sock->slot;
	if (only_tcp_will_do(fd))
		return false;
	atomic_store(&slot->rcvtimeo, ask_timeout(fd, SO_RCVTIMEO));
	atomic_store(&slot->sndtimeo, ask_timeout(fd, SO_SNDTIMEO));
	note_low_water(slot, ask(fd, SOL_SOCKET, SO_RCVLOWAT, 1));
	/* Since Linux 5.17; before, only a size set after connect() or accept() counts. */
	int locked = ask(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
	if (locked & SEND_BUFFER_LOCKED)
		note_buffer(&slot->sndbuf, fd, SO_SNDBUF);
	if (locked & RECEIVE_BUFFER_LOCKED)
		note_buffer(&slot->rcvbuf, fd, SO_RCVBUF);
	return true;
}

uint32_t lf_options_receive_limit(const struct lf_sock *sock)
{
	/* Half of it is for the kernel's own bookkeeping, socket(7). */
	return atomic_load_explicit(&sock->slot->rcvbuf, memory_order_relaxed) / 2;
}
