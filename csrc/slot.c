/* slot.c - see slot.h. */
#define _GNU_SOURCE
#include "slot.h"

#include "departure.h"
#include "invariant.h"
#include "rank.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

enum { AREA_SLOTS = 65536 };

/* The area this process allocates from; inherited ones stay mapped but are only used
 * through pointers that came with the fork. */
static struct lf_slot *area;
static uint32_t used;      /* slots ever handed out of `area` */
static uint32_t free_list; /* index + 1 */
static uint32_t scan;      /* where to look next for slots whose last holder was elsewhere */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool in_area(const struct lf_slot *slot)
{
	return area && slot >= area && slot < area + AREA_SLOTS;
}

/* A slot dropped here while a child still held it is free once the child lets go. */
enum { PARKED = UINT32_MAX };

static struct lf_slot *reclaim_parked(void)
{
	for (uint32_t n = 0; n < used; n++) {
		struct lf_slot *slot = &area[scan++ % used];
		if (slot->next_free == PARKED && lf_slot_is_held_by(slot, 0)) {
			slot->next_free = 0; /* it is made fresh without the lock */
			return slot;
		}
	}
	return NULL;
}

static struct lf_slot *take(void)
{
	if (!area) {
		void *at = mmap(NULL, AREA_SLOTS * sizeof(struct lf_slot), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED)
			return NULL;
		area = at;
		used = free_list = scan = 0;
	}
	if (free_list) {
		struct lf_slot *slot = &area[free_list - 1];
		free_list = slot->next_free;
		return slot;
	}
	if (used < AREA_SLOTS)
		return &area[used++];
	return reclaim_parked();
}

struct lf_slot *lf_slot_new(void)
{
	lf_mutex_lock_briefly(&lock, LF_RANK_LEAF);
	struct lf_slot *slot = take();
	lf_mutex_unlock_briefly(&lock, LF_RANK_LEAF);
	if (slot)
		lf_slot_refresh(slot);
	return slot;
}

/* Nobody looks at it: its table entry, which tells others of it, is yet to come. */
void lf_slot_refresh(struct lf_slot *slot)
{
	memset(slot, 0, sizeof(*slot));
	atomic_store_explicit(&slot->rcvlowat, 1, memory_order_relaxed);
	atomic_store_explicit(&slot->holders, 1, memory_order_relaxed);
}

/* Who comes back counts before he is no longer departing; who sets out is departing, and has been
 * counted so, before he is no holder any more. One who does both while we look shows in `departures`. */
bool lf_slot_is_held_by(struct lf_slot *slot, uint32_t holders)
{
	uint32_t departures = atomic_load(&slot->departures);
	return atomic_load(&slot->holders) == holders && !lf_departure_pending(slot) &&
	       atomic_load(&slot->holders) == holders &&
	       atomic_load(&slot->departures) == departures;
}

bool lf_slot_leave(struct lf_slot *slot)
{
	(void)lf_count_down(&slot->holders);
	if (!in_area(slot))
		return false;
	if (lf_slot_is_held_by(slot, 0))
		return true;
	lf_mutex_lock_briefly(&lock, LF_RANK_LEAF);
	slot->next_free = PARKED;
	lf_mutex_unlock_briefly(&lock, LF_RANK_LEAF);
	return false;
}

void lf_slot_give_back(struct lf_slot *slot)
{
	lf_mutex_lock_briefly(&lock, LF_RANK_LEAF);
	slot->next_free = free_list;
	free_list = (uint32_t)(slot - area) + 1;
	lf_mutex_unlock_briefly(&lock, LF_RANK_LEAF);
}

void lf_slot_after_fork(void)
{
	area = NULL;
	pthread_mutex_init(&lock, NULL);
}
