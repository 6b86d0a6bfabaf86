/* sim.c - see sim.h. */
#define _GNU_SOURCE
#include "sim.h"

#include "stdatomic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum {
	PLACES = 192,
	MESSAGES = 4096,
	BYTES = 64, /* of payload, watched for races */
	CHOICES = 1 << 16,
	STACK = 256 * 1024,
	CLOCKS = SIM_THREADS,
	LONGEST = 20000, /* operations of one execution: more is a loop without end */
};

/* How far each place, and each thread's own clock, has been seen. */
struct view {
	uint16_t place[PLACES];
	uint32_t clock[CLOCKS];
};

struct message {
	uint64_t value;
	int previous; /* of this place, -1: none */
	struct view view;
};

struct place {
	const volatile void *at;
	int newest;
	uint16_t count;
};

struct byte {
	const uint8_t *at;
	int writer; /* -1: nobody yet */
	uint32_t written, read[SIM_THREADS];
};

struct thread {
	ucontext_t context;
	bool finished;
	bool (*ready)(void *);
	void *ready_context;
	struct view now, acquired, released;
	char *tls;
};

static struct place places[PLACES];
static int place_count;
static struct message *messages;
static int message_count;
static struct byte bytes[BYTES];
static int byte_count;
static struct view order; /* of seq_cst */
static struct thread threads[SIM_THREADS];
static int thread_count, current;
static ucontext_t explorer;
static bool running;
static long operations;
static int preemptions, stale;
static int most_preemptions = 2, most_stale = 1;

/* Places that several threads use; only there another thread may come in between. Learnt by
 * running: exploration starts anew when one is added. */
static struct { const volatile void *at; int user; bool shared; } known[1024];
static int known_count;
static bool learnt;

/* The path that is being taken, and how many ways there were. */
static struct { uint16_t taken, ways; } *choices;
static int choice_count, choice_at;

static char failure[512];
static const char *mutation_function, *mutation_expression, *mutation_operation;
static bool mutation_met;
static jmp_buf broken_off;

extern char __start_sim_tls[], __stop_sim_tls[];
static char *tls_at_start;

static size_t tls_size(void)
{
	return (size_t)(__stop_sim_tls - __start_sim_tls);
}

void sim_fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(failure, sizeof(failure), format, arguments);
	va_end(arguments);
	if (running) {
		running = false;
		setcontext(&explorer);
	}
	longjmp(broken_off, 1);
}

/* --- choices --- */

static int choose(int ways)
{
	if (ways <= 1)
		return 0;
	if (choice_at == choice_count) {
		if (choice_count == CHOICES)
			sim_fail("too many choices");
		choices[choice_count].taken = 0;
		choices[choice_count++].ways = (uint16_t)ways;
	}
	return choices[choice_at++].taken;
}

/* To the next path; false: there is none. */
static bool next_path(void)
{
	while (choice_count && choices[choice_count - 1].taken + 1 == choices[choice_count - 1].ways)
		choice_count--;
	if (!choice_count)
		return false;
	choices[choice_count - 1].taken++;
	return true;
}

/* --- threads --- */

static bool can_go_on(int t)
{
	return !threads[t].finished && (!threads[t].ready || threads[t].ready(threads[t].ready_context));
}

static void switch_to(int t)
{
	if (t == current)
		return;
	int before = current;
	memcpy(threads[before].tls, __start_sim_tls, tls_size());
	memcpy(__start_sim_tls, threads[t].tls, tls_size());
	current = t;
	swapcontext(&threads[before].context, &threads[t].context);
}

/* The current thread has come to a place where others may come in, or can't go on. */
static void schedule(void)
{
	int able[SIM_THREADS], n = 0;
	bool goes_on = can_go_on(current);
	if (goes_on)
		able[n++] = current;
	if (!goes_on || preemptions < most_preemptions)
		for (int t = 0; t < thread_count; t++)
			if (t != current && can_go_on(t))
				able[n++] = t;
	if (n == 0) {
		for (int t = 0; t < thread_count; t++)
			if (!threads[t].finished)
				sim_fail("thread %d sleeps for ever", t);
		running = false;
		setcontext(&explorer);
	}
	int t = able[choose(n)];
	if (goes_on && t != current)
		preemptions++;
	switch_to(t);
}

static const struct sim_scenario *scenario;

static void run_thread(int t)
{
	scenario->threads[t]();
	threads[t].finished = true;
	schedule();
}

void sim_block(bool (*ready)(void *), void *context)
{
	threads[current].ready = ready;
	threads[current].ready_context = context;
	while (!can_go_on(current))
		schedule();
	threads[current].ready = NULL;
}

/* --- memory --- */

