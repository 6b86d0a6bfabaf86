/* epoll_wait.c - epoll_wait: merges rings of hot sockets, doorbells of cold ones and the
 * kernel's events for everything else. epoll_set.h tells the whole story.
 */
#define _GNU_SOURCE
#include "epoll_set.h"

#include "broker.h"
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "defer.h"
#include "invariant.h"
#include "pause.h"
#include "rank.h"
#include "real.h"
#include "start.h"
#include "uncancelled.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>

enum {
	KERNEL_EVERY = 8, /* calls that rings alone may answer before the kernel is asked */
	LOOKED_AT = 64,	  /* hot rings, in search of the one that has waited longest */
	SCORE_MAX = 8,
	SCORE_MIN = -64,
};

static void begin_turn(struct lf_epoll *ep)
{
	ep->turn++;
	ep->now = lf_ticks();
}

static bool just_reported(const struct lf_registration *reg)
{
	return reg->turn == reg->ep->turn;
}

static void put_event(struct epoll_event *events, int *n, struct lf_registration *reg, uint32_t bits)
{
	/* The kernel never reports an entry twice in one call. */
	if (just_reported(reg)) {
		events[reg->place].events |= bits;
		return;
	}
	reg->turn = reg->ep->turn;
	reg->place = *n;
	events[*n].events = bits;
	events[*n].data.u64 = lf_epoll_tag(reg, LF_TAG_TCP);
	++*n;
}

/* Oldest first; of equals, as they were. Takes `count` off the chain at *from. */
static struct lf_registration *sort(struct lf_registration **from, int count)
{
	if (count == 1) {
		struct lf_registration *one = *from;
		*from = one->next;
		one->next = NULL;
		return one;
	}
	struct lf_registration *a = sort(from, count / 2), *b = sort(from, count - count / 2);
	struct lf_registration *first = NULL, **end = &first;
	while (a && b) {
		struct lf_registration **older = b->due_for > a->due_for ? &b : &a;
		*end = *older;
		end = &(*older)->next;
		*older = (*older)->next;
	}
	*end = a ? a : b;
	return first;
}

static uint32_t age(const struct lf_epoll *ep, uint64_t since)
{
	uint64_t ticks = ep->now - since;
	return ticks >> 32 ? UINT32_MAX : lf_arrival_steps(ticks);
}

/* The kernel's list has what became ready first in front, and at its end what has just been
 * reported, or has just begun to ask; so do we, or what never ends would leave no room. */
static struct lf_registration *in_order_of_arrival(struct lf_epoll *ep, struct lf_registration *chain,
						   int count)
{
	if (count < 2)
		return chain;
	for (struct lf_registration *reg = chain; reg; reg = reg->next) {
		uint32_t queued = age(ep, reg->queued_at);
		uint32_t came = lf_conn_waits_since(reg->sock, lf_arrival_steps(ep->now));
		uint32_t passed = reg->passed_at ? age(ep, reg->passed_at) : 0;
		reg->due_for = came < queued ? came : queued;
		if (reg->due_for < passed)
			reg->due_for = passed;
	}
	return sort(&chain, count);
}

/* Takes those that have something to report off the hot list; `most` at least, if there are as
 * many, and all of a list that is short. */
static struct lf_registration *take_due(struct lf_epoll *ep, int most, int *count)
{
	struct lf_registration *chain = NULL, **end = &chain;
	const struct lf_registration *last = ep->hot.last;
	int looked = 0;
	*count = 0;
	for (struct lf_registration *reg = ep->hot.first, *next;
	     reg && (*count < most || looked < LOOKED_AT); reg = next, looked++) {
		next = reg == last ? NULL : reg->next;
		reg->due_cover = lf_entry_cover(reg);
		reg->due = lf_entry_reportable(reg);
		if (!reg->due) {
			reg->passed_at = 0;
			lf_entry_looked_in_vain(reg);
			continue;
		}
		lf_epoll_leave_list(reg);
		reg->next = NULL;
		*end = reg;
		end = &reg->next;
		++*count;
	}
	return chain;
}

/* Hot rings into events[*n ...]; data stays a tag until finish(). What is reported goes to the
 * list's end, as on the kernel's: whoever did not fit in this time comes first the next. */
