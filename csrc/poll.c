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
#include "epoll.h"
#include "pairing.h"
#include "real.h"

#include <errno.h>
#include <sys/mman.h>

enum { ON_STACK = 32 };

struct watched {
	struct lf_sock *sock; /* pinned; NULL: not ours */
	short known;          /* bits that the ring decides */
	bool inside;          /* plain, and marked so */
	bool waiting;         /* fused: armed, counted as a waiter */
	nfds_t bell;          /* its doorbell's place in `kernel`, 0: not there */
};

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
	bool writes; /* armed for room in a ring */
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
	if (lf_config.eager)
		lf_pairing_step(w->sock, fd);
	if (lf_sock_paired(w->sock) && lf_rx(w->sock) == LF_RX_PLAIN)
		lf_conn_try_ready(w->sock, fd);
	w->inside = lf_conn_enter_plain_rx(w->sock);
	follow_pairing(set, i);
}

static void stop_waiting(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		struct watched *w = &set->watched[i];
		if (w->waiting)
			lf_wait_end(w->sock);
		w->waiting = false;
	}
}

static void leave(struct set *set)
{
	stop_waiting(set);
	for (nfds_t i = 0; i < set->n; i++) {
		struct watched *w = &set->watched[i];
		if (!w->sock)
			continue;
		if (w->inside)
			lf_conn_leave_plain_rx(w->sock, 0);
		lf_sock_unpin(w->sock);
		w->sock = NULL;
	}
	if (set->mapped)
		munmap(set->watched, set->mapped);
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
		short bits = lf_conn_ready(w->sock, &w->known);
		if (bits & POLLRDHUP) {
			/* Our own SHUT_RD looks alike: a death may still come after it. */
			if (lf_conn_fin_is_doubtful(w->sock))
				lf_conn_resolve_fin(w->sock, set->fds[i].fd);
			else
				lf_conn_look_at_reader(w->sock, set->fds[i].fd);
			bits = lf_conn_ready(w->sock, &w->known);
		}
		set->fds[i].revents = bits & (set->fds[i].events | POLLERR | POLLHUP);
		ready += set->fds[i].revents != 0;
	}
	return ready;
}

