/* interpose_io.h - what read, recv, recvmsg and their like share. */
#ifndef LF_INTERPOSE_IO_H
#define LF_INTERPOSE_IO_H

#include "sock.h"

#include <sys/socket.h>

/* One call of the program on a socket of ours, pinned; unpins it. What they return is what the
 * program gets, errno and all. */
ssize_t lf_receive(struct lf_sock *sock, int fd, struct msghdr *msg, int flags);
ssize_t lf_transmit(struct lf_sock *sock, int fd, struct msghdr *msg, int flags);

#endif