static void harvest_rings(struct lf_epoll *ep, struct epoll_event *events, int max, int *n)
{
	int count;
	if (*n == max)
		return;
	struct lf_registration *reg = take_due(ep, max - *n, &count), *next;
	for (reg = in_order_of_arrival(ep, reg, count); reg && *n < max; reg = next) {
		next = reg->next;
		put_event(events, n, reg, reg->due);
		lf_epoll_make_hot(reg);
		lf_entry_reported(reg, reg->due, reg->due_cover);
	}
	for (struct lf_registration *left = reg; left; left = left->next)
		if (!left->passed_at)
			left->passed_at = ep->now;
	lf_epoll_put_first(ep, reg);
}

/* What the kernel said of a fused socket's TCP side, in the program's terms. */
static uint32_t tcp_events(const struct lf_registration *reg, uint32_t kernel)
{
	if (reg->off || reg->gone)
		return 0;
	short known;
	uint32_t ring = (uint32_t)(uint16_t)lf_conn_ready(reg->sock, (short)reg->user.events, &known);
	uint32_t bits = kernel;
	if (kernel & EPOLLRDHUP)
		lf_conn_end_was_told(reg->sock);
	if (!(kernel & (EPOLLERR | EPOLLHUP)))
		bits &= ~(uint32_t)(uint16_t)known;
	return (bits | ring) & (reg->user.events | EPOLLERR | EPOLLHUP);
}

/* What the kernel reported that needs other locks than the set's: seen to afterwards. */
enum { RUNG_MAX = 64 };
enum news {
	NEWS_BELL,    /* it was rung */
	NEWS_HANG_UP, /* of it */
	NEWS_FIN,     /* not the bell, but a FIN that may be a death */
	NEWS_COPY,    /* nor here, but perhaps the rest of a ring's copy alone */
};
struct rung {
	struct {
		struct lf_sock *sock; /* pinned */
		int fd;
		enum news news;
	} bell[RUNG_MAX];
	int count;
	bool mail; /* the broker has something for us */
	bool slept;
	uint32_t handlers_run; /* before the call */
	const struct lf_sock *left; /* its bell was rung, and left to the process that we come from */
};

/* To be seen to after the lock is given back; of more than there is room for, the kernel tells again. */
static void note(struct lf_registration *reg, enum news news, struct rung *rung)
{
	struct lf_sock *pinned = rung->count < RUNG_MAX ? lf_sock_pin(reg->fd) : NULL;
	if (!pinned)
		return;
	rung->bell[rung->count].sock = pinned;
	rung->bell[rung->count].fd = reg->fd;
	rung->bell[rung->count++].news = news;
}

/* Not all programs ask for it by its name. */
static bool is_fin(const struct lf_registration *reg, uint32_t kernel)
{
	struct pollfd p = {.fd = reg->fd, .events = POLLRDHUP};
	return (kernel & EPOLLRDHUP) ||
	       ((kernel & LF_IN_BITS) && lf_uncancelled_poll(&p, 1, 0) == 1 && (p.revents & POLLRDHUP));
}

/* FIN of a peer that may be dying, or bytes that may be no news: told once it is known what it is. The kernel says
 * it again, since its entry is level-triggered (ONESHOT is ours to see to), or is changed here: an edge of its
 * own. */
static bool wait_for_verdict(struct lf_registration *reg, uint32_t kernel, struct rung *rung)
{
	if (reg->off || reg->gone)
		return false;
	bool fin = lf_conn_fin_is_doubtful(reg->sock) && is_fin(reg, kernel);
	bool copy = !fin && (kernel & LF_IN_BITS) && lf_conn_copy_is_awaited(reg->sock, reg->fd);
	if ((!fin && !copy) ||
	    ((reg->kernel_events & EPOLLET) && lf_entry_tell_kernel(reg) == -1))
		return false;
	note(reg, fin ? NEWS_FIN : NEWS_COPY, rung);
	return true;
}

static void bell_event(struct lf_registration *reg, uint32_t kernel, struct rung *rung)
{
	struct lf_sock *sock = reg->sock;
	bool hung_up = (kernel & (EPOLLHUP | EPOLLERR)) != 0;
	if (!reg->off && !reg->gone)
		lf_epoll_make_hot(reg);
	if (!hung_up && (kernel & EPOLLOUT))
		lf_entry_was_poked(reg);
	if (!hung_up && !(kernel & EPOLLIN))
		return; /* nobody rang */
	if (rung->count == RUNG_MAX)
		return; /* as it is, the kernel tells it again */
	if (hung_up) {
		lf_entry_remove_bell(reg); /* it would be reported for ever */
	} else {
		lf_counters_rung(sock, rung->slept);
		if (!lf_wait_drain(sock, 0) && lf_sock_bell_is_parents(sock))
			rung->left = sock;
	}
	note(reg, hung_up ? NEWS_HANG_UP : NEWS_BELL, rung);
}

