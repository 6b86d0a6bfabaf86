/* scenarios.c - what the checker runs: the two ends of one connection, each with one thread or two,
 * by the functions of csrc/ (conn_*.c, wait.c, bell.c and their headers, unchanged). Here are the kernel they need (TCP, doorbells, poll), the lock with the
 * orders of lock.c, and stand-ins for what has no part in it (epoll, pairing, signals, taps).
 *
 * A poll with a time limit never times out, so nothing is saved by a limit that should not have
 * been needed; time stands still, so nobody spins.
 */
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "epoll.h"
#include "options.h"
#include "pairing.h"
#include "poll_limit.h"
#include "real.h"
#include "signals.h"
#include "sim.h"
#include "start.h"
#include "tap.h"
#include "uncancelled.h"

#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>

enum { SENDER, RECEIVER, ENDS };
enum { RING_MOST = 8, QUEUE = 16 };

static uint8_t ring[RING_MOST];
static uint32_t ring_size = 4;

static bool ring_holds(const void *at)
{
	return (const uint8_t *)at >= ring && (const uint8_t *)at < ring + RING_MOST;
}

/* --- the kernel --- */

struct kernel {
	uint32_t lock;
	uint8_t queue[QUEUE]; /* bytes for this end that came by TCP */
	size_t length;
	uint64_t received, sent; /* ever */
	bool fin, lingers;
	int bell;
};
static struct kernel kernel[ENDS];

/* Sockets are numbers 10 and 11, their bells 20 and 21. */
static int end_of(int fd)
{
	return fd % 10;
}

static bool is_bell(int fd)
{
	return fd >= 20;
}

static ssize_t k_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	(void)flags;
	struct kernel *mine = &kernel[end_of(fd)], *other = &kernel[1 - end_of(fd)];
	sim_kernel(&other->lock);
	if (is_bell(fd)) {
		other->bell++;
		return 1;
	}
	ssize_t sum = 0;
	for (size_t i = 0; i < (size_t)msg->msg_iovlen; i++) {
		const struct iovec *piece = &msg->msg_iov[i];
		/* Out of the ring or out of the program. */
		if (ring_holds(piece->iov_base))
			sim_access(piece->iov_base, piece->iov_len, false);
		for (size_t j = 0; j < piece->iov_len; j++, sum++) {
			if (other->length == QUEUE)
				sim_fail("TCP's queue is full");
			other->queue[other->length++] = ((uint8_t *)piece->iov_base)[j];
		}
	}
	mine->sent += (uint64_t)sum;
	other->received += (uint64_t)sum;
	return sum;
}

static ssize_t k_sendto(int fd, const void *bytes, size_t n, int flags, const struct sockaddr *to,
			socklen_t length)
{
	(void)to, (void)length;
	struct iovec iov = {(void *)(uintptr_t)bytes, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return k_sendmsg(fd, &msg, flags);
}

static bool has_input(void *context)
{
	const struct kernel *mine = context;
	return mine->length || mine->fin;
}

static ssize_t k_recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct kernel *mine = &kernel[end_of(fd)];
	sim_kernel(&mine->lock);
	if (is_bell(fd)) {
		int rung = mine->bell;
		mine->bell = 0;
		errno = EAGAIN;
		return rung ? rung : -1;
	}
	if (!(flags & MSG_DONTWAIT)) {
		sim_block(has_input, mine);
		sim_kernel(&mine->lock);
	}
	if (mine->length == 0) {
		errno = EAGAIN;
		return mine->fin ? 0 : -1;
	}
	size_t n = 0;
	for (size_t i = 0; i < (size_t)msg->msg_iovlen; i++)
		for (size_t j = 0; j < msg->msg_iov[i].iov_len && n < mine->length; j++, n++)
			if (!(flags & MSG_TRUNC))
				((uint8_t *)msg->msg_iov[i].iov_base)[j] = mine->queue[n];
	if (!(flags & MSG_PEEK)) {
		memmove(mine->queue, mine->queue + n, mine->length - n);
		mine->length -= n;
	}
	return (ssize_t)n;
}

