/* poll.c - see poll.h.
 *
 * The kernel is given the program's descriptors (without POLLOUT where sending goes by
 * ring) and, behind them, the doorbells of the fused ones. Sockets that are still plain
 * count as "inside" meanwhile, so that nobody moves them into a ring under a sleeper.
 */
#define _GNU_SOURCE
#include "poll.h"

#include "broker.h"
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "defer.h"
#include "epoll.h"
#include "pairing.h"
#include "poll_limit.h"
#include "real.h"
#include "start.h"
#include "uncancelled.h"

#include <errno.h>
#include <sys/mman.h>

enum { ON_STACK = 32, IN_BITS = POLLIN | POLLRDNORM };

struct watched {
	struct lf_sock *sock; /* pinned; NULL: not ours */
	short known;          /* bits that the ring decides */
	bool inside;          /* plain, and marked so */
	bool waiting;         /* fused: armed, counted as a waiter */
	nfds_t bell;          /* its doorbell's place in `kernel`, 0: not there */
};

/* Of select(2) no RLIMIT_NOFILE is known. */
enum caller { BY_POLL, BY_PPOLL, BY_SELECT };

struct set {
	struct pollfd *fds; /* the program's */
	nfds_t n;
	struct watched *watched;
	struct pollfd *kernel; /* 2 n + 1 places */
	nfds_t kernel_n;
	size_t mapped; /* bytes, 0: on the stack */
	bool fused;    /* at least one */
	bool expects;  /* eager: answers of the broker are due */
	bool must_poll;
	bool changes; /* waits for what another thread may change past the kernel and the doorbells */
	struct lf_sock *left; /* its bell has woken us, and is left to others that wait */
	bool slept;
	uint32_t handlers_run; /* before the call */
	enum caller caller;
};

/* A socket of ours. An epoll set that is itself waited for is the kernel's to judge. */
static bool is_ours(int fd)
{
	uintptr_t entry = lf_table_get(fd);
	if (lf_table_kind(entry) == LF_KIND_EPOLL)
		lf_epoll_nest(lf_table_pointer(entry));
	return lf_table_kind(entry) == LF_KIND_SOCK;
}

bool lf_poll_concerns(struct pollfd *fds, nfds_t n)
{
	bool concerns = false;
	for (nfds_t i = 0; i < n; i++)
		concerns |= is_ours(fds[i].fd);
	return concerns;
}

/* A socket may have been paired meanwhile, by another thread even: it could not make it
 * ready while we were inside. Expectations first: if the pairing comes after that look, we
 * sleep for a moment only and look again; if it came before, we see it here. */
static void follow_pairing(struct set *set, nfds_t i)
{
	struct watched *w = &set->watched[i];
	set->expects |= lf_pairing_expects(w->sock);
	if (w->inside && lf_sock_paired(w->sock) && lf_rx(w->sock) == LF_RX_PLAIN) {
		lf_conn_leave_plain_rx(w->sock, 0);
		lf_conn_try_ready(w->sock, set->fds[i].fd);
		w->inside = lf_conn_enter_plain_rx(w->sock);
	}
	set->fused |= lf_sock_paired(w->sock);
	set->must_poll |= lf_sock_must_poll(w->sock);
}

static void enter(struct set *set, nfds_t i)
{
	struct watched *w = &set->watched[i];
	*w = (struct watched){.sock = lf_sock_pin(set->fds[i].fd)};
	if (!w->sock)
		return;
	int fd = set->fds[i].fd;
	/* News of a claim; only calls that move bytes count towards one. */
	if (lf_config.eager || atomic_load(&w->sock->pairing) > LF_PAIRING_TRACKED)
		lf_pairing_step(w->sock, fd);
	if (atomic_load(&w->sock->let_go)) {
		lf_sock_unpin(w->sock);
		w->sock = NULL;
		return;
	}
	if (lf_sock_paired(w->sock) && lf_rx(w->sock) == LF_RX_PLAIN)
		lf_conn_try_ready(w->sock, fd);
	w->inside = lf_conn_enter_plain_rx(w->sock);
	follow_pairing(set, i);
}

