/* stdatomic.h - found instead of the compiler's when csrc/ is compiled for the checker: each atomic
 * operation of the C code goes to the simulator, with the name of the place it stands at (function,
 * expression), so that a mutation can weaken just that one. See sim.h. */
#ifndef LF_WEAK_STDATOMIC_H
#define LF_WEAK_STDATOMIC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef enum {
	memory_order_relaxed,
	memory_order_consume,
	memory_order_acquire,
	memory_order_release,
	memory_order_acq_rel,
	memory_order_seq_cst,
} memory_order;

struct sim_site {
	const char *expression, *operation;
	int mutated; /* 0: not looked up yet, 1: no, 2: weakened */
};

enum sim_change { SIM_EXCHANGE, SIM_ADD, SIM_SUB, SIM_OR };

uint64_t sim_load(const volatile void *at, unsigned size, memory_order order,
		  struct sim_site *site, const char *function);
void sim_store(volatile void *at, unsigned size, uint64_t value, memory_order order,
	       struct sim_site *site, const char *function);
uint64_t sim_change(volatile void *at, unsigned size, enum sim_change change, uint64_t operand,
		    memory_order order, struct sim_site *site, const char *function);
bool sim_swap(volatile void *at, unsigned size, uint64_t *expected, uint64_t desired,
	      memory_order order, memory_order failure, struct sim_site *site, const char *function);
void sim_fence(memory_order order, struct sim_site *site, const char *function);

#define SIM_SITE(expression, operation) static struct sim_site sim_here = {expression, operation, 0}
/* The type behind a pointer, without _Atomic. */
#define SIM_TYPE(p) __typeof__((void)0, *(p))
#define SIM_BITS(type, value)                                   \
	({                                                      \
		type sim_in = (type)(value);                    \
		uint64_t sim_bits = 0;                          \
		memcpy(&sim_bits, &sim_in, sizeof(sim_in));     \
		sim_bits;                                       \
	})
#define SIM_VALUE(type, bits)                                   \
	({                                                      \
		uint64_t sim_from = (bits);                     \
		type sim_out;                                   \
		memcpy(&sim_out, &sim_from, sizeof(sim_out));   \
		sim_out;                                        \
	})

#define atomic_load_explicit(p, order)                                                          \
	({                                                                                      \
		SIM_SITE(#p, "load");                                                           \
		SIM_VALUE(SIM_TYPE(p), sim_load((p), sizeof(*(p)), (order), &sim_here, __func__)); \
	})
#define atomic_store_explicit(p, value, order)                                                  \
	({                                                                                      \
		SIM_SITE(#p, "store");                                                          \
		sim_store((p), sizeof(*(p)), SIM_BITS(SIM_TYPE(p), value), (order), &sim_here,  \
			  __func__);                                                            \
	})
#define SIM_CHANGE(p, change, name, value, order)                                               \
	({                                                                                      \
		SIM_SITE(#p, name);                                                             \
		SIM_VALUE(SIM_TYPE(p),                                                          \
			  sim_change((p), sizeof(*(p)), change, SIM_BITS(SIM_TYPE(p), value),   \
				     (order), &sim_here, __func__));                            \
	})
#define atomic_exchange_explicit(p, v, order) SIM_CHANGE(p, SIM_EXCHANGE, "exchange", v, order)
#define atomic_fetch_add_explicit(p, v, order) SIM_CHANGE(p, SIM_ADD, "add", v, order)
#define atomic_fetch_sub_explicit(p, v, order) SIM_CHANGE(p, SIM_SUB, "sub", v, order)
#define atomic_fetch_or_explicit(p, v, order) SIM_CHANGE(p, SIM_OR, "or", v, order)
#define atomic_compare_exchange_strong_explicit(p, expected, desired, order, failure)           \
	({                                                                                      \
		SIM_SITE(#p, "swap");                                                           \
		uint64_t sim_expected = SIM_BITS(SIM_TYPE(p), *(expected));                     \
		bool sim_done = sim_swap((p), sizeof(*(p)), &sim_expected,                      \
					 SIM_BITS(SIM_TYPE(p), desired), (order), (failure),    \
					 &sim_here, __func__);                                  \
		if (!sim_done)                                                                  \
			*(expected) = SIM_VALUE(SIM_TYPE(p), sim_expected);                     \
		sim_done;                                                                       \
	})
#define atomic_thread_fence(order)                                                              \
	({                                                                                      \
		SIM_SITE("", "fence");                                                          \
		sim_fence((order), &sim_here, __func__);                                        \
	})
#define atomic_signal_fence(order) ((void)(order))

#define atomic_load(p) atomic_load_explicit(p, memory_order_seq_cst)
#define atomic_store(p, v) atomic_store_explicit(p, v, memory_order_seq_cst)
#define atomic_exchange(p, v) atomic_exchange_explicit(p, v, memory_order_seq_cst)
#define atomic_fetch_add(p, v) atomic_fetch_add_explicit(p, v, memory_order_seq_cst)
#define atomic_fetch_sub(p, v) atomic_fetch_sub_explicit(p, v, memory_order_seq_cst)
#define atomic_fetch_or(p, v) atomic_fetch_or_explicit(p, v, memory_order_seq_cst)
#define atomic_compare_exchange_strong(p, e, d) \
	atomic_compare_exchange_strong_explicit(p, e, d, memory_order_seq_cst, memory_order_seq_cst)
#define atomic_compare_exchange_weak atomic_compare_exchange_strong
#define atomic_compare_exchange_weak_explicit atomic_compare_exchange_strong_explicit

#endif
