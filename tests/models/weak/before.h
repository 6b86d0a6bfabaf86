/* before.h - included before each file of csrc/: the system's headers as they are, then what makes
 * the C code a subject of the simulator. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The portable branches: lf_lock_fence_released() is a real fence, and no time stamp counter. With
 * SIM_X86 the x86 ones; the simulator then takes locked instructions for full fences. */
#undef __aarch64__
#ifndef SIM_X86
#undef __x86_64__
#undef __i386__
#endif

/* Each simulated thread has its own; sim.c swaps the section. */
#define _Thread_local __attribute__((section("sim_tls")))
#define tls_model(model) unused

/* Time stands still. */
int sim_clock(clockid_t clock, struct timespec *now);
#define clock_gettime sim_clock
#define __builtin_ia32_rdtsc() ((uint64_t)1 << 40)
/* Where a thread runs is no choice of the simulator's. */
#define sched_getcpu() 0
#define sched_yield() 0