static void stop_waiting_for(struct watched *w)
{
	if (w->waiting)
		lf_wait_end(w->sock);
	w->waiting = false;
}

static void stop_waiting(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++)
		stop_waiting_for(&set->watched[i]);
}

static void leave_one(struct watched *w)
{
	if (!w->sock)
		return;
	stop_waiting_for(w);
	if (w->inside)
		lf_conn_leave_plain_rx(w->sock, 0);
	lf_sock_unpin(w->sock);
	w->sock = NULL;
}

static void leave(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++)
		leave_one(&set->watched[i]);
	if (set->mapped)
		munmap(set->watched, set->mapped);
}

/* Another thread may have closed a descriptor under our sleep, and its number be another
 * file's by now. The kernel looks numbers up each time it looks, so its word counts. */
static void let_go_of_closed(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		uintptr_t entry = lf_table_get(set->fds[i].fd);
		if (set->watched[i].sock && (lf_table_kind(entry) != LF_KIND_SOCK ||
					     lf_table_pointer(entry) != set->watched[i].sock))
			leave_one(&set->watched[i]);
	}
}

/* Ring readiness into revents; the number of descriptors with some. */
static int look_at_rings(struct set *set)
{
	int ready = 0;
	for (nfds_t i = 0; i < set->n; i++) {
		struct watched *w = &set->watched[i];
		set->fds[i].revents = 0;
		if (!w->sock)
			continue;
		short bits = lf_conn_ready(w->sock, -1, &w->known);
		if (bits & POLLRDHUP) {
			/* Our own SHUT_RD looks alike: a death may still come after it. */
			if (lf_conn_fin_is_doubtful(w->sock))
				lf_conn_resolve_fin(w->sock, set->fds[i].fd);
			else
				lf_conn_look_at_reader(w->sock, set->fds[i].fd);
			bits = lf_conn_ready(w->sock, -1, &w->known);
		}
		set->fds[i].revents = bits & (set->fds[i].events | POLLERR | POLLHUP);
		ready += set->fds[i].revents != 0;
	}
	return ready;
}

/* Of what the kernel said. */
static short news_of_tcp(struct lf_sock *sock, int fd, short kernel)
{
	kernel = lf_conn_tcp_says(sock, fd, kernel);
	if (!(kernel & IN_BITS) || !lf_conn_copy_is_awaited(sock, fd))
		return kernel;
	lf_conn_take_late_copy(sock, fd);
	struct pollfd p = {.fd = fd, .events = IN_BITS};
	return lf_uncancelled_poll(&p, 1, 0) == 1 ? kernel : (short)(kernel & ~IN_BITS);
}

/* Adds what the kernel said; the number of descriptors with anything. */
static int merge(struct set *set)
{
	int ready = 0;
	for (nfds_t i = 0; i < set->n; i++) {
		const struct watched *w = &set->watched[i];
		short kernel = set->kernel[i].revents;
		if (w->sock && lf_sock_paired(w->sock))
			kernel = news_of_tcp(w->sock, set->fds[i].fd, kernel);
		if (w->sock && (kernel & POLLRDHUP))
			lf_conn_end_was_told(w->sock);
		if (w->sock && !(kernel & (POLLERR | POLLHUP | POLLNVAL)))
			kernel &= (short)~w->known;
		set->fds[i].revents |= kernel & (set->fds[i].events | POLLERR | POLLHUP | POLLNVAL);
		ready += set->fds[i].revents != 0;
	}
	return ready;
}