static void join(struct view *into, const struct view *from)
{
	for (int i = 0; i < place_count; i++)
		if (from->place[i] > into->place[i])
			into->place[i] = from->place[i];
	for (int i = 0; i < CLOCKS; i++)
		if (from->clock[i] > into->clock[i])
			into->clock[i] = from->clock[i];
}

/* The order of seq_cst operations says what is seen, but hands nothing over. */
static void join_places(struct view *into, const struct view *from)
{
	for (int i = 0; i < place_count; i++)
		if (from->place[i] > into->place[i])
			into->place[i] = from->place[i];
}

static bool is_private(const volatile void *at)
{
	return (const volatile char *)at >= __start_sim_tls &&
	       (const volatile char *)at < __stop_sim_tls;
}

static bool is_shared(const volatile void *at)
{
	for (int i = 0; i < known_count; i++) {
		if (known[i].at != at)
			continue;
		if (known[i].user != current && !known[i].shared)
			known[i].shared = learnt = true;
		return known[i].shared;
	}
	if (known_count == 1024)
		sim_fail("too many places");
	known[known_count].at = at;
	known[known_count].shared = false;
	known[known_count++].user = current;
	return false;
}

static struct message *new_message(int p, uint64_t value)
{
	if (message_count == MESSAGES)
		sim_fail("too many stores");
	struct message *m = &messages[message_count];
	m->value = value;
	m->previous = places[p].newest;
	memset(&m->view, 0, sizeof(m->view));
	places[p].newest = message_count++;
	places[p].count++;
	return m;
}

static uint64_t value_at(const volatile void *at, unsigned size)
{
	uint64_t value = 0;
	memcpy(&value, (const void *)(uintptr_t)at, size);
	return value;
}

static int place_of(const volatile void *at, unsigned size)
{
	for (int p = 0; p < place_count; p++)
		if (places[p].at == at)
			return p;
	if (place_count == PLACES)
		sim_fail("too many places");
	int p = place_count++;
	places[p] = (struct place){.at = at, .newest = -1, .count = 0};
	new_message(p, value_at(at, size));
	places[p].count = 0; /* what was there before all threads: number 0 */
	return p;
}

static bool acquires(memory_order order)
{
	return order == memory_order_acquire || order == memory_order_acq_rel ||
	       order == memory_order_seq_cst || order == memory_order_consume;
}

static bool releases(memory_order order)
{
	return order == memory_order_release || order == memory_order_acq_rel ||
	       order == memory_order_seq_cst;
}

static bool matches(const char *wanted, const char *is)
{
	return !*wanted || strcmp(wanted, is) == 0;
}

/* The order as it stands in the code, or relaxed if this is the place to be weakened. */
static memory_order ordered(memory_order order, struct sim_site *site, const char *function)
{
	if (!site->mutated)
		site->mutated = mutation_operation &&
						matches(mutation_operation, site->operation) &&
						matches(mutation_function, function) &&
						strcmp(mutation_expression, site->expression) == 0 ?
					2 :
					1;
	if (site->mutated == 1)
		return order;
	mutation_met = true;
	return memory_order_relaxed;
}

static bool traces; /* prints each operation of the last execution */

static void trace(const char *what, const char *function, const struct sim_site *site, uint64_t value)
{
	if (traces)
		fprintf(stderr, "%d %-28s %s %s %llu\n", current, function, what, site->expression,
			(unsigned long long)value);
}

static void step(const volatile void *at)
{
	if (++operations > LONGEST)
		sim_fail("a loop without end");
	if (is_shared(at))
		schedule();
	threads[current].now.clock[current]++;
}

static void fence(void)
{
	struct thread *self = &threads[current];
	join(&self->now, &self->acquired);
	join_places(&self->now, &order);
	order = self->now;
	memset(order.clock, 0, sizeof(order.clock));
	self->released = self->acquired = self->now;
}

/* Locked instructions of x86. */
static void fence_if_locked(void)
{
#ifdef SIM_X86
	fence();
#endif
}

static void seen(struct thread *self, int p, uint16_t number, const struct message *m, bool acquire)
{
	if (number > self->now.place[p])
		self->now.place[p] = number;
	if (number > self->acquired.place[p])
		self->acquired.place[p] = number;
	join(&self->acquired, &m->view);
	if (acquire)
		join(&self->now, &m->view);
}

uint64_t sim_load(const volatile void *at, unsigned size, memory_order order_given,
		  struct sim_site *site, const char *function)
{
	if (!running || is_private(at))
		return value_at(at, size);
	memory_order o = ordered(order_given, site, function);
#ifdef SIM_X86
	if (o == memory_order_relaxed && order_given == memory_order_relaxed)
		o = memory_order_acquire;
#endif
	step(at);
	struct thread *self = &threads[current];
	int p = place_of(at, size);
	uint16_t oldest = self->now.place[p];
	if (o == memory_order_seq_cst && order.place[p] > oldest)
		oldest = order.place[p];
	int ways = 1 + places[p].count - oldest;
	if (stale == most_stale)
		ways = 1;
	int back = choose(ways);
	stale += back > 0;
	int m = places[p].newest;
	for (int i = 0; i < back; i++)
		m = messages[m].previous;
	seen(self, p, (uint16_t)(places[p].count - back), &messages[m], acquires(o));
	trace(back ? "reads the old" : "reads", function, site, messages[m].value);
	return messages[m].value;
}

