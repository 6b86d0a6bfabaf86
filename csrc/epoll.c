/* epoll.c - readiness of fused sockets through epoll.
 *
 * Facts about epoll that this file depends on (epoll(7), fs/eventpoll.c):
 *  - an entry is keyed by descriptor number and open file description, and lives until
 *    the latter is gone or it is removed;
 *  - data is the program's 64 bits and comes back untouched;
 *  - EPOLLERR and EPOLLHUP are always reported, except by an EPOLLONESHOT entry that
 *    has fired: that one says nothing until it is armed again;
 *  - an edge-triggered entry reports its whole ready mask at each wake-up, so spurious
 *    bits and spurious events are within the contract; missing ones are not.
 *
 * While a socket is plain its entry is the program's own. When it is fused, the entry
 * gets a tag of ours as its data (the program's data is kept here), loses EPOLLOUT
 * while sending goes by ring, and the doorbell joins the set beside it. epoll_wait
 * then merges three sources: rings of the *hot* sockets, looked at in memory; doorbells
 * of *cold* ones, which sleep armed in the kernel and cost nothing per call; and the
 * kernel's own events for everything else.
 *
 *   hot: looked at by each epoll_wait; not armed; the peer need not ring
 *   cold: armed; its doorbell makes it hot
 *
 * Programs change their entries all the time (redis adds and removes one per message),
 * so what they ask for is kept here and the kernel's entry follows only where it must:
 * it may know of more than the program wants (what comes of that is swallowed, and the
 * entry then trimmed), but never of less when the kernel is asked. An entry that was
 * deleted, or is ONESHOT and has fired, stays in the kernel on the same terms. Only
 * entries that are or were edge-triggered are changed at once: that is an edge of its own.
 *
 * A socket turns cold before this thread sleeps, or before it goes back to the program
 * while another thread sleeps in the same set: whoever could miss it must be rung for.
 *
 * Lock order: a socket's tx_lock, then an epoll's lock. Nothing else is taken inside.
 */
#define _GNU_SOURCE
#include "epoll.h"

#include "broker.h"
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "invariant.h"
#include "pairing.h"
#include "pause.h"
#include "rank.h"
#include "real.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

enum {
	POOL_EPOLLS = 4096,
	POOL_REGISTRATIONS = 131072,
	KERNEL_EVERY = 8, /* calls that rings alone may answer before the kernel is asked */
	SCORE_MAX = 8,
	SCORE_MIN = -64,
};

#define KERNEL_ONLY (EPOLLONESHOT | EPOLLEXCLUSIVE)
#define OUT_BITS (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)

struct lf_registration {
	_Atomic(struct lf_epoll *) ep; /* NULL: not in use; changes under its lock */
	struct lf_sock *sock;
	int fd;
	uint32_t generation;
	struct epoll_event user; /* as the program gave it */
	bool adopted;            /* the kernel's entry carries our tag */
	bool off;                /* EPOLLONESHOT, fired */
	bool gone;               /* the program has deleted it */
	bool in_kernel;          /* adopted: its entry is there, with this mask: */
	uint32_t kernel_events;
	bool hot, counted;       /* counted: armed, and one of sock->waiters */
	bool fresh;              /* added or changed: an edge in itself */
	uint64_t seen_head;      /* edge detection: what was there at the last report */
	uint32_t seen_stalls;
	uint64_t settled_at; /* ep->settled when the program added or changed it */
	uint64_t turn;           /* reported in this turn of the set, at this place */
	int place;
	struct lf_registration *next_hot, *prev_hot;
	uint32_t next_free;
};

struct lf_epoll {
	pthread_mutex_t lock;
	_Atomic int descriptors;
	_Atomic uint32_t adopted; /* entries with our tag, ever: results must be translated */
	_Atomic int fd;
	uint32_t sleepers; /* threads asleep in this set */
	uint32_t calls;    /* since the kernel was asked */
	uint64_t turn;     /* counts collections of events */
	uint64_t settled;  /* times the kernel had no more to report than it did */
	_Atomic int32_t spin_score;
	_Atomic uint32_t nested; /* itself in another set: its sockets stay plain */
	int broker_fd; /* the broker connection that is in this set, or 0 */
	bool inherited; /* made before a fork: the kernel's set is another process's too */
	/* Also looked at by others than our epoll_wait: the kernel's entries follow at once. */
	bool exact;
	bool capped;   /* a socket in it must be polled: sleep briefly */
	/* In the order in which they were rung: the kernel reports the longest ready first, and
	 * so do we. */
	struct lf_registration *hot, *last_hot;
	struct lf_epoll *next_free;
};

static struct lf_epoll *epolls;
static struct lf_epoll *free_epolls;
static _Atomic uint32_t epolls_used;
static struct lf_registration *registrations;
static _Atomic uint32_t registrations_used;
static uint32_t free_registrations;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

/* Tags: 24 random bits in front, so that the program's own data does not look like
 * one; generation; place in the pool; what the event is about. */
