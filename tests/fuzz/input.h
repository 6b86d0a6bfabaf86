/* input.h - a fuzzer's bytes, taken one after the other; zeros once they have run out. */
#ifndef INPUT_H
#define INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct input {
	const uint8_t *at;
	size_t left;
};

static inline uint64_t take_bytes(struct input *in, size_t n)
{
	uint64_t value = 0;
	size_t have = n < in->left ? n : in->left;
	memcpy(&value, in->at, have);
	in->at += have;
	in->left -= have;
	return value;
}

static inline uint8_t take8(struct input *in)
{
	return (uint8_t)take_bytes(in, 1);
}

static inline uint16_t take16(struct input *in)
{
	return (uint16_t)take_bytes(in, 2);
}

/* What must never be. */
static inline void insist(int holds)
{
	if (!holds)
		abort();
}

#endif