static void put(int p, unsigned size, uint64_t value, memory_order o, const struct view *inherited)
{
	struct thread *self = &threads[current];
	struct message *m = new_message(p, value);
	self->now.place[p] = self->acquired.place[p] = places[p].count;
	m->view = releases(o) ? self->now : self->released;
	m->view.place[p] = places[p].count;
	if (inherited)
		join(&m->view, inherited);
	if (o == memory_order_seq_cst)
		order.place[p] = places[p].count;
	memcpy((void *)(uintptr_t)places[p].at, &value, size);
}

void sim_store(volatile void *at, unsigned size, uint64_t value, memory_order order_given,
	       struct sim_site *site, const char *function)
{
	if (!running || is_private(at)) {
		memcpy((void *)(uintptr_t)at, &value, size);
		return;
	}
	memory_order o = ordered(order_given, site, function);
#ifdef SIM_X86
	if (o == memory_order_relaxed && order_given == memory_order_relaxed)
		o = memory_order_release;
#endif
	step(at);
	trace("stores", function, site, value);
	int p = place_of(at, size);
	put(p, size, value, o, NULL);
	if (o == memory_order_seq_cst)
		fence_if_locked();
}

/* Reads the newest, and what `change` makes of it is next to it. */
static uint64_t change_newest(volatile void *at, unsigned size, memory_order o, bool (*make)(uint64_t *, void *),
			      void *context)
{
	step(at);
	fence_if_locked();
	struct thread *self = &threads[current];
	int p = place_of(at, size);
	struct message *m = &messages[places[p].newest];
	uint64_t before = m->value, value = before;
	seen(self, p, places[p].count, m, acquires(o));
	if (make(&value, context)) {
		struct view inherited = m->view;
		put(p, size, value, o, &inherited);
		fence_if_locked();
	}
	return before;
}

struct arithmetic {
	enum sim_change change;
	uint64_t operand;
};

static bool calculate(uint64_t *value, void *context)
{
	const struct arithmetic *a = context;
	switch (a->change) {
	case SIM_EXCHANGE: *value = a->operand; break;
	case SIM_ADD: *value += a->operand; break;
	case SIM_SUB: *value -= a->operand; break;
	case SIM_OR: *value |= a->operand; break;
	}
	return true;
}

uint64_t sim_change(volatile void *at, unsigned size, enum sim_change change, uint64_t operand,
		    memory_order order_given, struct sim_site *site, const char *function)
{
	struct arithmetic a = {change, operand};
	if (!running || is_private(at)) {
		uint64_t before = value_at(at, size), value = before;
		calculate(&value, &a);
		memcpy((void *)(uintptr_t)at, &value, size);
		return before;
	}
	uint64_t before = change_newest(at, size, ordered(order_given, site, function), calculate, &a);
	trace(site->operation, function, site, before);
	return before;
}

struct comparison {
	uint64_t expected, desired;
	bool equal;
};

static bool compare(uint64_t *value, void *context)
{
	struct comparison *c = context;
	c->equal = *value == c->expected;
	if (c->equal)
		*value = c->desired;
	return c->equal;
}

bool sim_swap(volatile void *at, unsigned size, uint64_t *expected, uint64_t desired,
	      memory_order order_given, memory_order failure_order, struct sim_site *site,
	      const char *function)
{
	struct comparison c = {*expected, desired, false};
	(void)failure_order;
	if (!running || is_private(at)) {
		uint64_t value = value_at(at, size);
		*expected = value;
		if (compare(&value, &c))
			memcpy((void *)(uintptr_t)at, &value, size);
		return c.equal;
	}
	*expected = change_newest(at, size, ordered(order_given, site, function), compare, &c);
	trace(c.equal ? "swaps" : "fails to swap", function, site, desired);
	return c.equal;
}

void sim_fence(memory_order order_given, struct sim_site *site, const char *function)
{
	if (!running)
		return;
	memory_order o = ordered(order_given, site, function);
	struct thread *self = &threads[current];
	if (o == memory_order_seq_cst)
		fence();
	else if (acquires(o))
		join(&self->now, &self->acquired);
	if (releases(o))
		self->released = self->now;
}

void sim_kernel(void *object)
{
	static struct sim_site lock = {"", "kernel", 1};
	if (running)
		(void)sim_change(object, 4, SIM_ADD, 1, memory_order_acq_rel, &lock, "");
}

/* --- payload --- */

