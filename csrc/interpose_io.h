/* interpose_io.h - what read, recv, recvmsg and their like share. */
#ifndef LF_INTERPOSE_IO_H
#define LF_INTERPOSE_IO_H

#include "conn.h"

#include <sys/socket.h>

/* One call of the program on a socket of ours, pinned; unpins it. What they return is what the
 * program gets, errno and all. */
ssize_t lf_receive(struct lf_sock *sock, int fd, struct lf_io *io);
ssize_t lf_transmit(struct lf_sock *sock, int fd, struct lf_io *io);

/* The kernel knows no socket by that number, which was closed past us: it is sock's no more. */
void lf_fd_is_stale(struct lf_sock *sock, int fd);

static inline void lf_unpin_at_end(struct lf_sock **sock)
{
	lf_sock_unpin(*sock);
}

/* A pin that is given back at the end of its block, also when pthread_cancel unwinds it. */
#define LF_PINNED(name, sock) \
	struct lf_sock *name __attribute__((cleanup(lf_unpin_at_end), unused)) = sock

#endif
