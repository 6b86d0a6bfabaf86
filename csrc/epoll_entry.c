/* epoll_entry.c - one entry of an epoll set: its twin in the kernel, what is ready, hot and
 * cold, and what becomes of it when its socket is fused, defused or closed. epoll_set.h tells
 * the whole story.
 */
#define _GNU_SOURCE
#include "epoll_set.h"

#include "clock.h"
#include "conn.h"
#include "held.h"
#include "invariant.h"
#include "rank.h"
#include "real.h"
#include "uncancelled.h"

#include <errno.h>
#include <poll.h>

/* --- the kernel's entries; under ep->lock --- */

static uint32_t kernel_mask(const struct lf_registration *reg)
{
	uint32_t mask = reg->user.events & ~(uint32_t)EPOLLONESHOT;
	if (lf_tx(reg->sock) == LF_TX_FUSED)
		mask &= ~(uint32_t)LF_OUT_BITS;
	return mask;
}

int lf_entry_tell_kernel(struct lf_registration *reg)
{
	struct epoll_event event = {.events = kernel_mask(reg), .data.u64 = lf_epoll_tag(reg, LF_TAG_TCP)};
	int op = reg->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (lf_real.epoll_ctl(atomic_load(&reg->ep->fd), op, reg->fd, &event) == -1)
		return -1;
	reg->in_kernel = true;
	reg->kernel_events = event.events;
	return 0;
}

int lf_entry_leave_kernel(struct lf_registration *reg)
{
	if (!reg->in_kernel)
		return 0;
	reg->in_kernel = false;
	return lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_DEL, reg->fd, NULL);
}

static void widen(struct lf_registration *reg)
{
	if (!reg->in_kernel || (kernel_mask(reg) & ~reg->kernel_events))
		(void)lf_entry_tell_kernel(reg);
}

void lf_entry_widen_hot(struct lf_epoll *ep)
{
	for (struct lf_registration *reg = ep->hot.first; reg; reg = reg->next)
		widen(reg);
}

void lf_entry_trim(struct lf_registration *reg)
{
	if (reg->gone || reg->off)
		(void)lf_entry_leave_kernel(reg);
	else if (kernel_mask(reg) != reg->kernel_events)
		(void)lf_entry_tell_kernel(reg);
}

/* --- what is ready; under ep->lock --- */

/* A thread with many busy sockets sleeps now and then, for none of them in particular. Each would
 * be rung for: two system calls, at either end, for each message. Taking a flag down again costs
 * a fraction of a microsecond, so it is done for those which had news in their last few sleeps;
 * and not for many thousands, which each epoll_wait would look at. A thread that does not sleep, since
 * one socket keeps it busy, rids itself of the others once looking at one has cost what a ring does. */
enum { WARMTH = 16, MOST_WARM = 2048, MOST_VAIN = 128, A_FEW = 2 };

/* Edge-triggered, and bytes have come into the ring behind some that lie in TCP: input is what the
 * kernel says, but that there is news of it the ring alone knows. */
static bool has_news_behind_tcp(const struct lf_registration *reg)
{
	enum lf_rx rx = lf_rx(reg->sock);
	return (reg->user.events & EPOLLET) && (rx == LF_RX_READY || rx == LF_RX_DRAIN) &&
	       lf_held_shown_head(reg->sock) != reg->seen_head;
}

/* Bytes that a ring has ended before are TCP's to tell of; not those of a copy of the ring's, which are no news. */
static bool input_is_rings(const struct lf_sock *sock)
{
	bool ended = atomic_load_explicit(&sock->in->p.mark, memory_order_acquire) == LF_MARK_ENDED;
	return lf_rx(sock) == LF_RX_FUSED && (!ended || lf_conn_copy_left(sock));
}

/* What is ready, in the program's terms, as far as memory tells. */
static uint32_t ring_events(const struct lf_registration *reg)
{
	if (reg->off || reg->gone)
		return 0;
	short known;
	uint32_t bits = (uint32_t)(uint16_t)lf_conn_ready(reg->sock, (short)reg->user.events, &known);
	/* A FIN that may be a death: the kernel's event will tell, see wait_for_verdict(). */
	if ((bits & EPOLLRDHUP) && lf_conn_fin_is_doubtful(reg->sock)) {
		bits &= ~(uint32_t)(EPOLLRDHUP | EPOLLIN | EPOLLRDNORM);
		if (lf_conn_has_input(reg->sock, 1))
			bits |= EPOLLIN | EPOLLRDNORM;
	}
	bits &= reg->user.events | EPOLLERR | EPOLLHUP;
	/* An event tells the whole mask: while a direction is plain, TCP knows about it. */
	uint32_t asked = reg->user.events & ~(uint32_t)(uint16_t)known;
	short plain = (short)(asked & LF_IN_BITS);
	if (plain && input_is_rings(reg->sock))
		plain = 0;
	plain |= (short)(asked & LF_OUT_BITS);
	if (plain && (bits || has_news_behind_tcp(reg))) {
		struct pollfd p = {.fd = reg->fd, .events = plain};
		if (lf_uncancelled_poll(&p, 1, 0) == 1)
			bits |= (uint32_t)(uint16_t)(p.revents & plain);
	}
	return bits;
}

