/* interpose_vfork.c - children that are made to use our memory, with descriptors of their own.
 *
 * What they close and open is none of their parent's business, so who gives up or takes a number has
 * to know who it is. That costs no system call before the first of them is made, which is what
 * these names are for. See lf_seems_borrowed(), and there what becomes of a child that is made past
 * them.
 */
#define _GNU_SOURCE
#include "real.h"
#include "start.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

/* A function in C could not do it: the child returns from it first, and uses its frame up for its
 * parent. So the caller's frame is all there is when the C library's own takes over. */
#if defined(__x86_64__) || defined(__aarch64__)
void *lf_before_vfork(void) __attribute__((visibility("hidden"), used));
void *lf_before_vfork(void)
{
	lf_start();
	lf_memory_is_lent();
	return (void *)lf_real.vfork;
}

#if defined(__x86_64__)
#define THE_REAL_ONE                                                                              \
	"endbr64\n"                                                                               \
	"subq $8, %rsp\n"                                                                         \
	".cfi_adjust_cfa_offset 8\n"                                                              \
	"call lf_before_vfork\n"                                                                  \
	"addq $8, %rsp\n"                                                                         \
	".cfi_adjust_cfa_offset -8\n"                                                             \
	"jmp *%rax\n"
#else
#define THE_REAL_ONE                                                                              \
	"hint #34\n" /* bti c */                                                                  \
	"stp x29, x30, [sp, #-16]!\n"                                                             \
	".cfi_adjust_cfa_offset 16\n"                                                             \
	".cfi_rel_offset x29, 0\n"                                                                \
	".cfi_rel_offset x30, 8\n"                                                                \
	"bl lf_before_vfork\n"                                                                    \
	"ldp x29, x30, [sp], #16\n"                                                               \
	".cfi_adjust_cfa_offset -16\n"                                                            \
	".cfi_restore x29\n"                                                                      \
	".cfi_restore x30\n"                                                                      \
	"mov x16, x0\n"                                                                           \
	"br x16\n"
#endif

__asm__(".pushsection .text\n"
	".globl vfork\n"
	".globl __vfork\n"
	".type vfork, %function\n"
	".type __vfork, %function\n"
	".p2align 4\n"
	"vfork:\n"
	"__vfork:\n"
	".cfi_startproc\n" THE_REAL_ONE ".cfi_endproc\n"
	".size vfork, . - vfork\n"
	".size __vfork, . - __vfork\n"
	".popsection\n");
#endif

#define CLONE(name)                                                                             \
	LF_EXPORT int name(int (*run)(void *), void *stack, int flags, void *arg, ...)            \
	{                                                                                         \
		va_list ap;                                                                       \
		va_start(ap, arg);                                                                \
		pid_t *parent_tid = va_arg(ap, pid_t *);                                          \
		void *tls = va_arg(ap, void *);                                                   \
		pid_t *child_tid = va_arg(ap, pid_t *); /* as many as any call has */             \
		va_end(ap);                                                                       \
		lf_start(); /* which would take the mark back */                                  \
		lf_memory_is_lent();                                                              \
		return lf_real.clone(run, stack, flags, arg, parent_tid, tls, child_tid);         \
	}

CLONE(clone)
CLONE(__clone)
