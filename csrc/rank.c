/* rank.c - see rank.h. */
#define _GNU_SOURCE
#include "rank.h"

#ifdef LF_INVARIANTS
#include "invariant.h"

#include <stdint.h>

/* The frame tells which entries were left behind by a longjmp out of a signal handler:
 * stacks grow down, so what lies well below the present frame is gone. SLACK is less than
 * any signal frame, and more than the frames between a function and lf_rank_take(). */
enum { DEEPEST = 8, SLACK = 800 };

struct held {
	enum lf_rank rank;
	uintptr_t frame;
};

static _Thread_local struct held held[DEEPEST] __attribute__((tls_model("initial-exec")));
static _Thread_local int count __attribute__((tls_model("initial-exec")));

static void forget_what_was_left_behind(uintptr_t frame)
{
	while (count && held[count - 1].frame + SLACK < frame)
		count--;
}

__attribute__((noinline)) void lf_rank_take(enum lf_rank rank)
{
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
	forget_what_was_left_behind(frame);
	LF_INVARIANT(count < DEEPEST);
	LF_INVARIANT(count == 0 || held[count - 1].rank < rank);
	held[count++] = (struct held){rank, frame};
}

void lf_rank_give(enum lf_rank rank)
{
	int i = count - 1;
	while (i >= 0 && held[i].rank != rank)
		i--;
	bool was_taken = i >= 0;
	LF_INVARIANT(was_taken);
	for (count--; i < count; i++)
		held[i] = held[i + 1];
}

__attribute__((noinline)) void lf_rank_sleeps(void)
{
	forget_what_was_left_behind((uintptr_t)__builtin_frame_address(0));
	/* A handler that runs while the thread below it pauses has no part in what that holds. */
	LF_INVARIANT(count == 0 || lf_defer.depth == 0);
}

void lf_rank_after_fork(void)
{
	count = 0;
}
#endif

/* ISO C wants something in every translation unit. */
typedef int lf_rank_unit;