enum tag_kind { TAG_TCP = 0, TAG_BELL = 1 };
static uint64_t tag_prefix;
#define TAG_BROKER (tag_prefix | UINT64_C(0xffffff))

static uint64_t tag_of(const struct lf_registration *reg, enum tag_kind kind)
{
	return tag_prefix | (uint64_t)(reg->generation & 0xffff) << 24 |
	       (uint64_t)(reg - registrations) << 1 | (uint64_t)kind;
}

static bool is_tag(uint64_t data)
{
	return (data & ~UINT64_C(0xffffffffff)) == tag_prefix;
}

bool lf_epoll_init(void)
{
	void *sets = mmap(NULL, POOL_EPOLLS * sizeof(struct lf_epoll), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *regs = mmap(NULL, POOL_REGISTRATIONS * sizeof(struct lf_registration),
			  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sets == MAP_FAILED || regs == MAP_FAILED)
		return false;
	epolls = sets;
	registrations = regs;
	uint64_t random = 0x5bd1e995f05eULL;
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	tag_prefix = random << 40;
	return true;
}

/* --- the sets --- */

static void unlock_set(struct lf_epoll *ep)
{
	lf_mutex_unlock(&ep->lock, LF_RANK_EPOLL);
}

void lf_epoll_track(int fd)
{
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	struct lf_epoll *ep = free_epolls;
	if (ep)
		free_epolls = ep->next_free;
	else if (epolls && atomic_load(&epolls_used) < POOL_EPOLLS)
		ep = &epolls[atomic_fetch_add(&epolls_used, 1)];
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
	if (!ep)
		return; /* untracked: its sockets are declined when they are added */
	/* The lock stays as it is (all zero is unlocked): somebody with an old pointer may be
	 * waiting for it, to find that the set is another one now. */
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	ep->sleepers = ep->calls = 0;
	ep->turn = ep->settled = 0;
	ep->broker_fd = 0;
	ep->capped = ep->inherited = ep->exact = false;
	ep->hot = ep->last_hot = NULL;
	ep->next_free = NULL;
	atomic_store(&ep->spin_score, 0);
	atomic_store(&ep->adopted, 0);
	atomic_store(&ep->nested, 0);
	atomic_store(&ep->descriptors, 1);
	atomic_store(&ep->fd, fd);
	unlock_set(ep);
	lf_table_set(fd, LF_KIND_EPOLL, ep);
}

void lf_epoll_add_descriptor(struct lf_epoll *ep, int copy)
{
	atomic_fetch_add(&ep->descriptors, 1);
	lf_table_set(copy, LF_KIND_EPOLL, ep);
}

static void release_registration(struct lf_registration *reg);

void lf_epoll_remove_descriptor(struct lf_epoll *ep, int fd)
{
	lf_table_set(fd, LF_KIND_NONE, NULL);
	if (atomic_fetch_sub(&ep->descriptors, 1) != 1)
		return;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	for (uint32_t i = 0; i < registrations_used; i++)
		if (registrations[i].ep == ep)
			release_registration(&registrations[i]);
	unlock_set(ep);
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	ep->next_free = free_epolls;
	free_epolls = ep;
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
}

bool lf_epoll_is_mixed(const struct lf_epoll *ep)
{
	return atomic_load_explicit(&ep->adopted, memory_order_relaxed) != 0;
}

/* --- hot and cold; all under ep->lock --- */

static void make_hot(struct lf_registration *reg)
{
	if (reg->counted) {
		atomic_fetch_sub(&reg->sock->waiters, 1);
		reg->counted = false;
	}
	if (reg->hot)
		return;
	struct lf_epoll *ep = reg->ep;
	reg->hot = true;
	reg->next_hot = NULL;
	reg->prev_hot = ep->last_hot;
	if (ep->last_hot)
		ep->last_hot->next_hot = reg;
	else
		ep->hot = reg;
	ep->last_hot = reg;
}

static void leave_hot(struct lf_registration *reg)
{
	if (!reg->hot)
		return;
	reg->hot = false;
	if (reg->prev_hot)
		reg->prev_hot->next_hot = reg->next_hot;
	else
		reg->ep->hot = reg->next_hot;
	if (reg->next_hot)
		reg->next_hot->prev_hot = reg->prev_hot;
	else
		reg->ep->last_hot = reg->prev_hot;
}

static void release_registration(struct lf_registration *reg)
{
	struct lf_sock *sock = reg->sock;
	leave_hot(reg);
	if (reg->counted)
		atomic_fetch_sub(&sock->waiters, 1);
	atomic_store(&sock->registration, NULL);
	atomic_store(&reg->ep, NULL);
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	reg->next_free = free_registrations;
	free_registrations = (uint32_t)(reg - registrations) + 1;
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
}

static struct lf_registration *new_registration(struct lf_epoll *ep, struct lf_sock *sock, int fd,
						const struct epoll_event *user)
{
	struct lf_registration *reg = NULL;
	lf_mutex_lock(&pool_lock, LF_RANK_LEAF);
	if (free_registrations) {
		reg = &registrations[free_registrations - 1];
		free_registrations = reg->next_free;
	} else if (atomic_load(&registrations_used) < POOL_REGISTRATIONS) {
		reg = &registrations[atomic_fetch_add(&registrations_used, 1)];
	}
	lf_mutex_unlock(&pool_lock, LF_RANK_LEAF);
	if (!reg)
		return NULL;
	uint32_t generation = reg->generation;
	memset(reg, 0, sizeof(*reg));
	reg->generation = generation + 1;
	atomic_store(&reg->ep, ep);
	reg->sock = sock;
	reg->fd = fd;
	reg->user = *user;
	reg->settled_at = ep->settled;
	reg->fresh = true;
	atomic_store(&sock->registration, reg);
	return reg;
}

/* --- the kernel's entries; under ep->lock --- */

static uint32_t kernel_mask(const struct lf_registration *reg)
{
	uint32_t mask = reg->user.events & ~(uint32_t)EPOLLONESHOT;
	if (lf_tx(reg->sock) == LF_TX_FUSED)
		mask &= ~(uint32_t)OUT_BITS;
	return mask;
}

/* 0 or -1 with errno set. */
static int set_kernel_entry(struct lf_registration *reg)
{
	struct epoll_event event = {.events = kernel_mask(reg), .data.u64 = tag_of(reg, TAG_TCP)};
	int op = reg->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (lf_real.epoll_ctl(atomic_load(&reg->ep->fd), op, reg->fd, &event) == -1)
		return -1;
	reg->in_kernel = true;
	reg->kernel_events = event.events;
	return 0;
}

static int remove_kernel_entry(struct lf_registration *reg)
{
	if (!reg->in_kernel)
		return 0;
	reg->in_kernel = false;
	return lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_DEL, reg->fd, NULL);
}

