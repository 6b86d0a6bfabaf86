/* epoll_set.h - what the files of epoll share: sets, the entries in them, and what can be
 * done with one of them. epoll.h is for everybody else.
 *
 *   epoll_set.c      sets and entries as memory: pools, tags, the hot list
 *   epoll_entry.c    one entry: its twin in the kernel, what is ready, hot and cold
 *   epoll_control.c  epoll_ctl
 *   epoll_wait.c     epoll_wait
 *
 * Facts about epoll that these files depend on (epoll(7), fs/eventpoll.c):
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
 *   cold: armed; its doorbell makes it hot, or the end of the sleep for which it went cold
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
#ifndef LF_EPOLL_SET_H
#define LF_EPOLL_SET_H

#include "epoll.h"

#include <pthread.h>

#define LF_KERNEL_ONLY (EPOLLONESHOT | EPOLLEXCLUSIVE)
/* A program may ask for either name of what is one thing on TCP. */
#define LF_IN_BITS (EPOLLIN | EPOLLRDNORM)
#define LF_OUT_BITS (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)

/* What an event covers. Taken before the event is made, so that an edge can be seen twice
 * but never missed. */
struct lf_cover {
	uint64_t head;
	uint32_t stalls;
};

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
	bool heard;              /* in an inherited set: the others have been told that we wait for it */
	bool counted;            /* armed, and one of sock->waiters */
	bool has_bell;           /* adopted: its doorbell was entered as well */
	bool untold;             /* armed, and its bell was not to be relied on */
	uint8_t warmth;          /* sleeps after which it is made hot again, unless it has news */
	uint8_t vain;            /* looks at it while hot since it had news */
	bool fresh;              /* added or changed: an edge in itself */
	uint32_t told;           /* at the last report */
	uint64_t seen_head;      /* edge detection: what was there at the last report */
	uint32_t seen_stalls;
	uint64_t settled_at; /* ep->settled when the program added or changed it, or connected */
	uint64_t turn;           /* reported in this turn of the set, at this place */
	int place;
	uint64_t passed_at; /* lf_ticks() when first due without being reported, or 0 */
	uint64_t queued_at; /* lf_ticks() of its last report, or since it asks for input */
	/* While it is on its way into a report: what it has to tell, for how long, and up to where. */
	uint32_t due, due_for;
	struct lf_cover due_cover;
	struct lf_entries *list; /* the hot or the cooled ones of its set, or NULL */
	struct lf_registration *next, *prev;
	uint32_t next_free;
};

struct lf_entries {
	struct lf_registration *first, *last;
	int count;
};

struct lf_epoll {
	pthread_mutex_t lock;
	_Atomic int descriptors;
	_Atomic uint32_t adopted; /* entries with our tag, ever: results must be translated */
	_Atomic int fd;
	_Atomic uint32_t sleepers; /* threads asleep in this set; raised under its lock, or in the way
				    * of lf_epoll_begin_plain_sleep() */
	uint32_t nappers;  /* those of them that sleep for a moment only, see `capped`, */
	int64_t napped_at; /* and when the last began to, ns of CLOCK_MONOTONIC */
	uint32_t calls;    /* since the kernel was asked */
	uint64_t turn;     /* counts collections of events */
	uint64_t now;      /* lf_ticks() when this one began */
	_Atomic uint64_t settled; /* times the kernel had no more to report than it did */
	_Atomic int32_t spin_score;
	_Atomic uint32_t nested; /* itself in another set: its sockets stay plain */
	int broker_fd; /* the broker connection that is in this set, or 0 */
	_Atomic bool closed; /* no descriptor is left, but threads sleep in it */
	/* With a process that was forked, or forked us: it may change entries, and have tags there. */
	_Atomic bool shared;
	bool inherited; /* made before a fork: the kernel's set is another process's too */
	/* Also looked at by others than our epoll_wait: the kernel's entries follow at once. */
	bool exact;
	bool capped;   /* a socket in it must be polled: sleep briefly */
	/* In the order in which they were rung or reported: who has come last is looked at last. */
	struct lf_entries hot;
	struct lf_entries cooled; /* cold since this sleep began, but warm enough to be hot after it */
	struct lf_epoll *next_free;
};

/* --- sets and entries (epoll_set.c); under ep->lock --- */

void lf_epoll_unlock(struct lf_epoll *ep);
/* Is it still the set that epfd names? Another thread may have closed it. */
bool lf_epoll_is_behind(const struct lf_epoll *ep, int epfd);
/* A thread less sleeps in it. */
void lf_epoll_stop_sleeping(struct lf_epoll *ep);
/* Neither we nor another process of ours can have put a tag into it: what the kernel tells of it is
 * the program's. */