bool lf_entry_has_edge(const struct lf_registration *reg, uint32_t ready)
{
	struct lf_sock *sock = reg->sock;
	if (reg->fresh)
		return true;
	if ((ready & LF_IN_BITS) && lf_held_shown_head(sock) != reg->seen_head)
		return true;
	return (ready & LF_OUT_BITS) &&
	       atomic_load_explicit(&sock->tx_stalls, memory_order_relaxed) != reg->seen_stalls;
}

uint32_t lf_entry_reportable(const struct lf_registration *reg)
{
	uint32_t ready = ring_events(reg);
	if (ready && (reg->user.events & EPOLLET) && !lf_entry_has_edge(reg, ready))
		return 0;
	return ready;
}

struct lf_cover lf_entry_cover(const struct lf_registration *reg)
{
	return (struct lf_cover){
		.head = lf_held_shown_head(reg->sock),
		.stalls = atomic_load_explicit(&reg->sock->tx_stalls, memory_order_acquire),
	};
}

void lf_entry_reported(struct lf_registration *reg, uint32_t bits, struct lf_cover cover)
{
	reg->fresh = false;
	reg->told = bits;
	reg->vain = 0;
	reg->queued_at = reg->ep->now;
	reg->passed_at = 0;
	if (bits & LF_IN_BITS) {
		reg->seen_head = cover.head;
		reg->warmth = WARMTH;
	}
	if (bits & LF_OUT_BITS)
		reg->seen_stalls = cover.stalls;
	if (reg->user.events & EPOLLONESHOT) {
		reg->off = true;
		lf_epoll_leave_list(reg);
		if (reg->ep->exact)
			(void)lf_entry_leave_kernel(reg);
	}
}

/* Of one that goes cold. With EPOLLET it may be armed for room though there is enough. */
static void count_sleep(const struct lf_registration *reg)
{
	if (reg->user.events & LF_IN_BITS)
		lf_wait_count_sleep(reg->sock, LF_WANT_READ);
	if ((reg->user.events & LF_OUT_BITS) && !lf_conn_writable(reg->sock))
		lf_wait_count_sleep(reg->sock, LF_WANT_WRITE);
}

static void arm(struct lf_registration *reg)
{
	if (reg->user.events & LF_IN_BITS)
		lf_wait_arm(reg->sock, LF_WANT_READ);
	/* Edge-triggered, room is no news unless a send has found too little: that arms itself. */
	bool news = !(reg->user.events & EPOLLET) || reg->fresh ||
		    atomic_load(&reg->sock->tx_stalls) != reg->seen_stalls;
	if (news && (reg->user.events & LF_OUT_BITS) && lf_tx(reg->sock) == LF_TX_FUSED)
		lf_wait_arm(reg->sock, LF_WANT_WRITE);
}

/* Of a bell that is its parent's a set is told the hang-up alone. Not so an inherited one, which is the
 * parent's, too. */
static uint32_t what_bell_tells(const struct lf_registration *reg)
{
	return !reg->ep->inherited && lf_sock_bell_is_parents(reg->sock) ? 0 : EPOLLIN;
}

static bool change_bell(struct lf_registration *reg, int op, uint32_t more)
{
	int bell = atomic_load(&reg->sock->bell);
	struct epoll_event event = {.events = what_bell_tells(reg) | more,
				    .data.u64 = lf_epoll_tag(reg, LF_TAG_BELL)};
	return bell >= 0 && lf_real.epoll_ctl(atomic_load(&reg->ep->fd), op, bell, &event) == 0;
}

/* The set is the kernel's one, from which the process that we come from takes the doorbell when it closes
 * the socket. We store the word, then enter the bell; it removes the bell, then loads the word
 * (return_entry()). The kernel does one of the two first: if the removal, the bell is entered after it;
 * else the removal comes after our store, and the load finds it, and enters the bell. */