/* Before the kernel is asked: it must know of all that the program wants. */
static void widen(struct lf_registration *reg)
{
	if (!reg->in_kernel || (kernel_mask(reg) & ~reg->kernel_events))
		(void)set_kernel_entry(reg);
}

static void widen_hot(struct lf_epoll *ep)
{
	for (struct lf_registration *reg = ep->hot; reg; reg = reg->next_hot)
		widen(reg);
}

/* The kernel has reported what the program does not want: it would again, for ever. */
static void trim(struct lf_registration *reg)
{
	if (reg->gone || reg->off)
		(void)remove_kernel_entry(reg);
	else if (kernel_mask(reg) != reg->kernel_events)
		(void)set_kernel_entry(reg);
}

/* --- what is ready; under ep->lock --- */

/* What is ready, in the program's terms, as far as memory tells. */
static uint32_t ring_events(const struct lf_registration *reg)
{
	if (reg->off || reg->gone)
		return 0;
	short known;
	uint32_t bits = (uint32_t)(uint16_t)lf_conn_ready(reg->sock, &known);
	/* A FIN that may be a death: the kernel's event will tell, see wait_for_verdict(). */
	if ((bits & EPOLLRDHUP) && lf_conn_fin_is_doubtful(reg->sock)) {
		bits &= ~(uint32_t)(EPOLLRDHUP | EPOLLIN | EPOLLRDNORM);
		if (lf_conn_has_input(reg->sock, 1))
			bits |= EPOLLIN | EPOLLRDNORM;
	}
	bits &= reg->user.events | EPOLLERR | EPOLLHUP;
	/* An event tells the whole mask: while a direction is plain, TCP knows about it. */
	short plain = (short)(reg->user.events & (lf_rx(reg->sock) == LF_RX_FUSED ? 0 : POLLIN));
	plain |= (short)(reg->user.events & ~(uint32_t)(uint16_t)known & POLLOUT);
	if (bits && plain) {
		struct pollfd p = {.fd = reg->fd, .events = plain};
		if (lf_real.poll(&p, 1, 0) == 1)
			bits |= (uint32_t)(uint16_t)(p.revents & plain);
	}
	return bits;
}

/* Edge-triggered: has anything happened since the last report? */
static bool edge(const struct lf_registration *reg, uint32_t ready)
{
	struct lf_sock *sock = reg->sock;
	if (reg->fresh)
		return true;
	if ((ready & EPOLLIN) &&
	    atomic_load_explicit(&sock->in->p.head, memory_order_relaxed) != reg->seen_head)
		return true;
	return (ready & EPOLLOUT) &&
	       atomic_load_explicit(&sock->tx_stalls, memory_order_relaxed) != reg->seen_stalls;
}

static uint32_t reportable(const struct lf_registration *reg)
{
	uint32_t ready = ring_events(reg);
	if (ready && (reg->user.events & EPOLLET) && !edge(reg, ready))
		return 0;
	return ready;
}

/* What an event covers. Taken before the event is made, so that an edge can be seen twice
 * but never missed. */
struct cover {
	uint64_t head;
	uint32_t stalls;
};

