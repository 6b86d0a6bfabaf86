/* mapping.c - see mapping.h.
 *
 * Headers' pages lie in blocks of addresses that are reserved for them (PROT_NONE, so that nothing
 * else is ever placed between), each as much as a page of page table covers. A program may have
 * only so many mappings (vm.max_map_count, 65,530), and each such page is one: from BLOCKS full
 * blocks on, further connections make do with the whole's mapping.
 */
#define _GNU_SOURCE
#include "mapping.h"

#include "rank.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = LF_SEGMENT_EXTRA, BLOCK_PAGES = 512, BLOCKS = 32 };

struct block {
	uint8_t *at; /* NULL: not reserved yet */
	uint64_t taken[BLOCK_PAGES / 64];
};

static struct block blocks[BLOCKS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool reserve(struct block *block)
{
	void *at = mmap(NULL, BLOCK_PAGES * PAGE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at != MAP_FAILED)
		block->at = at;
	return at != MAP_FAILED;
}

/* The first that is free, so that those in use stay together. */
static uint8_t *take_from(struct block *block)
{
	for (size_t i = 0; i < BLOCK_PAGES / 64; i++) {
		uint64_t left = ~block->taken[i];
		if (!left)
			continue;
		int bit = __builtin_ctzll(left);
		block->taken[i] |= UINT64_C(1) << bit;
		return block->at + (i * 64 + (size_t)bit) * PAGE;
	}
	return NULL;
}

static uint8_t *take(void)
{
	uint8_t *page = NULL;
	if (sysconf(_SC_PAGESIZE) != PAGE) /* the kernel's own are larger */
		return NULL;
	lf_mutex_lock(&lock, LF_RANK_LEAF);
	for (struct block *block = blocks; block < blocks + BLOCKS && !page; block++) {
		if (!block->at && !reserve(block))
			break;
		page = take_from(block);
	}
	lf_mutex_unlock(&lock, LF_RANK_LEAF);
	return page;
}

static void give_back(const uint8_t *page)
{
	lf_mutex_lock(&lock, LF_RANK_LEAF);
	for (struct block *block = blocks; block < blocks + BLOCKS && block->at; block++) {
		size_t i = (size_t)((uintptr_t)page - (uintptr_t)block->at) / PAGE;
		if (i < BLOCK_PAGES)
			block->taken[i / 64] &= ~(UINT64_C(1) << (i % 64));
	}
	lf_mutex_unlock(&lock, LF_RANK_LEAF);
}

/* The page in which the header lies, on its own; NULL: not so. */
static uint8_t *map_header(int fd, uint32_t ring_size)
{
	int saved = errno;
	uint8_t *page = take();
	/* Where this fails, some kernels leave a gap, in which something else may lie by now: such
	 * a page is not used again. */
	if (page && mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			 (off_t)ring_size) == MAP_FAILED)
		page = NULL;
	if (!page)
		errno = saved; /* nothing has failed that anybody asked for */
	return page;
}

static void unmap_header(uint8_t *page)
{
	int saved = errno;
	/* Reserved again; there is no moment at which something else could be placed here. */
	if (mmap(page, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) != MAP_FAILED) {
		give_back(page);
	} else {
		munmap(page, PAGE); /* then anything may be: it is not used again */
		errno = saved;
	}
}

struct lf_segment *lf_mapping_make(int fd, uint32_t ring_size, void **whole)
{
	*whole = mmap(NULL, lf_segment_size(ring_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*whole == MAP_FAILED)
		return NULL;
	uint8_t *page = map_header(fd, ring_size);
	return page ? lf_segment_in_page(page) : lf_segment_at(*whole, ring_size);
}

void lf_mapping_drop(struct lf_segment *segment, uint32_t ring_size, void *whole)
{
	if (segment != lf_segment_at(whole, ring_size))
		unmap_header(lf_segment_page(segment));
	munmap(whole, lf_segment_size(ring_size));
}

void lf_mapping_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
}
