/* pause.h - one step of a spin loop. */
#ifndef LF_PAUSE_H
#define LF_PAUSE_H

static inline void lf_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory"); /* "yield" is a no-op on most arm64 cores */
#else
	__asm__ volatile("" ::: "memory");
#endif
}

#endif