/* What the program knows of: room, which the kernel tells again whenever an entry is changed, and
 * a reset that the ring told, of which the kernel sees a FIN. */
static bool is_stale(const struct lf_registration *reg, uint32_t bits)
{
	uint32_t known = atomic_load(&reg->sock->slot->reset) ? reg->told : (uint32_t)LF_OUT_BITS;
	return (reg->user.events & EPOLLET) && bits && !(bits & ~known) &&
	       !lf_sock_shared(reg->sock) && !lf_entry_has_edge(reg, bits);
}

/* events[from .. to) came from the kernel: ours are translated or swallowed. */
static int translate(struct lf_epoll *ep, struct epoll_event *events, int from, int to,
		     struct rung *rung)
{
	int n = from;
	for (int i = from; i < to; i++) {
		struct epoll_event event = events[i];
		if (!lf_epoll_is_tag(event.data.u64)) {
			events[n++] = event;
			continue;
		}
		if (event.data.u64 == lf_epoll_broker_tag()) {
			rung->mail = true;
			continue;
		}
		struct lf_registration *reg = lf_epoll_entry_of(ep, event.data.u64);
		if (!reg)
			continue;
		if (event.data.u64 & 1) {
			bell_event(reg, event.events, rung);
			continue;
		}
		event.events = (uint16_t)lf_conn_tcp_says(reg->sock, reg->fd, (short)event.events);
		if (wait_for_verdict(reg, event.events, rung))
			continue;
		struct lf_cover cover = lf_entry_cover(reg);
		uint32_t bits = tcp_events(reg, event.events);
		if (is_stale(reg, bits))
			bits = 0;
		if (!reg->off && !reg->gone)
			lf_epoll_make_hot(reg);
		/* The latter two may be a lf_entry_poke(). */
		if (!bits || (event.events & EPOLLOUT) ||
		    ((reg->user.events ^ reg->kernel_events) & EPOLLET))
			lf_entry_trim(reg);
		if (!bits)
			continue;
		put_event(events, &n, reg, bits);
		lf_entry_reported(reg, bits, cover);
	}
	return n;
}

/* Our tags become the program's data. */
static void finish(struct lf_epoll *ep, struct epoll_event *events, int n)
{
	for (int i = 0; i < n; i++) {
		if (!lf_epoll_is_tag(events[i].data.u64))
			continue;
		struct lf_registration *reg = lf_epoll_entry_of(ep, events[i].data.u64);
		LF_INVARIANT(reg);
		events[i].data = reg->user.data;
	}
}

/* True: the caller should look again before it sleeps. `in_vain`: it has nothing else to do. */
static bool see_to(struct rung *rung, bool in_vain)
{
	for (int i = 0; i < rung->count; i++) {
		struct lf_sock *sock = rung->bell[i].sock;
		int fd = rung->bell[i].fd;
		if (rung->bell[i].news == NEWS_FIN)
			lf_conn_resolve_fin(sock, fd);
		else if (rung->bell[i].news == NEWS_COPY)
			lf_conn_take_late_copy(sock, fd);
		else if (rung->bell[i].news == NEWS_HANG_UP)
			lf_conn_peer_gone(sock, fd);
		else
			(void)lf_conn_service(sock, fd);
		/* In an inherited set, which tells it until the parent has been there: the kernel wakes that, too. */
		if (in_vain && rung->left == sock)
			lf_wait_give_way(sock, LF_SHARED_SLEEP_NS);
		lf_sock_unpin(sock);
	}
	if (rung->mail)
		lf_broker_receive();
	return rung->count || rung->mail;
}

/* A mask costs the kernel something, none too: epoll_wait has no place for one. */
static int wait_ms(int epfd, struct epoll_event *events, int max, int ms, const sigset_t *mask)
{
	return mask ? lf_real.epoll_pwait(epfd, events, max, ms, mask) :
		      lf_real.epoll_wait(epfd, events, max, ms);
}