struct polled {
	struct pollfd *fds;
	size_t n;
};

static bool is_ready(void *context)
{
	const struct polled *polled = context;
	bool ready = false;
	for (size_t i = 0; i < polled->n; i++) {
		struct pollfd *p = &polled->fds[i];
		p->revents = 0;
		if (p->fd < 0)
			continue;
		const struct kernel *mine = &kernel[end_of(p->fd)];
		if (is_bell(p->fd))
			p->revents = mine->bell ? POLLIN & p->events : 0;
		else
			p->revents = (short)((mine->length || mine->fin ? POLLIN & p->events : 0) |
					     (mine->fin ? POLLRDHUP & p->events : 0) |
					     (POLLOUT & p->events));
		ready |= p->revents != 0;
	}
	return ready;
}

static void look(const struct polled *polled)
{
	for (size_t i = 0; i < polled->n; i++)
		if (polled->fds[i].fd >= 0)
			sim_kernel(&kernel[end_of(polled->fds[i].fd)].lock);
}

static int how_many(const struct polled *polled)
{
	int n = 0;
	for (size_t i = 0; i < polled->n; i++)
		n += polled->fds[i].revents != 0;
	return n;
}

/* A thread may let all time pass at once; otherwise none passes, and a sleep with an end is as long as
 * one without. */
static struct {
	bool strikes, has_come;
	int lock;
} hour;

static bool is_ready_or_late(void *context)
{
	return is_ready(context) || hour.has_come;
}

static int k_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	(void)mask;
	struct polled polled = {fds, n};
	look(&polled);
	if (ts && ts->tv_sec == 0 && ts->tv_nsec == 0)
		return is_ready(&polled) ? how_many(&polled) : 0;
	sim_block(ts ? is_ready_or_late : is_ready, &polled);
	look(&polled);
	(void)is_ready(&polled);
	return how_many(&polled);
}

static int k_poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec none = {0, 0};
	return k_ppoll(fds, n, ms ? NULL : &none, NULL);
}

static int k_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	const struct kernel *mine = &kernel[end_of(fd)];
	memset(value, 0, *len);
	sim_kernel(&kernel[end_of(fd)].lock);
	if (level == IPPROTO_TCP && name == TCP_INFO) {
		struct tcp_info *info = value;
		info->tcpi_state = 1;
		info->tcpi_bytes_acked = mine->sent + (end_of(fd) == SENDER);
		info->tcpi_bytes_received = mine->received;
	}
	if (level == SOL_SOCKET && name == SO_MEMINFO)
		((uint32_t *)value)[SK_MEMINFO_SNDBUF] = 1 << 20;
	return 0;
}

static int k_ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	*va_arg(arguments, int *) = request == SIOCINQ ? (int)kernel[end_of(fd)].length : 0;
	va_end(arguments);
	return 0;
}

static int k_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	(void)value, (void)len;
	if (level == SOL_SOCKET && name == SO_LINGER)
		kernel[end_of(fd)].lingers = true;
	return 0;
}

static int k_shutdown(int fd, int how)
{
	if (how == SHUT_WR || how == SHUT_RDWR) {
		sim_kernel(&kernel[1 - end_of(fd)].lock);
		kernel[1 - end_of(fd)].fin = true;
	}
	return 0;
}

static ssize_t k_recvfrom(int fd, void *bytes, size_t n, int flags, struct sockaddr *from,
			  socklen_t *length)
{
	(void)from, (void)length;
	struct iovec iov = {bytes, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return k_recvmsg(fd, &msg, flags);
}

struct lf_real lf_real = {
	.sendmsg = k_sendmsg,
	.recvmsg = k_recvmsg,
	.sendto = k_sendto,
	.recvfrom = k_recvfrom,
	.poll = k_poll,
	.ppoll = k_ppoll,
	.getsockopt = k_getsockopt,
	.setsockopt = k_setsockopt,
	.ioctl = k_ioctl,
	.shutdown = k_shutdown,
};

int lf_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	return k_ppoll(fds, n, ts, mask);
}

