/* copy.c - see copy.h.
 *
 * The candidates differ in width only. Which is best depends on more than the instruction set
 * (parts that split wide operations, or clock down for them), so they race, once, in memory
 * that one core has to itself; how `rep movsb` does between cores such a race would not show,
 * and so it does not take part.
 */
#include "copy.h"

#include "clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Below this the C library's memcpy is a handful of vector moves, and best. */
enum { SMALL = 1024 };

typedef void (*copy_fn)(uint8_t *to, const uint8_t *from, size_t n);

typedef uint8_t v16 __attribute__((vector_size(16), aligned(1), may_alias));

static void copy_portable(uint8_t *to, const uint8_t *from, size_t n)
{
	for (; n >= 64; n -= 64, to += 64, from += 64) {
		v16 a = ((const v16 *)from)[0], b = ((const v16 *)from)[1];
		v16 c = ((const v16 *)from)[2], d = ((const v16 *)from)[3];
		((v16 *)to)[0] = a, ((v16 *)to)[1] = b;
		((v16 *)to)[2] = c, ((v16 *)to)[3] = d;
	}
	memcpy(to, from, n);
}

#if defined(__x86_64__)
typedef uint8_t v32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint8_t v64 __attribute__((vector_size(64), aligned(1), may_alias));

__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, const uint8_t *from, size_t n)
{
	for (; n >= 128; n -= 128, to += 128, from += 128) {
		v32 a = ((const v32 *)from)[0], b = ((const v32 *)from)[1];
		v32 c = ((const v32 *)from)[2], d = ((const v32 *)from)[3];
		((v32 *)to)[0] = a, ((v32 *)to)[1] = b;
		((v32 *)to)[2] = c, ((v32 *)to)[3] = d;
	}
	memcpy(to, from, n);
}

__attribute__((target("avx512f"))) static void copy_avx512(uint8_t *to, const uint8_t *from, size_t n)
{
	for (; n >= 256; n -= 256, to += 256, from += 256) {
		v64 a = ((const v64 *)from)[0], b = ((const v64 *)from)[1];
		v64 c = ((const v64 *)from)[2], d = ((const v64 *)from)[3];
		((v64 *)to)[0] = a, ((v64 *)to)[1] = b;
		((v64 *)to)[2] = c, ((v64 *)to)[3] = d;
	}
	memcpy(to, from, n);
}
#elif defined(__aarch64__)
static void copy_neon(uint8_t *to, const uint8_t *from, size_t n)
{
	for (; n >= 128; n -= 128, to += 128, from += 128) {
		uint8x16_t a = vld1q_u8(from), b = vld1q_u8(from + 16);
		uint8x16_t c = vld1q_u8(from + 32), d = vld1q_u8(from + 48);
		uint8x16_t e = vld1q_u8(from + 64), f = vld1q_u8(from + 80);
		uint8x16_t g = vld1q_u8(from + 96), h = vld1q_u8(from + 112);
		vst1q_u8(to, a), vst1q_u8(to + 16, b);
		vst1q_u8(to + 32, c), vst1q_u8(to + 48, d);
		vst1q_u8(to + 64, e), vst1q_u8(to + 80, f);
		vst1q_u8(to + 96, g), vst1q_u8(to + 112, h);
	}
	memcpy(to, from, n);
}
#endif

enum { CANDIDATES = 3 };

/* Those that run here, the widest last. */
static int candidates(copy_fn fn[CANDIDATES])
{
	int n = 0;
	fn[n++] = copy_portable;
#if defined(__x86_64__)
	__builtin_cpu_init(); /* also says whether the kernel saves the wide registers */
	if (__builtin_cpu_supports("avx2"))
		fn[n++] = copy_avx2;
	if (__builtin_cpu_supports("avx512f"))
		fn[n++] = copy_avx512;
#elif defined(__aarch64__)
	fn[n++] = copy_neon;
#endif
	return n;
}

static _Atomic(copy_fn) copy_large = copy_portable;

enum { AREA = 16 * 1024, HEATS = 8 };

static uint64_t best_time(copy_fn fn, uint8_t *area)
{
	uint64_t best = UINT64_MAX;
	for (int i = 0; i < HEATS; i++) {
		uint64_t start = lf_ticks();
		fn(area + AREA, area, AREA);
		/* The copy is over, for all the compiler knows, when the clock is read. */
		__asm__ volatile("" ::: "memory");
		uint64_t time = lf_ticks() - start;
		if (time < best)
			best = time;
	}
	return best;
}

void lf_copy_choose(void)
{
	static _Atomic bool chosen;
	static uint8_t area[2 * AREA]; /* untouched, hence without memory, until here */
	if (atomic_exchange(&chosen, true))
		return;
	copy_fn fn[CANDIDATES];
	int n = candidates(fn);
	uint64_t record = best_time(fn[0], area);
	copy_fn winner = fn[0];
	for (int i = 1; i < n; i++) {
		/* A wider one must be worth it: it may slow down what runs beside it. */
		uint64_t time = best_time(fn[i], area);
		if (time < record - record / 16) {
			record = time;
			winner = fn[i];
		}
	}
	atomic_store_explicit(&copy_large, winner, memory_order_relaxed);
}

void lf_copy(void *to, const void *from, size_t n)
{
	if (n < SMALL)
		memcpy(to, from, n);
	else
		atomic_load_explicit(&copy_large, memory_order_relaxed)(to, from, n);
}
