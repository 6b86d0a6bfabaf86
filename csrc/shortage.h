/* shortage.h - when the program needs the descriptor numbers that we hide things at. */
#ifndef LF_SHORTAGE_H
#define LF_SHORTAGE_H

#include <stdbool.h>

/* A call that makes descriptors has just said EMFILE. Gives back some of ours that lie
 * in the program's range: their connections go on as plain TCP. True: try again. */
bool lf_shortage_relieve(void);

/* The program was just given descriptor fd, the lowest free number. If few are left, makes
 * room before somebody meets EMFILE where we could not try again (inside the C library,
 * or in SCM_RIGHTS, which drops what does not fit). */
void lf_shortage_foresee(int fd);

/* fd is the lowest free number. Is there room for one more of ours beside the program's? */
bool lf_shortage_allows(int fd);

#endif