int lf_uncancelled_poll(struct pollfd *fds, nfds_t n, int ms)
{
	return k_poll(fds, n, ms);
}

ssize_t lf_uncancelled_recv(int fd, void *bytes, size_t n, int flags)
{
	return k_recvfrom(fd, bytes, n, flags | MSG_DONTWAIT, NULL, NULL);
}

int sim_clock(clockid_t clock, struct timespec *now)
{
	(void)clock;
	if (hour.strikes)
		sim_kernel(&hour.lock);
	*now = (struct timespec){hour.has_come ? 2000 : 1000, 0};
	return 0;
}

/* --- the lock, with the orders of lock.c --- */

static bool is_free(void *context)
{
	return *(volatile uint32_t *)context == 0;
}

bool lf_lock_acquire(struct lf_lock *lock, enum lf_rank rank)
{
	(void)rank;
	uint32_t free;
	do {
		sim_block(is_free, (void *)&lock->word);
		free = 0;
	} while (!atomic_compare_exchange_strong_explicit(&lock->word, &free, 1, memory_order_acquire,
							  memory_order_relaxed));
	return true;
}

void lf_lock_release(struct lf_lock *lock, enum lf_rank rank)
{
	(void)rank;
	(void)atomic_exchange_explicit(&lock->word, 0, memory_order_release);
}

bool lf_lock_is_elsewhere(const struct lf_lock *lock)
{
	(void)lock;
	return false;
}

/* --- what has no part in it --- */

struct lf_config lf_config;
_Atomic uintptr_t *lf_table;
_Thread_local struct lf_defer lf_defer;
void lf_defer_let_go(void) {}
void lf_defer_disable_cancel(void) {}
void lf_defer_restore_cancel(void) {}
struct lf_defer_pause lf_defer_pause(void) { return (struct lf_defer_pause){0, 0}; }
void lf_defer_resume(struct lf_defer_pause pause) { (void)pause; }
uint64_t lf_signals_returning(void) { return 0; }
bool lf_signals_handled(sigset_t *set) { (void)set; return false; }
void lf_counters_ring(struct lf_armed_line *line) { (void)line; }
void lf_counters_rung(struct lf_sock *sock, bool slept) { (void)sock, (void)slept; }
bool lf_epoll_adopt(struct lf_sock *sock) { (void)sock; return true; }
void lf_epoll_bell_closes(struct lf_sock *sock) { (void)sock; }
void lf_epoll_catch_up(struct lf_sock *sock, int fd) { (void)sock, (void)fd; }
void lf_epoll_let_go(struct lf_sock *sock) { (void)sock; }
void lf_epoll_refresh(struct lf_sock *sock) { (void)sock; }
void lf_epoll_room(struct lf_sock *sock) { (void)sock; }
void lf_epoll_stop_counting(struct lf_sock *sock) { (void)sock; }
bool lf_in_borrowed_memory(void) { return false; }
uint64_t lf_option_cookie(int fd) { return (uint64_t)fd; }
void lf_uncancelled_nap(int64_t ns) { (void)ns; }
bool lf_slot_is_held_by(struct lf_slot *slot, uint32_t holders) { return slot->holders == holders; }
int lf_option_ask(int fd, int level, int name, int otherwise) { (void)fd, (void)level, (void)name; return otherwise; }
bool lf_conn_renew(struct lf_sock *sock, int fd, uint64_t from, size_t n, bool all) { (void)sock, (void)fd, (void)from, (void)n, (void)all; return false; }
short lf_conn_tcp_says(const struct lf_sock *sock, int fd, short told) { (void)sock, (void)fd; return told; }
int lf_options_left(struct lf_sock *sock, int fd) { (void)sock, (void)fd; return 0; }
uint32_t lf_options_receive_limit(const struct lf_sock *sock) { (void)sock; return 0; }
void lf_pairing_advance(struct lf_sock *sock, int fd) { (void)sock, (void)fd; }
void lf_pairing_await_fuse(struct lf_sock *sock, int fd, bool dontwait, const struct lf_handlers *since)
{
	(void)sock, (void)fd, (void)dontwait, (void)since;
}
int lf_pairing_await_input(struct lf_sock *sock, int fd, bool *waits, struct lf_handlers *since)
{
	(void)sock, (void)fd, (void)waits, (void)since;
	return 0;
}
void lf_pairing_report(struct lf_sock *sock, enum lf_reason reason) { (void)sock, (void)reason; }
void lf_sock_bell_is_free(struct lf_sock *sock) { (void)sock; }
enum lf_reason lf_sock_commit(struct lf_sock *sock) { (void)sock; return LF_REASON_NONE; }
void lf_sock_decline(struct lf_sock *sock, enum lf_reason reason) { (void)sock, (void)reason; }
void lf_sock_decline_later(struct lf_sock *sock, enum lf_reason reason) { (void)sock, (void)reason; }
/* The other sockets of a process; there are none. */
void lf_sock_each(void (*fn)(struct lf_sock *sock, void *context), void *context)
{
	(void)fn;
	(void)context;
}
int lf_table_hide(int fd) { return fd; }
void lf_table_unhide(int fd) { (void)fd; }
void lf_tap_end(struct lf_sock *sock, enum lf_capture_kind kind) { (void)sock, (void)kind; }
void lf_tap_fetch(struct lf_sock *sock, uint32_t taps) { (void)sock, (void)taps; }
void lf_tap_put(struct lf_sock *sock, uint32_t taps, uint64_t head, uint64_t place, size_t n)
{
	(void)sock, (void)taps, (void)head, (void)place, (void)n;
}
void lf_copy_choose(void) {}
struct lf_segment *lf_mapping_make(int fd, uint32_t size, void **whole) { (void)fd, (void)size, (void)whole; return NULL; }
void lf_mapping_drop(struct lf_segment *segment, uint32_t size, void *whole) { (void)segment, (void)size, (void)whole; }

