/* broker.h - the library's connection to the broker: one hidden descriptor a process,
 * opened at its first claim, never waited for. */
#ifndef LF_BROKER_H
#define LF_BROKER_H

#include "wire.h"

#include <stdbool.h>
#include <stddef.h>

/* Fills in the head and sends the message; connects first if need be. False: there is
 * no broker, or it does not keep up. */
bool lf_broker_send(enum lf_wire_type type, struct lf_wire_head *message, size_t size);
/* Might it be sent something? Not while it was looked for in vain a moment ago. */
bool lf_broker_is_within_reach(void);
/* Has the broker said something that was not taken in? One load, mostly. */
bool lf_broker_has_mail(void);
/* Takes in all it has said. */
void lf_broker_receive(void);
/* For poll; -1: not connected. */
int lf_broker_fd(void);
/* Is this hidden descriptor ours? Then it moves to a new number. */
void lf_broker_moved(int from, int to);
/* Gives its descriptor back; a later claim connects anew. False: there was none. */
bool lf_broker_leave(void);
/* fork: nothing is being taken in meanwhile. */
void lf_broker_before_fork(void);
void lf_broker_after_fork_in_parent(void);
void lf_broker_after_fork_in_child(void);

#endif
