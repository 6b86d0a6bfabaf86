/* work.h - the kinds of work that can be measured, both ends of each. An end exits with 1
 * and says why if the other one does not answer as it should.
 */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include "measure.h"

/* A message of `size` bytes goes out and comes back, on one connection. */
void work_roundtrip_serve(const struct measure_order *order);
void work_roundtrip_ask(const struct measure_order *order);

/* Bytes in one direction as fast as they go, in writes of `size`. */
void work_stream_serve(const struct measure_order *order);
void work_stream_ask(const struct measure_order *order);
void work_batches_ask(const struct measure_order *order);

/* `connections` of them, by epoll on both sides; `active` ones have a message out each. */
void work_many_serve(const struct measure_order *order);
void work_many_ask(const struct measure_order *order);

/* Connect, send, receive, close; again. */
void work_rate_serve(const struct measure_order *order);
void work_rate_ask(const struct measure_order *order);

/* Every end sleeps in one call until the client gets a SIGALRM; "asleep" and "awake" on standard
 * output tell when. */
void work_idle_serve(const struct measure_order *order);
void work_idle_ask(const struct measure_order *order);

/* Single calls that are not fused; order->work says on what. The client prints an object of its
 * own: {"calls": ..., "typical_ns": ..., "user_instructions": ..., "kernel_instructions": ...},
 * nanoseconds as the median over batches, instructions for one call and without what can't be
 * counted; "refusal" says why nothing can. */
void work_calls_serve(const struct measure_order *order);
void work_calls_ask(const struct measure_order *order);

/* Round trips between two sockets of this one process, where nobody ever waits. */
void work_self_ask(const struct measure_order *order);

#endif