static void prepare_kernel(struct set *set, bool with_bells)
{
	for (nfds_t i = 0; i < set->n; i++) {
		set->kernel[i] = set->fds[i];
		set->kernel[i].revents = 0;
		if (set->watched[i].sock)
			set->kernel[i].events &= (short)~set->watched[i].known;
	}
	set->kernel_n = set->n;
	if (!with_bells)
		return;
	for (nfds_t i = 0; i < set->n; i++) {
		struct watched *w = &set->watched[i];
		w->bell = 0;
		if (!w->sock || !lf_sock_paired(w->sock))
			continue;
		w->bell = set->kernel_n;
		set->kernel[set->kernel_n++] = lf_wait_bell(w->sock);
	}
	if (set->expects)
		set->kernel[set->kernel_n++] =
			(struct pollfd){.fd = lf_broker_fd(), .events = POLLIN};
}

/* poll(2) takes no more entries than RLIMIT_NOFILE, and doorbells may be what is too
 * much. Then we look at the rings every few ms instead. */
static bool leave_bells_out(struct set *set)
{
	bool had = set->kernel_n > set->n;
	for (nfds_t i = 0; i < set->n; i++)
		set->watched[i].bell = 0;
	set->kernel_n = set->n;
	return had;
}

/* Stopped and continued, poll(2) goes by the time at which it is to end, the others by what was left. */
static int ppoll_as(enum caller caller, struct pollfd *fds, nfds_t n, const struct timespec *ts,
		    const sigset_t *mask)
{
	if (caller == BY_POLL && !mask && ts && ts->tv_nsec % 1000000 == 0)
		return lf_real.poll(fds, n, (int)(ts->tv_sec * 1000 + ts->tv_nsec / 1000000));
	return caller == BY_SELECT ? lf_ppoll(fds, n, ts, mask) : lf_real.ppoll(fds, n, ts, mask);
}

/* All are armed, and have been looked at. */
static bool any_is_untold(const struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++)
		if (set->watched[i].waiting && (set->fds[i].events & IN_BITS) &&
		    lf_wait_is_untold(set->watched[i].sock))
			return true;
	return false;
}

static int ask_kernel(struct set *set, int64_t ns, const sigset_t *mask)
{
	bool briefly = set->must_poll || set->expects || (ns != 0 && any_is_untold(set));
	/* Another thread may take in the broker's answer, or end the ring, of whose room the
	 * kernel was not asked. */
	int64_t longest = briefly			 ? LF_SHARED_SLEEP_NS :
			  set->changes			 ? LF_WRITER_SLEEP_NS :
							   LF_FOREVER;
	/* While we spun, and armed, the kernel's would have slept. */
	if (lf_defer_calls() != set->handlers_run)
		ns = 0;
	bool capped = ns > longest;
	struct timespec ts = lf_timespec(capped ? longest : ns);
	struct timespec *limit = ns == LF_FOREVER && !capped ? NULL : &ts;
	int r = ppoll_as(set->caller, set->kernel, set->kernel_n, limit, mask);
	if (r == -1 && errno == EINVAL && leave_bells_out(set)) {
		ts = lf_timespec(ns > LF_SHARED_SLEEP_NS ? LF_SHARED_SLEEP_NS : ns);
		r = lf_real.ppoll(set->kernel, set->kernel_n, &ts, mask);
	}
	return r;
}

static void arm_all(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		struct watched *w = &set->watched[i];
		if (!w->sock || !lf_sock_paired(w->sock))
			continue;
		/* Once more: somebody may have been forked since follow_pairing(). */
		set->must_poll |= !lf_wait_begin(w->sock) || lf_sock_must_poll(w->sock);
		w->waiting = true;
		bool reads = (set->fds[i].events & IN_BITS) != 0;
		if (reads)
			lf_wait_arm(w->sock, LF_WANT_READ);
		bool writes = (set->fds[i].events & (POLLOUT | POLLWRNORM)) &&
			      lf_tx(w->sock) == LF_TX_FUSED;
		if (writes)
			lf_wait_arm(w->sock, LF_WANT_WRITE);
		set->changes |= writes || (reads && atomic_load(&w->sock->slot->rcvlowat) > 1);
	}
}

/* Who else is counted as relying on the bell may be this very call, which names the socket twice,
 * or an epoll set in which nobody sleeps any more: neither keeps us from emptying it. */