static struct cover cover_of(const struct lf_registration *reg)
{
	return (struct cover){
		.head = atomic_load_explicit(&reg->sock->in->p.head, memory_order_acquire),
		.stalls = atomic_load_explicit(&reg->sock->tx_stalls, memory_order_acquire),
	};
}

/* The event has been given to the program. */
static void reported(struct lf_registration *reg, uint32_t bits, struct cover cover)
{
	reg->fresh = false;
	if (bits & EPOLLIN)
		reg->seen_head = cover.head;
	if (bits & EPOLLOUT)
		reg->seen_stalls = cover.stalls;
	if (reg->user.events & EPOLLONESHOT) {
		reg->off = true;
		leave_hot(reg);
		if (reg->ep->exact)
			(void)remove_kernel_entry(reg);
	}
}

static void arm(struct lf_registration *reg)
{
	if (reg->user.events & EPOLLIN)
		lf_wait_arm(reg->sock, LF_WANT_READ);
	if ((reg->user.events & EPOLLOUT) && lf_tx(reg->sock) == LF_TX_FUSED)
		lf_wait_arm(reg->sock, LF_WANT_WRITE);
}

/* Arms every hot socket and lets it go cold, unless it turns out to be ready. Returns
 * one that is, or NULL. */
static struct lf_registration *make_all_cold(struct lf_epoll *ep)
{
	struct lf_registration *ready = NULL;
	for (struct lf_registration *reg = ep->hot, *next; reg; reg = next) {
		next = reg->next_hot;
		widen(reg);
		arm(reg);
		if (reportable(reg)) {
			ready = reg;
			continue;
		}
		/* Its doorbell can't be relied on: stay hot and sleep briefly. */
		if (lf_sock_must_poll(reg->sock)) {
			ep->capped = true;
			continue;
		}
		leave_hot(reg);
		if (!reg->counted) {
			atomic_fetch_add(&reg->sock->waiters, 1);
			reg->counted = true;
		}
	}
	return ready;
}

/* Wakes a thread that sleeps in the set: TCP's send queue is empty while the ring is in
 * use, so asking for EPOLLOUT reports at once. translate() takes it back. */
static void poke(struct lf_registration *reg)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.u64 = tag_of(reg, TAG_TCP)};
	(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_MOD, reg->fd, &event);
	reg->kernel_events = EPOLLOUT;
}

static bool add_bell(struct lf_registration *reg)
{
	int bell = atomic_load(&reg->sock->bell);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag_of(reg, TAG_BELL)};
	return bell >= 0 &&
	       lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_ADD, bell, &event) == 0;
}

static void remove_bell(struct lf_registration *reg)
{
	int bell = atomic_load(&reg->sock->bell);
	if (bell >= 0)
		(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd), EPOLL_CTL_DEL, bell, NULL);
}

/* `in_kernel`: the program's own entry is there. */
static bool adopt(struct lf_registration *reg, bool in_kernel)
{
	if (!add_bell(reg))
		return false;
	reg->in_kernel = in_kernel;
	if (set_kernel_entry(reg) == -1) {
		remove_bell(reg);
		return false;
	}
	reg->adopted = true;
	reg->seen_stalls = atomic_load(&reg->sock->tx_stalls);
	/* Writable ever since, and the program has been told: that is no edge any more. Input
	 * that came by TCP is one again, since our change of the entry makes the kernel look. */
	reg->fresh = reg->ep->settled == reg->settled_at || reg->seen_stalls != 0 ||
		     lf_sock_shared(reg->sock);
	atomic_fetch_add(&reg->ep->adopted, 1);
	make_hot(reg);
	return true;
}

/* The program deleted it some time ago; now the kernel hears of it. */
static void release_gone(struct lf_registration *reg)
{
	(void)remove_kernel_entry(reg);
	remove_bell(reg);
	release_registration(reg);
}

/* Another thread may be asleep in the set: it must hear of what has come in. */
static void tell_sleepers(struct lf_epoll *ep)
{
	struct lf_registration *ready = ep->sleepers ? make_all_cold(ep) : NULL;
	if (ready)
		poke(ready);
}

/* The socket's entry, with its set locked; NULL: it is in none. */
static struct lf_registration *lock_entry(struct lf_sock *sock)
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
		unlock_set(ep);
	}
}

bool lf_epoll_adopt(struct lf_sock *sock)
{
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return true;
	struct lf_epoll *ep = reg->ep;
	/* A fired ONESHOT entry of a plain socket is the kernel's secret: its entry would be
	 * re-armed by our change of it. */
	bool ok = !(reg->user.events & KERNEL_ONLY) && adopt(reg, true);
	/* A thread asleep in the set was not told: arm for it. */
	if (ok)
		tell_sleepers(ep);
	unlock_set(ep);
	return ok;
}

void lf_epoll_refresh(struct lf_sock *sock)
{
	int saved = errno;
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted && !reg->off && !reg->gone) {
		(void)set_kernel_entry(reg);
		if (reg->counted)
			arm(reg);
	}
	unlock_set(ep);
	errno = saved;
}