bool lf_epoll_is_plain(const struct lf_epoll *ep);
/* Without the lock: this thread is about to sleep in a plain set. False: it is none, or is another
 * one by now. */
bool lf_epoll_begin_plain_sleep(struct lf_epoll *ep, int epfd);
void lf_epoll_end_plain_sleep(struct lf_epoll *ep);
/* NULL: no more room for entries. */
struct lf_registration *lf_epoll_new_entry(struct lf_epoll *ep, struct lf_sock *sock, int fd,
					   const struct epoll_event *user);
void lf_epoll_release(struct lf_registration *reg);
/* For a look at all of them, those not in use and those of other sets included; NULL: there
 * are no more. */
struct lf_registration *lf_epoll_entry_number(uint32_t number);
void lf_epoll_make_hot(struct lf_registration *reg);
bool lf_epoll_is_hot(const struct lf_registration *reg);
/* Off the list that it is on, if any. */
void lf_epoll_leave_list(struct lf_registration *reg);
/* Cold: onto the list of those that lf_entry_heat_cooled() may make hot again. */
void lf_epoll_keep_warm(struct lf_registration *reg);
/* Those of a chain (by `next`, on no list) to the front of the hot list. */
void lf_epoll_put_first(struct lf_epoll *ep, struct lf_registration *chain);

/* Tags: 24 random bits in front, so that the program's own data does not look like
 * one; generation; place in the pool; what the event is about. */
enum lf_tag_kind { LF_TAG_TCP = 0, LF_TAG_BELL = 1 };
uint64_t lf_epoll_tag(const struct lf_registration *reg, enum lf_tag_kind kind);
bool lf_epoll_is_tag(uint64_t data);
/* Of the one event that is about no entry. */
uint64_t lf_epoll_broker_tag(void);
/* NULL: it is gone, or another one by now. */
struct lf_registration *lf_epoll_entry_of(struct lf_epoll *ep, uint64_t tag);

/* --- one entry (epoll_entry.c); under ep->lock --- */

/* The socket's entry, with its set locked; NULL: it is in none. */
struct lf_registration *lf_entry_lock(struct lf_sock *sock);
/* 0, or -1 with errno set. */
int lf_entry_tell_kernel(struct lf_registration *reg);
int lf_entry_leave_kernel(struct lf_registration *reg);
/* Before the kernel is asked: it must know of all that the program wants. */
void lf_entry_widen_hot(struct lf_epoll *ep);
/* The kernel has reported what the program does not want: it would again, for ever. */
void lf_entry_trim(struct lf_registration *reg);
/* False: it has one, and that could not be entered; errno says why. */
bool lf_entry_enter_bell(struct lf_registration *reg);
void lf_entry_remove_bell(struct lf_registration *reg);
/* The socket is fused. `in_kernel`: the program's own entry is there. False: errno says why
 * it stays as it was. */
bool lf_entry_adopt(struct lf_registration *reg, bool in_kernel);
/* The program deleted it some time ago; now the kernel hears of it. */
void lf_entry_release_gone(struct lf_registration *reg);

/* What there is to report of it, in the program's terms, as far as memory tells. */
uint32_t lf_entry_reportable(const struct lf_registration *reg);
/* Edge-triggered: has anything happened since the last report? */
bool lf_entry_has_edge(const struct lf_registration *reg, uint32_t ready);
struct lf_cover lf_entry_cover(const struct lf_registration *reg);
/* The event has been given to the program. */
void lf_entry_reported(struct lf_registration *reg, uint32_t bits, struct lf_cover cover);

/* There are bytes that will be to tell of, though nobody rings then (held.h): one of those that sleep is
 * to do so for moments. */
void lf_entry_have_one_nap(struct lf_epoll *ep);
/* Arms every hot socket and lets it go cold, unless it turns out to be ready. Returns
 * one that is, or NULL. */
struct lf_registration *lf_entry_make_all_cold(struct lf_epoll *ep);
/* A sleep is over, and nobody else sleeps in the set: those that went cold for it and had news
 * lately are hot again, their flags down before each peer has rung. */
void lf_entry_heat_cooled(struct lf_epoll *ep);
/* It is hot, and had nothing to report: after many such looks in a row it goes cold. */
void lf_entry_looked_in_vain(struct lf_registration *reg);
/* Wakes a thread that sleeps in the set. */
void lf_entry_poke(struct lf_registration *reg);
/* One that has: its bell is asked for rings only again. */
void lf_entry_was_poked(struct lf_registration *reg);
/* Another thread may be asleep in the set: it must hear of what has come in. */
void lf_entry_tell_sleepers(struct lf_epoll *ep);

#endif