static void say_that_we_wait(struct lf_registration *reg)
{
	reg->heard = true;
	atomic_store(&reg->sock->slot->heard_in_heirs, 1);
	(void)change_bell(reg, EPOLL_CTL_ADD, 0);
}

/* Arms it and lets it go cold, unless it turns out to be ready: true. */
static bool make_cold(struct lf_registration *reg)
{
	if (reg->ep->inherited && !reg->heard)
		say_that_we_wait(reg);
	widen(reg);
	bool bell = lf_wait_begin(reg->sock) && !lf_sock_must_poll(reg->sock);
	if (bell && !reg->has_bell) /* our parent has left it to us, perhaps just now */
		bell = lf_entry_enter_bell(reg);
	arm(reg);
	bool ready = lf_entry_reportable(reg) != 0;
	if (!ready && (reg->user.events & LF_IN_BITS) && lf_wait_is_untold(reg->sock))
		bell = false;
	/* Can't be relied on: stay hot and sleep briefly; who sleeps already, too, see
	 * lf_entry_have_one_nap(). */
	reg->untold = !ready && !bell;
	reg->ep->capped |= reg->untold;
	if (ready || !bell) {
		lf_wait_end(reg->sock);
		return ready;
	}
	lf_epoll_leave_list(reg);
	LF_INVARIANT(!reg->counted);
	reg->counted = true;
	return false;
}

struct lf_registration *lf_entry_make_all_cold(struct lf_epoll *ep)
{
	struct lf_registration *ready = NULL;
	for (struct lf_registration *reg = ep->hot.first, *next; reg; reg = next) {
		next = reg->next;
		if (make_cold(reg))
			ready = reg;
		if (!reg->counted)
			continue;
		count_sleep(reg);
		if (reg->warmth && ep->cooled.count < MOST_WARM)
			lf_epoll_keep_warm(reg);
	}
	return ready;
}

void lf_entry_looked_in_vain(struct lf_registration *reg)
{
	if (reg->ep->hot.count <= A_FEW || ++reg->vain < MOST_VAIN)
		return;
	reg->vain = 0;
	reg->warmth = 0;
	(void)make_cold(reg);
}

void lf_entry_heat_cooled(struct lf_epoll *ep)
{
	for (struct lf_registration *reg; (reg = ep->cooled.first) != NULL;) {
		lf_epoll_leave_list(reg);
		if (!reg->counted || !lf_wait_disarm_reader(reg->sock))
			continue;
		reg->warmth--;
		lf_epoll_make_hot(reg);
	}
}

/* There is room in a doorbell, in which a few bytes lie mostly, so asking for EPOLLOUT reports at once.
 * TCP's send queue may be full: of what went there before the ring, or where sending is plain. It has to
 * do only where the bell has left the set, because the other end is gone: then there is a FIN or an error
 * to report; or where the other end has not been at its bell for long. */
void lf_entry_poke(struct lf_registration *reg)
{
	struct pollfd p = {.fd = atomic_load(&reg->sock->bell), .events = POLLOUT};
	if (lf_uncancelled_poll(&p, 1, 0) == 1 && change_bell(reg, EPOLL_CTL_MOD, EPOLLOUT))
		return;
	struct epoll_event event = {.events = EPOLLOUT | EPOLLIN | EPOLLRDHUP,
				    .data.u64 = lf_epoll_tag(reg, LF_TAG_TCP)};
	(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_MOD, reg->fd, &event);
	reg->kernel_events = event.events;
}

void lf_entry_was_poked(struct lf_registration *reg)
{
	(void)change_bell(reg, EPOLL_CTL_MOD, 0);
}

bool lf_entry_enter_bell(struct lf_registration *reg)
{
	if (atomic_load(&reg->sock->bell) < 0)
		return true;
	if (!change_bell(reg, EPOLL_CTL_ADD, 0) &&
	    (errno != EEXIST || !change_bell(reg, EPOLL_CTL_MOD, 0)))
		return false;
	reg->has_bell = what_bell_tells(reg) != 0;
	return true;
}

void lf_entry_remove_bell(struct lf_registration *reg)
{
	int bell = atomic_load(&reg->sock->bell);
	if (bell >= 0)
		(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_DEL, bell, NULL);
}