/* --- the connection --- */

static struct lf_segment segment;
static struct lf_slot slots[ENDS];
static struct lf_sock socks[ENDS];
static uint8_t got[QUEUE];
static size_t got_count;

void lf_copy(void *to, const void *from, size_t n)
{
	if (ring_holds(to))
		sim_access(to, n, true);
	if (ring_holds(from))
		sim_access(from, n, false);
	memcpy(to, from, n);
}

/* Both ends paired; the direction from SENDER to RECEIVER has come so far. `limit`: unread bytes. */
static void pair(enum lf_mark mark, uint32_t limit)
{
	memset(&segment, 0, sizeof(segment));
	memset(slots, 0, sizeof(slots));
	memset(socks, 0, sizeof(socks));
	memset(kernel, 0, sizeof(kernel));
	memset(ring, 0, sizeof(ring));
	memset(&hour, 0, sizeof(hour));
	got_count = 0;
	for (int end = 0; end < ENDS; end++) {
		struct lf_sock *sock = &socks[end];
		*sock = (struct lf_sock){
			.users = 1, .pairing = LF_PAIRING_PAIRED, .side = (uint32_t)end,
			.fd = 10 + end, .descriptors = 1, .slot = &slots[end], .segment = &segment,
			.out = &segment.dir[end], .in = &segment.dir[1 - end],
			.out_ring = {ring, ring, ring_size, 0}, .in_ring = {ring, ring, ring_size, 0},
			.ring_size = ring_size, .out_index = 0,
			.bell = 20 + end, .let_go = 1,
		};
		slots[end].holders = 1;
		slots[end].rcvlowat = 1;
		slots[end].tx_limit = limit;
		slots[end].tx_backed = ring_size;
		slots[end].tx = LF_TX_ENDED;
		slots[end].rx = LF_RX_ENDED;
	}
	slots[SENDER].tx = mark == LF_MARK_FUSED ? LF_TX_FUSED : LF_TX_PLAIN;
	slots[RECEIVER].rx = mark == LF_MARK_FUSED ? LF_RX_FUSED : LF_RX_PLAIN;
	segment.dir[SENDER].p.mark = mark;
	segment.dir[SENDER].c.ready = mark == LF_MARK_FUSED;
}

