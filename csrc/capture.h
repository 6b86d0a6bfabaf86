/* capture.h - the memory into which producers put what a tap is to see. The only C file that
 * knows its layout; docs/tap.md draws it, src/loopfuse/_capture_ring.py is its twin and a test
 * compares the two.
 *
 * One capture ring belongs to one tap and one user: all processes of that user that hold an end
 * of a tapped connection put records into it, the tap alone takes them out. The broker makes it
 * (a memfd sealed against growing, shrinking and further seals).
 *
 *   0x0000  header
 *   0x1000  ready: a word of 64 bits for each cell
 *   then    cells of LF_CAPTURE_CELL bytes, a power of two of them
 *
 * A record is a struct lf_capture_record and captured bytes right behind it, in consecutive
 * cells (the last is followed by the first). Cells are counted from 0 on without end; cell i
 * lies at i mod `cells`.
 *
 *   producer                                      tap
 *   loads read (acquire): is there room?          loads reserved
 *   reserves n cells: reserved += n (CAS)         loads ready[i] (acquire); is it of cell i?
 *   writes the record                             copies the record out, checks it
 *   stores ready[i] = LF_CAPTURE_READY(i, n)      stores read = i + n (release)
 *     (release), i being its first cell
 *
 * The release of ready pairs with the tap's acquire: a record is complete when it is seen. The
 * release of read pairs with the producer's acquire: cells are written again only after they were
 * copied. `ready` names the cell's count, so that a word of a former round says nothing. Who dies
 * between the second and the fourth step leaves a hole, which the tap passes over after a while:
 * the next word that is of its own cell tells where a record begins.
 *
 * A producer reserves before it publishes the same bytes to its peer, so the answer to them is
 * reserved after them: the ring's order is an order in which the bytes may have been sent.
 *
 * All in it is writable by all those processes: nobody believes a word. The tap checks each
 * record, and a producer addresses memory by the number of cells it took note of itself.
 */
#ifndef LF_CAPTURE_H
#define LF_CAPTURE_H

#include "segment.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LF_CAPTURE_MAGIC 0x315041545046304cULL /* "L0FPTAP1", little endian */
#define LF_CAPTURE_VERSION 1u
#define LF_CAPTURE_HEADER 4096u
#define LF_CAPTURE_CELL 256u
#define LF_CAPTURE_CELLS_MIN 1024u
#define LF_CAPTURE_CELLS_MAX (1u << 20)
#define LF_CAPTURE_MOST 32768u /* payload bytes of one record; more becomes several */

enum lf_capture_kind {
	LF_CAPTURE_DATA = 1,
	LF_CAPTURE_FIN = 2, /* the end sends no more: shutdown(2) or close(2), position bytes in all */
	LF_CAPTURE_RST = 3, /* it closes with bytes unread: the kernel resets */
};

struct lf_capture {
	uint64_t magic;
	uint32_t version;
	uint32_t cells;
	uint32_t snap; /* captured bytes of a record at most */
	uint8_t pad0[LF_LINE - 20];
	_Atomic uint32_t closed; /* by broker or tap; 1: nobody reads any more */
	uint8_t pad1[LF_LINE - 4];
	_Atomic uint64_t reserved;     /* cells, by producers */
	_Atomic uint64_t lost;         /* records for which there was no room */
	_Atomic uint64_t lost_payload; /* their bytes */
	uint8_t pad2[LF_LINE - 24];
	_Atomic uint64_t read; /* cells, by the tap */
	uint8_t pad3[LF_LINE - 8];
};

struct lf_capture_record {
	uint64_t pair_id;
	int64_t time;        /* CLOCK_REALTIME, ns */
	uint64_t position;   /* of its first byte in this direction of the ring */
	uint64_t tcp_before; /* payload that this direction sent by TCP before it was fused */
	uint32_t length;     /* payload bytes it stands for */
	uint32_t captured;   /* how many of them follow */
	uint32_t pid;        /* of the sender */
	uint8_t direction;   /* 0: client to server */
	uint8_t kind;        /* enum lf_capture_kind */
	uint16_t reserved;
	uint64_t spare[2];
};

#define LF_CAPTURE_READY(cell, n) (((cell) + 1) << 8 | (n))

static inline size_t lf_capture_size(uint32_t cells)
{
	return LF_CAPTURE_HEADER + (size_t)cells * (8 + LF_CAPTURE_CELL);
}

static inline _Atomic uint64_t *lf_capture_ready(struct lf_capture *capture)
{
	return (_Atomic uint64_t *)(void *)((uint8_t *)capture + LF_CAPTURE_HEADER);
}

static inline uint8_t *lf_capture_cells(struct lf_capture *capture, uint32_t cells)
{
	return (uint8_t *)capture + LF_CAPTURE_HEADER + (size_t)cells * 8;
}

/* Cells of a record with so many captured bytes. */
static inline uint32_t lf_capture_cells_of(uint32_t captured)
{
	return (uint32_t)(sizeof(struct lf_capture_record) + captured + LF_CAPTURE_CELL - 1) /
	       LF_CAPTURE_CELL;
}

static_assert(sizeof(struct lf_capture_record) == 64, "record");
static_assert(offsetof(struct lf_capture, closed) == 0x080, "closed");
static_assert(offsetof(struct lf_capture, reserved) == 0x100, "reserved");
static_assert(offsetof(struct lf_capture, read) == 0x180, "read");
static_assert(sizeof(struct lf_capture) <= LF_CAPTURE_HEADER, "header");
/* A record's cells must fit into the low byte of its ready word. */
static_assert((LF_CAPTURE_MOST + sizeof(struct lf_capture_record)) / LF_CAPTURE_CELL + 1 < 256,
	      "cells");

#endif