static void drain(struct set *set, struct lf_sock *sock)
{
	uint32_t mine = 1;
	if (atomic_load(&sock->waiters) > 1) {
		lf_epoll_stop_counting(sock);
		mine = 0;
		for (nfds_t i = 0; i < set->n; i++)
			mine += set->watched[i].sock == sock && set->watched[i].waiting;
	}
	if (!lf_wait_drain(sock, mine))
		set->left = sock;
}

static void count_sleeps(const struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		const struct watched *w = &set->watched[i];
		if (!w->waiting)
			continue;
		if (set->fds[i].events & IN_BITS)
			lf_wait_count_sleep(w->sock, LF_WANT_READ);
		if ((set->fds[i].events & (POLLOUT | POLLWRNORM)) && lf_tx(w->sock) == LF_TX_FUSED)
			lf_wait_count_sleep(w->sock, LF_WANT_WRITE);
	}
}

/* Doorbells and broker after a sleep. */
static void see_to(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		const struct watched *w = &set->watched[i];
		struct lf_sock *sock = w->sock;
		short bell = sock && w->bell ? set->kernel[w->bell].revents : 0;
		if (sock && set->kernel[i].revents)
			lf_conn_resolve_fin(sock, set->fds[i].fd);
		/* Given away meanwhile, the number was no bell's any more when poll looked. */
		if (!bell || set->kernel[w->bell].fd != atomic_load(&sock->bell))
			continue;
		if (bell & (POLLHUP | POLLERR))
			lf_conn_peer_gone(sock, set->fds[i].fd);
		else {
			lf_counters_rung(sock, true);
			drain(set, sock);
		}
		lf_conn_service(sock, set->fds[i].fd);
	}
	if (set->expects)
		lf_broker_receive();
}

static bool any_ring_ready(void *context)
{
	return look_at_rings(context) > 0;
}

static bool spin(struct set *set, int64_t ns)
{
	if (lf_config.spin_ns == 0 || !set->fused || ns < lf_config.spin_ns)
		return false;
	/* One score for the set: that of its first fused socket. */
	struct lf_sock *first = NULL;
	for (nfds_t i = 0; i < set->n && !first; i++)
		if (set->watched[i].sock && lf_sock_paired(set->watched[i].sock))
			first = set->watched[i].sock;
	return first && lf_wait_spin_by_score(first, LF_WANT_READ, false, any_ring_ready, set);
}

static bool answers_all(const struct pollfd *fd, const struct watched *w)
{
	/* Urgent data comes by TCP, so only the kernel knows of it. */
	short asked = fd->events & (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLPRI);
	return (asked & ~fd->revents & ~w->known) == 0;
}

/* One round; the count, or 0 to go on, or a negative errno. */
static int once(struct set *set, int64_t ns, const sigset_t *mask, struct lf_hold *hold)
{
	int ready = look_at_rings(set);
	/* A sole socket whose ring has every answer needs no word from the kernel. */
	if (ready && set->n == 1 && answers_all(&set->fds[0], &set->watched[0]))
		return ready;
	if (ready || ns == 0) {
		/* A signal that the mask lets in ends a call that has nothing to report. */
		const struct timespec at_once = {0, 0};
		prepare_kernel(set, false);
		int r = ppoll_as(set->caller, set->kernel, set->kernel_n, &at_once, ready ? NULL : mask);
		if (r == -1 && !(ready && errno == EINTR))
			return -errno;
		return merge(set);
	}
	/* What comes while we spin waits for the kernel's call, which knows what the mask lets in. */
	if (mask)
		lf_hold_begin(hold);
	if (spin(set, ns))
		return 0;
	arm_all(set);
	if (look_at_rings(set)) {
		stop_waiting(set);
		return 0;
	}
	count_sleeps(set);
	prepare_kernel(set, true);
	int r = ask_kernel(set, ns, mask);
	int error = errno;
	set->slept = true;
	let_go_of_closed(set);
	if (r > 0)
		see_to(set);
	stop_waiting(set);
	if (r == -1)
		return -error;
	look_at_rings(set);
	return merge(set);
}