static void send_with(int first, size_t n, int flags)
{
	uint8_t data[QUEUE];
	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(first + (int)i);
	struct iovec iov = {data, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .flags = flags};
	ssize_t r = lf_conn_send(&socks[SENDER], 10, &io);
	if (r != (ssize_t)n)
		sim_fail("a send of %zu bytes returned %zd", n, r);
}

static void send_bytes(int first, size_t n)
{
	send_with(first, n, 0);
}

/* 0: the end of the stream. */
static size_t receive(size_t most)
{
	struct iovec iov = {got + got_count, most};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg};
	ssize_t r = lf_conn_recv(&socks[RECEIVER], 11, &io);
	if (r < 0)
		sim_fail("a receive returned %zd", r);
	for (size_t i = got_count; i < got_count + (size_t)r; i++)
		if (got[i] != i + 1)
			sim_fail("byte %zu is number %d", i + 1, got[i]);
	got_count += (size_t)r;
	return (size_t)r;
}

static void receive_all(size_t n)
{
	while (got_count < n)
		if (receive(n - got_count) == 0)
			sim_fail("the stream ended after %zu bytes of %zu", got_count, n);
}

/* stream: a ring of four bytes of which three may be unread; both ends sleep. */
static void stream_begin(void) { pair(LF_MARK_FUSED, 3); }
static void stream_sends(void)
{
	for (int i = 1; i <= 4; i++)
		send_bytes(i, 1);
}
static void stream_receives(void) { receive_all(4); }

/* wrap: places are used again, and position 0 gets a new place. */
static void wrap_begin(void) { pair(LF_MARK_FUSED, 4); }
static void wrap_sends(void)
{
	send_bytes(1, 3);
	send_bytes(4, 3);
}
static void wrap_receives(void) { receive_all(6); }

/* reuse: places are used again by sends that each look for room but once. */
static void reuse_sends(void)
{
	send_bytes(1, 4);
	send_bytes(5, 2);
	send_bytes(7, 2);
}
static void reuse_receives(void)
{
	while (got_count < 8)
		(void)receive(2);
}

/* more: what waits for more comes with it, though there is room for it alone. */
static void more_sends(void)
{
	send_with(1, 1, MSG_MORE);
	send_bytes(2, 1);
	send_with(3, 1, MSG_MORE);
	send_bytes(4, 1);
}
static void more_receives(void)
{
	while (got_count < 4) {
		(void)receive(4 - got_count);
		if (got_count % 2)
			sim_fail("byte %zu came alone", got_count);
	}
}

/* uncork: no bytes, but those before them are let go. */
static void uncork_sends(void)
{
	send_with(1, 2, MSG_MORE);
	lf_conn_push(&socks[SENDER], 10);
}
static void uncork_receives(void) { receive_all(2); }

/* corks: the cork is taken out beside a send that has found it in. */
static void corks_begin(void)
{
	pair(LF_MARK_FUSED, 4);
	slots[SENDER].corked = 1;
}
static void corks_sends(void) { send_bytes(1, 1); }
static void corks_receives(void) { receive_all(1); }
static void corks_uncorks(void)
{
	atomic_store(&slots[SENDER].corked, 0);
	lf_conn_push(&socks[SENDER], 10);
}

/* late: nothing follows what waits for more; the time after which it is shown may be over between any
 * two looks at the clock. */
static void late_begin(void)
{
	pair(LF_MARK_FUSED, 4);
	hour.strikes = true;
}
static void late_sends(void)
{
	send_with(1, 1, MSG_MORE);
	sim_kernel(&hour.lock);
	hour.has_come = true;
}
static void late_receives(void) { receive_all(1); }