static struct byte *byte_of(const uint8_t *at)
{
	for (int i = 0; i < byte_count; i++)
		if (bytes[i].at == at)
			return &bytes[i];
	if (byte_count == BYTES)
		sim_fail("too many bytes of payload");
	bytes[byte_count] = (struct byte){.at = at, .writer = -1};
	return &bytes[byte_count++];
}

void sim_access(const void *at, size_t n, bool writes)
{
	if (!running)
		return;
	struct thread *self = &threads[current];
	for (size_t i = 0; i < n; i++) {
		struct byte *b = byte_of((const uint8_t *)at + i);
		if (b->writer >= 0 && b->writer != current && self->now.clock[b->writer] < b->written)
			sim_fail("data race: a byte is %s that thread %d writes at the same time",
				 writes ? "written" : "read", b->writer);
		for (int t = 0; writes && t < thread_count; t++)
			if (t != current && b->read[t] && self->now.clock[t] < b->read[t])
				sim_fail("data race: a byte is written that thread %d is reading", t);
		uint32_t clock = self->now.clock[current];
		if (writes) {
			b->writer = current;
			b->written = clock;
			memset(b->read, 0, sizeof(b->read));
		} else {
			b->read[current] = clock;
		}
	}
}

/* --- exploration --- */

static void execute(void)
{
	place_count = message_count = byte_count = 0;
	memset(&order, 0, sizeof(order));
	operations = 0;
	preemptions = stale = choice_at = 0;
	failure[0] = 0;
	memcpy(__start_sim_tls, tls_at_start, tls_size());
	running = false;
	scenario->begin();
	thread_count = 0;
	for (int t = 0; t < SIM_THREADS && scenario->threads[t]; t++, thread_count++) {
		struct thread *thread = &threads[t];
		static char *stacks[SIM_THREADS];
		if (!stacks[t])
			stacks[t] = malloc(STACK);
		thread->finished = false;
		thread->ready = NULL;
		memset(&thread->now, 0, sizeof(thread->now));
		/* Read before it has stepped, a clock is past what others have seen of it. */
		thread->acquired = thread->released = thread->now;
		memcpy(thread->tls, tls_at_start, tls_size());
		getcontext(&thread->context);
		thread->context.uc_stack.ss_sp = stacks[t];
		thread->context.uc_stack.ss_size = STACK;
		thread->context.uc_link = NULL;
		makecontext(&thread->context, (void (*)(void))run_thread, 1, t);
	}
	current = 0;
	running = true;
	volatile bool begun = false;
	getcontext(&explorer);
	if (!begun) {
		begun = true;
		/* Which thread begins costs no preemption. */
		current = choose(thread_count);
		setcontext(&threads[current].context);
	}
	running = false;
	if (!failure[0] && scenario->end && setjmp(broken_off) == 0)
		scenario->end();
}

static long explore(long most)
{
	long executions = 0;
	do {
		learnt = false;
		choice_count = 0;
		bool more = true;
		while (more) {
			execute();
			executions++;
			if (failure[0] || learnt || (most && executions >= most))
				break;
			more = next_path();
		}
	} while (learnt && !failure[0]);
	return executions;
}

static int usage(const char *name)
{
	fprintf(stderr, "usage: %s SCENARIO [PREEMPTIONS STALE [FUNCTION EXPRESSION OPERATION]]\n", name);
	return 2;
}

int sim_main(int argc, char **argv, const struct sim_scenario *scenarios, int count)
{
	if (argc != 2 && argc != 4 && argc != 7)
		return usage(argv[0]);
	for (int i = 0; i < count; i++)
		if (strcmp(argv[1], scenarios[i].name) == 0)
			scenario = &scenarios[i];
	if (!scenario)
		return usage(argv[0]);
	if (argc >= 4) {
		most_preemptions = atoi(argv[2]);
		most_stale = atoi(argv[3]);
	}
	if (argc == 7) {
		mutation_function = argv[4];
		mutation_expression = argv[5];
		mutation_operation = argv[6];
	}
	messages = calloc(MESSAGES, sizeof(*messages));
	choices = calloc(CHOICES, sizeof(*choices));
	tls_at_start = malloc(tls_size() + 1);
	memcpy(tls_at_start, __start_sim_tls, tls_size());
	for (int t = 0; t < SIM_THREADS; t++)
		threads[t].tls = malloc(tls_size() + 1);
	long executions = explore(0);
	if (mutation_operation && !mutation_met) {
		fprintf(stderr, "no such operation was executed: %s %s %s\n", mutation_function,
			mutation_expression, mutation_operation);
		return 2;
	}
	if (failure[0] && getenv("TRACE")) {
		traces = true;
		execute();
	}
	printf("%ld executions, %s\n", executions, failure[0] ? failure : "no fault");
	return failure[0] ? 1 : 0;
}
