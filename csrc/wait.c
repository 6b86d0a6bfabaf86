/* wait.c - how one thread waits for one socket: spin, then arm, then sleep.
 *
 * It sleeps in ppoll on both the TCP socket (FIN, RST, bytes of the plain phases) and
 * the doorbell. See bell.c for why no wake-up is lost.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "epoll.h"
#include "held.h"
#include "invariant.h"
#include "pause.h"
#include "poll_limit.h"
#include "real.h"
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

static struct lf_armed_line *armed_line(struct lf_sock *sock, enum lf_want want)
{
	return want == LF_WANT_READ ? &sock->in->reader : &sock->out->writer;
}

static struct lf_waits *waits_of(struct lf_sock *sock, enum lf_want want)
{
	return want == LF_WANT_READ ? &sock->in->t.waits : &sock->out->p.waits;
}

void lf_wait_count_sleep(struct lf_sock *sock, enum lf_want want)
{
	lf_counters_sleeps(waits_of(sock, want));
}

void lf_wait_arm(struct lf_sock *sock, enum lf_want want)
{
	if (want == LF_WANT_WRITE)
		lf_conn_say_when_writable(sock);
	/* release: what was said before. */
	atomic_store_explicit(&armed_line(sock, want)->armed, 1, memory_order_release);
	/* Pairs with the fence in lf_bell_ring(). */
	atomic_thread_fence(memory_order_seq_cst);
}

bool lf_wait_begin(struct lf_sock *sock)
{
	if (sock->parents_bell && lf_slot_is_held_by(sock->slot, 1))
		sock->parents_bell = false;
	/* Dekker with lf_wait_drain(), seq_cst on both sides. */
	atomic_fetch_add(&sock->waiters, 1);
	return atomic_load(&sock->drains) == 0 && !lf_sock_bell_is_parents(sock);
}

void lf_wait_end(struct lf_sock *sock)
{
	lf_count_down(&sock->waiters);
}

/* Bytes that are held, or that TCP has to bring before the ring's: their time comes without a bell, and
 * of the latter the kernel does not tell while they alone are fewer than its low-water mark, nor who comes
 * second to the last of them. */
bool lf_wait_is_untold(const struct lf_sock *sock)
{
	return lf_held_from_us(sock) || (lf_sock_paired(sock) && lf_conn_tcp_comes_first(sock));
}

static void drain_ends(struct lf_sock **sock)
{
	lf_count_down(&(*sock)->drains);
}

bool lf_wait_drain(struct lf_sock *sock, uint32_t mine)
{
	if (lf_sock_bell_is_parents(sock))
		return false;
	/* The cleanup also runs when pthread_cancel unwinds through here. */
	struct lf_sock *draining __attribute__((cleanup(drain_ends), unused)) = sock;
	/* We store that we drain, then look for waiters; a waiter counts itself, then looks
	 * for us. If neither saw the other's store, each store would have to come after the
	 * other in the single order of seq_cst operations. So either we see the waiter, and
	 * leave it the byte, or it sees us, and does not rely on the bell; or it came after
	 * our drain, hence armed and looked at the ring after it, too. */
	atomic_fetch_add(&sock->drains, 1);
	if (atomic_load(&sock->waiters) > mine)
		return false;
	lf_bell_drain(sock);
	return true;
}

bool lf_wait_disarm_reader(struct lf_sock *sock)
{
	struct lf_sock *draining __attribute__((cleanup(drain_ends), unused)) = sock;
	/* As in lf_wait_drain(), with the flag for the byte: either we see another waiter, and
	 * leave it the flag, or it sees us, and does not rely on the bell; or it came after us,
	 * hence armed after the flag went down. A process that shares the socket does not rely on
	 * the bell at all (lf_sock_must_poll()); one that slept before it was forked is this one,
	 * hence counted. */
	atomic_fetch_add(&sock->drains, 1);
	if (atomic_load(&sock->waiters) > 1 || lf_sock_shared(sock))
		return false;
	/* seq_cst, before `drains` goes down. The ring is looked at after it: who published before
	 * and found the flag up rings, who finds it down is seen by the next look. */
	(void)atomic_exchange(&sock->in->reader.armed, 0);
	return true;
}