/* home: a send that knows of room without a look starts over at the first place. */
static void home_begin(void)
{
	ring_size = 8;
	pair(LF_MARK_FUSED, 8);
}
static void home_sends(void)
{
	send_bytes(1, 5);
	send_bytes(6, 1);
	send_bytes(7, 6);
}
static void home_receives(void) { receive_all(12); }

/* fuse: TCP, then the ring, as soon as the receiver is ready. */
static void fuse_begin(void) { pair(LF_MARK_PLAIN, 4); }
static void fuse_sends(void)
{
	for (int i = 1; i <= 2; i++)
		send_bytes(i, 1);
}
static void fuse_receives(void)
{
	lf_conn_try_ready(&socks[RECEIVER], 11);
	receive_all(2);
}

/* two: a thread that sends by TCP while another one fuses. */
static void two_sends(void) { send_bytes(1, 1); }
static void two_sends_too(void) { send_bytes(1, 1); }
static void two_receives(void)
{
	lf_conn_try_ready(&socks[RECEIVER], 11);
	for (size_t n = 0; n < 2; n++) {
		struct iovec iov = {got + n, 1};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		struct lf_io io = {.msg = &msg};
		if (lf_conn_recv(&socks[RECEIVER], 11, &io) != 1 || got[n] != 1)
			sim_fail("not the byte that was sent");
	}
}

static void two_end(void)
{
	uint64_t total = atomic_load(&segment.dir[SENDER].arrivals.tcp_total);
	if (atomic_load(&segment.dir[SENDER].p.mark) == LF_MARK_FUSED &&
	    total != kernel[RECEIVER].received)
		sim_fail("%d bytes came by TCP, %d were promised", (int)kernel[RECEIVER].received,
			 (int)total);
}

/* end: the sender goes back to TCP. */
static void end_sends(void)
{
	send_bytes(1, 1);
	lf_conn_return_to_tcp(&socks[SENDER], LF_REASON_SOCKET_OPTION);
	send_bytes(2, 1);
}
static void end_receives(void) { receive_all(2); }

/* back: the receiver wants what is unread by TCP, and looks at nothing else from then on. */
static void back_sends(void)
{
	send_bytes(1, 1);
	send_bytes(2, 1);
	/* The program's later calls. */
	struct lf_sock *sock = &socks[SENDER];
	while (lf_tx(sock) == LF_TX_FUSED) {
		struct pollfd bell = {.fd = 20, .events = POLLIN};
		(void)lf_conn_service(sock, 10);
		if (lf_tx(sock) == LF_TX_FUSED)
			(void)k_poll(&bell, 1, -1);
		lf_bell_drain(sock);
	}
}
static void back_receives(void)
{
	receive_all(1);
	lf_conn_defuse(&socks[RECEIVER], 11, LF_REASON_EXEC, false);
	receive_all(2);
	lf_bell_ring_always(&socks[RECEIVER]);
}

/* turn: it stays with the socket and reads some before the sender has begun. */
static void turn_receives(void)
{
	lf_conn_defuse_until(&socks[RECEIVER], 11, LF_REASON_EPOLL_KIND, true, lf_now());
	receive_all(2);
	lf_bell_ring_always(&socks[RECEIVER]);
}

/* both: the receiver has left after waiting in vain, then the sender leaves on its own account. */
static bool receiver_has_left(void *context)
{
	(void)context;
	return slots[RECEIVER].rx == LF_RX_ENDED;
}
static void both_sends(void)
{
	send_bytes(1, 2);
	sim_block(receiver_has_left, NULL);
	lf_conn_defuse_until(&socks[SENDER], 10, LF_REASON_EXEC, false, lf_now());
}
static void both_receives(void)
{
	(void)receive(1);
	lf_conn_defuse_until(&socks[RECEIVER], 11, LF_REASON_EXEC, false, lf_now());
	receive_all(2);
}

/* stopped: the same, but the sender may be anywhere on its way out when the receiver leaves. */
static void stopped_sends(void)
{
	send_bytes(1, 2);
	lf_conn_defuse_until(&socks[SENDER], 10, LF_REASON_EXEC, false, lf_now());
}