void lf_epoll_bell_closes(struct lf_sock *sock)
{
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->adopted) {
		remove_bell(reg);
		if (!reg->off && !reg->gone)
			make_hot(reg);
	}
	unlock_set(ep);
}

/* The entry is the program's own again. */
static void return_entry(struct lf_registration *reg)
{
	struct epoll_event event = reg->user;
	if (reg->off)
		event.events = 0;
	remove_bell(reg);
	(void)lf_real.epoll_ctl(atomic_load(&reg->ep->fd),
				reg->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, reg->fd, &event);
	release_registration(reg);
}

static bool is_entered_as(struct lf_sock *sock, int fd)
{
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return false;
	bool is = reg->fd == fd && !reg->gone;
	unlock_set(reg->ep);
	return is;
}

static bool may_be_held_elsewhere(const struct lf_sock *sock)
{
	return lf_sock_shared(sock) ||
	       atomic_load(&sock->slot->declined) == LF_REASON_DESCRIPTOR_PASSED;
}

void lf_epoll_descriptor_closes(struct lf_sock *sock, int fd)
{
	/* An entry outlives its descriptor while another one, here or in another process, names
	 * the socket; but nobody can change it any more, nor could we. */
	bool named_here = atomic_load(&sock->descriptors) > 1;
	if (named_here && is_entered_as(sock, fd))
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	if (reg->fd == fd) {
		/* An inherited set may be in use where it came from: hands off. */
		if (ep->inherited)
			release_registration(reg);
		else if (reg->gone)
			release_gone(reg);
		else if (reg->adopted && (named_here || may_be_held_elsewhere(sock)))
			return_entry(reg);
	}
	unlock_set(ep);
}

void lf_epoll_forget(struct lf_sock *sock)
{
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return;
	struct lf_epoll *ep = reg->ep;
	/* Hidden descriptors must not outlive the program's in the set. */
	if (reg->adopted && !ep->inherited) {
		remove_bell(reg);
		(void)remove_kernel_entry(reg);
	}
	release_registration(reg);
	unlock_set(ep);
}

bool lf_epoll_is_nested(const struct lf_epoll *ep)
{
	return atomic_load(&ep->nested) != 0;
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
	unlock_set(ep);
	/* Sockets go back to TCP one by one: each needs its own locks, then ours. */
	for (uint32_t i = 0; i < registrations_used; i++) {
		lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
		struct lf_registration *reg = &registrations[i];
		int fd = reg->ep == ep ? reg->fd : -1;
		if (fd >= 0 && reg->gone) {
			release_gone(reg);
			fd = -1;
		}
		unlock_set(ep);
		struct lf_sock *sock = fd >= 0 ? lf_sock_pin(fd) : NULL;
		if (!sock)
			continue;
		lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
		lf_sock_unpin(sock);
	}
}

/* --- epoll_ctl --- */

/* A second set, a second descriptor of the same socket, or EPOLLEXCLUSIVE: the tags and
 * the doorbell can't follow. */
static bool clashes(const struct lf_epoll *ep, int fd, struct lf_sock *sock,
		    const struct epoll_event *event)
{
	const struct lf_registration *reg = atomic_load(&sock->registration);
	return (reg && (reg->ep != ep || reg->fd != fd)) || (event->events & EPOLLEXCLUSIVE) ||
	       ((event->events & EPOLLONESHOT) && !lf_sock_paired(sock));
}

static int control_add(struct lf_epoll *ep, int epfd, int fd, struct lf_sock *sock,
		       struct epoll_event *event)
{
	bool clash = clashes(ep, fd, sock, event);
	if (!lf_sock_paired(sock) || clash) {
		if (lf_real.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, event) == -1)
			return -errno;
		if (!clash)
			(void)new_registration(ep, sock, fd, event);
		return 0;
	}
	struct lf_registration *reg = new_registration(ep, sock, fd, event);
	if (!reg)
		return -ENOMEM;
	if (adopt(reg, false))
		return 0;
	int error = errno;
	release_registration(reg);
	return -error;
}

/* An adopted entry gets a new mask, or comes back after it was deleted. */
static int change(struct lf_registration *reg, const struct epoll_event *event)
{
	struct epoll_event before = reg->user;
	reg->user = *event;
	bool now = reg->ep->exact || ((event->events | reg->kernel_events) & EPOLLET);
	if (now && set_kernel_entry(reg) == -1) {
		reg->user = before;
		return -errno;
	}
	reg->off = reg->gone = false;
	reg->settled_at = reg->ep->settled;
	reg->fresh = true;
	make_hot(reg);
	return 0;
}

static int control_mod(struct lf_registration *reg, int epfd, struct epoll_event *event)
{
	if (reg->adopted)
		return event->events & EPOLLEXCLUSIVE ? -EINVAL : change(reg, event);
	if (event->events & KERNEL_ONLY)
		lf_sock_decline(reg->sock, LF_REASON_EPOLL_KIND);
	if (lf_real.epoll_ctl(epfd, EPOLL_CTL_MOD, reg->fd, event) == -1)
		return -errno;
	reg->user = *event;
	return 0;
}