bool lf_entry_adopt(struct lf_registration *reg, bool in_kernel)
{
	/* Before the kernel has a tag of ours, see lf_epoll_look_at_kernel(). */
	atomic_fetch_add(&reg->ep->adopted, 1);
	/* Without one, for want of numbers: see lf_conn_give_up_bell(). */
	if (!lf_entry_enter_bell(reg))
		return false;
	reg->in_kernel = in_kernel;
	if (lf_entry_tell_kernel(reg) == -1) {
		lf_entry_remove_bell(reg);
		return false;
	}
	reg->adopted = true;
	reg->seen_stalls = atomic_load(&reg->sock->tx_stalls);
	/* Writable ever since, and the program has been told: that is no edge any more. Input
	 * that came by TCP is one again, since our change of the entry makes the kernel look. */
	reg->fresh = reg->ep->settled == reg->settled_at || reg->seen_stalls != 0 ||
		     lf_sock_shared(reg->sock);
	lf_epoll_make_hot(reg);
	return true;
}

void lf_entry_release_gone(struct lf_registration *reg)
{
	(void)lf_entry_leave_kernel(reg);
	lf_entry_remove_bell(reg);
	lf_epoll_release(reg);
}

void lf_entry_have_one_nap(struct lf_epoll *ep)
{
	/* A handler that jumps out of a nap leaves it counted. */
	if (ep->nappers && lf_now() - ep->napped_at > 2 * LF_SHARED_SLEEP_NS)
		ep->nappers = 0;
	struct lf_registration *reg = ep->sleepers && !ep->nappers ? ep->hot.first : NULL;
	while (reg && !reg->untold && !lf_wait_is_untold(reg->sock))
		reg = reg->next;
	/* Who is woken by that finds nothing, and lies down as such. */
	if (reg)
		lf_entry_poke(reg);
}

void lf_entry_tell_sleepers(struct lf_epoll *ep)
{
	struct lf_registration *ready = ep->sleepers ? lf_entry_make_all_cold(ep) : NULL;
	if (ready)
		lf_entry_poke(ready);
	else
		lf_entry_have_one_nap(ep);
}

struct lf_registration *lf_entry_lock(struct lf_sock *sock)
{
	for (;;) {
		struct lf_registration *reg = atomic_load(&sock->registration);
		struct lf_epoll *ep = reg ? atomic_load(&reg->ep) : NULL;
		if (!reg)
			return NULL;
		if (!ep)
			continue; /* just being released */
		lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
		/* Another thread may have removed it before we had the lock. */
		if (atomic_load(&sock->registration) == reg && atomic_load(&reg->ep) == ep)
			return reg;
		lf_epoll_unlock(ep);
	}
}

void lf_epoll_release_gone(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->gone)
		lf_entry_release_gone(reg);
	lf_epoll_unlock(ep);
}

bool lf_epoll_is_in_kernel(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return false;
	bool there = !reg->adopted || reg->in_kernel;
	lf_epoll_unlock(reg->ep);
	return there;
}

struct lf_epoll *lf_epoll_connecting(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return NULL;
	struct lf_epoll *ep = reg->ep;
	/* What the program has heard so far was about a socket without a peer: it has not been
	 * told yet that it can send, see lf_entry_adopt(). */
	reg->settled_at = ep->settled;
	lf_epoll_unlock(ep);
	return ep;
}

bool lf_epoll_adopt(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return true;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted) {
		lf_epoll_unlock(ep);
		return true;
	}
	/* A fired ONESHOT entry of a plain socket is the kernel's secret: its entry would be
	 * re-armed by our change of it. */
	bool ok = !(reg->user.events & LF_KERNEL_ONLY) && lf_entry_adopt(reg, true);
	/* A thread asleep in the set was not told: arm for it. */
	if (ok)
		lf_entry_tell_sleepers(ep);
	lf_epoll_unlock(ep);
	return ok;
}

void lf_epoll_catch_up(struct lf_sock *sock, int fd)
{
	/* Dekker: who pairs stores PAIRED, then loads the registration; who adds stores the
	 * registration, then loads PAIRED. One of them sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (lf_sock_paired(sock) && !lf_epoll_adopt(sock))
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
}

void lf_epoll_refresh(struct lf_sock *sock)
{
	int saved = errno;
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted && !reg->off && !reg->gone) {
		(void)lf_entry_tell_kernel(reg);
		if (reg->counted)
			arm(reg);
	}
	lf_epoll_unlock(ep);
	errno = saved;
}

void lf_epoll_room(struct lf_sock *sock)
{
	int saved = errno;
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted && !reg->off && !reg->gone) {
		/* Nobody may sleep there just now; but it may have been left cold by who did, and be rung
		 * for no more. */
		lf_epoll_make_hot(reg);
		lf_entry_tell_sleepers(ep);
	}
	lf_epoll_unlock(ep);
	errno = saved;
}