/* fin: shutdown after the last byte. */
static void fin_sends(void)
{
	send_bytes(1, 2);
	(void)lf_conn_shutdown(&socks[SENDER], 10, SHUT_WR);
}
static void fin_receives(void)
{
	receive_all(2);
	if (receive(1) != 0)
		sim_fail("a byte too many");
}

/* last: shutdown with bytes unread, and the receiver hands the socket on, having waited for as long as it
 * would. */
static void last_receives(void)
{
	receive_all(1);
	lf_conn_defuse_until(&socks[RECEIVER], 11, LF_REASON_EXEC, false, lf_now());
	fin_receives();
}

/* moved: the sender leaves its ring with bytes unread, and goes on by TCP; the receiver hands the socket on. */
static void moved_sends(void)
{
	send_bytes(1, 2);
	lf_conn_return_to_tcp(&socks[SENDER], LF_REASON_SOCKET_OPTION);
	send_bytes(3, 1);
}
static void moved_receives(void)
{
	receive_all(1);
	lf_conn_defuse_until(&socks[RECEIVER], 11, LF_REASON_EXEC, false, lf_now());
	receive_all(3);
}

/* handed: the sender has done so before the receiver hands on, and who gets the socket knows only TCP. */
static bool sender_has_left(void *context)
{
	(void)context;
	return slots[SENDER].tx == LF_TX_ENDED;
}
static void handed_receives(void)
{
	receive_all(1);
	sim_block(sender_has_left, NULL);
	lf_conn_defuse_until(&socks[RECEIVER], 11, LF_REASON_EXEC, false, lf_now());
	if (slots[RECEIVER].rx != LF_RX_ENDED)
		sim_fail("what is unread is in the ring alone");
	receive_all(3);
}

/* close: the receiver closes; a byte that it has not read is answered by RST in one way or the
 * other. */
static void close_sends(void) { send_bytes(1, 1); }
static void close_receives(void)
{
	lf_conn_before_close(&socks[RECEIVER], 11, false);
}
static void close_end(void)
{
	if (!kernel[RECEIVER].lingers && kernel[RECEIVER].received == 0)
		sim_fail("nobody learns that the byte was lost");
}

static const struct sim_scenario scenarios[] = {
	{"stream", stream_begin, {stream_sends, stream_receives}, NULL},
	{"wrap", wrap_begin, {wrap_sends, wrap_receives}, NULL},
	{"reuse", wrap_begin, {reuse_sends, reuse_receives}, NULL},
	{"more", wrap_begin, {more_sends, more_receives}, NULL},
	{"uncork", wrap_begin, {uncork_sends, uncork_receives}, NULL},
	{"corks", corks_begin, {corks_sends, corks_receives, corks_uncorks}, NULL},
	{"late", late_begin, {late_sends, late_receives}, NULL},
	{"home", home_begin, {home_sends, home_receives}, NULL},
	{"fuse", fuse_begin, {fuse_sends, fuse_receives}, NULL},
	{"two", fuse_begin, {two_sends, two_receives, two_sends_too}, two_end},
	{"end", wrap_begin, {end_sends, end_receives}, NULL},
	{"back", wrap_begin, {back_sends, back_receives}, NULL},
	{"turn", wrap_begin, {back_sends, turn_receives}, NULL},
	{"both", wrap_begin, {both_sends, both_receives}, NULL},
	{"stopped", wrap_begin, {stopped_sends, both_receives}, NULL},
	{"fin", wrap_begin, {fin_sends, fin_receives}, NULL},
	{"last", wrap_begin, {fin_sends, last_receives}, NULL},
	{"moved", wrap_begin, {moved_sends, moved_receives}, NULL},
	{"handed", wrap_begin, {moved_sends, handed_receives}, NULL},
	{"close", wrap_begin, {close_sends, close_receives}, close_end},
};

int main(int argc, char **argv)
{
	return sim_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(*scenarios));
}