static bool allocate(struct set *set)
{
	size_t watched = set->n * sizeof(struct watched);
	size_t kernel = (2 * set->n + 1) * sizeof(struct pollfd);
	void *at = mmap(NULL, watched + kernel, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	if (at == MAP_FAILED)
		return false;
	set->mapped = watched + kernel;
	set->watched = at;
	set->kernel = (struct pollfd *)(void *)((char *)at + watched);
	return true;
}

/* --- where nothing is fused --- */

struct plain {
	struct lf_sock *sock[ON_STACK]; /* pinned, and marked as inside; NULL: not ours */
	nfds_t n;
};

static void leave_plain(struct plain *plain)
{
	for (nfds_t i = 0; i < plain->n; i++) {
		if (!plain->sock[i])
			continue;
		lf_conn_leave_plain_rx(plain->sock[i], 0);
		lf_sock_unpin(plain->sock[i]);
	}
}

/* Plain, with no news of it to be taken in: then nothing makes it readable but the kernel, as long as
 * we are inside. */
static bool enter_plain(struct lf_sock *sock)
{
	uint32_t pairing = atomic_load_explicit(&sock->pairing, memory_order_acquire);
	return pairing <= LF_PAIRING_CLAIMED && !lf_config.eager && !lf_sock_shared(sock) &&
	       (pairing != LF_PAIRING_CLAIMED || !lf_broker_has_mail()) &&
	       lf_conn_enter_plain_rx(sock);
}

static bool enter_all_plain(struct plain *plain, const struct pollfd *fds, nfds_t n)
{
	for (; plain->n < n; plain->n++) {
		struct lf_sock *sock = lf_sock_pin(fds[plain->n].fd);
		if (sock && !enter_plain(sock)) {
			lf_sock_unpin(sock);
			return false;
		}
		plain->sock[plain->n] = sock;
	}
	return true;
}

static bool any_paired(const struct plain *plain)
{
	for (nfds_t i = 0; i < plain->n; i++)
		if (plain->sock[i] && lf_sock_paired(plain->sock[i]))
			return true;
	return false;
}

/* Of plain ones only: the kernel's call. False: `r` is no answer; there are others, or one was paired
 * during the call (`slept`), and what the kernel says may not be all. */
static bool poll_plainly(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask,
			 enum caller caller, int *r, bool *slept)
{
	struct plain plain __attribute__((cleanup(leave_plain)));
	plain.n = 0;
	if (n > ON_STACK || !enter_all_plain(&plain, fds, n))
		return false;
	struct timespec ts;
	if (ns != LF_FOREVER)
		ts = lf_timespec(ns);
	if (ns)
		lf_rank_sleeps();
	*r = ppoll_as(caller, fds, n, ns == LF_FOREVER ? NULL : &ts, mask);
	if (*r == -1) {
		*r = -errno;
		return true;
	}
	*slept = ns != 0;
	return !any_paired(&plain);
}

/* `slept`: the call has already, and since before that so many handlers have run. */
static int poll_any(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask, enum caller caller,
		    bool slept, uint32_t handlers_run)
{
	struct watched watched[ON_STACK];
	struct pollfd kernel[2 * ON_STACK + 1];
	LF_HOLD(hold);
	struct set set __attribute__((cleanup(leave))) = {
		.fds = fds, .n = n, .watched = watched, .kernel = kernel,
		.slept = slept, .handlers_run = handlers_run, .caller = caller};
	if (n > ON_STACK && !allocate(&set)) {
		set.n = 0;
		return -ENOMEM;
	}
	for (nfds_t i = 0; i < n; i++)
		enter(&set, i);
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : ns == 0 ? 0 : lf_deadline(ns);
	int64_t left = ns;
	for (;;) {
		/* Once it has slept a handler ends the call, between two sleeps as well: from here
		 * on signals are held back but for while it sleeps, and the count tells whether
		 * one came before. */
		if (set.slept)
			lf_hold_begin(&hold);
		if (set.slept && lf_defer_calls() != handlers_run)
			return -EINTR;
		int r = once(&set, left, mask || !hold.on ? mask : &hold.before, &hold);
		if (r != 0)
			return r;
		if (ns != LF_FOREVER) {
			left = ns == 0 ? 0 : deadline - lf_now();
			if (left <= 0)
				return 0;
		}
		if (set.left)
			lf_wait_give_way(set.left, left);
		set.left = NULL;
		set.fused = set.expects = set.must_poll = set.changes = false;
		for (nfds_t i = 0; i < n; i++)
			if (set.watched[i].sock)
				follow_pairing(&set, i);
			else
				enter(&set, i);
	}
}

static int poll_or_select(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask, enum caller caller)
{
	uint32_t handlers_run = lf_defer_calls();
	/* Of plain ones the kernel keeps the time. While we are alone only a handler can have one paired
	 * during its call, and ends that. */
	bool finite = ns != LF_FOREVER && ns != 0, slept = false;
	int64_t deadline = finite && !lf_alone() ? lf_deadline(ns) : LF_FOREVER;
	int r;
	if (poll_plainly(fds, n, ns, mask, caller, &r, &slept))
		return r;
	if (slept && deadline != LF_FOREVER && (ns = deadline - lf_now()) < 0)
		ns = 0;
	return poll_any(fds, n, ns, mask, caller, slept, handlers_run);
}

int lf_poll(struct pollfd *fds, nfds_t n, int64_t ns)
{
	return poll_or_select(fds, n, ns, NULL, BY_POLL);
}

int lf_poll_masked(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask)
{
	return poll_or_select(fds, n, ns, mask, BY_PPOLL);
}

/* --- select ---
 *
 * Programs hand in fd_sets of any size, and some a number that their sets are too small for
 * (getdtablesize()): the kernel looks at no more bits than its table of descriptors has. Ours
 * make that larger than the program could know.
 */

enum { CHUNK = 256 };

static bool is_hidden(int fd)
{
	return lf_table_kind(lf_table_get(fd)) == LF_KIND_HIDDEN;
}

/* One past the program's highest descriptor below n. */
static int end_of_open(int n)
{
	struct pollfd fds[CHUNK];
	while (n > 0) {
		int count = n < CHUNK ? n : CHUNK, from = n - count;
		for (int i = 0; i < count; i++)
			fds[i] = (struct pollfd){.fd = is_hidden(from + i) ? -1 : from + i};
		if (lf_real.poll(fds, (nfds_t)count, 0) == -1 && errno != EINTR)
			return n;
		for (int i = count; i-- > 0;)
			if (fds[i].fd >= 0 && !(fds[i].revents & POLLNVAL))
				return from + i + 1;
		n = from;
	}
	return 0;
}

int lf_select_width(int n)
{
	if (n <= FD_SETSIZE || !lf_table)
		return n;
	int saved = errno;
	int open = end_of_open(n < (int)LF_TABLE_SIZE ? n : (int)LF_TABLE_SIZE);
	errno = saved;
	/* As the kernel's table would have grown for it; it never shrinks. */
	static _Atomic int widest = 64;
	int width = atomic_load(&widest);
	while (width < open)
		width *= 2;
	if (width > atomic_load(&widest))
		atomic_store(&widest, width);
	return width < n ? width : n;
}

/* As FD_ISSET and its like, for sets of any size. */
#define BITS_PER_WORD ((int)(8 * sizeof(unsigned long)))

static unsigned long *word_of(int fd, const fd_set *set)
{
	return (unsigned long *)(void *)(uintptr_t)set + fd / BITS_PER_WORD;
}

static bool is_in(int fd, const fd_set *set)
{
	return set && (*word_of(fd, set) >> fd % BITS_PER_WORD & 1);
}

static void take_out(int fd, fd_set *set)
{
	*word_of(fd, set) &= ~(1ul << fd % BITS_PER_WORD);
}

bool lf_select_concerns(int n, const fd_set *r, const fd_set *w, const fd_set *x)
{
	bool concerns = false;
	for (int fd = 0; fd < n; fd++)
		if (is_in(fd, r) || is_in(fd, w) || is_in(fd, x))
			concerns |= is_ours(fd);
	return concerns;
}

/* As fs/select.c maps poll bits to the three sets. */
#define READ_BITS (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define WRITE_BITS (POLLWRNORM | POLLWRBAND | POLLOUT | POLLERR)

struct selection {
	struct pollfd *fds;
	nfds_t count, mapped; /* mapped: places, 0: not at all */
	fd_set *r, *w, *x;
};

static int bits_ready(const struct selection *s)
{
	int bits = 0;
	for (nfds_t i = 0; i < s->count; i++) {
		const struct pollfd *p = &s->fds[i];
		bits += is_in(p->fd, s->r) && (p->revents & READ_BITS);
		bits += is_in(p->fd, s->w) && (p->revents & WRITE_BITS);
		bits += is_in(p->fd, s->x) && (p->revents & POLLPRI);
	}
	return bits;
}

static void give_back(const struct selection *s)
{
	for (nfds_t i = 0; i < s->count; i++) {
		const struct pollfd *p = &s->fds[i];
		if (s->r && !(p->revents & READ_BITS))
			take_out(p->fd, s->r);
		if (s->w && !(p->revents & WRITE_BITS))
			take_out(p->fd, s->w);
		if (s->x && !(p->revents & POLLPRI))
			take_out(p->fd, s->x);
	}
}

static void gather(struct selection *s, int n)
{
	for (int fd = 0; fd < n; fd++) {
		short events = 0;
		if (is_in(fd, s->r))
			events |= POLLIN | POLLRDNORM | POLLRDBAND;
		if (is_in(fd, s->w))
			events |= POLLOUT | POLLWRNORM | POLLWRBAND;
		if (is_in(fd, s->x))
			events |= POLLPRI;
		if (events)
			s->fds[s->count++] = (struct pollfd){.fd = fd, .events = events};
	}
}

static void end_selection(struct selection *s)
{
	if (s->mapped)
		munmap(s->fds, s->mapped * sizeof(*s->fds));
}

/* Nobody has asked for one that is closed. */
static bool all_are_open(const struct selection *s)
{
	for (nfds_t i = 0; i < s->count; i++)
		if (s->fds[i].revents & POLLNVAL)
			return false;
	return true;
}

int lf_select(int n, fd_set *r, fd_set *w, fd_set *x, int64_t ns, const sigset_t *mask)
{
	struct pollfd fds[FD_SETSIZE];
	uint32_t handlers_run = lf_defer_calls();
	LF_HOLD(hold);
	struct selection s __attribute__((cleanup(end_selection))) = {
		.fds = fds, .r = r, .w = w, .x = x};
	if (n > FD_SETSIZE) {
		void *at = mmap(NULL, (size_t)n * sizeof(*fds), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at == MAP_FAILED)
			return -ENOMEM;
		s.fds = at;
		s.mapped = (nfds_t)n;
	}
	gather(&s, n);
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : lf_deadline(ns);
	for (;;) {
		int ready = poll_or_select(s.fds, s.count, ns,
					   mask || !hold.on ? mask : &hold.before, BY_SELECT);
		if (ready < 0)
			return ready;
		if (!all_are_open(&s))
			return -EBADF;
		int bits = bits_ready(&s);
		/* poll has reasons to return that select has not (POLLHUP for writers): then it tells of
		 * them though the time is over. */
		if (bits || ready == 0 || ns == 0) {
			give_back(&s);
			return bits;
		}
		lf_hold_begin(&hold);
		if (lf_defer_calls() != handlers_run)
			return -EINTR;
		if (ns != LF_FOREVER && (ns = deadline - lf_now()) < 0)
			ns = 0;
		struct timespec nap = {0, 1000000};
		nanosleep(&nap, NULL);
	}
}