static int kernel_wait(int epfd, struct epoll_event *events, int max, int64_t ns,
		       const sigset_t *mask)
{
	if (ns)
		lf_rank_sleeps();
	if (ns == 0 || ns == LF_FOREVER)
		return wait_ms(epfd, events, max, ns ? -1 : 0, mask);
	static _Atomic bool no_pwait2;
	if (!atomic_load_explicit(&no_pwait2, memory_order_relaxed)) {
		struct timespec ts = lf_timespec(ns);
		int n = lf_real.epoll_pwait2(epfd, events, max, &ts, mask);
		if (n >= 0 || errno != ENOSYS)
			return n;
		atomic_store(&no_pwait2, true);
	}
	int64_t ms = (ns + 999999) / 1000000;
	return wait_ms(epfd, events, max, ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

/* For spin(): the ring that ends it has it counted. */
static bool hot_is_ready(struct lf_epoll *ep)
{
	bool ready = false;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	for (struct lf_registration *reg = ep->hot.first; reg && !ready; reg = reg->next)
		if ((ready = lf_entry_reportable(reg) != 0))
			lf_counters_spun(&reg->sock->in->t.waits, true);
	lf_epoll_unlock(ep);
	return ready;
}

static void count_spin_in_vain(struct lf_epoll *ep)
{
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	if (ep->hot.first)
		lf_counters_spun(&ep->hot.first->sock->in->t.waits, false);
	lf_epoll_unlock(ep);
}

static bool has_hot(struct lf_epoll *ep)
{
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	bool has = ep->hot.first != NULL;
	lf_epoll_unlock(ep);
	return has;
}

/* Spins on the hot rings, if that has been paying off; see wait.c. */
static bool spin(struct lf_epoll *ep, int64_t ns)
{
	if (lf_config.spin_ns == 0 || ns < lf_config.spin_ns || !has_hot(ep))
		return false;
	int32_t score = atomic_load_explicit(&ep->spin_score, memory_order_relaxed);
	if (score < 0) {
		atomic_store_explicit(&ep->spin_score, score + 1, memory_order_relaxed);
		return false;
	}
	int64_t end = lf_now() + lf_config.spin_ns;
	do {
		for (int i = 0; i < (lf_config.one_cpu ? 1 : 16); i++) {
			if (hot_is_ready(ep)) {
				score += score < SCORE_MAX;
				atomic_store_explicit(&ep->spin_score, score, memory_order_relaxed);
				return true;
			}
			lf_pause();
		}
		sched_yield();
	} while (lf_now() < end);
	count_spin_in_vain(ep);
	score = score > 0 ? score / 2 - 1 : score - 8;
	atomic_store_explicit(&ep->spin_score, score < SCORE_MIN ? SCORE_MIN : score,
			      memory_order_relaxed);
	return false;
}

void lf_epoll_watch_broker(struct lf_epoll *ep)
{
	int fd = lf_broker_fd();
	if (fd < 0 || ep->broker_fd == fd || lf_epoll_is_nested(ep))
		return;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = lf_epoll_broker_tag()};
	atomic_fetch_add(&ep->adopted, 1); /* first, as in lf_entry_adopt() */
	if (lf_real.epoll_ctl(atomic_load(&ep->fd), EPOLL_CTL_ADD, fd, &event) == -1 && errno != EEXIST)
		return;
	ep->broker_fd = fd;
}

/* Looks at rings, now and then at the kernel, without sleeping; under lock. However many rings
 * are ready, when it is the kernel's turn there is room for what it has to say. */
static int look(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, bool ask_kernel,
		struct rung *rung)
{
	int n = 0;
	begin_turn(ep);
	bool turn = ++ep->calls >= KERNEL_EVERY;
	harvest_rings(ep, events, turn ? max / 2 : max, &n);
	if (!turn && (n == max || !ask_kernel))
		return n;
	ep->calls = 0;
	lf_entry_widen_hot(ep);
	int more = lf_real.epoll_pwait(epfd, events + n, max - n, 0, NULL);
	if (more < 0)
		return n ? n : -errno;
	ep->settled += more < max - n;
	n = translate(ep, events, n, n + more, rung);
	harvest_rings(ep, events, max, &n);
	return n;
}

/* Under lock: threads that sleep in this set must be rung for what we leave behind. That includes
 * what we have just been told of and may ignore, where it is level-triggered: as the kernel does. */
static void hand_over(struct lf_epoll *ep, struct epoll_event *events, int n)
{
	lf_entry_tell_sleepers(ep);
	finish(ep, events, n);
}

static int64_t time_left(int64_t deadline)
{
	return deadline == LF_FOREVER ? LF_FOREVER : deadline - lf_now();
}

struct sleep {
	struct lf_epoll *ep;
	bool is_nap;
};

/* Under lock: one sleeper less, who may have had others to sleep on for as long as they like. */
static void get_up(const struct sleep *sleep)
{
	bool closed = sleep->ep->closed; /* then it may be given back now */
	sleep->ep->nappers -= sleep->is_nap && sleep->ep->nappers;
	lf_epoll_stop_sleeping(sleep->ep);
	if (sleep->is_nap && !closed)
		lf_entry_have_one_nap(sleep->ep);
}

/* pthread_cancel has ended the sleeping thread. */
static void cancelled(struct sleep *sleep)
{
	if (!sleep->ep)
		return;
	lf_mutex_lock(&sleep->ep->lock, LF_RANK_EPOLL);
	get_up(sleep);
	lf_epoll_unlock(sleep->ep);
}

static int kernel_wait_cancellably(const struct sleep *sleep, int epfd, struct epoll_event *events,
				   int max, int64_t ns, const sigset_t *mask)
{
	struct sleep sleeping __attribute__((cleanup(cancelled))) = *sleep;
	int n = kernel_wait(epfd, events, max, ns, mask);
	n = n == -1 ? -errno : n;
	sleeping.ep = NULL;
	return n;
}

/* What the kernel has told a sleeper, or a negative errno, in the program's terms; under lock. */
static int wake_up(const struct sleep *sleep, struct epoll_event *events, int n, int max,
		   struct rung *rung)
{
	struct lf_epoll *ep = sleep->ep;
	rung->slept = true;
	ep->settled += n >= 0 && n < max;
	if (n > 0) {
		if (ep->sleepers == 1)
			lf_entry_heat_cooled(ep);
		begin_turn(ep);
		n = translate(ep, events, 0, n, rung);
		harvest_rings(ep, events, max, &n);
		ep->sleepers--;
		hand_over(ep, events, n);
		ep->sleepers++;
	}
	get_up(sleep);
	return n;
}

/* Sleeps in the kernel with everything armed. 0: look again. */
static int sleep_in_kernel(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max,
			   int64_t ns, const sigset_t *mask, struct rung *rung)
{
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	if (!lf_epoll_is_behind(ep, epfd)) {
		lf_epoll_unlock(ep);
		return -EBADF;
	}
	ep->capped = false;
	bool ready = lf_entry_make_all_cold(ep) != NULL;
	if (!ready)
		ep->sleepers++;
	struct sleep sleep = {ep, ep->capped};
	if (!ready && sleep.is_nap) {
		ep->nappers++;
		ep->napped_at = lf_now();
	}
	lf_epoll_unlock(ep);
	if (ready)
		return 0;
	if (sleep.is_nap && ns > LF_SHARED_SLEEP_NS)
		ns = LF_SHARED_SLEEP_NS;
	/* While we spun, and armed, the kernel's would have slept. */
	if (lf_defer_calls() != rung->handlers_run)
		ns = 0;
	int n = kernel_wait_cancellably(&sleep, epfd, events, max, ns, mask);
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	n = wake_up(&sleep, events, n, max, rung);
	lf_epoll_unlock(ep);
	return n;
}

static void plain_sleep_is_over(struct lf_epoll **ep)
{
	if (*ep)
		lf_epoll_end_plain_sleep(*ep);
}

static __attribute__((noinline)) int wake_up_in_mixed(struct lf_epoll *ep, struct epoll_event *events,
						      int n, int max)
{
	struct rung rung = {.count = 0};
	struct sleep sleep = {ep, false};
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	n = wake_up(&sleep, events, n, max, &rung);
	lf_epoll_unlock(ep);
	(void)see_to(&rung, false);
	return n;
}

/* Sleeps in a plain set: the kernel's call, and what has to be for the case that the set is none any
 * more. False: it was none before, and nobody has slept. */
static bool sleep_plainly(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
			  const sigset_t *mask, int *n)
{
	if (!lf_epoll_begin_plain_sleep(ep, epfd))
		return false;
	struct lf_epoll *sleeping __attribute__((cleanup(plain_sleep_is_over))) = ep;
	*n = kernel_wait(epfd, events, max, ns, mask);
	*n = *n == -1 ? -errno : *n;
	/* As in lf_epoll_look_at_kernel(). */
	if (!lf_epoll_is_plain(ep)) {
		sleeping = NULL;
		*n = wake_up_in_mixed(ep, events, *n, max);
	} else if (*n >= 0 && *n < max) {
		atomic_fetch_add_explicit(&ep->settled, 1, memory_order_relaxed);
	}
	return true;
}

int lf_epoll_look_at_kernel(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max,
			    const sigset_t *mask)
{
	int n = wait_ms(epfd, events, max, 0, mask);
	/* `adopted` is raised before the kernel gets a tag of ours, and the kernel's own lock
	 * orders entry and look: while it is down, no event that was given out has one, unless from
	 * another process that shares the set. */
	if (n <= 0 || lf_epoll_is_plain(ep))
		return n;
	struct rung rung = {.count = 0};
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	begin_turn(ep);
	n = translate(ep, events, 0, n, &rung);
	hand_over(ep, events, n);
	lf_epoll_unlock(ep);
	(void)see_to(&rung, false);
	return n;
}

/* `slept`: the call has already, and since before that so many handlers have run. */
static int wait_in_any(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
		       const sigset_t *mask, bool slept, uint32_t handlers_run)
{
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : ns == 0 ? 0 : lf_deadline(ns);
	LF_HOLD(hold);
	struct rung rung;
	rung.slept = slept;
	rung.handlers_run = handlers_run;
	bool second_look = false;
	for (;;) {
		/* Once it has slept a handler ends the call, between two sleeps as well. */
		if (rung.slept)
			lf_hold_begin(&hold);
		if (rung.slept && lf_defer_calls() != handlers_run)
			return -EINTR;
		int n = 0;
		rung.count = 0;
		rung.mail = false;
		rung.left = NULL;
		if (lf_epoll_is_mixed(ep)) {
			lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
			n = !lf_epoll_is_behind(ep, epfd) ? -EBADF :
			    look(ep, epfd, events, max, ns == 0, &rung);
			if (n > 0)
				hand_over(ep, events, n);
			else /* and may have taken the bell of what is held */
				lf_entry_have_one_nap(ep);
			lf_epoll_unlock(ep);
			bool again = see_to(&rung, n == 0 && ns != 0);
			if (n != 0 || (ns == 0 && (!again || second_look)))
				return n;
			/* What a doorbell told may be news for the program: a peer that is dead. */
			second_look = true;
			if (again)
				continue;
			/* What comes while we spin waits for the kernel's call, which knows what the mask
			 * lets in. */
			if (mask)
				lf_hold_begin(&hold);
			if (spin(ep, time_left(deadline)))
				continue;
		}
		int64_t left = ns == 0 ? 0 : time_left(deadline);
		if (left < 0)
			left = 0;
		n = sleep_in_kernel(ep, epfd, events, max, left,
				    mask || !hold.on ? mask : &hold.before, &rung);
		see_to(&rung, n == 0);
		if (n != 0)
			return n;
		if (time_left(deadline) <= 0)
			return 0;
	}
}

int lf_epoll_wait(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
		  const sigset_t *mask)
{
	if (max <= 0)
		return -EINVAL;
	uint32_t handlers_run = lf_defer_calls();
	if (ns == 0 || !lf_epoll_is_plain(ep))
		return wait_in_any(ep, epfd, events, max, ns, mask, false, handlers_run);
	/* Of a set that stays plain the kernel keeps the time. While we are alone only a handler can
	 * make it another, and ends the call. */
	int64_t deadline = lf_alone() ? LF_FOREVER : lf_deadline(ns);
	int n;
	bool slept = sleep_plainly(ep, epfd, events, max, ns, mask, &n);
	if (slept && (n != 0 || lf_epoll_is_plain(ep)))
		return n;
	if (deadline != LF_FOREVER && ns != LF_FOREVER && (ns = time_left(deadline)) <= 0) {
		if (slept)
			return 0;
		ns = 0;
	}
	return wait_in_any(ep, epfd, events, max, ns, mask, slept, handlers_run);
}