void lf_epoll_stop_counting(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->counted && !ep->sleepers)
		lf_epoll_make_hot(reg);
	lf_epoll_unlock(ep);
}

void lf_epoll_bell_closes(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted) {
		lf_entry_remove_bell(reg);
		if (!reg->off && !reg->gone)
			lf_epoll_make_hot(reg);
	}
	lf_epoll_unlock(ep);
}

/* The entry is the program's own again. `closes`: this process has no other name of the socket. */
static void return_entry(struct lf_registration *reg, bool closes)
{
	struct epoll_event event = reg->user;
	if (reg->off)
		event.events = 0;
	lf_entry_remove_bell(reg);
	/* Loaded after the removal, see say_that_we_wait(). Where nobody waits the bell stays out: once the
	 * number is closed we could not take it out, and would be woken by it for ever. */
	if (closes && atomic_load(&reg->sock->slot->heard_in_heirs))
		lf_entry_enter_bell(reg);
	(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd),
				reg->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, reg->fd, &event);
	lf_epoll_release(reg);
}

static bool is_entered_as(struct lf_sock *sock, int fd)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return false;
	bool is = reg->fd == fd && !reg->gone;
	lf_epoll_unlock(reg->ep);
	return is;
}

static bool may_be_held_elsewhere(const struct lf_sock *sock)
{
	return lf_sock_shared(sock) || atomic_load(&sock->slot->handed_on);
}

void lf_epoll_descriptor_closes(struct lf_sock *sock, int fd)
{
	/* An entry outlives its descriptor while another one, here or in another process, names
	 * the socket; but nobody can change it any more, nor could we. */
	bool named_here = atomic_load(&sock->descriptors) > 1;
	if (named_here && is_entered_as(sock, fd))
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->fd == fd) {
		/* An inherited set may be in use where it came from: hands off. */
		if (ep->inherited)
			lf_epoll_release(reg);
		else if (reg->gone)
			lf_entry_release_gone(reg);
		else if (reg->adopted && (named_here || may_be_held_elsewhere(sock)))
			return_entry(reg, !named_here);
	}
	lf_epoll_unlock(ep);
}

void lf_epoll_let_go(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->gone)
		lf_entry_release_gone(reg);
	else if (reg->adopted && !ep->inherited)
		return_entry(reg, false);
	else
		lf_epoll_release(reg);
	lf_epoll_unlock(ep);
}

void lf_epoll_forget(struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	/* Hidden descriptors must not outlive the program's in the set. */
	if (reg->adopted && !ep->inherited) {
		lf_entry_remove_bell(reg);
		(void)lf_entry_leave_kernel(reg);
	}
	lf_epoll_release(reg);
	lf_epoll_unlock(ep);
}

bool lf_epoll_is_nested(const struct lf_epoll *ep)
{
	return atomic_load(&ep->nested) != 0;
}

/* Nothing comes by ring any more. The peer rings once it has seen our wish, and only then sends
 * by TCP: in between others would find the set readable for nothing. */
static void take_bell_out(struct lf_epoll *ep, struct lf_sock *sock)
{
	struct lf_registration *reg = lf_entry_lock(sock);
	if (!reg)
		return;
	struct lf_epoll *in = reg->ep;
	if (in == ep && reg->adopted)
		lf_entry_remove_bell(reg);
	lf_epoll_unlock(in);
}

void lf_epoll_nest(struct lf_epoll *ep)
{
	if (atomic_exchange(&ep->nested, 1))
		return;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	ep->exact = true;
	if (ep->broker_fd > 0)
		(void)lf_real.epoll_ctl(atomic_load(&ep->fd), EPOLL_CTL_DEL, ep->broker_fd, NULL);
	ep->broker_fd = 0;
	lf_epoll_unlock(ep);
	/* Sockets go back to TCP one by one: each needs its own locks, then ours. */
	struct lf_registration *reg;
	for (uint32_t i = 0; (reg = lf_epoll_entry_number(i)) != NULL; i++) {
		lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
		int fd = reg->ep == ep ? reg->fd : -1;
		if (fd >= 0 && reg->gone) {
			lf_entry_release_gone(reg);
			fd = -1;
		}
		lf_epoll_unlock(ep);
		struct lf_sock *sock = fd >= 0 ? lf_sock_pin(fd) : NULL;
		if (!sock)
			continue;
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
		if (lf_rx(sock) == LF_RX_ENDED)
			take_bell_out(ep, sock);
		lf_sock_unpin(sock);
	}
}
