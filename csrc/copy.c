/* copy.c - see copy.h. */
#include "copy.h"

#include <stdint.h>
#include <string.h>

/* Below this the C library's memcpy is a handful of vector moves, and best. */
enum { SMALL = 1024 };

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
#endif

static void (*copy_large)(uint8_t *, const uint8_t *, size_t) = copy_portable;

void lf_copy_init(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2"))
		copy_large = copy_avx2;
#endif
}

void lf_copy(void *to, const void *from, size_t n)
{
	if (n < SMALL)
		memcpy(to, from, n);
	else
		copy_large(to, from, n);
}
