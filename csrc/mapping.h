/* mapping.h - segments in this process's memory: each is mapped twice.
 *
 * Once as a whole. And the header's page, which is all that a connection with short messages
 * touches, once more among those of other connections: what one page of page table covers is
 * 2 MiB, less than a segment, so in the whole's mapping that one touched page would have a page
 * of page table to itself. Beside one another 512 of them share one. It is the same memory; which
 * of the two addresses is used matters for nothing but that.
 */
#ifndef LF_MAPPING_H
#define LF_MAPPING_H

#include "segment.h"

#include <stdint.h>

/* The header of the segment behind fd, by its page's own mapping; by that of the whole where there
 * is no other. NULL: it can't be mapped. Its size is the caller's to check. */
struct lf_segment *lf_mapping_make(int fd, uint32_t ring_size, void **whole);
void lf_mapping_drop(struct lf_segment *segment, uint32_t ring_size, void *whole);

/* In a forked child, which has all of its parent's. */
void lf_mapping_after_fork(void);

#endif