static int control_del(struct lf_registration *reg, int epfd)
{
	if (reg->adopted) {
		make_hot(reg); /* hence nobody's waiter */
		leave_hot(reg);
		reg->gone = true;
		if (reg->ep->exact)
			release_gone(reg);
		return 0;
	}
	if (lf_real.epoll_ctl(epfd, EPOLL_CTL_DEL, reg->fd, NULL) == -1)
		return -errno;
	release_registration(reg);
	return 0;
}

/* The socket's entry in this set, if the program believes it is there. */
static int control_known(struct lf_registration *reg, int epfd, int op, struct epoll_event *event)
{
	if (reg->gone)
		return op == EPOLL_CTL_ADD ? change(reg, event) : -ENOENT;
	if (op == EPOLL_CTL_MOD)
		return control_mod(reg, epfd, event);
	return op == EPOLL_CTL_DEL ? control_del(reg, epfd) : -EEXIST;
}

/* An entry that was deleted from here must not stand in the way of a new one elsewhere. */
static void make_way(struct lf_epoll *ep, int fd, struct lf_sock *sock, bool exclusive)
{
	struct lf_registration *reg = lock_entry(sock);
	if (!reg)
		return;
	struct lf_epoll *other = reg->ep;
	bool in_the_way = other != ep || reg->fd != fd || exclusive;
	if (in_the_way && reg->gone)
		release_gone(reg);
	unlock_set(other);
}

#define EXCLUSIVE_ALLOWS                                                                          \
	(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)

int lf_epoll_control(struct lf_epoll *ep, int epfd, int op, int fd, struct lf_sock *sock,
		     struct epoll_event *event)
{
	if (op != EPOLL_CTL_DEL && !event)
		return -EFAULT;
	if (op == EPOLL_CTL_ADD && (event->events & EPOLLEXCLUSIVE) &&
	    (event->events & ~EXCLUSIVE_ALLOWS))
		return -EINVAL; /* epoll_ctl(2) */
	/* Before the set's lock: defusing takes the socket's, then the set's. */
	if (op == EPOLL_CTL_ADD) {
		make_way(ep, fd, sock, (event->events & EPOLLEXCLUSIVE) != 0);
		if (clashes(ep, fd, sock, event))
			lf_conn_defuse(sock, fd, LF_REASON_EPOLL_KIND, true);
	}
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	struct lf_registration *reg = atomic_load(&sock->registration);
	bool known = op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD || op == EPOLL_CTL_DEL;
	int r;
	if (known && reg && reg->ep == ep && reg->fd == fd) {
		r = control_known(reg, epfd, op, event);
	} else if (op == EPOLL_CTL_ADD) {
		r = control_add(ep, epfd, fd, sock, event);
	} else {
		r = lf_real.epoll_ctl(epfd, op, fd, event);
		r = r == -1 ? -errno : 0;
	}
	if (r == 0)
		tell_sleepers(ep);
	unlock_set(ep);
	return r;
}

/* --- epoll_wait --- */

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
	events[*n].data.u64 = tag_of(reg, TAG_TCP);
	++*n;
}

/* Hot rings into events[*n ...]; data stays a tag until finish(). */
static void harvest_rings(struct lf_epoll *ep, struct epoll_event *events, int max, int *n)
{
	for (struct lf_registration *reg = ep->hot, *next; reg && *n < max; reg = next) {
		next = reg->next_hot;
		struct cover cover = cover_of(reg);
		uint32_t bits = reportable(reg);
		if (!bits)
			continue;
		put_event(events, n, reg, bits);
		reported(reg, bits, cover);
	}
}

static struct lf_registration *registration_of(struct lf_epoll *ep, uint64_t tag)
{
	uint64_t index = (tag & 0xffffff) >> 1;
	if (index >= registrations_used)
		return NULL;
	struct lf_registration *reg = &registrations[index];
	return reg->ep == ep && (reg->generation & 0xffff) == (tag >> 24 & 0xffff) ? reg : NULL;
}

/* What the kernel said of a fused socket's TCP side, in the program's terms. */
static uint32_t tcp_events(const struct lf_registration *reg, uint32_t kernel)
{
	if (reg->off || reg->gone)
		return 0;
	short known;
	uint32_t ring = (uint32_t)(uint16_t)lf_conn_ready(reg->sock, &known);
	uint32_t bits = kernel;
	if (!(kernel & (EPOLLERR | EPOLLHUP)))
		bits &= ~(uint32_t)(uint16_t)known;
	return (bits | ring) & (reg->user.events | EPOLLERR | EPOLLHUP);
}

