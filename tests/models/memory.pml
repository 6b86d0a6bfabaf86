/* memory.pml - shared memory with store buffers, included by every model.
 *
 * A store goes into the storing thread's buffer and reaches memory some time later, oldest first;
 * until then nobody else sees it. That is x86's memory (TSO), and enough to break whatever lacks a
 * full fence between a store and a later load of something else (store buffering, Dekker). Buffers
 * that also change the order of stores, and stale loads, are the business of tests/models/weak,
 * which runs the C code itself.
 *
 * A thread's own buffered stores are not forwarded to its own loads: in these models each thread
 * keeps what it has stored in a variable of its own (as the slot does in the C code).
 *
 * Before the include: VARIABLES and THREADS; AFTER_FLUSH(variable, value) may hand certain stores
 * on to something else than mem[], such as the kernel's queue.
 */
#ifndef BUFFER
#define BUFFER 3
#endif

byte mem[VARIABLES];
chan buffer[THREADS] = [BUFFER] of { byte, byte };

/* atomic_store_explicit(..., relaxed or release) */
#define STORE(thread, variable, value) buffer[thread] ! variable, value
/* atomic_thread_fence(seq_cst), a locked instruction, a system call */
#define FENCE(thread) empty(buffer[thread])
/* atomic_store(), seq_cst */
#define STORE_SC(thread, variable, value) STORE(thread, variable, value); FENCE(thread)

#ifndef AFTER_FLUSH
#define AFTER_FLUSH(variable, value) mem[variable] = value
#endif

proctype flusher(byte thread)
{
	byte variable, value;
end:
	do
	:: atomic {
		buffer[thread] ? variable, value ->
		AFTER_FLUSH(variable, value);
		variable = 0;
		value = 0
	   }
	od
}