/* Something in memory changed that the caller should look at. */
static bool stirred(struct lf_sock *sock, const struct lf_wait *wait)
{
	return wait->want == LF_WANT_READ ? lf_conn_readable(sock, wait->need) :
					    lf_conn_writable(sock);
}

/* While spinning only: a FIN is on its way, so TCP is the place to look. Not a reason to
 * stay awake, or a peer could keep us spinning. */
static bool fin_hinted(struct lf_sock *sock, enum lf_want want)
{
	return want == LF_WANT_READ &&
	       atomic_load_explicit(&sock->in->p.fin_hint, memory_order_relaxed) != 0;
}

/* Spins while that is likely to pay: the score grows by each success and shrinks by
 * each failure, so a socket whose peer is slow soon sleeps at once, with a rare try to
 * learn that things have changed. Between looks it gives the CPU to whoever else can run
 * there, who may be the very one we wait for; with nobody there, that is a short system
 * call. */
enum { SCORE_MAX = 8, SCORE_MIN = -64, FAILURE = 8, LOOKS_PER_YIELD = 32 };

bool lf_wait_spin_by_score(struct lf_sock *sock, enum lf_want want, bool alone,
			   bool (*look)(void *), void *context)
{
	if (lf_config.spin_ns == 0)
		return false;
	int32_t score = atomic_load_explicit(&sock->spin_score, memory_order_relaxed);
	if (score < 0) {
		atomic_store_explicit(&sock->spin_score, score + 1, memory_order_relaxed);
		return false;
	}
	int looks = alone || lf_config.one_cpu ? 1 : LOOKS_PER_YIELD;
	int64_t end = lf_now() + lf_config.spin_ns;
	bool found;
	do {
		for (int i = 1; !(found = look(context)) && i < looks; i++)
			lf_pause();
		if (!found)
			sched_yield();
	} while (!found && lf_now() < end);
	if (found)
		score += score < SCORE_MAX;
	else
		score = score > 0 ? score / 2 - 1 : score - FAILURE;
	atomic_store_explicit(&sock->spin_score, score < SCORE_MIN ? SCORE_MIN : score,
			      memory_order_relaxed);
	lf_counters_spun(waits_of(sock, want), found);
	return found;
}

struct spinner {
	struct lf_sock *sock;
	const struct lf_wait *wait;
};

static bool spinner_looks(void *context)
{
	const struct spinner *spinner = context;
	return stirred(spinner->sock, spinner->wait) ||
	       fin_hinted(spinner->sock, spinner->wait->want);
}

/* The peer was last seen on the very CPU we would spin on: it runs when we yield. */
static bool peer_is_here(const struct lf_sock *sock, enum lf_want want)
{
	uint32_t there = want == LF_WANT_READ ?
				 atomic_load_explicit(&sock->in->p.cpu, memory_order_relaxed) :
				 atomic_load_explicit(&sock->out->c.cpu, memory_order_relaxed);
	return there && there == (uint32_t)sched_getcpu() + 1;
}

/* The wait of this thread that is under way. One that a handler has jumped out of (siglongjmp)
 * stands here until the thread waits again, or closes the socket: otherwise that had one waiter too
 * many for ever, and its bell were never drained, nor its ring closed. A handler that waits or closes
 * takes the wait which it interrupted for such a one; rightly, since ppoll returns after a handler. */
static _Thread_local struct under_way {
	_Atomic(struct lf_sock *) sock; /* NULL: none */
	uint32_t generation;
	uint32_t number;
	enum lf_want want;
} under_way __attribute__((tls_model("initial-exec")));