/* What the kernel reported that needs other locks than the set's: seen to afterwards. */
enum { RUNG_MAX = 64 };
struct rung {
	struct {
		struct lf_sock *sock; /* pinned */
		int fd;
		bool hung_up;
		bool fin; /* not the bell, but a FIN that may be a death */
	} bell[RUNG_MAX];
	int count;
	bool may_wait;
	bool mail; /* the broker has something for us */
};

/* To be seen to after the lock is given back. */
static void note(struct lf_registration *reg, bool hung_up, bool fin, struct rung *rung)
{
	struct lf_sock *pinned = rung->count < RUNG_MAX ? lf_sock_pin(reg->fd) : NULL;
	if (!pinned)
		return;
	rung->bell[rung->count].sock = pinned;
	rung->bell[rung->count].fd = reg->fd;
	rung->bell[rung->count].fin = fin;
	rung->bell[rung->count++].hung_up = hung_up;
}

/* FIN of a peer that may be dying: told once it is known what it is. Level-triggered, so the
 * kernel says it again. */
static bool wait_for_verdict(struct lf_registration *reg, uint32_t kernel, struct rung *rung)
{
	if (!rung->may_wait || !(kernel & EPOLLRDHUP) || rung->count == RUNG_MAX || reg->off ||
	    reg->gone || (reg->user.events & (EPOLLET | EPOLLONESHOT)) ||
	    !lf_conn_fin_is_doubtful(reg->sock))
		return false;
	note(reg, false, true, rung);
	return true;
}

static void bell_event(struct lf_registration *reg, uint32_t kernel, struct rung *rung)
{
	struct lf_sock *sock = reg->sock;
	bool hung_up = (kernel & (EPOLLHUP | EPOLLERR)) != 0;
	if (!reg->off && !reg->gone)
		make_hot(reg);
	if (hung_up)
		remove_bell(reg); /* it would be reported for ever */
	else if (atomic_load(&sock->waiters) == 0)
		lf_bell_drain(sock);
	note(reg, hung_up, false, rung);
}

/* Room that the program knows of: the kernel tells it again whenever an entry is changed. */
static bool is_stale(const struct lf_registration *reg, uint32_t bits)
{
	return (reg->user.events & EPOLLET) && bits && !(bits & ~(uint32_t)OUT_BITS) &&
	       !lf_sock_shared(reg->sock) && !edge(reg, bits);
}

/* events[from .. to) came from the kernel: ours are translated or swallowed. */
static int translate(struct lf_epoll *ep, struct epoll_event *events, int from, int to,
		     struct rung *rung)
{
	int n = from;
	for (int i = from; i < to; i++) {
		struct epoll_event event = events[i];
		if (!is_tag(event.data.u64)) {
			events[n++] = event;
			continue;
		}
		if (event.data.u64 == TAG_BROKER) {
			rung->mail = true;
			continue;
		}
		struct lf_registration *reg = registration_of(ep, event.data.u64);
		if (!reg)
			continue;
		if (event.data.u64 & 1) {
			bell_event(reg, event.events, rung);
			continue;
		}
		if (wait_for_verdict(reg, event.events, rung))
			continue;
		struct cover cover = cover_of(reg);
		uint32_t bits = tcp_events(reg, event.events);
		if (is_stale(reg, bits))
			bits = 0;
		if (!reg->off && !reg->gone)
			make_hot(reg);
		if (!bits || (event.events & EPOLLOUT)) /* the latter may be a poke() */
			trim(reg);
		if (!bits)
			continue;
		put_event(events, &n, reg, bits);
		reported(reg, bits, cover);
	}
	return n;
}

/* Our tags become the program's data. */
static void finish(struct lf_epoll *ep, struct epoll_event *events, int n)
{
	for (int i = 0; i < n; i++) {
		if (!is_tag(events[i].data.u64))
			continue;
		struct lf_registration *reg = registration_of(ep, events[i].data.u64);
		LF_INVARIANT(reg);
		events[i].data = reg->user.data;
	}
}

/* True: the caller should look again before it sleeps. */
static bool see_to(struct rung *rung)
{
	for (int i = 0; i < rung->count; i++) {
		if (rung->bell[i].fin)
			lf_conn_resolve_fin(rung->bell[i].sock, rung->bell[i].fd);
		else if (rung->bell[i].hung_up)
			lf_conn_peer_gone(rung->bell[i].sock, rung->bell[i].fd);
		else
			lf_conn_service(rung->bell[i].sock, rung->bell[i].fd);
		lf_sock_unpin(rung->bell[i].sock);
	}
	if (rung->mail)
		lf_broker_receive();
	return rung->count || rung->mail;
}