/* Adds what the kernel said; the number of descriptors with anything. */
static int merge(struct set *set)
{
	int ready = 0;
	for (nfds_t i = 0; i < set->n; i++) {
		const struct watched *w = &set->watched[i];
		short kernel = set->kernel[i].revents;
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
		if (!w->sock || !lf_sock_paired(w->sock) || atomic_load(&w->sock->hung_up))
			continue;
		w->bell = set->kernel_n;
		set->kernel[set->kernel_n++] =
			(struct pollfd){.fd = atomic_load(&w->sock->bell), .events = POLLIN};
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

static int ask_kernel(struct set *set, int64_t ns, const sigset_t *mask)
{
	/* Another thread may take in the broker's answer, or end the ring, of whose room the
	 * kernel was not asked. */
	int64_t longest = set->must_poll || set->expects ? LF_SHARED_SLEEP_NS :
			  set->writes			 ? LF_WRITER_SLEEP_NS :
							   LF_FOREVER;
	bool capped = ns > longest;
	struct timespec ts = lf_timespec(capped ? longest : ns);
	struct timespec *limit = ns == LF_FOREVER && !capped ? NULL : &ts;
	int r = lf_real.ppoll(set->kernel, set->kernel_n, limit, mask);
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
		set->must_poll |= !lf_wait_begin(w->sock);
		w->waiting = true;
		if (set->fds[i].events & (POLLIN | POLLRDNORM))
			lf_wait_arm(w->sock, LF_WANT_READ);
		if ((set->fds[i].events & (POLLOUT | POLLWRNORM)) && lf_tx(w->sock) == LF_TX_FUSED) {
			lf_wait_arm(w->sock, LF_WANT_WRITE);
			set->writes = true;
		}
	}
}

/* Doorbells and broker after a sleep. */
static void see_to(struct set *set)
{
	for (nfds_t i = 0; i < set->n; i++) {
		const struct watched *w = &set->watched[i];
		struct lf_sock *sock = w->sock;
		short bell = w->bell ? set->kernel[w->bell].revents : 0;
		if (sock && set->kernel[i].revents)
			lf_conn_resolve_fin(sock, set->fds[i].fd);
		/* Given away meanwhile, the number was no bell's any more when poll looked. */
		if (!bell || set->kernel[w->bell].fd != atomic_load(&sock->bell))
			continue;
		if (bell & (POLLHUP | POLLERR))
			lf_conn_peer_gone(sock, set->fds[i].fd);
		else
			(void)lf_wait_drain(sock, 1);
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
	return first && lf_wait_spin_by_score(first, false, any_ring_ready, set);
}

static bool answers_all(const struct pollfd *fd, const struct watched *w)
{
	/* Urgent data comes by TCP, so only the kernel knows of it. */
	short asked = fd->events & (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLPRI);
	return (asked & ~fd->revents & ~w->known) == 0;
}

/* One round; the count, or 0 to go on, or a negative errno. */
static int once(struct set *set, int64_t ns, const sigset_t *mask)
{
	int ready = look_at_rings(set);
	/* A sole socket whose ring has every answer needs no word from the kernel. */
	if (ready && set->n == 1 && answers_all(&set->fds[0], &set->watched[0]))
		return ready;
	if (ready || ns == 0) {
		prepare_kernel(set, false);
		if (lf_real.poll(set->kernel, set->kernel_n, 0) == -1)
			return -errno;
		return merge(set);
	}
	if (spin(set, ns))
		return 0;
	arm_all(set);
	if (look_at_rings(set)) {
		stop_waiting(set);
		return 0;
	}
	prepare_kernel(set, true);
	int r = ask_kernel(set, ns, mask);
	int error = errno;
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

int lf_poll(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask)
{
	struct watched watched[ON_STACK];
	struct pollfd kernel[2 * ON_STACK + 1];
	struct set set __attribute__((cleanup(leave))) = {
		.fds = fds, .n = n, .watched = watched, .kernel = kernel};
	if (n > ON_STACK && !allocate(&set)) {
		set.n = 0;
		return -ENOMEM;
	}
	for (nfds_t i = 0; i < n; i++)
		enter(&set, i);
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : ns == 0 ? 0 : lf_deadline(ns);
	int64_t left = ns;
	for (;;) {
		int r = once(&set, left, mask);
		if (r != 0)
			return r;
		if (ns != LF_FOREVER) {
			left = ns == 0 ? 0 : deadline - lf_now();
			if (left <= 0)
				return 0;
		}
		set.fused = set.expects = set.must_poll = set.writes = false;
		for (nfds_t i = 0; i < n; i++)
			if (set.watched[i].sock)
				follow_pairing(&set, i);
	}
}

/* --- select --- */

bool lf_select_concerns(int n, const fd_set *r, const fd_set *w, const fd_set *x)
{
	const fd_set *sets[3] = {r, w, x};
	bool concerns = false;
	for (int s = 0; s < 3; s++)
		for (int fd = 0; sets[s] && fd < n; fd++)
			if (FD_ISSET(fd, sets[s]))
				concerns |= is_ours(fd);
	return concerns;
}

static bool is_in(int fd, const fd_set *set)
{
	return set && FD_ISSET(fd, set);
}

/* As fs/select.c maps poll bits to the three sets. */
#define READ_BITS (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define WRITE_BITS (POLLWRNORM | POLLWRBAND | POLLOUT | POLLERR)

static int give_back(const struct pollfd *fds, nfds_t n, fd_set *r, fd_set *w, fd_set *x)
{
	int count = 0;
	for (nfds_t i = 0; i < n; i++) {
		int fd = fds[i].fd;
		bool in = is_in(fd, r) && (fds[i].revents & READ_BITS);
		bool out = is_in(fd, w) && (fds[i].revents & WRITE_BITS);
		bool pri = is_in(fd, x) && (fds[i].revents & POLLPRI);
		if (r && !in)
			FD_CLR(fd, r);
		if (w && !out)
			FD_CLR(fd, w);
		if (x && !pri)
			FD_CLR(fd, x);
		count += in + out + pri;
	}
	return count;
}

static nfds_t gather(int n, const fd_set *r, const fd_set *w, const fd_set *x, struct pollfd *fds)
{
	nfds_t count = 0;
	for (int fd = 0; fd < n; fd++) {
		short events = 0;
		if (is_in(fd, r))
			events |= POLLIN | POLLRDNORM | POLLRDBAND;
		if (is_in(fd, w))
			events |= POLLOUT | POLLWRNORM | POLLWRBAND;
		if (is_in(fd, x))
			events |= POLLPRI;
		if (events)
			fds[count++] = (struct pollfd){.fd = fd, .events = events};
	}
	return count;
}

int lf_select(int n, fd_set *r, fd_set *w, fd_set *x, int64_t ns, const sigset_t *mask)
{
	struct pollfd fds[FD_SETSIZE]; /* callers pass larger sets to the kernel */
	nfds_t count = gather(n, r, w, x, fds);
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : lf_deadline(ns);
	for (;;) {
		int ready = lf_poll(fds, count, ns, mask);
		if (ready < 0)
			return ready;
		for (nfds_t i = 0; i < count; i++)
			if (fds[i].revents & POLLNVAL)
				return -EBADF;
		fd_set was[3];
		fd_set *sets[3] = {r, w, x};
		for (int s = 0; s < 3; s++)
			if (sets[s])
				was[s] = *sets[s];
		int bits = give_back(fds, count, r, w, x);
		if (bits || ready == 0)
			return bits;
		/* poll has reasons to return that select has not (POLLHUP for writers). */
		for (int s = 0; s < 3; s++)
			if (sets[s])
				*sets[s] = was[s];
		if (ns != LF_FOREVER && (ns = deadline - lf_now()) < 0)
			ns = 0;
		struct timespec nap = {0, 1000000};
		nanosleep(&nap, NULL);
	}
}