static _Atomic uint32_t *sleepers(struct lf_sock *sock, enum lf_want want)
{
	return want == LF_WANT_READ ? &sock->readers : &sock->writers;
}

/* One exchange, so that a handler that waits in the middle of it and we do not both count. */
static void drop(void)
{
	uint32_t generation = under_way.generation;
	enum lf_want want = under_way.want;
	struct lf_sock *sock = atomic_exchange(&under_way.sock, NULL);
	if (!sock || sock->generation != generation)
		return;
	atomic_fetch_sub(sleepers(sock, want), 1);
	lf_wait_end(sock);
}

void lf_wait_forget(const struct lf_sock *sock)
{
	if (atomic_load(&under_way.sock) == sock)
		drop();
}

struct waiting {
	uint32_t number;
	bool bell; /* its doorbell can be relied on */
};

static struct waiting start_waiting(struct lf_sock *sock, enum lf_want want)
{
	static _Thread_local uint32_t numbers __attribute__((tls_model("initial-exec")));
	drop();
	atomic_fetch_add(sleepers(sock, want), 1);
	struct waiting waiting = {.bell = lf_wait_begin(sock), .number = ++numbers};
	under_way.generation = sock->generation;
	under_way.number = waiting.number;
	under_way.want = want;
	atomic_store(&under_way.sock, sock);
	return waiting;
}

static bool still_counted(const struct waiting *waiting)
{
	return atomic_load(&under_way.sock) && under_way.number == waiting->number;
}

static void stop_waiting(struct waiting *waiting)
{
	if (still_counted(waiting))
		drop();
}

void lf_wait_after_fork(void)
{
	drop();
}

void lf_hold_begin(struct lf_hold *hold)
{
	sigset_t handled;
	if (!hold->on && lf_signals_handled(&handled))
		hold->on = pthread_sigmask(SIG_BLOCK, &handled, &hold->before) == 0;
}

void lf_hold_end(struct lf_hold *hold)
{
	if (hold->on)
		pthread_sigmask(SIG_SETMASK, &hold->before, NULL);
	hold->on = false;
}

/* Of a doorbell that this thread may not empty: how often it has woken it since it was last rung. */
static _Thread_local struct vain {
	const struct lf_sock *sock;
	uint64_t rings;
	uint32_t times;
} vain __attribute__((tls_model("initial-exec")));

enum { YIELDS = 2, NAP_NS = 50 * 1000, DOUBLINGS = 8 };

void lf_wait_give_way(const struct lf_sock *sock, int64_t longest)
{
	uint64_t rings = atomic_load_explicit(&sock->in->reader.rings, memory_order_relaxed) +
			 atomic_load_explicit(&sock->out->writer.rings, memory_order_relaxed);
	if (vain.sock != sock || vain.rings != rings)
		vain = (struct vain){.sock = sock, .rings = rings};
	uint32_t times = vain.times;
	vain.times += times < YIELDS + DOUBLINGS;
	if (times < YIELDS) {
		sched_yield();
		return;
	}
	int64_t ns = (int64_t)NAP_NS << (times - YIELDS);
	struct timespec ts = lf_timespec(ns < longest ? ns : longest > 0 ? longest : 0);
	lf_rank_sleeps();
	(void)lf_real.ppoll(NULL, 0, &ts, NULL);
}

static void count_down(_Atomic uint32_t **counter)
{
	atomic_fetch_sub(*counter, 1);
}

/* Others rely on the bell that has woken us. Not counted any more, we leave it to the last of them,
 * and have all the time: who relies on no bell looks at the ring before it sleeps again. As a reader or writer
 * we stay (recv_after_close(), copy_what_is_unread()); signals with handlers are held, so none jumps out of here. */
static void leave_to_others(struct lf_sock *sock, const struct lf_wait *wait, struct waiting *waiting)
{
	_Atomic uint32_t *counter __attribute__((cleanup(count_down))) = sleepers(sock, wait->want);
	atomic_fetch_add(counter, 1);
	stop_waiting(waiting);
	if (stirred(sock, wait))
		sched_yield();
	else
		lf_wait_give_way(sock, wait->deadline == LF_FOREVER ? LF_FOREVER :
								      wait->deadline - lf_now());
}