static int kernel_wait(int epfd, struct epoll_event *events, int max, int64_t ns,
		       const sigset_t *mask)
{
	if (ns == 0 || ns == LF_FOREVER)
		return lf_real.epoll_pwait(epfd, events, max, ns ? -1 : 0, mask);
	static _Atomic bool no_pwait2;
	if (!atomic_load_explicit(&no_pwait2, memory_order_relaxed)) {
		struct timespec ts = lf_timespec(ns);
		int n = lf_real.epoll_pwait2(epfd, events, max, &ts, mask);
		if (n >= 0 || errno != ENOSYS)
			return n;
		atomic_store(&no_pwait2, true);
	}
	int64_t ms = (ns + 999999) / 1000000;
	return lf_real.epoll_pwait(epfd, events, max, ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

static bool hot_is_ready(struct lf_epoll *ep)
{
	bool ready = false;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	for (struct lf_registration *reg = ep->hot; reg && !ready; reg = reg->next_hot)
		ready = reportable(reg) != 0;
	unlock_set(ep);
	return ready;
}

static bool has_hot(struct lf_epoll *ep)
{
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	bool has = ep->hot != NULL;
	unlock_set(ep);
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
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = TAG_BROKER};
	if (lf_real.epoll_ctl(atomic_load(&ep->fd), EPOLL_CTL_ADD, fd, &event) == -1 && errno != EEXIST)
		return;
	ep->broker_fd = fd;
	atomic_fetch_add(&ep->adopted, 1);
}

/* Looks at rings, now and then at the kernel, without sleeping; under lock. */
static int look(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, bool ask_kernel,
		struct rung *rung)
{
	int n = 0;
	ep->turn++;
	harvest_rings(ep, events, max, &n);
	if (n == max || (!ask_kernel && ++ep->calls < KERNEL_EVERY))
		return n;
	ep->calls = 0;
	widen_hot(ep);
	int more = lf_real.epoll_pwait(epfd, events + n, max - n, 0, NULL);
	if (more < 0)
		return n ? n : -errno;
	ep->settled += more < max - n;
	n = translate(ep, events, n, n + more, rung);
	harvest_rings(ep, events, max, &n);
	return n;
}

/* Under lock: threads that sleep in this set must be rung for what we leave behind. */
static void hand_over(struct lf_epoll *ep, struct epoll_event *events, int n)
{
	struct lf_registration *left = ep->sleepers ? make_all_cold(ep) : NULL;
	if (left && !just_reported(left))
		poke(left);
	finish(ep, events, n);
}

static int64_t time_left(int64_t deadline)
{
	return deadline == LF_FOREVER ? LF_FOREVER : deadline - lf_now();
}

/* Sleeps in the kernel with everything armed. 0: look again. */
static int sleep_in_kernel(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max,
			   int64_t ns, const sigset_t *mask, struct rung *rung)
{
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	ep->capped = false;
	bool ready = make_all_cold(ep) != NULL;
	if (!ready)
		ep->sleepers++;
	bool capped = ep->capped && ns > LF_SHARED_SLEEP_NS;
	unlock_set(ep);
	if (ready)
		return 0;
	int n = kernel_wait(epfd, events, max, capped ? LF_SHARED_SLEEP_NS : ns, mask);
	int error = errno;
	lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
	ep->sleepers--;
	ep->settled += n >= 0 && n < max;
	if (n > 0) {
		ep->turn++;
		n = translate(ep, events, 0, n, rung);
		harvest_rings(ep, events, max, &n);
		hand_over(ep, events, n);
	}
	unlock_set(ep);
	return n == -1 ? -error : n;
}

int lf_epoll_wait(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
		  const sigset_t *mask)
{
	if (max <= 0)
		return -EINVAL;
	int64_t deadline = ns == LF_FOREVER ? LF_FOREVER : ns == 0 ? 0 : lf_deadline(ns);
	struct rung rung;
	bool second_look = false;
	for (;;) {
		int n = 0;
		rung.count = 0;
		rung.mail = false;
		rung.may_wait = ns != 0;
		if (lf_epoll_is_mixed(ep)) {
			lf_mutex_lock(&ep->lock, LF_RANK_EPOLL);
			n = look(ep, epfd, events, max, ns == 0, &rung);
			if (n > 0)
				hand_over(ep, events, n);
			unlock_set(ep);
			bool again = see_to(&rung);
			if (n != 0 || (ns == 0 && (!again || second_look)))
				return n;
			/* What a doorbell told may be news for the program: a peer that is dead. */
			second_look = true;
			if (again)
				continue;
			if (spin(ep, time_left(deadline)))
				continue;
		}
		int64_t left = ns == 0 ? 0 : time_left(deadline);
		if (left < 0)
			left = 0;
		n = sleep_in_kernel(ep, epfd, events, max, left, mask, &rung);
		see_to(&rung);
		if (n != 0)
			return n;
		if (time_left(deadline) <= 0)
			return 0;
	}
}

/* --- fork --- */

void lf_epoll_after_fork(void)
{
	pthread_mutex_init(&pool_lock, NULL);
	uint32_t n = atomic_load(&epolls_used);
	for (uint32_t i = 0; i < n; i++) {
		pthread_mutex_init(&epolls[i].lock, NULL);
		epolls[i].sleepers = 0;
		epolls[i].broker_fd = 0;
		epolls[i].inherited = epolls[i].exact = true;
	}
	for (uint32_t i = 0; i < registrations_used; i++)
		registrations[i].counted = false;
}
