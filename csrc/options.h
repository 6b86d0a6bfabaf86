/* options.h - socket options: which a ring keeps to, and which only TCP can honour.
 * docs/semantics.md has a row for each.
 */
#ifndef LF_OPTIONS_H
#define LF_OPTIONS_H

#include "sock.h"

#include <stdbool.h>
#include <sys/socket.h>

/* Setting this: is plain TCP needed from now on? */
bool lf_option_needs_tcp(int level, int name, const void *value, socklen_t len);

/* The kernel has accepted this SOL_SOCKET option: the ring keeps to it too. */
void lf_option_note(struct lf_sock *sock, int fd, int name, const void *value, socklen_t len);

/* Before pairing: takes over what was set before we followed the socket, or on the
 * listener it comes from. False: something is set that only TCP can honour. */
bool lf_options_learn(struct lf_sock *sock, int fd);

/* How many unread bytes the other end may have towards us, as the program bounded it;
 * 0: it did not. */
uint32_t lf_options_receive_limit(const struct lf_sock *sock);

#endif