void lf_wait_limit(const struct lf_sock *sock, struct lf_wait *wait)
{
	const _Atomic int64_t *option = wait->want == LF_WANT_READ ? &sock->slot->rcvtimeo :
								     &sock->slot->sndtimeo;
	int64_t timeout = atomic_load_explicit(option, memory_order_relaxed);
	wait->deadline = timeout ? lf_deadline(timeout) : LF_FOREVER;
	wait->never_restarts = timeout != 0;
}

/* A handler has run, or several. Begun anew, the call looks at the time limit, its number and O_NONBLOCK
 * again. */
static int after_handlers(const struct lf_sock *sock, int fd, struct lf_wait *wait)
{
	if (lf_handlers_end(wait->since, wait->never_restarts))
		return -EINTR;
	lf_handlers_begin_anew(wait->since);
	lf_wait_limit(sock, wait);
	if (fd >= 0 && lf_sock_named(sock, fd) < 0)
		return LF_BEGIN_ANEW;
	return lf_sock_nonblocking(sock) ? -EAGAIN : 0;
}

enum { SEEN_SLEEP_NS = 1000 * 1000 };

static int sleep_once(struct lf_sock *sock, int fd, struct lf_wait *wait, struct waiting *waiting)
{
	int64_t ns = LF_FOREVER;
	if (wait->deadline != LF_FOREVER) {
		ns = wait->deadline - lf_now();
		if (ns <= 0)
			return -EAGAIN;
	}
	/* Nothing wakes a writer of a ring when a thread beside it shuts the socket down. */
	bool briefly = !waiting->bell || lf_sock_must_poll(sock) ||
		       (wait->want == LF_WANT_READ && lf_wait_is_untold(sock));
	int64_t longest = briefly			  ? LF_SHARED_SLEEP_NS :
			  wait->want == LF_WANT_WRITE	   ? LF_WRITER_SLEEP_NS :
							     LF_FOREVER;
	if (wait->seen_in_tcp)
		longest = SEEN_SLEEP_NS;
	bool capped = ns > longest;
	if (capped)
		ns = longest;
	/* A reader also wants FIN; a writer of a ring only hang-ups and errors, which poll
	 * always reports, and room once its bytes go by TCP. */
	short events = wait->seen_in_tcp	  ? POLLRDHUP :
		       wait->want == LF_WANT_READ ? POLLIN | POLLRDHUP :
		       lf_tx(sock) == LF_TX_FUSED ? 0 :
						     POLLOUT;
	struct pollfd fds[2] = {
		{.fd = fd, .events = events},
		lf_wait_bell(sock),
	};
	struct timespec ts = lf_timespec(ns), *limit = ns == LF_FOREVER ? NULL : &ts;
	LF_HOLD(hold);
	lf_hold_begin(&hold);
	/* A handler that waited itself, before its signal was held, has taken our wake-up. */
	if (!still_counted(waiting))
		return 0;
	/* Held from here on, so none comes between this look and ppoll. */
	if (lf_defer_calls() != wait->since->calls)
		return after_handlers(sock, fd, wait);
	lf_rank_sleeps();
	int r = lf_ppoll(fds, 2, limit, hold.on ? &hold.before : NULL);
	if (r == -1 && errno == EINTR) /* of one that we don't know, with a time limit, as well */
		return wait->never_restarts ? -EINTR : after_handlers(sock, fd, wait);
	if (r == -1)
		return -errno;
	if (r == 0)
		return capped ? 0 : -EAGAIN;
	fd = lf_sock_named(sock, fd);
	/* Given away meanwhile, the number was no bell's any more when poll looked again. */
	if (fds[1].fd != atomic_load(&sock->bell))
		return 0;
	if (fds[1].revents & (POLLHUP | POLLERR))
		lf_conn_peer_gone(sock, fd);
	else if (fds[1].revents) {
		lf_counters_rung(sock, true);
		/* The caller looks at the ring next, and arms again before it sleeps. An epoll set
		 * in which nobody sleeps is to keep nobody from emptying the bell. */
		if (atomic_load(&sock->waiters) > 1)
			lf_epoll_stop_counting(sock);
		if (!still_counted(waiting) || !lf_wait_drain(sock, 1))
			leave_to_others(sock, wait, waiting);
	}
	return 0;
}

