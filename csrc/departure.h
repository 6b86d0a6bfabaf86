/* departure.h - processes that are on their way out, by exec or exit, but not gone yet.
 *
 * They do not count as holders any more, for what comes next tells nobody: the program that exec
 * starts knows nothing of us. But exec may fail, which takes long with a long PATH, and in exit
 * other threads run on while it flushes. Until it is certain, nobody may take a socket for
 * his alone that such a process may still use.
 *
 * Each holds one of a few robust mutexes, which the kernel takes from the dead, and from
 * who has become another program, in that very moment. A slot has a bit for each of them.
 */
#ifndef LF_DEPARTURE_H
#define LF_DEPARTURE_H

#include "slot.h"

#include <stdbool.h>

/* What all processes forked from here on share with us is made once. Under fork's gate. */
void lf_departures_before_fork(void);

enum { LF_NO_DEPARTURE = -1 };

/* This thread sets out. LF_NO_DEPARTURE: it can't be told of, there was no fork, or there are too many.
 * It is over with the thread or its program, or when the exec has failed. */
int lf_departure_begin(void);
void lf_departure_end(int departure);

/* The same of each socket: says so before the process counts as a holder no more, and takes it back
 * once it does again. */
void lf_departure_leaves(int departure, struct lf_slot *slot);
void lf_departure_returns(int departure, struct lf_slot *slot);

/* Does one of those who were on their way out, as the slot says, still live in his old program? */
bool lf_departure_pending(struct lf_slot *slot);

#endif