int lf_wait_poll(struct pollfd *fds, size_t n, const struct timespec *ts, struct lf_handlers *since)
{
	LF_HOLD(hold);
	lf_hold_begin(&hold);
	if (lf_handlers_end(since, false))
		return -EINTR;
	lf_rank_sleeps();
	if (lf_ppoll(fds, n, ts, hold.on ? &hold.before : NULL) != -1)
		return 0;
	if (lf_handlers_end(since, false))
		return -EINTR;
	lf_handlers_begin_anew(since);
	return -EAGAIN;
}

/* Begun anew, a call looks at O_NONBLOCK, which may have been set and taken back since it waits. */
static int begin_anew(int fd)
{
	return lf_real.fcntl(fd, F_GETFL) & O_NONBLOCK ? -EAGAIN : 0;
}

int lf_wait_tcp(int fd, short events, int64_t longest, uint32_t handlers_run)
{
	if (lf_defer_calls() != handlers_run)
		return begin_anew(fd);
	struct pollfd p = {.fd = fd, .events = events};
	struct timespec ts = lf_timespec(longest);
	uint32_t ends = lf_defer_ends();
	lf_rank_sleeps();
	if (lf_ppoll(&p, 1, longest == LF_FOREVER ? NULL : &ts, NULL) != -1)
		return 0;
	/* One that is not known at all is the C library's own, which restarts. */
	return errno == EINTR && lf_defer_ends() == ends ? begin_anew(fd) : -EINTR;
}

/* A hint for the peer's spinning, see peer_is_here(). */
static void show_cpu(struct lf_sock *sock)
{
	uint32_t cpu = (uint32_t)sched_getcpu() + 1;
	if (atomic_load_explicit(&sock->out->p.cpu, memory_order_relaxed) != cpu)
		atomic_store_explicit(&sock->out->p.cpu, cpu, memory_order_relaxed);
	if (atomic_load_explicit(&sock->in->c.cpu, memory_order_relaxed) != cpu)
		atomic_store_explicit(&sock->in->c.cpu, cpu, memory_order_relaxed);
}

bool lf_wait_spin(struct lf_sock *sock, const struct lf_wait *wait)
{
	struct spinner spinner = {sock, wait};
	show_cpu(sock);
	return lf_wait_spin_by_score(sock, wait->want, peer_is_here(sock, wait->want),
				     spinner_looks, &spinner) &&
	       stirred(sock, wait);
}

int lf_wait(struct lf_sock *sock, int fd, struct lf_wait *wait)
{
	if (lf_defer_calls() != wait->since->calls) {
		int r = after_handlers(sock, fd, wait);
		if (r)
			return r;
	}
	if (!wait->spun && lf_wait_spin(sock, wait))
		return 0;
	/* The cleanup also runs when pthread_cancel unwinds through here. */
	struct waiting waiting __attribute__((cleanup(stop_waiting))) =
		start_waiting(sock, wait->want);
	lf_wait_arm(sock, wait->want);
	/* The flag stays up if there is something: it may be another thread's, which sleeps
	 * already and looks no more. A ring for nobody costs one look for nothing. */
	if (stirred(sock, wait) || lf_conn_service(sock, fd))
		return 0;
	lf_wait_count_sleep(sock, wait->want);
	return sleep_once(sock, fd, wait, &waiting);
}
